"""(l) Statistics of a comparison: AUROC and recall of twelve arms over resamples of groups, each size in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.workload import Row

SIZES = ((2_000, 50), (20_000, 500), (200_000, 5_000))
RESAMPLES = 10_000
CODE = """
import json, resource, sys, time
import numpy as np
from adapterprobe.evaluate.intervals import difference, resample, share_interval
from adapterprobe.evaluate.statistics import auroc, recall_at_fpr
rows, n_groups, resamples, arms = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
groups = np.repeat(np.arange(n_groups), rows // n_groups)
labels = rng.integers(0, 2, rows).astype(float)
base = rng.normal(size=rows)
scores = [base + labels * (0.5 + arm / 10) + rng.normal(size=rows) for arm in range(arms)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
weights = resample(n_groups, resamples, 0)
found, pair = [], None
for arm in range(arms):
    statistic = auroc(labels, scores[arm], groups, n_groups)
    found.append(share_interval(statistic, weights))
    pair = (pair, statistic) if arm == 1 else statistic if arm == 0 else pair
paired = difference(pair[1], pair[0], weights)
areas = time.perf_counter() - start
for arm in range(arms):
    share_interval(recall_at_fpr(labels, scores[arm], groups, n_groups, 0.05), weights)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([areas, time.perf_counter() - start, before / 2**20, after / 2**20]))
"""


def run() -> list[Row]:
    rows = []
    for count, groups in SIZES:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(count), str(groups), str(RESAMPLES), "12"],
            capture_output=True,
            text=True,
            check=True,
        )
        areas, whole, before, after = json.loads(done.stdout.splitlines()[-1])
        last = count == SIZES[-1][0]
        rows.append(
            Row(
                f"{count:,} rows, {groups:,} groups, {RESAMPLES:,} resamples, 12 arms",
                f"AUROC and a paired difference {areas:.1f} s, with recall at 5 % {whole:.1f} s; peak memory {after:.2f} GiB ({before:.2f} before)",
                "<= 600 s, <= 4 GiB" if last else "",
                (whole <= 600 and after <= 4) if last else None,
            )
        )
    return rows
