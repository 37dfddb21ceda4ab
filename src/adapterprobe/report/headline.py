"""The one sentence that answers the question."""

from __future__ import annotations

from adapterprobe.evaluate.schema import WITHHELD, WITHHELD_OF
from adapterprobe.report.figure_style import SPLIT_TITLES, splits_of
from adapterprobe.report.replies import first_sentences
from adapterprobe.report.robustness_tables import explained
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import gap, inverted, shown

KINDS = {"ood": "kinds of question never trained on", "test": "held-out questions"}


def headline(run: RunResults) -> str:
    """On the hardest split: the best arm, the model's own answer, the first hypothesis, and what takes away from it."""
    splits = splits_of(run)
    split = "ood" if "ood" in splits else "test"
    kind = SPLIT_TITLES[split].lower() if run.of_replies else KINDS[split]
    records = {arm: run.result(split, arm) for arm in run.arms}
    records = {arm: record for arm, record in records.items() if record is not None and arm not in WITHHELD_OF.values()}
    best = max(records, key=lambda arm: records[arm]["estimate"])
    sentence = f"On {kind}, the highest AUROC for {run.axis} is {best}'s, {shown(records[best], 2)}"
    if turned := inverted(run, split):
        sentence += f" ({_inversions(turned)})"
    if "base" in records and best != "base":
        sentence += f"; the model's own answer has {shown(records['base'], 2)}"
    here = [v for v in run.verdicts if v["hypothesis"].endswith(f"on {split}")]
    # What the withheld reply explains has been said already.
    main = next((v for v in here if WITHHELD not in v["hypothesis"]), None)
    if main is not None:
        claim = main["hypothesis"].rsplit(" on ", 1)[0].replace(">", "beats")
        sentence += f". That {claim} there is {main['verdict']} (difference {gap(main)}, {main['n_groups']} groups)"
        sentence += "".join(f"; {doubt}" for doubt in _doubts(run, main, split))
    said = first_sentences(run, split) if run.of_replies else ""
    return f"{said} {sentence}.".strip()


def _inversions(turned: dict[str, dict[str, dict]]) -> str:
    """On which data sets detectors say the opposite, and how surely."""
    parts = [
        f"{dataset}: {', '.join(f'{arm} {shown(record, 2)}' for arm, record in arms.items())}"
        for dataset, arms in turned.items()
    ]
    return f"but detectors are inverted, their AUROC surely below 0.5, on {'; on '.join(parts)}"


def _doubts(run: RunResults, verdict: dict, split: str) -> list[str]:
    """What takes away from a supported hypothesis: a control that does as well, or seeds that do not agree."""
    if verdict["verdict"] != "supported":
        return []
    arm = verdict["hypothesis"].split(" > ")[0]
    here = f" ({split})"
    controls = [name.removesuffix(here) for name in explained(run).get(arm, []) if name.endswith(here)]
    found = [f"but a control does as well as {arm} ({', '.join(controls)})"] if controls else []
    if verdict["recipe_low"] is not None and verdict["recipe_low"] <= 0:
        found.append(
            f"of this way of training nothing can be said: over {verdict['seeds']} seeds the difference lies in "
            f"[{verdict['recipe_low']:+.3f}, {verdict['recipe_high']:+.3f}]"
        )
    return found
