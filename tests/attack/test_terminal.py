"""What comes from outside is shown escaped: on the terminal, and in `report.md`."""

import ast
import json
from pathlib import Path

import pytest

from adapterprobe.cli import main
from adapterprobe.terminal import json_line, one_line, printable

NASTY = "\x1b[31mred\x1b[0m\x07\u202eevil\u2066\x9b2J\u200b"
ROOT = Path(__file__).parents[2] / "src" / "adapterprobe"


def is_safe(text: str) -> bool:
    return not any(sign in text for sign in "\x1b\x07\u202e\u2066\x9b\u200b")


def test_escapes():
    assert printable(NASTY) == r"\x1b[31mred\x1b[0m\x07\u202eevil\u2066\x9b2J\u200b"
    assert printable("Évora, 東京, \U0001f600\n\tนก") == "Évora, 東京, \U0001f600\n\tนก"
    assert one_line("a\nb\r\nc") == "a b c" and printable("\ud800") == r"\ud800"
    record = {"a": NASTY, "b": "\ud800"}
    assert is_safe(json_line(record)) and json.loads(json_line(record)) == record


@pytest.mark.parametrize(
    "make",
    [
        lambda p: ["data", "check", str(_file(p, "x.csv", f"{NASTY},label\na,1\n")), "--no-model"],
        lambda p: ["data", "check", str(_file(p, "x.csv", f"statement,label\na,{NASTY}\n")), "--no-model"],
        lambda p: ["run", str(_file(p, "c.yaml", "adapter: {" + json.dumps(NASTY) + ": 3}")), "--out", str(p / "o")],
        lambda p: ["run", str(_file(p, "c.yaml", "name: " + json.dumps([NASTY]))), "--out", str(p / "o")],
        lambda p: ["run", "--set", f"adapter.{NASTY}=3", "--out", str(p / "o")],
        lambda p: ["run", NASTY, "--out", str(p / "o")],
        lambda p: ["merge", f"{p}/{NASTY}", "--out", str(p / "o")],
        lambda p: ["extract", "--data", NASTY, "--out", str(p / "o")],
        lambda p: ["data", "show", str(_file(p, f"{NASTY}.csv", "statement\na\n")), "--no-model"],
        lambda p: ["cache", "prune", "--kind", NASTY],
    ],
)
def test_errors_are_escaped(tmp_path, cache, capsys, make):
    assert main(make(tmp_path)) in (1, 2)
    shown = capsys.readouterr()
    assert is_safe(shown.err) and is_safe(shown.out)


def _file(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


def test_prompts_and_findings_are_escaped(tmp_path, cache, capsys):
    rows = "".join(
        f"{json.dumps({'statement': f'The {NASTY} {i} is blue', 'label': i % 2, 'thing': i // 2})}\n" for i in range(60)
    )
    path = _file(tmp_path, "x.jsonl", rows)
    main(["data", "check", str(path), "--group", "thing", "--no-model"])
    main(["data", "show", str(path), "--group", "thing", "--no-model"])
    shown = capsys.readouterr()
    assert "=== x.jsonl" in shown.out and r"\x1b[31m" in shown.out
    assert is_safe(shown.out) and is_safe(shown.err)


def test_argparse_is_escaped(capsys):
    with pytest.raises(SystemExit) as stop:
        main([NASTY])
    assert stop.value.code == 2 and is_safe(capsys.readouterr().err)


def test_nothing_else_prints():
    """Every `print` but those in `terminal` and the router would be a way round."""
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(str(path.relative_to(ROOT)))
    assert set(found) == {"terminal.py", "cli/__init__.py"}
