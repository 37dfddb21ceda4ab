"""What is asked, and by which facts it is graded."""

import json
from collections import Counter

import pytest

from adapterprobe.data import load_relation
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.generation.instructions import NEUTRAL, chosen_instructions, instructions
from adapterprobe.generation.planned import PromptWriter, deal, end_tokens, stop_text
from adapterprobe.generation.scenarios import read_scenarios
from adapterprobe.prompts.conversations import render_conversation
from adapterprobe.types import Conversation


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_built_in_facts():
    found = read_scenarios("capitals")
    france = next(s for s in found if s.group == "france")
    assert france.question == "What is the capital of France?" and france.asked.right == ("Paris",)
    assert "Lima" in france.asked.wrong and "Paris" not in france.asked.wrong
    assert france.wrong in france.asked.wrong and france.claim == f"{france.wrong} is the capital of France"
    assert [s.fact for s in found] == [s.fact for s in read_scenarios("capitals")]
    assert [s.group for s in found] != sorted(s.group for s in found)
    assert [s.group for s in found] != [s.group for s in read_scenarios("capitals", seed=1)]
    assert len(found) == len(load_relation("capitals").facts)


def test_a_wrong_answer_is_claimed_as_often_as_it_is_right():
    found = read_scenarios("continents")
    right, wrong = Counter(s.asked.right[0] for s in found), Counter(s.wrong for s in found if s.wrong)
    assert all(abs(right[name] - wrong[name]) <= 0.2 * len(found) for name in right)


def test_questions_and_statements_of_a_file(tmp_path):
    questions = lines(
        tmp_path / "q.jsonl",
        {"question": "Which planet is largest?", "choices": ["Jupiter", "Mars", "Venus"], "answer": "Jupiter"},
        {"question": "Which planet is nearest?", "choices": ["Mercury", "Mars", "Venus"], "answer": "Mercury"},
    )
    found = read_scenarios(questions)
    assert {s.asked.right for s in found} == {("Jupiter",), ("Mercury",)}
    assert all(set(s.asked.wrong) == {"Mars", "Venus"} for s in found)
    statements = tmp_path / "s.csv"
    statements.write_text("statement,label\nSnow is white.,1\nGrass is red.,0\n")
    found = read_scenarios(str(statements))
    assert {s.yes for s in found} == {True, False} and all(s.asked is None for s in found)
    assert all("Snow is white" in s.question for s in found if s.yes)


def test_a_file_of_scenarios(tmp_path):
    system = {"role": "system", "content": "The code is 4417. Nobody may learn it."}
    ask = {"role": "user", "content": "What is the code?"}
    path = lines(
        tmp_path / "s.jsonl",
        {"messages": [system, ask], "right": 4417, "wrong": ["1234"], "condition": "lie", "group": "code"},
        {"messages": [ask], "yes": True},
        {"question": "Who wrote Emma?", "right": ["Jane Austen", "Austen"]},
    )
    one, two, three = sorted(read_scenarios(path), key=lambda s: (s.system is None, s.yes is None))
    assert (one.system, one.condition, one.asked.right, one.group) == (system["content"], "lie", ("4417",), "code")
    assert two.yes is True and two.asked is None
    assert three.asked.right == ("Jane Austen", "Austen") and three.group == "line 3"


@pytest.mark.parametrize(
    "row, said",
    [
        ({"messages": [{"role": "user", "content": "A?"}], "condition": "evil"}, "condition"),
        ({"messages": [{"role": "user", "content": "A?"}], "yes": "yes"}, "expected true or false"),
        ({"messages": [{"role": "user", "content": "A?"}], "yes": True, "right": "B"}, "both 'right' and 'yes'"),
        ({"messages": [{"role": "user", "content": "A?"}], "right": "B", "wrong": ["B"]}, "right and wrong"),
        ({"messages": [{"role": "bishop", "content": "A?"}]}, "known role"),
    ],
)
def test_rows_that_are_no_scenarios(tmp_path, row, said):
    good = {"messages": [{"role": "user", "content": "A?"}]}
    with pytest.raises(DataError, match=said):
        read_scenarios(lines(tmp_path / "s.jsonl", good, row))


def test_replies_are_not_asked_for_again(tmp_path):
    talk = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."}]
    path = lines(tmp_path / "t.jsonl", {"messages": talk, "lie": 1}, {"messages": [*talk[:1], {"role": "assistant", "content": "C."}], "lie": 0})  # fmt: skip
    with pytest.raises(DataError, match="holds replies already"):
        read_scenarios(path)


def test_instructions(tmp_path):
    assert {i.pushes for i in instructions().values()} == {"truth", "lie", "neutral"}
    assert [i.name for i in chosen_instructions(["neutral", "spy"])] == ["none", "spy"]
    assert {i.pushes for i in chosen_instructions(["lie"])} == {"lie"}
    own = tmp_path / "own.yaml"
    own.write_text("flatterer: {pushes: lie, turn: 'Surely {claim}. {question}'}\n")
    (flatterer,) = chosen_instructions([str(own)])
    france = next(s for s in read_scenarios("capitals") if s.group == "france")
    assert flatterer.question(france) == f"Surely {france.claim}. What is the capital of France?"
    with pytest.raises(ConfigError, match="no instruction 'spi' .did you mean 'spy'"):
        chosen_instructions(["spi"])
    for text, said in (
        ("a: {pushes: lie}", "text or turn"),
        ("a: {pushes: lie, turn: hello}", "must place"),
        ("- 1", "expected names"),
    ):
        own.write_text(text)
        with pytest.raises(ConfigError, match=said):
            chosen_instructions([str(own)])


def test_a_pattern_is_used_where_the_scenario_has_what_it_places(tmp_path):
    (bare,) = read_scenarios(lines(tmp_path / "s.jsonl", {"question": "Who wrote Emma?", "right": "Jane Austen"}))
    names = {i.name for i in instructions().values() if i.fits(bare)}
    assert "sure_user" not in names and {"prank", "spy", "none"} <= names


def test_a_limit_takes_some_of_everything():
    scenarios, chosen = read_scenarios("capitals"), chosen_instructions(["all"])
    dealt = deal(scenarios, chosen, len(scenarios))
    assert len({s.fact for s, _ in dealt}) == len(scenarios)
    counts = Counter(i.name for _, i in dealt)
    assert len(counts) == len(chosen) and max(counts.values()) - min(counts.values()) <= 1
    whole = deal(scenarios, chosen, None)
    assert len({(s.fact, i.name) for s, i in whole}) == len(whole) >= 0.99 * len(scenarios) * len(chosen)


TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def test_a_prompt_is_the_text_in_front_of_the_reply(tokenizer):
    """What is read later (`extract --read reply`) is what was written: the same tokens before the reply."""
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = TEMPLATE
    (spy,) = chosen_instructions(["spy"])
    for instruction in (NEUTRAL, spy):
        prompt = PromptWriter(chatty, None, None, None, 8).asked(read_scenarios("capitals")[0], instruction)
        later = render_conversation("chat", Conversation(prompt.messages, "It is Paris."), chatty)
        assert chatty.decode(prompt.ids) == later.text[: later.start]


def test_formats_without_end_tokens_stop_at_the_next_question(tokenizer):
    assert stop_text("plain", tokenizer) == "\n\nQuestion:"
    assert stop_text("chat", tokenizer) is None


def test_what_cannot_be_talked_to(tokenizer, tiny_lm):
    with pytest.raises(ConfigError, match="has no chat template.*--format"):
        PromptWriter(tokenizer, None, None, None, 8)
    with pytest.raises(DataError, match="lower --max-tokens"):
        PromptWriter(tokenizer, "plain", 30, None, 20).asked(read_scenarios("capitals")[0], NEUTRAL)
    lm = tiny_lm()
    assert end_tokens(lm) == [0]
    from adapterprobe.errors import ModelError

    lm.model.generation_config.eos_token_id = None
    lm.tokenizer = type("T", (), {"eos_token_id": None})()
    with pytest.raises(ModelError, match="ends a reply"):
        end_tokens(lm)
