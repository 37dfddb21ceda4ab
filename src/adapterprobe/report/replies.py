"""What a report over replies says first: who wrote them, and whether they are read at all."""

from __future__ import annotations

import pandas as pd

from adapterprobe.evaluate.schema import HEAD, WITHHELD_OF
from adapterprobe.report.figure_style import SPLIT_TITLES, splits_of
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import gap, shown

READERS = (HEAD, "adapter+probe", "base+probe")
"""Arms that read the reply, the one that claims most first."""
MOST_AUTHORS = 3


def first_sentences(run: RunResults, split: str) -> str:
    """Who wrote the replies, and what the withheld reply explains."""
    return " ".join(filter(None, [authorship(run), *(withheld_sentence(run, split, arm) for arm in READERS)]))


def authorship(run: RunResults) -> str:
    """Whether the replies are the words of the model that reads them."""
    authors: dict[str, int] = {}
    own = known = 0
    for entry in run.about.get("replies", []):
        for author, count in entry["authors"].items():
            authors[author] = authors.get(author, 0) + count
            known += count
        own += entry["on_policy"]
    total = sum(entry["replies"] for entry in run.about.get("replies", []))
    if own == total > 0:
        return ""
    if not known:
        return "Who wrote these replies the data do not say: take them for off-policy, somebody else's words."
    named = ", ".join(list(authors)[:MOST_AUTHORS]) + (" and others" if len(authors) > MOST_AUTHORS else "")
    share = "They are" if not own else f"{own} of {total} replies are this model's own; the others are"
    return f"{share} off-policy: written by {named}, read by {run.about['model']['name']}."


def withheld_sentence(run: RunResults, split: str, arm: str) -> str:
    """Whether an arm finds more in the reply than in front of it."""
    control = WITHHELD_OF[arm]
    if not any(v["hypothesis"] == f"{arm} > {control} on {split}" for v in run.verdicts):
        # Of every run over replies it is asked on the held-out groups at least.
        split = "test"
    verdict = next((v for v in run.verdicts if v["hypothesis"] == f"{arm} > {control} on {split}"), None)
    withheld = run.result(split, control)
    if verdict is None or withheld is None:
        return ""
    where = f"on {SPLIT_TITLES[split].lower()}"
    if verdict["verdict"] == "supported":
        return f"{arm} reads the reply: {where} it beats a probe in front of it by {gap(verdict)}."
    if withheld["low"] is not None and withheld["low"] > 0.5:
        return (
            f"{arm} is explained by the withheld reply: {where} a probe in front of the reply has {shown(withheld, 2)}, and that {arm} "
            f"beats it is {verdict['verdict']} ({gap(verdict)}); what it finds may stand in the context."
        )
    return f"Nothing shows that {arm} reads the reply: {where} that it beats a probe in front of it is {verdict['verdict']} ({gap(verdict)})."


def replies_table(run: RunResults) -> pd.DataFrame:
    """Replies of the judged splits by data set: contexts, labels, authors, echoes."""
    return pd.DataFrame(
        [
            {
                "data set": entry["dataset"],
                "split": entry["split"],
                "replies": entry["replies"],
                "deceptive": entry["deceptive"],
                "false alarms that 1 % allows": (entry["replies"] - entry["deceptive"]) // 100,
                "contexts": entry["contexts"],
                "with both labels": entry["matched"],
                "written by": ", ".join(f"{name} ({count})" for name, count in entry["authors"].items()) or "not said",
                "by this model": entry["on_policy"],
                "repeat their instruction": f"{entry['echo_deceptive']:.0%} of the deceptive, {entry['echo_honest']:.0%} of the honest",
            }
            for entry in run.about.get("replies", [])
        ]
    )


def pools_table(run: RunResults) -> pd.DataFrame:
    """AUROC of base+probe by how the reply's tokens are pooled."""
    rows = []
    for pool in dict.fromkeys(r["pool"] for r in run.challenge.get("pools", [])):
        mine = {r["split"]: r for r in run.challenge["pools"] if r["pool"] == pool}
        row = {"pooling": pool, "layer": next(iter(mine.values()))["layer"]}
        for split in splits_of(run):
            if split in mine:
                record = mine[split]
                row[f"{split} AUROC"] = f"{record['auroc']:.3f} [{record['low']:.3f}, {record['high']:.3f}]"
        rows.append(row)
    return pd.DataFrame(rows)
