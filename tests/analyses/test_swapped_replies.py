"""Replies swapped between contexts: what is dealt out, and what a detector of the context and one of the reply then say."""

from collections import Counter

import numpy as np

from adapterprobe.analyses.prompt_controls import prompt_only
from adapterprobe.analyses.swapped_replies import swapped
from adapterprobe.evaluate import statistics
from adapterprobe.types import Conversation, Example, Message


def example(group, lie, number=0, dataset="chats"):
    reply = f"{'It is in Peru' if lie else 'It is in France'}, {group}."
    talk = Conversation((Message("user", f"Where is {group}?"),), reply, "somebody", ((0, 5),) if lie else ())
    talk = Conversation(talk.context, reply, "somebody")
    return Example(f"{group}-{lie}-{number}", dataset, group, "reply", "Yes", "No", lie, {}, conversation=talk)


def test_every_reply_goes_to_another_group_once():
    given = [example(f"g{n % 12}", bool(n % 2), n) for n in range(48)] + [
        example(f"h{n}", bool(n % 2), n, "other") for n in range(8)
    ]
    pairs = swapped(given, 0)
    assert len(pairs) == len(given) and {own.example_id for own, _ in pairs} == {e.example_id for e in given}
    assert Counter(donor.example_id for _, donor in pairs) == Counter(e.example_id for e in given)
    for own, donor in pairs:
        assert own.group != donor.group and own.dataset == donor.dataset
        assert own.conversation.reply == donor.conversation.reply != ""
        assert own.truth == next(e.truth for e in given if e.example_id == own.example_id), (
            "the label stays the context's"
        )
    assert [p[1].example_id for p in swapped(given, 0)] == [p[1].example_id for p in pairs]
    assert [p[1].example_id for p in swapped(given, 1)] != [p[1].example_id for p in pairs]


def test_labels_of_context_and_reply_say_nothing_of_each_other():
    given = [example(f"g{n // 2}", bool(n % 2), n) for n in range(400)]
    context, reply = np.array([[own.truth, donor.truth] for own, donor in swapped(given, 3)]).T
    assert abs(np.corrcoef(context, reply)[0, 1]) < 0.15
    by_reply = statistics.auroc_columns(reply.astype(int), reply[:, None].astype(float))[0]
    by_context = statistics.auroc_columns(context.astype(int), reply[:, None].astype(float))[0]
    assert by_reply == 1 and abs(by_context - 0.5) < 0.08


def test_nothing_is_swapped_where_one_group_has_most_rows():
    assert swapped([example("one", bool(n % 2), n) for n in range(20)], 0) == []
    assert swapped([example(f"g{n}", bool(n % 2), n) for n in range(6)], 0) == [], "too few rows"


def test_echo_and_author_are_controls_of_their_own():
    import pandas as pd

    rng = np.random.default_rng(0)
    count = 200
    truth = np.arange(count) % 2
    frame = pd.DataFrame(
        {
            "dataset": "chats", "split": np.where(np.arange(count) < 100, "probe-train", "test"), "group": np.arange(count).astype(str),
            "condition": "neutral", "template": "t", "demo_set": "none", "format": "plain", "system_prompt": "none", "text": "some words",
            "turn": "some words", "context": "Who?", "answers": "+Yes -No", "truth": truth,
            "echo": truth == 1, "author": np.where(rng.random(count) < 0.5, "a", "b"),
        }
    )  # fmt: skip
    records = {r["control"]: r for r in prompt_only(frame, np.arange(100)) if r["split"] == "test"}
    assert records["echo of the instruction"]["auroc"] == 1 and not records["echo of the instruction"]["met"]
    assert abs(records["author of the reply"]["auroc"] - 0.5) < 0.15 and records["author of the reply"]["met"]
    silent = {r["control"] for r in prompt_only(frame.assign(echo=False, author="a"), np.arange(100))}
    assert not silent & {"echo of the instruction", "author of the reply"}
