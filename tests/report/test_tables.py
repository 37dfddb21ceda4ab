"""What the report's tables show is what stands in the run's files, figure by figure."""

import json
import re

import pandas as pd
import pytest

from adapterprobe.report import summary
from adapterprobe.report.run_reader import read_run
from adapterprobe.report.summary import METRICS, arms_table, data_sets_table, metrics_table, verdict_table

FIGURE = r"-?\d+\.\d+"


@pytest.fixture(scope="module")
def folder(finished_run):
    return finished_run / "out"


def records(folder):
    return json.loads((folder / "results.json").read_text())


def the_one(found, **keys):
    mine = [r for r in found if all(r[k] == v for k, v in keys.items())]
    assert len(mine) == 1, (keys, len(mine))
    return mine[0]


def figures(text):
    return [float(value) for value in re.findall(FIGURE, text)]


def test_arms(folder):
    run, found = read_run(folder), records(folder)
    table = arms_table(run)
    main = run.config.evaluate.probe
    for row in table.to_dict("records"):
        probe = main if "probe" in row["arm"] else None
        assert row["probe"] == (main if probe else "own answer")
        for column, text in row.items():
            match = re.fullmatch(r"(test|ood): (\S+) (AUROC|bal\. acc\.)", column)
            if not match or text == "–":
                continue
            split, dataset, metric = match.groups()
            keys = {
                "split": split,
                "dataset": dataset if dataset != "average" else "mean",
                "arm": row["arm"],
                "probe": probe,
            }
            name = {"AUROC": "auroc", "bal. acc.": "balanced_accuracy"}[metric]
            record = the_one(found, **keys, metric=name, axis="truth", filter="all", condition="mean")
            digits = 3 if metric == "AUROC" else 2
            assert figures(text) == [round(record[key], digits) for key in ("estimate", "low", "high")], (keys, text)
    assert set(table["arm"]) == {r["arm"] for r in found}


def test_many_data_sets_have_rows_and_their_average_a_column(folder, monkeypatch):
    run, found = read_run(folder), records(folder)
    assert data_sets_table(run).empty
    monkeypatch.setattr(summary, "MANY", 0)
    assert not any(": capitals" in column or ": elements" in column for column in arms_table(run))
    table = data_sets_table(run)
    assert list(table["data set"]) == ["capitals", "elements"]
    for row in table.to_dict("records"):
        for arm in run.arms:
            probe = run.config.evaluate.probe if "probe" in arm else None
            keys = {"split": row["split"], "dataset": row["data set"], "arm": arm, "probe": probe, "axis": "truth"}
            record = the_one(found, **keys, metric="auroc", filter="all", condition="mean")
            assert figures(row[arm]) == [round(record[key], 2) for key in ("estimate", "low", "high")]
            assert row["groups"] == record["n_groups"]


def test_all_metrics(folder):
    run, found = read_run(folder), records(folder)
    titles = {title: metric for metric, title in METRICS.items()}
    shown = 0
    for row in metrics_table(run, "test").to_dict("records"):
        probe = run.config.evaluate.probe if "probe" in row["arm"] else None
        for title, text in row.items():
            if title == "arm" or text == "–":
                continue
            keys = {"split": "test", "dataset": "capitals", "arm": row["arm"], "probe": probe, "axis": "truth"}
            record = the_one(found, **keys, metric=titles[title], filter="all", condition="mean")
            assert figures(text)[:3] == [round(record[key], 3) for key in ("estimate", "low", "high")]
            if "alarms" in record:
                assert f"({record['alarms']} false alarms of {record['negatives']})" in text
            shown += 1
    assert shown > 30


def test_verdicts_and_the_page(folder):
    verdicts = json.loads((folder / "verdicts.json").read_text())
    table = verdict_table(read_run(folder))
    page, text = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    for verdict, row in zip(verdicts, table.to_dict("records"), strict=True):
        assert row["hypothesis"] == verdict["hypothesis"] and row["verdict"] == verdict["verdict"]
        assert figures(row["difference in AUROC"]) == [round(verdict[key], 3) for key in ("difference", "low", "high")]
        assert row["difference in AUROC"] in text and row["difference in AUROC"] in page
        assert row["groups"] == verdict["n_groups"] and row["seeds"] == verdict["seeds"]


def test_every_auroc_can_be_recomputed_from_the_predictions(folder):
    from sklearn.metrics import roc_auc_score

    frame = pd.read_parquet(folder / "predictions.parquet").query("axis == 'truth' and split == 'test'")
    for (arm, probe), mine in frame.groupby(["arm", "probe"], dropna=False):
        cells = mine.groupby(["condition", "seed"])
        value = cells.apply(lambda c: roc_auc_score(c["label"], c["score"])).mean()
        keys = {
            "arm": arm,
            "probe": None if pd.isna(probe) else probe,
            "metric": "auroc",
            "axis": "truth",
            "filter": "all",
        }
        record = the_one(records(folder), **keys, split="test", dataset="capitals", condition="mean")
        assert record["estimate"] == pytest.approx(value, abs=1e-9)
