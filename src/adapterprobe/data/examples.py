"""Examples of a relation: every fact once with its right and once with a wrong object."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from adapterprobe.data.pairing import pair_with_wrong_objects
from adapterprobe.data.relations import Relation
from adapterprobe.types import Example

CHOICES = {"question": ("Yes", "No"), "negated": ("Yes", "No"), "statement": ("True", "False")}
"""The (positive, negative) answers of each form; the recall form's are its two objects."""


def example_key(dataset: str, form: str, texts: dict[str, str]) -> str:
    """Content hash that names an example: equal questions are equal in every run and every data set."""
    content = "\x1f".join([dataset, form, texts["statement"]])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_examples(relation: Relation, groups: Iterable[str], form: str, seed: int, wrong: str = "any") -> list[Example]:
    """Both polarities of every fact of `groups` that can be balanced.

    `question` and `statement`: the positive choice is true for the right object. `negated`: false for it.
    `recall`: the question names no object; the positive choice is the right object in one of the two
    examples and the wrong one in the other, so that neither position gives the answer away.
    """
    wanted = set(groups)
    rng = np.random.default_rng([seed, *relation.name.encode()])
    pairs = pair_with_wrong_objects(relation, [f for f in relation.facts if f.group in wanted], rng, wrong)
    examples = []
    for fact, wrong in sorted(pairs, key=lambda pair: (pair[0].group, pair[0].subject)):
        for answer, right in ((fact.object, True), (wrong, False)):
            texts = relation.texts(fact, answer)
            if form == "recall":
                positive, negative = (fact.object, wrong) if right else (wrong, fact.object)
                truth = right
            else:
                positive, negative = CHOICES[form]
                truth = right != (form == "negated")
            examples.append(
                Example(
                    example_id=example_key(relation.name, form, texts),
                    dataset=relation.name,
                    group=fact.group,
                    form=form,
                    positive=positive,
                    negative=negative,
                    truth=truth,
                    texts=texts,
                )
            )
    return examples
