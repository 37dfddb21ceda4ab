"""`adapterprobe score`: a finished run's detectors on new prompts or statements."""

from __future__ import annotations

import argparse
import sys

from adapterprobe.cli.options import add_trust_option
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe score runs/demo claims.csv --out claims.scored.parquet     a column `statement`
  adapterprobe score runs/demo prompts.jsonl                              a column `prompt`, sent as it is; lines to the terminal

Each row gets `detectors` (by name: score that the positive answer is true, threshold fixed on calibrate, whether it is above
it, the false positive rate of that threshold on the run's held-out questions with its interval, and the conformal answer:
truth, lie, don't know), `novelty_p` and `unlike`: whether the prompt is unlike those that the run was calibrated and judged on.
A scoring that was stopped goes on with the same command."""


def add(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="a finished run's detectors on new prompts or statements",
        description="Score every row of a file with every detector of a finished run (its lowest seed's).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="output folder of a finished run")
    parser.add_argument(
        "file",
        metavar="FILE",
        help="JSON lines, CSV, TSV or Parquet with `prompt`, or `statement`, or `question` and `answer`",
    )
    parser.add_argument("--out", metavar="OUT", help=".jsonl or .parquet (default: lines on the terminal)")
    parser.add_argument(
        "--condition",
        metavar="C",
        help="what prompts push to where a row has no `condition` (default: the run's first)",
    )
    add_trust_option(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.detectors.score_file import score_file

    count = score_file(args.run, args.file, args.out, args.condition, sys.stdout, args.trust_remote_code)
    if args.out:
        echo(f"{count} rows: {args.out}")
