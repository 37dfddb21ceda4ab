"""`adapterprobe watch`: stored conversations as a page, every token shaded by its score."""

from __future__ import annotations

import argparse

from adapterprobe.cli.options import add_detector_model_options
from adapterprobe.terminal import echo

EPILOG = """examples:
  adapterprobe watch detectors/mine chats.jsonl --html watched.html
  adapterprobe watch detectors/mine chats.jsonl --limit 20 --html watched.html"""


def add(commands) -> None:
    parser = commands.add_parser(
        "watch",
        help="stored conversations as a page, every token shaded by its score",
        description="Read the replies of stored conversations with a detector, and write one page that needs nothing else.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "detector", metavar="DETECTOR", help="folder of a detector of replies, or OWNER/NAME on the hub"
    )
    parser.add_argument("file", metavar="FILE", help="conversations (`messages`): JSON lines or Parquet")
    parser.add_argument("--html", required=True, metavar="OUT", help="the page")
    parser.add_argument("--limit", type=int, default=100, metavar="N", help="most conversations (default: 100)")
    add_detector_model_options(parser)
    parser.set_defaults(go=go)


def go(args: argparse.Namespace) -> None:
    from adapterprobe.cache import write_atomic
    from adapterprobe.data.cells import InvalidRow
    from adapterprobe.data.readers import open_file
    from adapterprobe.data.transcripts import conversation_of
    from adapterprobe.detectors.detector import Detector
    from adapterprobe.errors import ConfigError, DataError, OutputError
    from adapterprobe.report.watched import watched_page
    from adapterprobe.small_files import as_path

    if args.limit < 1:
        raise ConfigError(f"--limit expects at least 1, got {args.limit}")
    out = as_path(args.html, OutputError)
    talks = []
    for line, row in open_file(as_path(args.file, DataError)).rows:
        try:
            if isinstance(row, InvalidRow):
                raise row
            talk = conversation_of(row)
        except InvalidRow as error:
            raise DataError(f"{args.file}: row {line} {error}; mend it or leave it out") from error
        talks.append([*(message.as_dict() for message in talk.context), {"role": "assistant", "content": talk.reply}])
        if len(talks) == args.limit:
            break
    detector = Detector.load(args.detector, args.model, verify=not args.no_verify, device=args.device)
    page = watched_page(detector, talks)
    try:
        write_atomic(out, page)
    except OSError as error:
        raise OutputError(f"cannot write {out} ({error.strerror or error}); choose another --html") from error
    echo(f"{len(talks)} conversations: {out}")
