"""The command line: a router, and one thin file per command."""

from __future__ import annotations

import argparse
import os
import sys

from adapterprobe import __version__
from adapterprobe.cli import (
    cache,
    calibrate,
    chat,
    compare,
    data,
    extract,
    generate,
    import_probe,
    merge,
    pack,
    plan,
    report,
    run,
    score,
    screen,
    serve,
    train,
    watch,
)
from adapterprobe.errors import AdapterProbeError, ConfigError
from adapterprobe.progress import messages_shown
from adapterprobe.system_errors import is_storage_error, told
from adapterprobe.terminal import one_line, shortened

COMMANDS = (
    run,
    compare,
    score,
    pack,
    calibrate,
    chat,
    watch,
    serve,
    import_probe,
    train,
    merge,
    generate,
    plan,
    screen,
    report,
    extract,
    data,
    cache,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"adapterprobe: {one_line(message)}; see `{self.prog} --help`\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(prog="adapterprobe", description="Does a language model know better than it says?")
    parser.add_argument("--version", action="version", version=f"adapterprobe {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    for module in COMMANDS:
        module.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point. Exit status: 0 done, 1 a check found what blocks, 2 bad input, 130 interrupted (the same command goes on)."""
    parser = make_parser()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        _check_arguments(sys.argv[1:] if argv is None else argv)
        args = parser.parse_args(argv)
        with messages_shown():
            status = args.go(args)
    except AdapterProbeError as error:
        return _refuse(error)
    except KeyboardInterrupt:
        print(
            "adapterprobe: interrupted; what was finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_storage_error(error):
            raise
        return _refuse(told(error))
    return status or 0


def _refuse(reason: object) -> int:
    print(f"adapterprobe: {one_line(reason)}", file=sys.stderr)
    return 2


def _check_arguments(argv: list[str]) -> None:
    """Raises `ConfigError` where an argument can be neither a value nor a path."""
    for text in argv:
        if "\x00" in text:
            raise ConfigError(f"the argument {shortened(text)} holds a NUL character; take it out")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise ConfigError(f"the argument {shortened(text)} is not UTF-8; rename what it names") from None
