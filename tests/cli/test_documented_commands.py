"""Every command that README, docs and helps show is one that there is: its options are parsed, its keys and presets are checked."""

import re
import shlex
from pathlib import Path

import pytest

from adapterprobe.cli import COMMANDS, make_parser
from adapterprobe.cli.options import as_overrides
from adapterprobe.config_files import preset_names, read_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
PLACEHOLDERS = re.compile(r"\b(COMMAND|RUN|FILE|DIR|NAME|DETECTOR)\b")


def commands() -> list:
    found = {}
    for page in PAGES:
        for block in re.findall(r"```(?:\w+)?\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
            for line in re.sub(r"\\\n\s*", " ", block).splitlines():
                if line.strip().startswith(("adapterprobe ", "$ adapterprobe ")):
                    found.setdefault(line.strip().removeprefix("$ "), page.name)
    for module in COMMANDS:
        for line in getattr(module, "EPILOG", "").splitlines():
            if line.strip().startswith("adapterprobe "):
                # Behind two blanks stands what it does.
                found.setdefault(re.split(r"\s{2,}", line.strip().replace("%%", "%"))[0], f"{module.__name__} --help")
    return [pytest.param(line, id=f"{page}: {line[:60]}") for line, page in found.items()]


SHOWN = commands()


def test_there_are_commands():
    assert len(SHOWN) > 60


@pytest.mark.parametrize("line", SHOWN)
def test_shown_commands_are_commands(line, capsys):
    if PLACEHOLDERS.search(line) or "..." in line:
        pytest.skip("a pattern, no command")
    argv = shlex.split(line, comments=True)[1:]
    try:
        args = make_parser().parse_args(argv)
    except SystemExit as stop:
        assert stop.code == 0, capsys.readouterr().err
        return
    config = getattr(args, "config", None)
    if args.command in ("run", "train", "plan") and (config is None or config in preset_names()):
        overrides = as_overrides(args) + args.set
        read_config(*([config] if config else []), overrides=overrides)
