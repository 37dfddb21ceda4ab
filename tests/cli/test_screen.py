"""`adapterprobe screen` on tiny models: the whole grid, resumed, bad cells and bad input."""

import json
import sys

import pytest

from adapterprobe.cli import main
from adapterprobe.screening.metrics import COLUMNS

CELLS = ["--format", "plain", "--format", "chatml", "--shots", "0", "--shots", "2", "--facts", "12", "--dtype", "fp32"]


def test_the_grid(tiny_folder, tmp_path, cache, capsys, monkeypatch):
    argv = ["screen", "--model", str(tiny_folder), "--data", "capitals", *CELLS, "--system", "none", "--system", "all"]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    shown = capsys.readouterr().out
    cells = json.loads((tmp_path / "s" / "screen.json").read_text())
    assert len(cells) == 8 and all(cell["error"] is None for cell in cells)
    for cell in cells:
        neutral = cell["shots"] == 0 and cell["system"] is None
        assert cell["n_balance"] == 12 * 2 * (1 if neutral else 2) and cell["n_groups"] == 12
        assert (cell["lie_acc"] is None) == neutral
        for name in COLUMNS:
            assert f"n_{name}" in cell and (cell[name] is None or cell[f"{name}_low"] <= cell[name])
    for text in (*COLUMNS, "chatml", "warning", "coverage under 0.5"):
        assert text in shown
    page = (tmp_path / "s" / "screen.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "") and page.count("<tr>") == 9
    # Again: nothing to do; elsewhere: everything out of the cache.
    monkeypatch.setattr("adapterprobe.engine.Engine.run", lambda *a, **k: pytest.fail("no forward pass is due"))
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    assert "nothing to do" in capsys.readouterr().err
    monkeypatch.setattr("adapterprobe.engine.Engine._can_share", lambda self: True)
    assert main([*argv, "--out", str(tmp_path / "t")]) == 0
    assert json.loads((tmp_path / "t" / "screen.json").read_text()) == cells
    assert main([*argv, "--out", str(tmp_path / "t"), "--seed", "3"]) == 2
    assert "another screening" in capsys.readouterr().err


def test_a_stopped_screening_goes_on(tiny_folder, tmp_path, cache, monkeypatch):
    argv = [
        "screen",
        "--model",
        str(tiny_folder),
        "--format",
        "plain",
        "--format",
        "phi",
        "--shots",
        "2",
        "--facts",
        "6",
    ]
    module = sys.modules["adapterprobe.screening.grid"]
    cell, done = module._cell, []

    def stop(*args):
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return cell(*args)

    monkeypatch.setattr(module, "_cell", stop)
    assert main([*argv, "--out", str(tmp_path / "s")]) == 130
    monkeypatch.setattr(module, "_cell", cell)
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    assert len(json.loads((tmp_path / "s" / "screen.json").read_text())) == 2


def test_a_format_file_that_has_changed_is_another_screening(tiny_folder, tmp_path, cache, capsys):
    file = tmp_path / "mine.jinja"
    file.write_text("{% for m in messages %}{{ m.content }}: {% endfor %}")
    argv = ["screen", "--model", str(tiny_folder), "--format", str(file), "--shots", "1", "--facts", "6"]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    file.write_text("{% for m in messages %}{{ m.content }}! {% endfor %}")
    assert main([*argv, "--out", str(tmp_path / "s")]) == 2
    assert "another screening" in capsys.readouterr().err


def test_a_cell_that_cannot_be_filled_leaves_the_others(tiny_folder, tmp_path, cache, capsys):
    argv = [
        "screen",
        "--model",
        str(tiny_folder),
        "--format",
        "chat",
        "--format",
        "plain",
        "--shots",
        "2",
        "--facts",
        "6",
    ]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 0
    bad, good = json.loads((tmp_path / "s" / "screen.json").read_text())
    assert "no chat template" in bad["error"] and good["error"] is None
    assert "no chat template" in capsys.readouterr().out
    assert main([*argv[:5], "--shots", "2", "--facts", "6", "--out", str(tmp_path / "t")]) == 2
    assert "no cell could be filled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--format", "alpakka"], "did you mean 'alpaca'"),
        (["--data", "capitols"], "did you mean 'capitals'"),
        (["--system", "con_artst"], "did you mean 'con_artist'"),
        (["--shots", "2", "--shots", "2"], "different values"),
        (["--facts", "5000"], "too few"),
        (["--facts", "1"], "at least 2 facts"),
    ],
)
def test_bad_input_before_a_model_is_loaded(more, match, tmp_path, cache, capsys, monkeypatch):
    module = sys.modules.get("adapterprobe.screening.grid") or __import__(
        "adapterprobe.screening.grid", fromlist=["screen"]
    )
    monkeypatch.setattr(module, "load_model", lambda *a, **k: pytest.fail("too late"))
    assert main(["screen", "--out", str(tmp_path / "s"), *more]) == 2
    err = capsys.readouterr().err
    assert match in err and err.count("\n") == 1
