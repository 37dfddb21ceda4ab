"""`adapterprobe score`: a run's detectors, or a packed one, on new prompts, statements or conversations."""

from __future__ import annotations

import argparse
import sys

from adapterprobe.cli.options import add_detector_model_options, add_ray_options, add_trust_option, on_ray
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe score runs/demo claims.csv --out claims.scored.parquet     a column `statement`
  adapterprobe score runs/demo prompts.jsonl                              a column `prompt`, sent as it is; lines to the terminal
  adapterprobe score detectors/mine corpus.parquet --on ray --workers 8 --out scored.parquet    on a cluster (adapterprobe[ray])
  adapterprobe score detectors/mine chats.jsonl --out scored.jsonl        a packed detector (`adapterprobe pack`), on conversations

Each row gets `detectors` (by name: score, threshold, whether it is above it, and the conformal answer: truth, lie, don't know; of a run
the false positive rate of that threshold on held-out questions with its interval, too), `novelty_p` and `unlike`: whether the prompt is
unlike those that the detector was calibrated on.
A scoring that was stopped goes on with the same command."""


def add(commands) -> None:
    parser = commands.add_parser(
        "score",
        help="a run's detectors, or a packed one, on new prompts, statements or conversations",
        description="Score every row of a file with a packed detector, or with every detector of a finished run (its lowest seed's).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", metavar="RUN", help="folder of a finished run, or of a packed detector, or OWNER/NAME of one on the hub"
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="JSON lines, CSV, TSV or Parquet with `prompt`, or `statement`, or `question` and `answer`, or `messages`",
    )
    parser.add_argument("--out", metavar="OUT", help=".jsonl or .parquet (default: lines on the terminal)")
    parser.add_argument(
        "--condition",
        metavar="C",
        help="what prompts push to where a row has no `condition` (default: the run's first)",
    )
    add_detector_model_options(parser)
    add_ray_options(parser)
    add_trust_option(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.detectors.score_file import score_file
    from adapterprobe.detectors.score_pieces import scored_here

    scoring = scored_here
    if on_ray(args):
        from adapterprobe.integrations.ray_workers import scored_on_ray

        scoring = scored_on_ray(args.workers)
    count = score_file(
        args.run,
        args.file,
        args.out,
        args.condition,
        sys.stdout,
        args.trust_remote_code,
        args.model,
        not args.no_verify,
        args.device,
        scoring,
    )
    if args.out:
        echo(f"{count} rows: {args.out}")
