"""Data sets made of rows that were read: claims with a label, or questions with a right and wrong answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from adapterprobe.data.examples import CHOICES, answer_examples, example_key
from adapterprobe.types import Conversation, Example, Template

STATEMENT_FORMS = ("question", "negated", "statement")
TRANSCRIPT_FORMS = ("question", "negated")
QUESTION_FORMS = ("question", "negated", "choice", "recall")


@dataclass(frozen=True, slots=True)
class Item:
    """What one row says.

    A claim has a `label` (whether it is true, or the reply honest) and no answers. A question has at least two answers, the
    right one first, and no label.
    """

    line: int
    """Where it stands in its file, counted from 1."""
    texts: Mapping[str, str]
    label: bool | None = None
    answers: tuple[str, ...] = ()
    group: str = ""
    negated: bool = False
    """Of a claim: whether it says that something is not so, where a column `polarity` tells."""
    conversation: Conversation | None = None
    """Of a row of messages: what `texts` holds as a script (`dialogue`, `reply`)."""
    weight: float = 1.0
    """Of its row, where a column says how much it counts in fitting."""

    @property
    def words(self) -> str:
        """What near-duplicates have in common: the claim or question itself."""
        return " ".join(self.texts[key] for key in sorted(self.texts))


@dataclass(frozen=True)
class ItemDataset:
    """Items in groups, ready to be asked."""

    name: str
    title: str
    items: tuple[Item, ...]
    forms: tuple[str, ...]
    templates: tuple[Template, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    auto_groups: bool = False
    """Whether groups were made of near-duplicates, for want of a column that names them."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """How many claims of each label (`true`, `false`) were read, whatever was kept."""

    @property
    def fields(self) -> frozenset[str]:
        return self._fields

    @cached_property
    def _fields(self) -> frozenset[str]:
        shared = frozenset.intersection(*(frozenset(item.texts) for item in self.items))
        return shared | ({"answer"} if self.items[0].answers else set())

    @cached_property
    def by_group(self) -> dict[str, list[Item]]:
        found: dict[str, list[Item]] = {}
        for item in self.items:
            found.setdefault(item.group, []).append(item)
        return found

    @property
    def groups(self) -> list[str]:
        return sorted(self.by_group)

    def size(self, groups: Iterable[str]) -> int:
        return sum(len(self.by_group.get(group, ())) for group in groups)

    def negations(self) -> ItemDataset:
        """The same, each claim as one that denies something, where no column says which do."""
        if any(item.negated for item in self.items):
            return self
        return replace(self, items=tuple(replace(item, negated=True) for item in self.items))

    def label_sides(self) -> Mapping[str, str]:
        labels = {group: {item.label for item in items} for group, items in self.by_group.items()}
        return {
            group: "true" if found == {True} else "false"
            for group, found in labels.items()
            if len(found) == 1 and None not in found
        }

    def examples(self, groups: Iterable[str], form: str, seed: int, wrong: str = "any") -> list[Example]:
        """One example of a claim, two of a question (its right answer, and a wrong one that `seed` picks).

        `wrong` says nothing here: a row names its own wrong answers.
        """
        made = []
        for group in sorted(set(groups)):
            for item in self.by_group.get(group, ()):
                if item.answers:
                    rng = np.random.default_rng([seed, *example_key(self.name, "", item.texts).encode()])
                    other = item.answers[1 + int(rng.integers(len(item.answers) - 1))]
                    right, false = {"answer": item.answers[0]}, {"answer": other}
                    both = answer_examples(self.name, group, form, item.texts, right, false)
                    made += [replace(example, line=item.line, weight=item.weight) for example in both]
                else:
                    if form == "bare_negated":
                        # A row says what it says; it cannot be turned into its negation.
                        continue
                    own = "bare_negated" if form == "bare" and item.negated else form
                    positive, negative = CHOICES[own]
                    # Of a reply read at its own tokens the question is whether it deceives (docs/concepts.md, axis `deception`).
                    turned = form in ("negated", "reply")
                    made.append(
                        Example(
                            example_id=example_key(self.name, own, item.texts),
                            dataset=self.name,
                            group=group,
                            form=own,
                            positive=positive,
                            negative=negative,
                            truth=bool(item.label) != turned,
                            texts=item.texts,
                            line=item.line,
                            conversation=item.conversation,
                            weight=item.weight,
                        )
                    )
        return made


def topic_of(name: str) -> str:
    """What a data set of statements is about: a file of negations is on the topic of the file that it denies.

    >>> topic_of("neg_cities.csv"), topic_of("cities.csv")
    ('cities.csv', 'cities.csv')
    """
    return name.removeprefix("neg_")
