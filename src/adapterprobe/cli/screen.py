"""`adapterprobe screen`: is the model fit for the experiment, and asked in which way?"""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import (
    DATA_HELP,
    DEVICE_HELP,
    FORMAT_HELP,
    MODEL_HELP,
    SYSTEM_HELP,
    TEMPLATE_HELP,
    add_read_options,
    add_trust_option,
    reading,
)
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe screen --out screens/default                     the default model, plain and chat, 1, 2 and 4 shots
  adapterprobe screen --model ./mine --model owner/other --format chat --shots 0 --system all --out screens/two
  adapterprobe screen --data capitals --data elements --format plain --format phi --shots 4 --out screens/formats"""


def add(commands) -> None:
    parser = commands.add_parser(
        "screen",
        help="accuracy, lying and coverage over models, formats, shots and data sets",
        description="Ask a model in many ways, and say in which it is fit for the experiment. Options repeat.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", action="append", metavar="M", help=MODEL_HELP)
    parser.add_argument("--data", action="append", metavar="D", help=f"{DATA_HELP} (default: capitals)")
    parser.add_argument(
        "--format", action="append", metavar="F", help=FORMAT_HELP.replace("default: plain", "default: plain and chat")
    )
    parser.add_argument("--shots", action="append", type=int, metavar="N", help="demonstrations (default: 1, 2 and 4)")
    parser.add_argument("--system", action="append", metavar="S", help=f"{SYSTEM_HELP}; none for cells without")
    parser.add_argument("--facts", type=int, default=100, metavar="N", help="groups asked in each cell (default: 100)")
    parser.add_argument("--form", default="question", choices=["question", "negated", "statement", "choice"])
    parser.add_argument("--template", action="append", metavar="T", help=TEMPLATE_HELP)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="data seed (default: 0)")
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    parser.add_argument("--dtype", default="auto", metavar="T", help="auto, bf16, fp16, fp32 (default: auto)")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    add_trust_option(parser)
    add_read_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.screening.grid import ScreenConfig, screen
    from adapterprobe.screening.page import text_table

    config = ScreenConfig(
        models=tuple(args.model or [None]),
        data=tuple(args.data or ["capitals"]),
        formats=tuple(args.format or ["plain", "chat"]),
        shots=tuple(args.shots or [1, 2, 4]),
        systems=tuple(None if name == "none" else name for name in args.system or [None]),
        facts=args.facts,
        form=args.form,
        templates=tuple(args.template) if args.template else None,
        read=reading(args),
        seed=args.seed,
        device=args.device,
        dtype=args.dtype,
    )
    done = screen(config, args.out, args.trust_remote_code)
    echo(text_table(done.cells))
    echo(f"\n{done.advice}\n\nscreen: {done.folder / 'screen.html'}")
