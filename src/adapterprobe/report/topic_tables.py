"""Tables of what probes say of a topic that they were not fitted on."""

from __future__ import annotations

import pandas as pd

from adapterprobe.report.run_reader import RunResults


def topics_table(run: RunResults, what: str = "auroc") -> pd.DataFrame:
    """By topic and polarity, a column for each probe; means over topics below.

    Args:
        what: `auroc` or `accuracy`.
    """
    records = pd.DataFrame(run.challenge.get("topics", []))
    if records.empty:
        return records
    low, high = ("low", "high") if what == "auroc" else ("accuracy_low", "accuracy_high")
    probes = list(dict.fromkeys(records["probe"]))
    rows = []
    for topic in dict.fromkeys(records["topic"]):
        for polarity in ("affirmative", "negated", "both"):
            mine = records[(records["topic"] == topic) & (records["polarity"] == polarity)].set_index("probe")
            if len(mine):
                cells = {
                    probe: f"{mine.loc[probe, what]:.3f} [{mine.loc[probe, low]:.2f}, {mine.loc[probe, high]:.2f}]"
                    for probe in probes
                    if probe in mine.index
                }
                rows.append({"left out": topic, "statements": polarity, **cells})
    for polarity in ("affirmative", "negated", "both"):
        mine = records[records["polarity"] == polarity]
        if len(mine):
            means = mine.groupby("probe")[what].mean()
            rows.append(
                {"left out": "average", "statements": polarity, **{p: f"{means[p]:.3f}" for p in probes if p in means}}
            )
    return pd.DataFrame(rows).fillna("–")
