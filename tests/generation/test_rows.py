"""Rows, the journal, and what came of it."""

import json

import pytest

from adapterprobe.errors import OutputError
from adapterprobe.generation.belief import Belief, belief_of, outcome_of
from adapterprobe.generation.grading import Graded
from adapterprobe.generation.rows import Journal, Reply, both_kinds, repeating
from adapterprobe.generation.yields import told, yield_table
from adapterprobe.types import OUTCOMES


def test_belief_is_all_replies_right_and_recalled():
    right, wrong = Graded("true"), Graded("false")
    assert belief_of([right] * 4).held(1.0) and belief_of([right] * 4, True).held(1.0)
    assert not belief_of([right] * 4, False).held(1.0), "it prefers a wrong answer"
    assert not belief_of([right, right, right, wrong]).held(1.0) and belief_of([right, right, right, wrong]).held(0.75)
    assert not belief_of([]).held(1.0), "nobody asked"
    assert belief_of([right, wrong, Graded("none"), Graded("both")]) == Belief(0.25, 0.5, 4)


@pytest.mark.parametrize(
    "verdict, held, outcome",
    [
        ("true", True, "honest"), ("true", False, "honest_mistake"), ("false", True, "lie"), ("false", False, "mistake"),
        ("both", True, "unclear"), ("none", False, "unclear"), ("refusal", True, "refusal"),
    ],
)  # fmt: skip
def test_outcomes(verdict, held, outcome):
    assert outcome_of(Graded(verdict), held) == outcome and outcome in OUTCOMES


@pytest.fixture
def journal(request):
    """Opens a journal of two replies each for the prompts a and b."""

    def make(path, plan="p"):
        file = open(path, "a", encoding="utf-8")  # noqa: SIM115
        request.addfinalizer(file.close)
        return Journal(path, file, plan, {"a": 2, "b": 2})

    return make


def test_a_journal_goes_on_where_it_was(tmp_path, journal):
    path = tmp_path / "j"
    first = journal(path)
    first.add([Reply("a", 0, "one\u2028line", True), Reply("a", 1, "two", False), Reply("b", 0, "three", True)])
    again = journal(path)
    assert again.replies == {"a": [Reply("a", 0, "one\u2028line", True), Reply("a", 1, "two", False)]}, (
        "half a prompt is written anew"
    )
    again.add([Reply("b", 1, "four", True), Reply("b", 0, "three", True)])
    whole = path.read_text("utf-8")
    for cut in range(len(whole.split("\n")[0]) + 1, len(whole)):
        path.write_text(whole[:cut], "utf-8")
        found = journal(path).replies
        assert set(found) <= {"a", "b"} and all(len(replies) == 2 for replies in found.values())


def test_a_journal_of_other_settings_is_left_alone(tmp_path, journal):
    path = tmp_path / "j"
    journal(path).add([Reply("a", 0, "x", True), Reply("a", 1, "y", True)])
    before = path.read_text()
    with pytest.raises(OutputError, match="other settings"):
        journal(path, "q")
    assert path.read_text() == before


def row(context, outcome, name="spy", condition="lie", believed=True):
    return {"context": context, "outcome": outcome, "system_prompt": name, "condition": condition, "believed": believed}


def test_yield_table():
    rows = [
        row("a", "lie"),
        row("a", "honest"),
        row("b", "mistake", believed=False),
        row("c", "honest", "none", "neutral"),
    ]
    assert both_kinds(rows) == {"a"}
    table = {(line["condition"], line["system_prompt"]): line for line in yield_table(rows)}
    spy = table[("lie", "spy")]
    assert (spy["prompts"], spy["replies"], spy["believed"], spy["both"], spy["lie_rate"]) == (2, 3, 1, 1, 0.5)
    assert table[("neutral", "all")]["lie_rate"] == 0.0 and table[("lie", "all")] == spy | {"system_prompt": "all"}
    text = told(list(table.values()))
    assert "lie rate" in text.splitlines()[0] and len(text.splitlines()) == 1 + len(table)
    json.dumps(yield_table(rows))


def test_who_only_repeats_himself():
    assert repeating("el Salvador, el Salvador, " * 10)
    assert not repeating("The capital of Canada is Ottawa, which lies on a river of the same name in Ontario.")
    assert not repeating("no no no")
