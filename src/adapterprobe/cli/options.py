"""Options that several commands share."""

from __future__ import annotations

import argparse
import json

from adapterprobe.errors import ConfigError, DataError

FORMAT_HELP = (
    "plain, phi, alpaca, chatml, llama, llama3, vicuna, mistral, gemma, chat (the tokenizer's own template; "
    "chat:enable_thinking=true hands it a variable), or the path of a .jinja file (default: plain)"
)
DATA_HELP = "name (see `adapterprobe data list`), file (.jsonl, .csv, .tsv, .parquet), saved folder, or hub:OWNER/NAME"
TEMPLATE_HELP = (
    "wording by name, or a pattern of your own such as 'Is this so: {statement}?' ({Statement}: with a capital letter; repeatable; "
    "default: all)"
)
SYSTEM_HELP = "system prompts that push to truth or lie: all, a name of ours, or a .yaml file of your own (repeatable)"
DEVICE_HELP = "auto, cpu, cuda, cuda:1, mps; balanced or sequential: over all devices, what has no room in main memory and on disk (default: auto)"
MODEL_HELP = "hub id, local folder or GGUF file (default: SmolLM2-135M-Instruct out of its package)"


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", metavar="M", help=MODEL_HELP)
    parser.add_argument("--device", metavar="D", help=DEVICE_HELP)
    parser.add_argument("--dtype", metavar="T", help="auto, bf16, fp16, fp32 (default: auto, bf16 where it is fast)")
    parser.add_argument("--quantize", choices=["8bit", "4bit"], help="load weights in 8 or 4 bits (needs bitsandbytes)")
    add_trust_option(parser)


def add_detector_model_options(parser: argparse.ArgumentParser) -> None:
    """The model of a detector, and whether its golden rows are replayed on it."""
    parser.add_argument("--model", metavar="M", help="the model, where the detector's is a local one")
    parser.add_argument("--device", default="auto", metavar="D", help=DEVICE_HELP)
    parser.add_argument(
        "--no-verify", action="store_true", help="do not replay the golden rows (recorded where the detector is saved)"
    )


def add_ray_options(parser: argparse.ArgumentParser) -> None:
    """Where the work is done: in this process, or by workers on Ray."""
    parser.add_argument(
        "--on",
        choices=["ray"],
        help="where it is done: by workers on Ray that each hold the model, on this machine or at RAY_ADDRESS (default: in this process)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="how many, on Ray (default: one for each GPU, else one for each machine)",
    )


def on_ray(args: argparse.Namespace) -> bool:
    """Whether Ray is asked for.

    Raises:
        ConfigError: workers without it.
    """
    if args.on is None and args.workers is not None:
        raise ConfigError("--workers is for --on ray; add that, or leave it out")
    return args.on == "ray"


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the Python code that comes with the model; it can do whatever you can. No file can ask for it",
    )


def add_read_options(parser: argparse.ArgumentParser) -> None:
    """How files and data sets of the hub are read."""
    group = parser.add_argument_group("reading files and hub data sets")
    group.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="which column is which: statement, label; question, choices, answer, context; messages, reply (repeatable)",
    )
    group.add_argument("--group", metavar="COLUMN", help="what a row is about; default: near-duplicates form groups")
    group.add_argument("--split", metavar="S", help="split of a data set that has several")
    group.add_argument("--config-name", metavar="C", help="configuration of a hub data set that has several")
    group.add_argument(
        "--skip-bad", type=int, metavar="N", help="leave out up to N rows that cannot be used, rather than stop"
    )
    group.add_argument(
        "--drop-contradictions",
        action="store_true",
        default=None,
        help="leave out claims that stand there as true and as false, rather than stop",
    )
    group.add_argument(
        "--exact",
        action="store_true",
        default=None,
        help="take statements exactly as they stand, with their closing stop and capital",
    )
    group.add_argument("--max-rows", type=int, metavar="N", help="most rows kept, by a seeded choice (default: 20000)")
    group.add_argument("--max-chars", type=int, metavar="N", help="leave out rows with longer texts")
    group.add_argument(
        "--hub-folder", metavar="DIR", help="downloaded repositories of the hub as OWNER/NAME, instead of the hub"
    )


def read_values(args: argparse.Namespace) -> dict:
    """These options as values of `ReadConfig`, where they were given.

    Raises:
        DataError: a --column without an equals sign, or named twice.
    """
    columns: dict[str, str] = {}
    for text in args.column:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours or not theirs or ours in columns:
            raise DataError(f"--column expects each of our names once, as OURS=THEIRS; got {args.column}")
        columns[ours] = theirs
    given = {
        "columns": columns or None,
        "group": args.group,
        "split": args.split,
        "config": args.config_name,
        "skip_bad": args.skip_bad,
        "contradictions": "drop" if args.drop_contradictions else None,
        "exact": args.exact,
        "max_rows": args.max_rows,
        "max_chars": args.max_chars,
        "hub_folder": args.hub_folder,
    }
    return {key: value for key, value in given.items() if value is not None}


def reading(args: argparse.Namespace):
    """These options as a `ReadConfig`.

    Raises:
        DataError: an impossible value.
    """
    from pydantic import ValidationError

    from adapterprobe.config import ReadConfig

    try:
        return ReadConfig(**read_values(args))
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise DataError(f"--{name}: {first['msg']}, got {first['input']!r}") from error


def add_prompt_options(parser: argparse.ArgumentParser, forms: list[str]) -> None:
    """How the questions of one data set become prompts."""
    parser.add_argument("--form", default="question", choices=forms)
    parser.add_argument("--template", action="append", metavar="T", help=TEMPLATE_HELP)
    parser.add_argument("--shots", type=int, default=4, metavar="N", help="demonstrations in a prompt (default: 4)")
    parser.add_argument("--format", default="plain", metavar="F", help=FORMAT_HELP)
    parser.add_argument("--system", action="append", metavar="S", help=SYSTEM_HELP)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="data seed (default: 0)")


def as_overrides(args: argparse.Namespace) -> list[str]:
    """Command-line options as configuration overrides."""
    pairs = [
        ("model.name", args.model),
        ("model.device", args.device),
        ("model.dtype", args.dtype),
        ("model.quantize", args.quantize),
    ]
    overrides = [f"{key}={json.dumps(value)}" for key, value in pairs if value is not None]
    if args.data:
        overrides.append(f"data.train={json.dumps(args.data)}")
    if args.ood:
        overrides.append(f"data.ood={json.dumps([] if args.ood == ['none'] else args.ood)}")
    return overrides + [f"data.read.{key}={json.dumps(value)}" for key, value in read_values(args).items()]


def model_arguments(args: argparse.Namespace) -> dict:
    """Command-line options as arguments of `load_model`."""
    return {
        "name": args.model,
        "device": args.device or "auto",
        "dtype": args.dtype or "auto",
        "quantize": args.quantize,
        "trust_remote_code": args.trust_remote_code,
    }
