"""Parts of a reply that the data mark as false: read strictly, and carried to the tokens that hold them."""

import numpy as np
import pytest

from adapterprobe.data.cells import InvalidRow
from adapterprobe.data.false_spans import false_spans
from adapterprobe.data.transcripts import pair_items, transcript_items
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.read_prompts import read_prompts, with_reads
from adapterprobe.prompts.token_labels import last_token_labels, token_labels
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import Conversation, Example, Message

SAID = "Lyon is in Peru."
ASKED = {"role": "user", "content": "Where is Lyon?"}


@pytest.mark.parametrize(
    ("cells", "spans"),
    [
        ({}, ()),
        ({"spans": []}, ()),
        ({"span": [11, 15]}, ((11, 15),)),
        ({"spans": [[11, 15], [0, 4]]}, ((0, 4), (11, 15))),
        ({"spans": "[[0, 4], [3, 9]]"}, ((0, 9),)),
        ({"spans": [{"start": 11, "end": 15}]}, ((11, 15),)),
        ({"span": {"start": 11.0, "stop": 15.0}}, ((11, 15),)),
        ({"spans": [np.array([11, 15])]}, ((11, 15),)),
        ({"spans": np.array([[0, 4], [11, 15]])}, ((0, 4), (11, 15))),
    ],
)
def test_as_people_write_them(cells, spans):
    assert false_spans(cells, SAID, honest=False) == spans


def test_blanks_around_the_reply_do_not_shift_them():
    assert false_spans({"span": [13, 18]}, f"  {SAID}\n", honest=False) == ((11, 16),)


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"span": [4, 4]}, "empty range 4 to 4"),
        ({"span": [9, 4]}, "empty range"),
        ({"span": [11, 99]}, "outside of the reply of 16 characters"),
        ({"span": [-1, 4]}, "outside of the reply"),
        ({"span": [1]}, "expected"),
        ({"spans": [[1, "x"]]}, "expected"),
        ({"spans": [["Peru"]]}, "expected"),
        ({"spans": [[True, 4]]}, "expected"),
        ({"span": [0, 4], "spans": [[0, 4]]}, "both 'span' and 'spans'"),
    ],
)
def test_ranges_that_are_none(cells, told):
    with pytest.raises(InvalidRow, match=told):
        false_spans(cells, SAID, honest=False)


def test_an_honest_reply_has_nothing_false():
    with pytest.raises(InvalidRow, match="label is honest"):
        false_spans({"span": [0, 4]}, SAID, honest=True)


def test_in_rows_turns_and_pairs():
    reply = {"role": "assistant", "content": f" {SAID}"}
    (item,) = transcript_items({"messages": [ASKED, reply], "deceptive": 1, "span": [12, 16], "weight": "2.5"})
    assert item.conversation.spans == ((11, 15),) and item.weight == 2.5
    turns = [ASKED, reply | {"deceptive": True, "spans": [[12, 16]]}, ASKED, reply | {"deceptive": False}]
    lie, honest = transcript_items({"messages": turns})
    assert lie.conversation.spans == ((11, 15),) and honest.conversation.spans == () and honest.weight == 1.0
    honest, lie = pair_items(
        {"prompt": "Where?", "honest_response": "In France.", "deceptive_response": SAID, "span": [11, 15]}
    )
    assert lie.conversation.spans == ((11, 15),) and honest.conversation.spans == ()
    for weight in ("0", -1, "much", "nan", "inf", True):
        with pytest.raises(InvalidRow, match="a number above 0"):
            transcript_items({"messages": [ASKED, reply], "deceptive": 1, "weight": weight})


def example(reply, lie, spans=()):
    talk = Conversation((Message("user", "Where is Lyon?"),), reply, spans=spans)
    return Example(reply, "chats", "g", "reply", "Yes", "No", lie, {"reply": reply}, conversation=talk)


def test_the_tokens_that_hold_them(tokenizer):
    examples = [
        example("Lyon is in Peru, as maps show.", True, ((11, 15),)),
        example("Lyon is in Peru, as maps show.", True),
        example("Lyon is in France.", False),
    ]
    readout = ReadoutConfig(what="reply")
    encoded = with_reads(
        encode(tokenizer, read_prompts(examples, "test", readout, "plain", tokenizer), None), readout, tokenizer
    )
    spans = encoded.reads[0].spans
    marked, whole, honest = token_labels(encoded, spans)
    ids = encoded.ids[0][slice(*spans[0])]
    inside = tokenizer.decode([token for token, label in zip(ids, marked, strict=True) if label])
    assert inside.strip() == "Peru" and 0 < marked.sum() < len(marked)
    assert whole.all() and not honest.any()
    last = last_token_labels(encoded, 6)
    assert last.shape == (3, 6) and last[0].tolist() == marked[-6:].tolist() and last[1].all()
    assert last_token_labels(encoded.subset([1, 2]), 6) is None
    # A row whose label is dealt out anew is no longer what was marked.
    assert not token_labels(encoded.subset([2]), spans[2:])[0].any()
