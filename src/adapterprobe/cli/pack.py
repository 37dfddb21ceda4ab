"""`adapterprobe pack`: a detector of a run as a folder of its own."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_trust_option
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe pack runs/demo --arm adapter+probe --out detectors/mine
  adapterprobe pack runs/demo --arm base+probe --probe mass_mean --out detectors/plain
  adapterprobe score detectors/mine claims.csv --out claims.scored.jsonl
  adapterprobe calibrate detectors/mine benign.jsonl --false-positive-rate 0.05 --out detectors/calibrated

The folder needs neither the run nor its data: in Python, ap.Detector.load("detectors/mine").score(["..."])."""


def add(commands) -> None:
    parser = commands.add_parser(
        "pack",
        help="a detector of a run as a folder to take away",
        description="Write a detector of a finished run (its lowest seed's) as a folder: probe, adapter, how inputs are put, calibration, "
        "golden rows, and a model card. Nothing in it is code.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="output folder of a finished run")
    parser.add_argument(
        "--arm", required=True, metavar="ARM", help="base, adapter, base+probe, adapter+probe, adapter+head, ..."
    )
    parser.add_argument("--probe", metavar="NAME", help="one of the run's probes (default: its main one)")
    parser.add_argument("--condition", metavar="C", help="what prompts push to (default: the run's first)")
    parser.add_argument("--name", metavar="NAME", help="what the detector is called (default: the folder's name)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the detector")
    add_trust_option(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.detectors.pack import pack

    folder = pack(args.run, args.arm, args.out, args.probe, args.condition, args.name, args.trust_remote_code)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    echo(f"detector: {folder} ({size / 1e6:.1f} MB; its card: {folder / 'README.md'})")
