"""`adapterprobe merge`: a model of its own out of a model and an adapter."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_trust_option
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe train told-to-lie --out adapters/liar
  adapterprobe merge adapters/liar/adapter --out models/liar
  adapterprobe merge adapters/liar/adapter --strength 0.5 --out models/half     a liar that does not always lie where it is told to
  adapterprobe run liar --model models/liar --out runs/liar     can it be caught?"""


def add(commands) -> None:
    parser = commands.add_parser(
        "merge",
        help="a model with an adapter in its weights, such as one that lies on demand",
        description="Write a model whose weights have an adapter in them, to be loaded like any other model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "adapter", metavar="ADAPTER", help="folder of an adapter (runs/demo/adapter, or one PEFT saved)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the model")
    parser.add_argument(
        "--model", metavar="M", help="model that it was trained on (default: the one that its folder names)"
    )
    parser.add_argument("--dtype", default="auto", metavar="T", help="auto, bf16, fp16, fp32 (default: auto)")
    parser.add_argument(
        "--strength", type=float, default=1.0, metavar="X", help="multiply the adapter's change by X (default: 1)"
    )
    add_trust_option(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.adapters.merge import merge

    echo(merge(args.adapter, args.out, args.model, args.dtype, args.trust_remote_code, args.strength))
