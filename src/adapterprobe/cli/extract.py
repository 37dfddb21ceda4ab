"""`adapterprobe extract`: hidden states of a data set's prompts, to be used anywhere."""

from __future__ import annotations

import argparse
from pathlib import Path

from adapterprobe.cli.options import (
    DATA_HELP,
    add_model_options,
    add_prompt_options,
    add_read_options,
    model_arguments,
    reading,
)
from adapterprobe.errors import DataError
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe extract --data capitals --layers 10-20 --out states/capitals
  adapterprobe extract --data capitals --adapter runs/demo/adapter --out states/capitals-on
  adapterprobe extract --data chats.jsonl --read reply --pool mean --out states/replies
  adapterprobe extract --data claims.csv --read statement --out states/statements
  adapterprobe extract --model ./my-model --data elements --shots 0 --fidelity --out states/elements

in Python:
  states = adapterprobe.activations.open("states/capitals")
  states.layer(15)          rows x width, fp32, in the order of prompts.parquet"""


def add(commands) -> None:
    parser = commands.add_parser(
        "extract",
        help="hidden states of a data set's prompts, adapter off or on",
        description="Record hidden states at the answer position, or pooled over a statement or a reply, into a folder, beside the prompts "
        "as tokenised.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", required=True, metavar="D", help=DATA_HELP)
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--adapter", metavar="DIR", help="adapter that is on (a folder that PEFT saved); default: none")
    parser.add_argument(
        "--layers", default="all", metavar="SPEC", help="all, last:4, 10-20, 3,5, 33%%-83%% (default: all)"
    )
    parser.add_argument(
        "--read",
        default="answer",
        choices=["answer", "statement", "reply"],
        help="what is read: the token in front of the answer to a question about the row (default), the row's statement standing by "
        "itself, or the reply of its conversation",
    )
    parser.add_argument(
        "--pool",
        metavar="P",
        help="how the tokens of a statement or reply become one state: mean, last, first, max, rolling:N (default: mean over a reply, "
        "last of a statement)",
    )
    parser.add_argument("--skip", type=int, default=0, metavar="K", help="leave out the first K tokens of what is read")
    parser.add_argument("--closing", action="store_true", help="read the token that closes the reply's turn too")
    parser.add_argument(
        "--drop-turns",
        action="store_true",
        help="conversations beyond the model's context: leave out their earliest turns, rather than stop",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    parser.add_argument(
        "--condition",
        action="append",
        choices=["truth", "lie", "neutral"],
        help="repeatable; default: truth and lie, neutral without shots",
    )
    add_prompt_options(parser, ["question", "negated", "statement", "choice"])
    parser.set_defaults(format=None, shots=None)
    parser.add_argument("--fidelity", action="store_true", help="say how far the engine is from the plain forward pass")
    add_model_options(parser)
    add_read_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.pipeline.extract import ExtractConfig, extract
    from adapterprobe.prompts import one_or_several
    from adapterprobe.readout import readout_of

    if args.read != "answer" and args.shots is not None:
        raise DataError(f"--shots: with --read {args.read} nothing is asked, and nothing demonstrated; leave it out")
    config = ExtractConfig(
        data=args.data,
        model=model_arguments(args),
        adapter=Path(args.adapter) if args.adapter else None,
        layers=args.layers,
        shots=4 if args.shots is None else args.shots,
        limit=args.limit,
        form=args.form,
        format=args.format,
        conditions=tuple(args.condition) if args.condition else None,
        seed=args.seed,
        system=one_or_several(args.system),
        templates=tuple(args.template) if args.template else None,
        read=reading(args),
        readout=readout_of(args.read, args.pool, args.skip, args.closing, args.drop_turns),
    )
    states, fidelity = extract(config, args.out, args.fidelity)
    if fidelity is not None:
        echo(fidelity)
    echo(
        f"{states.rows} prompts, layers {states.layers[0]} to {states.layers[-1]} ({len(states.layers)}), width "
        f"{states.width}, {states.dtype}: {args.out}"
    )
