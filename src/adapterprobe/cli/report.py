"""`adapterprobe report`: render a finished run's report anew."""

from __future__ import annotations

import argparse

from adapterprobe.terminal import echo


def add(commands) -> None:
    parser = commands.add_parser(
        "report",
        help="compute results and report of a finished run anew from its predictions",
        description="Read predictions.parquet of a finished run, compute results and verdicts again, render the report.",
    )
    parser.add_argument("folder", metavar="DIR", help="output folder of a finished run")
    parser.add_argument(
        "--accept-changes",
        action="store_true",
        help="take files that were edited since the run was finished as they are, and record them so",
    )
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.pipeline.rerender import rewrite_report

    echo(rewrite_report(args.folder, args.accept_changes))
