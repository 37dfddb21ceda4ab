"""Nothing about an example but its truth tells its truth."""

from collections import Counter

import numpy as np
import pytest

from adapterprobe.data import load_relation, relation_names, split_groups
from adapterprobe.data.splits import TRAINING_SPLITS, shuffled
from adapterprobe.errors import DataError

SHARES = {"adapter-train": 0.2, "probe-train": 0.2, "select": 0.1, "calibrate": 0.1, "test": 0.4}


@pytest.mark.parametrize("wrong", ["any", "near"])
@pytest.mark.parametrize("name", relation_names())
def test_each_object_is_right_as_often_as_wrong(name, wrong):
    relation = load_relation(name)
    for seed in (0, 1):
        groups = np.random.default_rng(seed).permutation(relation.groups)[: len(relation.groups) // 2]
        examples = relation.examples(groups, "question", seed, wrong)
        right = Counter(e.texts["object"] for e in examples if e.truth)
        assert right == Counter(e.texts["object"] for e in examples if not e.truth)
        assert Counter(e.texts["subject"] for e in examples if e.truth) == Counter(
            e.texts["subject"] for e in examples if not e.truth
        )
        assert len(examples) >= 0.8 * 2 * len(groups)
        facts = {f.subject: f for f in relation.facts}
        assert all(facts[e.texts["subject"]].right(e.texts["object"]) == e.truth for e in examples)


def test_near_takes_listed_wrong_objects_more_often():
    relation = load_relation("capitals")
    facts = {f.subject: f for f in relation.facts}

    def listed(wrong):
        examples = relation.examples(relation.groups, "question", 0, wrong)
        return np.mean([e.texts["object"] in facts[e.texts["subject"]].wrong for e in examples if not e.truth])

    assert listed("near") > 0.8 > 0.3 > listed("any")


@pytest.mark.parametrize("form", ["question", "negated", "statement", "choice", "recall"])
def test_forms(form):
    relation = load_relation("elements")
    examples = relation.examples(relation.groups, form, 0)
    assert sum(e.truth for e in examples) == len(examples) / 2
    first = {e.texts["object"]: e for e in examples if e.group == "iron"}
    assert first["Fe"].truth == (form != "negated")
    assert len({e.example_id for e in examples}) == len(examples)
    if form == "recall":
        assert {e.positive for e in examples} >= {"Fe"} and all(e.positive != e.negative for e in examples)


def test_seed_decides_and_repeats():
    relation = load_relation("units")
    once, again = (relation.examples(relation.groups, "question", 3) for _ in range(2))
    assert once == again != relation.examples(relation.groups, "question", 4)


def test_splits_are_disjoint_and_complete():
    groups, pool = [f"g{i}" for i in range(100)], {"pool": [f"g{i}" for i in range(40, 50)]}
    dealt = split_groups(groups, SHARES, pool, seed=0, minimum=5)
    assert sorted(g for part in dealt.values() for g in part) == sorted(groups)
    assert dealt["pool"] == pool["pool"] and len(dealt["test"]) == 36
    assert dealt == split_groups(groups[::-1], SHARES, pool, seed=0, minimum=5)
    assert dealt != split_groups(groups, SHARES, pool, seed=1, minimum=5)
    assert set(TRAINING_SPLITS) < set(dealt)


def test_sides_are_spread_evenly():
    sides = {f"g{i}": "true" if i < 20 else "false" for i in range(100)}
    order = shuffled(sides, 0, sides)
    for start in range(0, 100, 10):
        assert sum(sides[group] == "true" for group in order[start : start + 10]) == 2


def test_too_few_groups_says_how_many_would_do():
    groups = [f"g{i}" for i in range(30)]
    with pytest.raises(DataError, match=r"got 30, of which 'select' would have 2 .*about 90 groups"):
        split_groups(groups, SHARES, {"pool": groups[:10]}, seed=0, minimum=8)


def test_an_object_that_is_right_for_all_goes_and_the_others_stay():
    """English is right for all six countries, and the main language of two: the four others can be asked about each other's."""
    names = ["malawi", "singapore", "samoa", "timor-leste", "dominica", "iceland"]
    for seed in range(20):
        made = load_relation("languages").examples(names, "question", seed)
        assert {e.group for e in made} == {"malawi", "samoa", "timor-leste", "iceland"} and len(made) == 8
