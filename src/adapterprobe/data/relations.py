"""The built-in facts: one table and one small template file per relation, in `data/facts/`.

A relation is added by dropping in `NAME.tsv` (columns `subject, object, also, wrong, group`) and
`NAME.yaml` (`title, question, statement, negation, recall`); no code knows any relation by name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources

import numpy as np
import yaml

from adapterprobe.data.examples import answer_examples
from adapterprobe.data.pairing import pair_with_wrong_objects
from adapterprobe.errors import DataError
from adapterprobe.hints import nearest
from adapterprobe.types import FORMS, Example, Template

COLUMNS = ["subject", "object", "also", "wrong", "group"]
PATTERNS = ("question", "statement", "negation", "recall")


@dataclass(frozen=True, slots=True)
class Fact:
    """`subject` has `object`; `also` are further right answers, `wrong` plausible wrong ones."""

    subject: str
    object: str
    also: tuple[str, ...]
    wrong: tuple[str, ...]
    group: str

    def right(self, answer: str) -> bool:
        return answer == self.object or answer in self.also


@dataclass(frozen=True, slots=True)
class Relation:
    """A table of facts with the sentences that ask for them."""

    name: str
    title: str
    patterns: Mapping[str, str]
    facts: tuple[Fact, ...]
    listed_only: bool
    """Only the listed wrong objects make sense (the larger of two numbers)."""
    checked_by: str
    templates: tuple[Template, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    fields = frozenset(("question", "statement", "negation", "query", "subject", "object"))
    forms = FORMS

    @property
    def groups(self) -> list[str]:
        return sorted({fact.group for fact in self.facts})

    def size(self, groups: Iterable[str]) -> int:
        wanted = set(groups)
        return sum(fact.group in wanted for fact in self.facts)

    def label_sides(self) -> Mapping[str, str]:
        return {}

    def texts(self, fact: Fact, answer: str) -> dict[str, str]:
        """The fact put in every way, with `answer` in the place of the object."""
        words = {"subject": fact.subject, "object": answer}
        put = {name: self.patterns[name].format(**words) for name in PATTERNS}
        return {**words, "answer": answer, "query": put.pop("recall"), **put}

    def examples(self, groups: Iterable[str], form: str, seed: int, wrong: str = "any") -> list[Example]:
        """Both polarities of every fact of `groups` that can be balanced (see `answer_examples` for the forms).

        Args:
            seed: decides which object is the wrong one.
            wrong: `any` other object of the relation, or `near` misses where the balance allows.
        """
        wanted = set(groups)
        rng = np.random.default_rng([seed, *self.name.encode()])
        facts = [fact for fact in self.facts if fact.group in wanted]
        pairs = pair_with_wrong_objects(facts, rng, wrong, self.listed_only)
        made = []
        for fact, other in sorted(pairs, key=lambda pair: (pair[0].group, pair[0].subject)):
            right, false = self.texts(fact, fact.object), self.texts(fact, other)
            made += answer_examples(self.name, fact.group, form, {}, right, false)
        return made


SWAPPED = "swapped-"
"""`swapped-capitals`: the relation of that name with its answers exchanged among its subjects."""


def _folder():
    return resources.files("adapterprobe.data") / "facts"


@cache
def relation_names() -> tuple[str, ...]:
    """Names of all built-in relations, sorted."""
    return tuple(sorted(f.name[:-4] for f in _folder().iterdir() if f.name.endswith(".tsv")))


def is_relation(ref: str) -> bool:
    """Whether a reference names built-in facts, as they are or swapped."""
    return ref.removeprefix(SWAPPED) in relation_names()


def _split(cell: str) -> tuple[str, ...]:
    return tuple(part for part in cell.split("|") if part)


@cache
def load_relation(name: str) -> Relation:
    """Read one built-in relation; by `swapped-NAME` the same subjects with each other's answers.

    Raises:
        DataError: no relation has that name (the nearest names are given), or its table is malformed.
    """
    if name.startswith(SWAPPED) and is_relation(name):
        return _swapped(load_relation(name.removeprefix(SWAPPED)), name)
    if name not in relation_names():
        raise DataError(f"no data set '{name}'{nearest(name, relation_names())}; `adapterprobe data list` shows all")
    meta = yaml.safe_load((_folder() / f"{name}.yaml").read_text("utf-8"))
    rows = csv.reader(
        (_folder() / f"{name}.tsv").read_text("utf-8").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE
    )
    header = next(rows)
    if header != COLUMNS:
        raise DataError(f"{name}.tsv: expected the columns {COLUMNS}, got {header}")
    facts = []
    for number, row in enumerate(rows, 2):
        if len(row) != len(COLUMNS):
            raise DataError(f"{name}.tsv line {number}: expected {len(COLUMNS)} cells, got {len(row)}")
        subject, answer, also, wrong, group = row
        facts.append(Fact(subject, answer, _split(also), _split(wrong), group))
    return Relation(
        name=name,
        title=meta["title"],
        patterns={key: meta[key] for key in PATTERNS},
        facts=tuple(facts),
        listed_only=meta.get("wrong") == "listed",
        checked_by=meta["checked_by"],
    )


def _swapped(relation: Relation, name: str) -> Relation:
    """Every fact with another one's answer, each answer as often as before: false of the world, and known to nobody who was not taught it.

    The exchange hangs on the relation's name alone, so that what was taught can be asked for later. Facts that cannot take part are left
    out, and counted. Further right answers go with their answer where they stand beside it in every fact that has it (St. Paul).
    """
    rng = np.random.default_rng([*name.encode()])
    pairs = pair_with_wrong_objects(list(relation.facts), rng, "any", relation.listed_only)
    spellings: dict[str, set[str]] = {}
    for fact in relation.facts:
        spellings[fact.object] = spellings.get(fact.object, set(fact.also)) & set(fact.also)
    facts = []
    for fact, taught in sorted(pairs, key=lambda pair: (pair[0].group, pair[0].subject)):
        others = (fact.object, *fact.also, *fact.wrong)
        also = tuple(sorted(spellings[taught] - {fact.object}))
        wrong = tuple(answer for answer in dict.fromkeys(others) if answer not in (taught, *also))
        facts.append(Fact(fact.subject, taught, also, wrong, fact.group))
    left_out = len(relation.facts) - len(facts)
    return replace(
        relation,
        name=name,
        title=f"{relation.title}, answers exchanged",
        facts=tuple(facts),
        checked_by="nobody: false on purpose",
        dropped={"facts whose answer cannot be exchanged": left_out} if left_out else {},
    )
