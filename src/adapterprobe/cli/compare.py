"""`adapterprobe compare`: finished runs side by side."""

from __future__ import annotations

import argparse

from adapterprobe.terminal import echo


def add(commands) -> None:
    parser = commands.add_parser(
        "compare",
        help="finished runs side by side: arms, differences, transfer",
        description="Compare finished runs; the first is what the others are held against. Paired where they share prompts.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="output folders of finished runs, at least two")
    parser.add_argument("--out", default="runs/compare", metavar="DIR", help="output folder (default: runs/compare)")
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from pathlib import Path

    from adapterprobe.pipeline.compare import compare

    report = compare(args.folders, args.out)
    echo((Path(args.out) / "report.md").read_text("utf-8").split("\n\n")[1])
    echo(f"\nreport: {report}")
