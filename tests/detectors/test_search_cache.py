"""A search's key changes with everything that its outcome depends on, and with nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from adapterprobe.config import ProbeConfig, SelectConfig
from adapterprobe.detectors import search_cache
from adapterprobe.detectors.features import FeatureSpec
from adapterprobe.detectors.search_cache import SearchJob, code_digest
from adapterprobe.probes.rows import Rows

ROWS = Rows(
    labels=np.tile([0, 1], 6),
    fit=np.arange(8),
    select=np.arange(8, 12),
    conditions=np.repeat("truth", 12),
    groups=np.repeat(list("abcdef"), 2),
    pairs=np.repeat(np.arange(6), 2),
    polarity=np.ones(12, int),
)
JOB = SearchJob(ProbeConfig(probe="logistic"), FeatureSpec((1, 2)), ROWS, SelectConfig())


@pytest.mark.parametrize(
    "change",
    [
        {"rows": replace(ROWS, fit=np.arange(7))},
        {"rows": replace(ROWS, labels=1 - ROWS.labels)},
        {"rows": replace(ROWS, groups=ROWS.groups[::-1])},
        {"spec": ProbeConfig(probe="mass_mean")},
        {"spec": ProbeConfig(probe="logistic", params={"C": 0.5})},
        {"select": SelectConfig(strengths=[1.0])},
        {"select": SelectConfig(folds=3)},
        {"select": SelectConfig(rule="one_se")},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_the_key(change):
    assert replace(JOB, **change).key(["states"]) != JOB.key(["states"]) == JOB.key(["states"])
    assert JOB.key(["other states"]) != JOB.key(["states"])


def test_what_a_table_calls_the_probe_does_not():
    named = replace(JOB, spec=ProbeConfig(probe="logistic", name="mine"))
    assert named.key(["states"]) == JOB.key(["states"])


def test_code_counts_and_comments_do_not(monkeypatch):
    before = JOB.key(["states"])
    monkeypatch.setattr(search_cache, "_code", lambda: ("changed",))
    assert JOB.key(["states"]) != before
    one = 'def f(x):\n    """Old."""\n    return x + 1\n'
    assert code_digest(one) == code_digest("# new\ndef f(x):\n    # why\n    return x + 1\n")
    assert code_digest(one) != code_digest(one.replace("1", "2"))
