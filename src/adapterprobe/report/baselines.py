"""What a report says of the arms that see no state of the model: who the stranger is, what was asked, what words alone tell."""

from __future__ import annotations

from adapterprobe.evaluate.schema import FOLLOWUPS, STRANGER, STRANGER_PROBE, TFIDF
from adapterprobe.report.run_reader import RunResults


def baseline_sentences(run: RunResults) -> list[str]:
    """One sentence for each kind that the run has."""
    there, said = run.about.get("baselines", {}), []
    if STRANGER in there:
        said.append(
            f"{STRANGER} is {there[STRANGER]['name']}, which did not write what is read: its own answer, and in {STRANGER_PROBE} a probe on its "
            "states of the same rows, searched for in the same way; what the model's own states add is what base+probe has beyond that."
        )
    if FOLLOWUPS in there:
        said.append(
            f"{FOLLOWUPS} is a probe on the log-odds of Yes that the model gives {len(there[FOLLOWUPS])} unrelated questions put behind what "
            "is read (Pacchiardi et al. 2023): it needs no states, and no second model."
        )
    if TFIDF in there:
        said.append(
            f"{TFIDF} sees the words alone (those read, and those in front of them; {there[TFIDF]['words']:,} words and pairs of words)."
        )
    return said
