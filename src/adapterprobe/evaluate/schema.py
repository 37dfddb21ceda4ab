"""The columns of `predictions.parquet` and `layers.parquet`, in their order (contract)."""

from collections.abc import Iterable

from adapterprobe.types import DECEPTION

COLUMNS = [
    "dataset", "split", "prompt_id", "example_id", "group", "condition", "template", "format", "system_prompt",
    "demo_set", "shots", "form", "known", "axis", "label", "train_axis", "arm", "probe", "layer", "seed", "data_seed",
    "score", "threshold", "recall_known",
]  # fmt: skip

READ_COLUMNS = ["read", "pool", "on_policy", "outcome"]
"""What was read, how it was pooled, whether the model that is read wrote the reply, and what the reply turned out to be (null where that
is not known). Runs of former releases do not have all of them."""

ARMS = [
    "base",
    "adapter",
    "base+probe",
    "base+probe@matched",
    "adapter+probe",
    "both+probe",
    "diff+probe",
    "adapter+head",
    "withheld+probe",
    "withheld+probe@adapter",
    "stranger",
    "stranger+probe",
    "followups",
    "tfidf",
]
HEAD = "adapter+head"
"""The linear head that was trained with the adapter (objective `detect`), on states with the adapter on."""
WITHHELD, WITHHELD_ON = "withheld+probe", "withheld+probe@adapter"
"""Controls that stand beside the arms of replies: a probe on the state in front of the reply's first token, adapter off and on."""
WITHHELD_OF = {"base+probe": WITHHELD, "adapter+probe": WITHHELD_ON, HEAD: WITHHELD_ON}
"""By arm, the control that sees what it sees but the reply."""
STRANGER, STRANGER_PROBE = "stranger", "stranger+probe"
"""The same rows read by another model, which did not write them: its own answer, and a probe on its states."""
FOLLOWUPS = "followups"
"""A probe on what the model answers to unrelated questions behind what is read (Pacchiardi et al. 2023)."""
TFIDF = "tfidf"
"""A judge of the words alone."""
BASELINES = (STRANGER, STRANGER_PROBE, FOLLOWUPS, TFIDF)
"""Arms that see no state of the model that is read."""


def has_probe(arm: str) -> bool:
    """Whether an arm is there for each probe; the others are a detector by themselves."""
    return "probe" in arm or arm == FOLLOWUPS


AXES_WITH_ANSWER = ("instructed", "behaviour")
"""Axes on which a model's own arm is judged by its answer itself."""


CLASSES = {"truth": ("false", "true"), DECEPTION: ("honest", "deceptive")}
"""By main axis, what label 0 and label 1 are called."""
ANSWERS = CLASSES | {"truth": ("lie", "truth")}
"""By main axis, what conformal answers are called for label 0 and label 1."""


def main_axis(axes: Iterable[str]) -> str:
    """The axis that detectors are made for: `deception` where replies are read, else `truth`."""
    return DECEPTION if DECEPTION in set(axes) else "truth"


def shown_probe(main: str, able: Iterable[str]) -> str:
    """The probe that a view of single tokens shows first: the main one, or else the first that has a score for a token; empty names (of
    heads) are none.

    >>> shown_probe("attention", ["", "logistic"]), shown_probe("mass_mean", ["logistic", "mass_mean"])
    ('logistic', 'mass_mean')
    """
    names = [name for name in able if name]
    return main if main in names else next(iter(names), "")
