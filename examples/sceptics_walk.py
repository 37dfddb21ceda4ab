"""A sceptic's walk: numbers of a run's report, computed again from its predictions with nothing of adapterprobe.

python examples/sceptics_walk.py runs/demo

Exit status 1 if one of them does not agree.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

RESAMPLES = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
predictions = pd.read_parquet(folder / "predictions.parquet")
results = pd.DataFrame(json.loads((folder / "results.json").read_text()))
verdict = json.loads((folder / "verdicts.json").read_text())[0]
truth = predictions[predictions["axis"] == "truth"]
better, worse = verdict["hypothesis"].split(" on ")[0].split(" > ")
split = verdict["hypothesis"].split(" on ")[1].split()[0]
probe = yaml.safe_load((folder / "config.yaml").read_text())["evaluate"]["probe"]


def of(arm, where):
    rows = truth[(truth["arm"] == arm) & (truth["split"] == where)]
    return rows[rows["probe"] == probe] if "probe" in arm else rows


def auroc(rows):
    """Within data set, condition and seed, then averaged: never pooled."""
    cells = rows.groupby(["dataset", "condition", "seed"])
    return np.mean([roc_auc_score(c["label"].astype(int), c["score"]) for _, c in cells if c["label"].nunique() == 2])


def resampled(*tables):
    """The AUROC of each table over resamples of groups, the same groups for all: resamples x tables. One row at a time, slowly."""
    names = np.unique(np.concatenate([t["group"].unique() for t in tables]))
    by_group = [{name: part for name, part in t.groupby("group")} for t in tables]
    rng = np.random.default_rng(1)
    found = []
    for _ in range(RESAMPLES):
        drawn = rng.choice(names, len(names))
        found.append([auroc(pd.concat([groups[n] for n in drawn if n in groups])) for groups in by_group])
    return np.array(found), len(names)


def reported(arm, metric, where, dataset=None):
    rows = results[(results["arm"] == arm) & (results["metric"] == metric) & (results["split"] == where)]
    rows = rows[(rows["axis"] == "truth") & (rows["filter"] == "all") & (rows["condition"] == "mean")]
    rows = rows[rows["probe"] == probe] if "probe" in arm else rows
    names = set(rows["dataset"])
    return rows[rows["dataset"] == (dataset or ("mean" if "mean" in names else names.pop()))].iloc[0]


walk = []


def step(what, said, found, tolerance):
    walk.append((what, said, found, abs(said - found) <= tolerance))


# 1. An estimate.
step(f"AUROC of {better}, {split}", reported(better, "auroc", split)["estimate"], auroc(of(better, split)), 1e-9)

# 2. Its interval: Student's t on the logit scale, spread from resampled groups. Chance of the draws: a tenth of its width.
draws, n_groups = resampled(of(better, split), of(worse, split))
record = reported(better, "auroc", split)
logits = np.log(draws[:, 0]) - np.log1p(-draws[:, 0])
centre, reach = np.log(record["estimate"] / (1 - record["estimate"])), stats.t.ppf(0.975, n_groups - 1) * logits.std()
width = record["high"] - record["low"]
step("its lower limit", record["low"], 1 / (1 + np.exp(reach - centre)), 0.1 * width)

# 3. The difference that the first verdict is about, and its limit.
gap = auroc(of(better, split)) - auroc(of(worse, split))
step(f"{verdict['hypothesis']}: difference", verdict["difference"], gap, 1e-9)
error = (draws[:, 0] - draws[:, 1]).std(ddof=1)
low = gap - stats.t.ppf(0.975, n_groups - 1) * error
step("its lower limit", verdict["low"], low, 0.1 * (verdict["high"] - verdict["low"]))

# 4. Balanced accuracy on held-out questions, at the threshold that was fixed on calibrate.
cells = of(better, "test").groupby(["dataset", "condition", "seed"])
accuracy = np.mean([balanced_accuracy_score(c["label"].astype(int), c["score"] > c["threshold"]) for _, c in cells])
step(f"balanced accuracy of {better}, test", reported(better, "balanced_accuracy", "test")["estimate"], accuracy, 1e-9)

# 5. False alarms at the threshold that was carried to a data set nothing was trained on.
away = "ood" if "ood" in set(truth["split"]) else "test"
dataset = sorted(of(better, away)["dataset"].unique())[0]
mine = of(better, away)
mine = mine[(mine["dataset"] == dataset) & (mine["label"] == 0)]
rate = np.mean([(c["score"] > c["threshold"]).mean() for _, c in mine.groupby(["condition", "seed"])])
step(
    f"false positives of {better} on {dataset}",
    reported(better, "false_positive_rate", away, dataset)["estimate"],
    rate,
    1e-9,
)

print(f"{'':<55}{'report':>9}{'again':>9}")
for what, said, found, agrees in walk:
    print(f"{what:<55}{said:>9.4f}{found:>9.4f}  {'agrees' if agrees else 'DOES NOT AGREE'}")
sys.exit(0 if all(agrees for *_, agrees in walk) else 1)
