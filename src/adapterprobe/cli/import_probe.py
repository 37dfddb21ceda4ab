"""`adapterprobe import`: a published probe as a detector."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_model_options, model_arguments
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe import probe.pt --model owner/model --out detectors/published
  adapterprobe import probe.pt --model ./my-model --layer 28 --pool mean --out detectors/published

Checkpoints of the lie-detectors collection (logistic regression, difference of means, MLP). They are pickles; they are read by PyTorch's
reader for weights alone, and nothing in them runs. Golden rows are made on this model, so that the detector can prove itself elsewhere."""


def add(commands) -> None:
    parser = commands.add_parser(
        "import",
        help="a published probe (lie-detectors) as a detector",
        description="Read a published checkpoint without running anything in it, and write it as a detector for its model.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="checkpoint (.pt)")
    parser.add_argument(
        "--layer",
        type=int,
        metavar="L",
        help="hidden state that it reads, 0 entering the first block (default: the number that the checkpoint names)",
    )
    parser.add_argument(
        "--pool",
        default="mean",
        metavar="P",
        help="how a reply's tokens become one state: mean, last, first, max, rolling:N (default: mean)",
    )
    parser.add_argument("--name", metavar="NAME", help="what the detector is called (default: the folder's name)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the detector")
    add_model_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.detectors.published import import_probe, read_checkpoint
    from adapterprobe.models import load_model
    from adapterprobe.readout import readout_of

    readout_of("reply", args.pool, 0, False, False)
    found = read_checkpoint(args.file)
    lm = load_model(**model_arguments(args))
    echo(f"detector: {import_probe(found, lm, args.out, args.pool, args.layer, args.name)}")
