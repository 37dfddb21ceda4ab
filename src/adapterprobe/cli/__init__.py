"""The command line: a router, and one thin file per command."""

from __future__ import annotations

import argparse
import os
import sys

from adapterprobe import __version__
from adapterprobe.cli import cache, compare, data, extract, merge, plan, report, run, score, screen, train
from adapterprobe.errors import AdapterProbeError

COMMANDS = (run, compare, score, train, merge, plan, screen, report, extract, data, cache)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"adapterprobe: {message}; see `{self.prog} --help`\n")


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit status: 0 done, 1 a check found what blocks, 2 bad input, 130 interrupted (the same command goes on)."""
    parser = _Parser(prog="adapterprobe", description="Does a language model know better than it says?")
    parser.add_argument("--version", action="version", version=f"adapterprobe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in COMMANDS:
        module.add(commands)
    args = parser.parse_args(argv)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        status = args.go(args)
    except AdapterProbeError as error:
        print(f"adapterprobe: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "adapterprobe: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status or 0
