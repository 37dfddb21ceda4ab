"""`adapterprobe calibrate`: a detector's threshold from benign traffic of one's own."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_detector_model_options
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe calibrate detectors/mine benign.jsonl --false-positive-rate 0.05 --out detectors/calibrated
  adapterprobe calibrate detectors/mine traffic.jsonl --base-rate 0.02 --out detectors/calibrated
  adapterprobe calibrate detectors/mine chats.jsonl --per conversation --out detectors/monitor

The threshold is the lowest whose rate of false alarms is surely (95 %) below the one asked for, on traffic like the file's. Per
conversation it is that of the highest score over all turns, so that the rate holds wherever a conversation is looked at."""


def add(commands) -> None:
    parser = commands.add_parser(
        "calibrate",
        help="a detector's threshold from benign traffic of your own",
        description="Fix the threshold of a detector by benign inputs, with the rate of false alarms that is promised.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "detector", metavar="DETECTOR", help="folder of a detector (`adapterprobe pack`), or OWNER/NAME on the hub"
    )
    parser.add_argument("file", metavar="FILE", help="benign inputs: JSON lines, CSV, TSV or Parquet, as for `score`")
    parser.add_argument(
        "--false-positive-rate",
        type=float,
        default=0.01,
        metavar="X",
        help="share of benign inputs that may be alarms (default: 0.01)",
    )
    parser.add_argument(
        "--per",
        choices=["row", "reply", "conversation"],
        default="row",
        help="what an alarm is about (default: row, which is one reply)",
    )
    parser.add_argument(
        "--base-rate",
        type=float,
        metavar="X",
        help="FILE is unlabelled, and this share of it should be alarms; the rate of false alarms then holds as far as the detector's recall "
        "carries over",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the calibrated detector")
    add_detector_model_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.data.cells import InvalidRow
    from adapterprobe.data.readers import open_file
    from adapterprobe.detectors.alarms import check_rate
    from adapterprobe.detectors.bundle_folder import free_folder
    from adapterprobe.detectors.detector import Detector
    from adapterprobe.errors import DataError
    from adapterprobe.evaluate.thresholds import check_base_rate
    from adapterprobe.small_files import as_path

    check_rate(args.false_positive_rate)
    if args.base_rate is not None:
        check_base_rate(args.base_rate)
    out = free_folder(args.out)
    rows = []
    for line, row in open_file(as_path(args.file, DataError)).rows:
        if isinstance(row, InvalidRow):
            raise DataError(f"{args.file}: row {line} {row}; mend it or leave it out")
        rows.append(dict(row))
    detector = Detector.load(args.detector, args.model, verify=not args.no_verify, device=args.device)
    calibrated = detector.calibrate(rows, args.false_positive_rate, args.per, args.base_rate)
    calibrated.save(out)
    found = calibrated.threshold
    if args.base_rate is not None:
        echo(f"alarm above {found.value:.4f}: by {found.how}\ndetector: {out}")
        return
    echo(
        f"alarm above {found.value:.4f}: {found.alarms} of {found.benign} benign inputs are above it; with a confidence of 95 % the rate is below "
        f"{found.upper:.3g} (asked for: {found.rate:g})\ndetector: {out}"
    )
