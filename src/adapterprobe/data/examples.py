"""What every data set makes: examples in one of the forms, with keys that are hashes of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from adapterprobe.types import NEGATED, Example, Template

CHOICES = {
    "question": ("Yes", "No"),
    "negated": ("Yes", "No"),
    "statement": ("True", "False"),
    "choice": ("A", "B"),
    "reply": ("Yes", "No"),
    "bare": ("Yes", "No"),
    "bare_negated": ("Yes", "No"),
}
"""The (positive, negative) answers of each form; the recall form's are the two answers themselves."""

MIRROR = {"question": "negated", "statement": "negated", "negated": "question"}
"""The form that asks the same the other way round: who answers both rightly has not just said yes."""


class ExampleSource(Protocol):
    """A source of examples, whatever it was read from."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def fields(self) -> frozenset[str]:
        """The texts that all its examples have, in every form but `choice` (which has `first` and `second` too)."""
        ...

    @property
    def templates(self) -> Sequence[Template]:
        """Its own wordings; for a form without any the general ones serve."""
        ...

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows that were left out when it was read, by reason."""
        ...

    @property
    def groups(self) -> list[str]: ...

    @property
    def forms(self) -> tuple[str, ...]: ...

    def examples(self, groups: Iterable[str], form: str, seed: int, wrong: str = "any") -> list[Example]:
        """Examples of `groups`, both polarities wherever the data have both."""
        ...

    def size(self, groups: Iterable[str]) -> int:
        """How many facts, questions or claims `groups` have."""
        ...

    def label_sides(self) -> Mapping[str, str]:
        """`true` or `false` for the groups that have claims of that kind alone; others have both."""
        ...


def said(example: Example) -> str:
    """What an example is about, whatever answer is proposed: its claim or question."""
    if "statement" in example.texts:
        return example.texts["statement"]
    return " ".join(example.texts[key] for key in sorted(example.texts) if key not in ("answer", "first", "second"))


def example_key(dataset: str, form: str, texts: Mapping[str, str]) -> str:
    """Content hash that names an example: equal questions are equal in every run, and different ones never collide."""
    content = "\x1f".join([dataset, form, *(f"{key}\x1e{texts[key]}" for key in sorted(texts))])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def answer_examples(
    dataset: str, group: str, form: str, texts: Mapping[str, str], right: Mapping[str, str], wrong: Mapping[str, str]
) -> list[Example]:
    """The two examples of a question with a right and a wrong answer.

    Args:
        texts: what the question is made of.
        right, wrong: texts that the proposed answer adds; `answer` is the answer itself.

    `question` and `statement` propose one of the answers; `negated` asks whether the proposed one is wrong. `choice` shows
    both, the right one first in one example and second in the other. `recall` shows none; the right answer is the
    positive choice of one example and the negative of the other, so that neither position gives it away.
    """
    made = []
    for mine, other, is_right in ((right, wrong, True), (wrong, right, False)):
        here = {**texts, **mine}
        if form == "recall":
            positive, negative, truth = mine["answer"], other["answer"], is_right
        else:
            positive, negative = CHOICES[form]
            truth = is_right != (form in NEGATED)
        if form == "bare_negated":
            here |= {"statement": here["negation"]}
        if form == "choice":
            here |= {"first": mine["answer"], "second": other["answer"]}
        made.append(
            Example(
                example_id=example_key(dataset, form, here),
                dataset=dataset,
                group=group,
                form=form,
                positive=positive,
                negative=negative,
                truth=truth,
                texts=here,
            )
        )
    return made
