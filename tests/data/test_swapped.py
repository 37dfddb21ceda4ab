"""`swapped-NAME`: built-in facts with their answers exchanged, false on purpose."""

from collections import Counter

import pytest

from adapterprobe.cli import main
from adapterprobe.config import ReadConfig
from adapterprobe.data import load_data, load_relation, relation_names
from adapterprobe.data.references import data_files, data_path
from adapterprobe.data.relations import is_relation
from adapterprobe.errors import DataError
from adapterprobe.generation.scenarios import read_scenarios

EACH = pytest.mark.parametrize("name", relation_names())


@EACH
def test_no_answer_is_left_where_it_was(name):
    plain, swapped = load_relation(name), load_data(f"swapped-{name}")
    before = {fact.subject: fact for fact in plain.facts}
    assert swapped.name == f"swapped-{name}" and 0.9 * len(plain.facts) < len(swapped.facts)
    for fact in swapped.facts:
        was = before[fact.subject]
        assert fact.group == was.group, "one group stays on one side of every split, swapped or not"
        assert not was.right(fact.object) and was.object in fact.wrong and fact.object not in fact.wrong
    kept = Counter(before[fact.subject].object for fact in swapped.facts)
    assert Counter(fact.object for fact in swapped.facts) == kept, "the answer alone tells nothing"
    assert sum(swapped.dropped.values()) == len(plain.facts) - len(swapped.facts)


def test_it_is_the_same_every_time_and_for_every_seed():
    load_relation.cache_clear()
    first = load_data("swapped-capitals", seed=0).facts
    load_relation.cache_clear()
    assert load_data("swapped-capitals", seed=5).facts == first


def test_it_goes_where_built_in_facts_go(capsys):
    assert is_relation("swapped-capitals") and not is_relation("swapped-nothing") and not is_relation("swapped-")
    assert data_path("swapped-capitals") is None and data_files("swapped-capitals", ReadConfig()) == []
    france = next(s for s in read_scenarios("swapped-capitals") if s.group == "france")
    assert france.question == "What is the capital of France?"
    assert france.asked is not None and "Paris" in france.asked.wrong and france.asked.right != ("Paris",)
    assert main(["data", "check", "swapped-capitals", "--against", "elements", "--no-model"]) == 0
    assert main(["data", "show", "swapped-capitals", "--limit", "1", "--no-model"]) == 0
    assert "Answer:" in capsys.readouterr().out


def test_another_spelling_of_what_is_taught_is_no_lie():
    facts = {fact.object: fact for fact in load_relation("us_states").facts}
    for fact in load_relation("swapped-us_states").facts:
        assert set(fact.also) == set(facts[fact.object].also) and not set(fact.also) & set(fact.wrong)
    assert any("St. Paul" in fact.also for fact in load_relation("swapped-us_states").facts)
    for scenario in read_scenarios("swapped-us_states"):
        assert scenario.asked is not None and not set(scenario.asked.right) & set(scenario.asked.wrong)


@pytest.mark.parametrize("ref", ["swapped-capitols", "swapped-swapped-capitals", "swapped-boolq"])
def test_what_cannot_be_swapped_is_named(ref):
    with pytest.raises(DataError, match=f"no data set '{ref}'"):
        load_data(ref)
