"""`run --relations`: how AUROC on what is new grows with the number of data sets, at equal labels."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from adapterprobe.cli import main
from adapterprobe.config import RunConfig
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.over_runs import mean_over_runs
from adapterprobe.pipeline.relation_draws import LEARNED
from adapterprobe.pipeline.sweep import combinations
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.report.over_runs import curve_figure, curve_table, hypotheses_table
from adapterprobe.report.run_reader import read_run

TRAIN = ["kinds", "calendar", "additions", "opposites", "materials", "plurals", "us_states"]
DATA = [
    f"data.train={json.dumps(TRAIN)}", "data.ood=[elements]", "data.min_groups=2", "data.max_ood_groups=20",
    "data.shares={adapter-train: 0.2, probe-train: 0.3, select: 0.2, calibrate: 0.15, test: 0.15}",
]  # fmt: skip


def test_cells_have_equal_labels():
    cells = combinations("demo", DATA, [], relations=[1, 3, 6], draws=3)
    assert list(cells) == [f"relations={count},draw={draw}" for draw in range(3) for count in (1, 3, 6)]
    counts, alone = [], set()
    for name, config in cells.items():
        examples = prepare_questions(config).examples
        counts.append([len(examples[split]) for split in (*LEARNED, "select")])
        there = [{e.dataset for e in examples[split]} for split in LEARNED]
        assert set.union(*there) == set(config.data.train) and min(map(len, there)) >= 0.7 * len(config.data.train), (
            name
        )
        assert len(set(config.data.train)) == int(name.split(",")[0].split("=")[1])
        assert config.data.data_seed == int(name[-1]) and config.data.ood == ["elements"]
        if len(config.data.train) == 1:
            alone |= set(config.data.train)
    counts = np.array(counts)
    assert (counts.max(0) - counts.min(0) <= 8).all(), counts
    assert not alone & {"us_states", "calendar"}, "one alone has all the labels"
    assert len({tuple(sorted(c.data.train)) for n, c in cells.items() if "relations=3" in n}) > 1, "draws differ"
    fewer = combinations("demo", DATA, [], relations=[1, 6], draws=1, labels=70)
    for config in fewer.values():
        examples = prepare_questions(config).examples
        assert 56 <= sum(len(examples[split]) for split in LEARNED) <= 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"relations": [2]}, "at least two different numbers of data sets from 1 to 7"),
        ({"relations": [0, 2]}, "from 1 to 7"),
        ({"relations": [2, 8]}, "from 1 to 7"),
        ({"relations": [1, 2], "draws": 0}, "--draws expects at least 1"),
        ({"relations": [1, 2], "labels": 100_000}, "only 0 have their part"),
        ({"relations": [1, 6], "labels": 30}, "6 data sets need at least 60 labels"),
        ({"relations": [1, 6], "labels": 0}, "need at least 60 labels to take part, got --labels 0"),
        ({"relations": [1, 2], "transfer": ["capitals", "kinds"]}, "give one of them"),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ConfigError, match=message):
        combinations("demo", DATA, [], **arguments)


def test_too_few_labels_for_the_smallest_split_are_told():
    """More groups do not help where the labels allow fewer than a split may have: once tried for ever."""
    with pytest.raises(ConfigError, match=r"labels leave \d+ groups of adapter-train, at least 20 expected"):
        combinations("demo", ["data.train=[kinds,cities,books]", "data.min_groups=20"], [], relations=[1, 2], labels=60)
    with pytest.raises(DataError, match="'elements' has 20 groups"):
        combinations("demo", [*DATA, "data.min_groups=40"], [], relations=[1, 2])


def test_nothing_to_be_judged_on_is_said_first():
    with pytest.raises(ConfigError, match="data.ood names none"):
        combinations("demo", [*DATA, "data.ood=[]"], [], relations=[1, 2])


def test_a_file_of_ones_own_beside_built_in_ones(tmp_path):
    """Reading options that only the judged file needs, and options of a training file by name, in draws without it."""
    lines = ["statement,label,city", *(f"Thing {n} is in place {n % 7},{n % 2},{n // 2}" for n in range(80))]
    (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n")
    mine = str(tmp_path / "mine.csv")
    cells = combinations("demo", [*DATA, f"data.ood=[{mine}]", "data.read.group=city"], [], relations=[1, 3], draws=1)
    assert all(config.data.ood == [mine] and config.data.labels for config in cells.values())
    named = [*DATA, f"data.train={json.dumps([*TRAIN[:4], mine])}", "data.read_by_name={mine.csv: {group: city}}"]
    for config in combinations("demo", named, [], relations=[1, 3], draws=3, labels=60).values():
        assert set(config.data.read_by_name) == ({"mine.csv"} & {name.split("/")[-1] for name in config.data.train})


def test_options_that_need_each_other(capsys):
    assert main(["run", "--draws", "2"]) == 2
    assert "--relations" in capsys.readouterr().err
    assert main(["run", "--relations", "1,two"]) == 2
    assert "numbers with commas" in capsys.readouterr().err


def test_the_mean_over_runs_has_students_interval():
    values = [0.61, 0.7, 0.66, 0.52]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = mean_over_runs(values)
    assert (found.low, found.high) == pytest.approx(expected) and found.estimate == pytest.approx(np.mean(values))
    assert np.isnan(mean_over_runs([0.5, 0.6]).low), "two runs have no spread"


def test_a_curve_on_a_tiny_model(finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "curve"
    quick = [
        "evaluate.adapter_controls=false", "evaluate.shifts=[]", "evaluate.directions=false", "select.curve=[]",
        "data.train=[kinds,opposites,materials]", "probes=[logistic]", "seeds=[0]",
    ]  # fmt: skip
    sets = [part for change in [*DATA[1:], *quick] for part in ("--set", change)]
    command = [
        "run",
        str(finished_run / "run.yaml"),
        *sets,
        "--relations",
        "1,3",
        "--labels",
        "60",
        "--draws",
        "1",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    page, table = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert "By number of data sets" in page and (out / "figures/relations.svg").is_file()
    assert "Hypotheses over runs" not in page, "two runs have no spread"
    names = [f"relations={count},draw=0" for count in (1, 3)]
    assert list(json.loads((out / "compare.json").read_text())["runs"]) == names
    for arm in ("base", "adapter+probe"):
        first, last = (read_run(out / name).result("ood", arm)["estimate"] for name in names)
        assert f"| {arm} | {first:.3f} | {last:.3f} | {last - first:+.3f} |" in table
    # The same command again runs nothing anew.
    assert main(command) == 0
    assert capsys.readouterr().err.count("nothing to do") == 2


def _finished(relations, draw, auroc, **changes):
    """What the tables look at, of a run that was trained on so many data sets."""
    data = {
        "train": [f"x{n}" for n in range(relations)],
        "ood": ["elements"],
        "data_seed": draw,
        "labels": {"select": 20},
    }
    config = RunConfig.model_validate({"data": data} | changes)
    verdict = {"hypothesis": "adapter > base on ood", "difference": auroc - 0.6}
    splits = [{"split": "adapter-train", "dataset": name} for name in config.data.train]
    return SimpleNamespace(
        config=config, arms=["base", "adapter"], verdicts=[verdict], about={"splits": splits},
        result=lambda split, arm: {"estimate": auroc if arm == "adapter" else 0.6},
    )  # fmt: skip


def test_the_table_pairs_draws():
    aurocs = {(1, 0): 0.6, (1, 1): 0.62, (1, 2): 0.5, (5, 0): 0.7, (5, 1): 0.71, (5, 2): 0.64}
    runs = {f"{n}-{draw}": _finished(n, draw, value) for (n, draw), value in aurocs.items()}
    table = curve_table(runs).set_index("arm")
    gained = mean_over_runs([0.1, 0.09, 0.14])
    assert table.loc["adapter", "5 less 1, same draw"] == f"+0.110 [{gained.low:+.3f}, {gained.high:+.3f}]"
    few = mean_over_runs([0.6, 0.62, 0.5])
    assert table.loc["adapter", "1"] == f"0.573 [{few.low:.3f}, {few.high:.3f}]"
    assert table.loc["base", "5 less 1, same draw"] == "+0.000", "values that are all alike have no interval"
    assert curve_figure(runs) is not None
    assert table.loc["data sets in adapter-train", ["1", "5"]].tolist() == ["1", "5"]
    over = hypotheses_table(runs).set_index("data sets")
    assert over["runs"].tolist() == [3, 3] and over["in how many above 0"].tolist() == [1, 3]
    assert over.loc["5", "mean over runs"].startswith("+0.083 [")


def test_no_curve_where_runs_differ_otherwise():
    few, many = _finished(2, 0, 0.6), _finished(3, 0, 0.7)
    assert not curve_table({"a": few, "b": many}).empty
    assert curve_table({"a": few, "b": _finished(2, 1, 0.7)}).empty
    for changes in ({"adapter": {"kind": "ia3"}}, {"data": many.config.data.model_dump() | {"ood": ["animals"]}}):
        assert curve_figure({"a": few, "b": _finished(3, 0, 0.7, **changes)}) is None
    assert curve_table({"a": few, "b": _finished(3, 0, 0.7, data=many.config.data.model_dump() | {"labels": {}})}).empty
    assert hypotheses_table({"a": few, "b": many}).empty
    three = {str(seed): _finished(2, seed, 0.6 + 0.1 * seed) for seed in range(3)}
    (row,) = hypotheses_table(three).to_dict("records")
    assert row["runs"] == 3 and row["mean over runs"].startswith("+0.100 [") and "data sets" not in row
