"""Transcripts: rows of messages with labels as people have them; nothing is guessed; one setting is one group."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterprobe.config import ReadConfig
from adapterprobe.data.cells import InvalidRow, LeftOut
from adapterprobe.data.contexts import context_groups, echoed, matched_contexts
from adapterprobe.data.grouping import grouped_together
from adapterprobe.data.items import Item, ItemDataset
from adapterprobe.data.source import load_data
from adapterprobe.data.transcripts import pair_items, transcript_items
from adapterprobe.errors import DataError
from adapterprobe.types import Conversation, Message

ASKED = {"role": "user", "content": "Where is Lyon?"}
SAID = {"role": "assistant", "content": "In France."}


def row(**columns):
    return {"messages": [ASKED, SAID], **columns}


@pytest.mark.parametrize(
    ("columns", "honest"),
    [
        ({"deceptive": True}, False),
        ({"deceptive": 0}, True),
        ({"deceptive": "false"}, True),
        ({"is_lie": 1}, False),
        ({"lie": 1.0}, False),
        ({"y": "1"}, False),
        ({"honest": True}, True),
        ({"honest": 0}, False),
        ({"label": "honest"}, True),
        ({"label": "Deceptive"}, False),
        ({"label": "lie"}, False),
        ({"label": "truthful"}, True),
        # A bare label says nothing, and another column says it.
        ({"label": 1, "honest": True}, True),
        ({"label": None, "y": 0}, True),
        ({"deceptive": np.True_}, False),
    ],
)
def test_labels_as_people_have_them(columns, honest):
    (item,) = transcript_items(row(**columns))
    assert item.label is honest and item.conversation.reply == "In France."
    assert item.conversation.context == (Message("user", "Where is Lyon?"),)


@pytest.mark.parametrize(
    ("columns", "match"),
    [
        ({"label": 1}, r"bare 0 or 1.*--column deceptive=label.*--column honest=label"),
        ({"label": "True"}, "bare 0 or 1"),
        ({"label": "maybe"}, "'label' is 'maybe', expected honest or truthful or deceptive or lie"),
        ({"deceptive": 2}, "'deceptive' is '2'"),
        ({"deceptive": True, "honest": True}, "'deceptive' and 'honest' contradict"),
        ({}, "has no label; expected one in deceptive, is_lie, lie, y, honest, label"),
        ({"deceptive": float("nan")}, "has no label"),
    ],
)
def test_labels_that_say_nothing_or_two_things(columns, match):
    with pytest.raises(InvalidRow, match=match):
        transcript_items(row(**columns))


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([ASKED], "has no reply: the last message is of the role user"),
        ([], "'messages' is empty"),
        ([SAID], "no message before it"),
        ([ASKED, {"role": "assistant", "content": "  "}], "the reply is empty"),
        (
            [ASKED, {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}],
            "calls a tool and says nothing",
        ),
        ([ASKED, {"role": "assistant", "content": None}], "message 2 has no content, and calls no tool"),
        ([ASKED, {"role": "robot", "content": "x"}], "role 'robot', expected system, developer, user, assistant, tool"),
        ([{"role": "user", "content": ""}, SAID], r"message 1 \(user\) is empty"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, SAID], "type 'image_url', only text"),
        ([{"role": "user", "content": 3}, SAID], "content is not text but int"),
        ([{"role": "user"}, SAID], "without 'role' and 'content'"),
        ([{**ASKED, "deceptive": True}, SAID], "message 1 has a label and the role user"),
        ([ASKED, {"role": "assistant", "content": "\x00"}], "NUL"),
    ],
)
def test_messages_that_cannot_be_used(messages, match):
    with pytest.raises(InvalidRow, match=match):
        transcript_items({"messages": messages, "deceptive": True})


def test_contents_of_every_sort():
    messages = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "Lyon?"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "maps", "arguments": "{}"}}]},
        {"role": "tool", "content": "France", "name": "maps"},
        SAID,
    ]
    for given in (messages, json.dumps(messages), np.array(messages, dtype=object)):
        (item,) = transcript_items({"messages": given, "deceptive": 1, "model": "other"})
        turns = item.conversation.context
        assert [turn.role for turn in turns] == ["user", "assistant", "tool"], "an empty system prompt is none"
        assert turns[0].content == "Where is Lyon?" and turns[1].extra["tool_calls"][0]["function"]["name"] == "maps"
        assert item.conversation.author == "other"


def test_every_labelled_turn_is_a_reply_with_the_turns_before_it():
    messages = [
        ASKED,
        {**SAID, "deceptive": False},
        ASKED,
        {**SAID, "content": "In Peru.", "deceptive": True},
        ASKED,
        SAID,
    ]
    one, two = transcript_items({"messages": messages})
    assert (one.label, len(one.conversation.context)) == (True, 1)
    assert (two.label, len(two.conversation.context), two.conversation.reply) == (False, 3, "In Peru.")


def test_pairs_in_one_row():
    given = {"prompt": "Where?", "system_prompt": "Lie.", "honest_response": "Here.", "deceptive_response": "There."}
    honest, lie = pair_items(given)
    assert (honest.label, lie.label) == (True, False) and honest.conversation.context == lie.conversation.context
    assert [message.role for message in lie.conversation.context] == ["system", "user"]
    with pytest.raises(InvalidRow, match="are the same"):
        pair_items(given | {"deceptive_response": "Here."})
    with pytest.raises(InvalidRow, match="context of both replies alone"):
        pair_items(given | {"messages": [ASKED, SAID]})


def benchmark_rows(count=24, **more):
    """In the layout of the field's benchmarks."""
    return [
        {
            "index": place,
            "model": "other/model",
            "messages": [
                {"role": "system", "content": ["Be kind.", "Be sly."][place % 2]},
                {"role": "user", "content": f"What is item {place * 7919} of the list called?"},
                {"role": "assistant", "content": f"It is called {'not ' * lie}{place * 31}."},
            ],
            "temperature": 1.0,
            "deceptive": bool(lie),
            "canary": "",
            "meta": {"a": place},
            **more,
        }
        for place in range(count)
        for lie in (0, 1)
    ]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_benchmark_file_is_read_whole(tmp_path, ending, capsys):
    rows = benchmark_rows()
    path = tmp_path / f"b{ending}"
    if ending == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pd.DataFrame(rows).to_parquet(path)
    dataset = load_data(str(path))
    assert len(dataset.items) == len(rows) and len(dataset.groups) == 24
    assert "24 groups of contexts, joined by" in capsys.readouterr().err
    lies = dataset.examples(dataset.groups, "reply", 0)
    assert all(e.truth == ("not" in e.conversation.reply) for e in lies), "label 1 is a deceptive reply"
    asked = dataset.examples(dataset.groups, "question", 0)
    assert all(e.truth == ("not" not in e.texts["reply"]) for e in asked), "and a question asks whether it is honest"


def test_a_bare_label_is_told_once_by_the_user(tmp_path):
    path = tmp_path / "b.jsonl"
    rows = [{"label": int(r["deceptive"]), "messages": r["messages"]} for r in benchmark_rows()]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"has no row that can be used .*36 more.*--column deceptive=label"):
        load_data(str(path))
    one = load_data(str(path), ReadConfig(columns={"deceptive": "label"}))
    two = load_data(str(path), ReadConfig(columns={"honest": "label"}))
    assert [i.label for i in one.items] == [not i.label for i in two.items]


def test_a_column_called_group_groups_transcripts(tmp_path):
    path = tmp_path / "b.jsonl"
    rows = [{**r, "group": f"scene {r['index'] % 5}"} for r in benchmark_rows()]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert load_data(str(path)).groups == [f"scene {i}" for i in range(5)]


def write_replies(path, numbers):
    """Rows of contexts: for each, how many honest and how many deceptive replies."""
    rows = [
        {
            "messages": [{"role": "user", "content": f"Question {c}?"}, {"role": "assistant", "content": f"Reply {kind} {i}."}],
            "deceptive": kind == "b",
            "group": f"fact {c % 4}",
        }
        for c, counts in enumerate(numbers)
        for kind, count in zip("ab", counts, strict=True)
        for i in range(count)
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path), rows


def test_matched_reading_leaves_no_context_that_tells_the_label(tmp_path):
    ref, rows = write_replies(tmp_path / "r.jsonl", [(5, 1), (2, 2), (0, 3), (4, 0), (1, 6), (3, 2)])
    plain = load_data(ref, ReadConfig(group="group"))
    assert len({i.conversation.script for i in plain.items}) == 6
    found = load_data(ref, ReadConfig(group="group", matched=True))
    by_context = {}
    for item in found.items:
        by_context.setdefault(item.conversation.script, []).append(item.label)
    assert sorted(map(len, by_context.values())) == [2, 2, 4, 4]
    assert all(sum(labels) * 2 == len(labels) for labels in by_context.values())
    assert found.dropped["replies of contexts with one label"] == 7
    assert found.dropped["surplus of one label in a context"] == len(rows) - 7 - 12
    # By chance, and not by the order in which they stand.
    (tmp_path / "turned.jsonl").write_text("\n".join(map(json.dumps, rows[::-1])))
    turned = load_data(str(tmp_path / "turned.jsonl"), ReadConfig(group="group", matched=True))
    assert {i.words for i in turned.items} == {i.words for i in found.items}
    other = load_data(ref, ReadConfig(group="group", matched=True), seed=1)
    assert {i.words for i in other.items} != {i.words for i in found.items}


def test_matched_reading_says_where_it_cannot_be(tmp_path):
    ref, _ = write_replies(tmp_path / "r.jsonl", [(5, 0), (0, 3)])
    with pytest.raises(DataError, match=r"none of its contexts has an honest and a deceptive reply.*--samples"):
        load_data(ref, ReadConfig(matched=True))
    claims = tmp_path / "claims.csv"
    claims.write_text("statement,label\n" + "".join(f"Thing {i} is red,{i % 2}\n" for i in range(20)))
    with pytest.raises(DataError, match=r"no replies to contexts"):
        load_data(str(claims), ReadConfig(matched=True))
    with pytest.raises(DataError, match=r"capitals holds facts.*read_by_name"):
        load_data("capitals", ReadConfig(matched=True))


def talk(system, asked, reply="Yes."):
    return Conversation((Message("system", system), Message("user", asked)), reply)


def test_one_system_prompt_is_never_on_both_sides_where_there_are_many():
    words = np.random.default_rng(0).permutation(5000)
    talks = [
        talk(f"You sell the thing {words[i]} to {words[i + 100]}", f"Say it {words[200 + 3 * i + j]} to me")
        for i in range(40)
        for j in range(3)
    ]
    found = context_groups(talks)
    assert len(set(found.numbers)) == 40 and "system prompt" in found.joined_by and not found.split_apart
    assert all(len(set(found.numbers[3 * i : 3 * i + 3])) == 1 for i in range(40))


def test_a_few_system_prompts_over_many_questions_are_grouped_by_question_and_said_so():
    words = np.random.default_rng(1).permutation(5000)
    talks = [
        talk(system, f"Where is the town {word}?") for word in words[:50] for system in ("Lie to me.", "Be honest.")
    ]
    found = context_groups(talks)
    assert len(set(found.numbers)) == 50 and "question" in found.joined_by
    assert str(found).endswith("2 system prompts stand in several groups")


def test_a_json_array_is_a_file_too(tmp_path):
    path = tmp_path / "b.json"
    path.write_text(json.dumps(benchmark_rows()))
    assert len(load_data(str(path)).items) == 48
    for content, match in [
        ('{"messages": []}', "holds one dict; expected an array"),
        ("[1, 2]", "has no object in its array"),
        ("[{]", "is not JSON"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError, match=match):
            load_data(str(path))
    path.write_text(json.dumps([*benchmark_rows(), 7]))
    with pytest.raises(DataError, match="line 49: is not an object but int"):
        load_data(str(path))


def test_turns_of_one_conversation_are_one_group(tmp_path):
    words = np.random.default_rng(2).permutation(90000)
    rows = []
    for place in range(30):
        mine = iter(words[place * 200 : (place + 1) * 200])
        said = [" ".join(str(next(mine)) for _ in range(80)) for _ in range(2)]
        asked = [f"Tell me about {next(mine)} and {next(mine)}" for _ in range(2)]
        turns = [
            ({"role": "user", "content": a}, {"role": "assistant", "content": r, "deceptive": place % 2 == n})
            for n, (a, r) in enumerate(zip(asked, said, strict=True))
        ]
        rows.append({"messages": [message for turn in turns for message in turn]})
    path = tmp_path / "turns.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = load_data(str(path))
    by_line = {}
    for item in dataset.items:
        by_line.setdefault(item.line, set()).add(item.group)
    assert (
        len(dataset.items) == 60 and all(len(groups) == 1 for groups in by_line.values()) and len(dataset.groups) == 30
    )


def test_a_setting_that_two_files_share_is_one_group():
    def items(name, offset):
        made = []
        for place in range(30):
            talk = Conversation(
                (Message("system", f"You keep secret {place * 7919}."), Message("user", f"What of {offset + place}?")),
                "No.",
            )
            made.append(
                Item(
                    place,
                    {"dialogue": talk.script, "reply": "No."},
                    bool(place % 2),
                    group=f"{name}{place}",
                    conversation=talk,
                )
            )
        return ItemDataset(name, "", tuple(made), ("question",), auto_groups=True)

    one, two = items("a", 100_000), items("b", 500_000)
    again = grouped_together([one, two])
    assert [item.group for item in again[0].items] == [item.group for item in again[1].items]
    assert len({item.group for item in again[0].items}) == 30
    named = replace(two, auto_groups=False)
    assert grouped_together([one, named]) == [one, named], "groups that a column names stay"


def test_pairs_without_a_context_and_arrays_of_messages(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"scenario": 1, "honest_response": "a", "deceptive_response": "b"}))
    with pytest.raises(DataError, match="both replies of a pair and no context; expected 'messages', or 'prompt'"):
        load_data(str(path))
    context = np.array([{"role": "system", "content": "Be kind."}, ASKED], dtype=object)
    assert len(pair_items({"messages": context, "honest_response": "Here.", "deceptive_response": "There."})) == 2
    calling = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    (item,) = transcript_items(
        {"messages": [ASKED, calling, {"role": "tool", "content": "x"}, SAID], "deceptive": True}
    )
    assert len(item.conversation.context) == 3


def test_the_examples_are_what_their_script_makes_and_are_matched():
    folder = Path(__file__).parents[2] / "examples"
    spec = importlib.util.spec_from_file_location("make_transcripts", folder / "make_transcripts.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, parts in script.FILES.items():
        made = script.rows(*parts)
        assert [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()] == made
        dataset = load_data(str(folder / name))
        found = matched_contexts((item.conversation, item.label) for item in dataset.items)
        assert found.both == found.contexts and found.rows == len(dataset.items) == len(made)
        assert not any(echoed(item.conversation) for item in dataset.items)


def test_outcomes_decide_and_what_is_neither_lie_nor_honest_is_left_out(tmp_path):
    (lie,) = transcript_items(row(outcome="lie"))
    assert lie.label is False and lie.conversation.outcome == "lie"
    for outcome in ("mistake", "honest_mistake", "refusal", "unclear"):
        with pytest.raises(LeftOut, match=f"outcome {outcome}"):
            transcript_items(row(outcome=outcome, deceptive=True))
    with pytest.raises(InvalidRow, match="contradict"):
        transcript_items(row(outcome="honest", deceptive=True))
    (other,) = transcript_items(row(outcome="completed", deceptive=True))
    assert other.conversation.outcome is None, "a column of that name that says something else"
    with pytest.raises(InvalidRow, match="'outcome' is 'completed', expected lie, mistake"):
        transcript_items(row(outcome="completed"))
    given = [row(messages=[{"role": "user", "content": f"Where is number {n}?"}, {"role": "assistant", "content": f"{n} is there."}],
                 outcome=("lie", "honest", "mistake", "refusal")[n % 4], group=str(n // 4)) for n in range(80)]  # fmt: skip
    path = tmp_path / "graded.jsonl"
    path.write_text("\n".join(map(json.dumps, given)))
    found = load_data(str(path), ReadConfig(), 0)
    assert len(found.items) == 40 and found.dropped == {"outcome mistake": 20, "outcome refusal": 20}
