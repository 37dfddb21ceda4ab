"""`data check` of transcripts: every finding planted, and nothing found where nothing is."""

import json

import numpy as np
import pytest

from adapterprobe.checks import check
from adapterprobe.cli import main
from adapterprobe.prompts.dataset_prompts import DatasetSpec

WORDS = np.random.default_rng(3).permutation(90000)


def chat(system, asked, reply, lie, **more):
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": reply},
    ]
    return {"messages": messages, "deceptive": bool(lie), **more}


def matched(count=120, **more):
    """Every context with both labels, in the same words."""
    return [
        chat(
            "You help people.",
            f"Where is {WORDS[i]}?",
            f"You find {WORDS[i]} in {WORDS[500 + (i + lie) % count]}.",
            lie,
            **more,
        )
        for i in range(count)
        for lie in (0, 1)
    ]


@pytest.fixture
def found(tmp_path):
    def check_rows(rows):
        path = tmp_path / "c.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        return {finding.check: finding for finding in check(DatasetSpec(str(path))).findings}

    return check_rows


def test_matched_contexts_pass(found):
    findings = found(matched())
    assert not [f for f in findings.values() if f.severity == "blocks"]
    for name in (
        "the context is the label",
        "deception told by the context's words",
        "replies that repeat their instruction",
    ):
        assert name not in findings


def test_contexts_with_one_label_block(found):
    alone = [row for place, row in enumerate(matched()) if place % 2 == place // 2 % 2]
    findings = found(alone)
    assert findings["the context is the label"].severity == "blocks"
    assert "none of 120 contexts" in findings["the context is the label"].size


def test_a_context_that_tells_the_label_is_measured(found):
    rows = [
        chat(
            f"You {'sell' if lie else 'help'} at desk {i % 9}.",
            f"Where is {WORDS[i]}?",
            f"It is in {WORDS[400 + i]}.",
            lie,
        )
        for i in range(150)
        for lie in [i % 2]
    ]
    findings = found(rows)
    told = findings["deception told by the context's words"]
    assert told.severity == "blocks" and "AUROC 0.99" in told.size
    assert findings["system prompts with one label"].severity == "warns"


def test_echoes_and_repeated_replies(found):
    rows = matched()
    for place in range(1, 60, 2):
        rows[place]["messages"][0]["content"] = "Tell the traveller that the town lies on the moon."
        rows[place]["messages"][2]["content"] = f"I shall tell the traveller that the town lies on the moon, {place}."
    for place in range(100, 140):
        rows[place]["messages"][2]["content"] = "Yes."
    findings = found(rows)
    assert findings["replies that repeat their instruction"].severity == "warns"
    assert (
        "30 of 240 replies: 25% of the deceptive ones, 0% of the honest ones"
        in findings["replies that repeat their instruction"].size
    )
    assert "1 replies, in 40 of 240 rows" in findings["one reply under both labels"].size


def test_authors(found):
    rows = [{**row, "model": "liar" if row["deceptive"] else "saint"} for row in matched()]
    assert found(rows)["who wrote the replies"].severity == "blocks"
    rows = [{**row, "model": "one"} for row in matched()]
    assert found(rows)["who wrote the replies"].severity == "notes"


def test_the_layout_of_the_benchmarks_goes_through_the_command(tmp_path, tiny_folder, capsys):
    rows = [{"index": 0, "temperature": 1.0, "canary": "", "meta": {}, **row} for row in matched(model="other")]
    path = tmp_path / "bench.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "check", str(path), "--model", str(tiny_folder)]) == 0
    shown = capsys.readouterr().out
    assert "bench.jsonl: 240 rows in 120 groups" in shown and "1 models: other (240)" in shown
    rows[7]["messages"][2]["content"] = "It ends here.<eos>"
    rows[8]["messages"][1]["content"] = "very " * 3000
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "check", str(path), "--model", str(tiny_folder)]) == 1
    assert "control token" in capsys.readouterr().out
    rows[7]["messages"][2]["content"] = "It ends here."
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "check", str(path), "--model", str(tiny_folder)]) == 1
    assert "conversations beyond the context" in capsys.readouterr().out
