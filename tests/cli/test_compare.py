"""Runs side by side, and grids of runs."""

import json
import shutil

import pandas as pd
import pytest

from adapterprobe.cli import main
from adapterprobe.errors import ConfigError
from adapterprobe.pipeline.sweep import combinations


@pytest.fixture(autouse=True)
def _cache(finished_run, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))


@pytest.fixture(scope="module")
def grid(finished_run, tmp_path_factory):
    """Two runs that differ in nothing that matters, and one that cannot be."""
    out = tmp_path_factory.mktemp("grid") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
        command = ["run", str(finished_run / "run.yaml"), "--grid", "data.min_groups=[4,5,500]", "--set", "evaluate.directions=false", "--out", str(out)]  # fmt: skip
        assert main(command) == 2
    return out, command


def test_a_grid_goes_on_past_a_cell_that_fails(grid, capsys):
    out, command = grid
    content = json.loads((out / "compare.json").read_text())
    assert list(content["runs"]) == ["min_groups=4", "min_groups=5"]
    (failed,) = content["failed"]
    assert failed["run"] == "min_groups=500" and "too few groups" in failed["reason"]
    assert (
        all(r["difference"] == 0 and r["paired"] for r in content["differences"]) and len(content["differences"]) == 14
    )
    page = (out / "report.html").read_text()
    assert "min_groups=500 failed" in page and page.count("<svg") == 2
    assert "data.min_groups" in (out / "report.md").read_text()
    # The same command again: finished cells are not run again.
    before = (out / "min_groups=4" / "predictions.parquet").stat().st_mtime_ns
    assert main(command) == 2
    assert (out / "min_groups=4" / "predictions.parquet").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err
    assert main([*command, "--grid", "seeds=[[0],[1]]"]) == 2
    assert "holds another grid" in capsys.readouterr().err


def test_compare(grid, finished_run, tmp_path, capsys):
    folders = [str(finished_run / "out"), str(grid[0] / "min_groups=5")]
    assert main(["compare", *folders, "--out", str(tmp_path / "c")]) == 0
    assert "Of 2 runs" in capsys.readouterr().out
    tables = (tmp_path / "c" / "report.md").read_text()
    assert "| out | tiny-llama |" in tables and "| min_groups=5 |" in tables
    results = pd.DataFrame(json.loads((finished_run / "out" / "results.json").read_text()))
    mine = results[
        (results["arm"] == "adapter+probe") & (results["probe"] == "logistic") & (results["metric"] == "auroc") & (results["axis"] == "truth")
        & (results["filter"] == "all") & (results["condition"] == "mean") & (results["split"] == "ood")
    ].iloc[0]  # fmt: skip
    assert f"{mine['estimate']:.3f} [{mine['low']:.3f}, {mine['high']:.3f}]" in tables


def test_what_cannot_be_compared(finished_run, tmp_path, capsys):
    here = str(finished_run / "out")
    for folders, message in (
        ([here], "at least two different runs"),
        ([here, here], "at least two different runs"),
        ([here, str(tmp_path)], "is not a finished run"),
    ):
        assert main(["compare", *folders, "--out", str(tmp_path / "c")]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and len(error.splitlines()) == 1
    shutil.copytree(here, tmp_path / "other")
    assert main(["compare", here, str(tmp_path / "other"), "--out", here]) == 2
    assert "holds a run" in capsys.readouterr().err
    mark = json.loads((tmp_path / "other" / "run.json").read_text())
    (tmp_path / "other" / "run.json").write_text(json.dumps(mark | {"finished": False}))
    assert main(["compare", here, str(tmp_path / "other"), "--out", str(tmp_path / "c")]) == 2
    assert "other is not a finished run" in capsys.readouterr().err, "begun anew, with old results beside it"


def test_transfer_deals_out_the_data():
    cells = combinations(None, [], ["adapter.kind=[lora,ia3]"], transfer=["capitals", "elements", "animals"])
    assert list(cells)[:2] == ["train=capitals,kind=lora", "train=capitals,kind=ia3"] and len(cells) == 6
    one = cells["train=elements,kind=ia3"]
    assert one.data.train == ["elements"] and one.data.ood == ["capitals", "animals"] and one.adapter.kind == "ia3"
    cells = combinations(None, ["seeds=[7]"], [], leave_out=["capitals", "elements", "animals"])
    one = cells["without=elements"]
    assert one.data.train == ["capitals", "animals"] and one.data.ood == ["elements"] and one.seeds == [7]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": ["adapter.kind"]}, "expects a key with at least two values"),
        ({"grid": ["adapter.kind=[lora]"]}, "expects a key with at least two values"),
        ({"grid": ["adapter.knd=[lora,ia3]"]}, "knd"),
        ({"grid": [], "transfer": ["capitals"]}, "at least two different data sets"),
        ({"grid": [], "transfer": ["a", "b"], "leave_out": ["a", "b"]}, "give one of them"),
    ],
)
def test_bad_grids(arguments, message):
    with pytest.raises(ConfigError, match=message):
        combinations(None, [], **arguments)
