"""`adapterprobe extract --read reply|statement`: pooled states are those of the very tokens that the table names."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterprobe.activations.store import open_states
from adapterprobe.cli import main

MODEL = ["--dtype", "fp32", "--device", "cpu"]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
ROWS = [
    {
        "index": place,
        "model": "other",
        "messages": [
            {"role": "system", "content": "Sell the thing."},
            {"role": "user", "content": f"Is item {place * 7919} any good?"},
            {"role": "assistant", "content": f"It is {'very ' * (place % 3)}good, all {place * 31} of it."},
        ],
        "deceptive": bool(place % 2),
    }
    for place in range(12)
]


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.fixture
def chat_folder(tiny_folder, tmp_path):
    """The tiny model with a chat template."""
    folder = tmp_path / "chatty"
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def by_hand(folder, text: str, start: int, stop: int, layer: int) -> np.ndarray:
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        return model(ids, output_hidden_states=True).hidden_states[layer][0, start:stop].numpy()


@pytest.mark.parametrize("pool", ["mean", "last", "rolling:3"])
def test_replies_are_read_at_their_tokens(chats, chat_folder, tmp_path, cache, pool, capsys):
    out = tmp_path / "states"
    argv = ["extract", "--data", str(chats), "--model", str(chat_folder), "--read", "reply", "--pool", pool, *MODEL]
    assert main([*argv, "--layers", "1-3", "--out", str(out)]) == 0
    table, states = pd.read_parquet(out / "prompts.parquet"), open_states(out)
    assert list(table["row"]) == list(range(12)) and list(table["label"]) == [int(r["deceptive"]) for r in ROWS]
    assert set(table["axis"]) == {"deception"} and set(table["pool"]) == {pool} and set(table["read"]) == {"reply"}
    tokenizer = AutoTokenizer.from_pretrained(chat_folder)
    for row, given in enumerate(ROWS):
        entry = table.iloc[row]
        assert entry["text"] == tokenizer.apply_chat_template(given["messages"], tokenize=False)
        start, stop = entry["token_start"], entry["token_stop"]
        assert tokenizer.decode(entry["tokens"][start:stop]) == given["messages"][-1]["content"]
        tokens = by_hand(chat_folder, entry["text"], start, stop, 2)
        if pool == "mean":
            expected = tokens.mean(0)
        elif pool == "last":
            expected = tokens[-1]
        else:
            expected = np.stack([tokens[i : i + 3].mean(0) for i in range(len(tokens) - 2)]).max(0)
        assert np.abs(states.layer(2)[row] - expected).max() < 1e-4 * np.abs(expected).max()
    assert main([*argv, "--layers", "1-3", "--out", str(out)]) == 0 and "is finished" in capsys.readouterr().err
    other = ["--pool", "first"] if pool != "first" else ["--pool", "max"]
    assert main([*argv, *other, "--layers", "1-3", "--out", str(out)]) == 2, "another read is another extraction"


def test_statements_stand_by_themselves(tiny_folder, tmp_path, cache):
    path = tmp_path / "claims.csv"
    claims = [f"The town of {word} is in France." for word in ("Lyon", "Nice", "Lima", "Oslo")]
    pd.DataFrame({"statement": claims, "label": [1, 1, 0, 0]}).to_csv(path, index=False)
    out = tmp_path / "s"
    argv = ["extract", "--model", str(tiny_folder), "--read", "statement", "--layers", "2", *MODEL]
    assert main([*argv, "--data", str(path), "--out", str(out)]) == 0
    table, states = pd.read_parquet(out / "prompts.parquet"), open_states(out)
    assert list(table["text"]) == claims and set(table["token_start"]) == {0} and list(table["label"]) == [1, 1, 0, 0]
    for row, claim in enumerate(claims):
        expected = by_hand(tiny_folder, claim, 0, None, 2)[-1]
        assert np.abs(states.layer(2)[row] - expected).max() < 1e-4 * np.abs(expected).max()
    assert main([*argv, "--data", "capitals", "--limit", "6", "--out", str(tmp_path / "c")]) == 0
    table = pd.read_parquet(tmp_path / "c" / "prompts.parquet")
    assert all(text[0].isupper() and text.endswith(".") for text in table["text"]) and set(table["label"]) == {0, 1}


@pytest.mark.parametrize(
    ("more", "match"),
    [
        (["--read", "reply", "--pool", "median"], "pool: expected one of last, first, mean, max, rolling:N"),
        (["--pool", "mean"], "pool say nothing where the answer is read"),
        (["--read", "reply", "--template", "ask"], "--template say how a question is asked"),
        (["--read", "reply", "--condition", "lie", "--system", "all"], "--condition, --system say how"),
        (["--read", "statement"], "'chats.jsonl' has no statements to read"),
        (["--read", "reply", "--format", "chatlm"], "did you mean 'chatml'"),
        (["--read", "reply", "--format", "chat"], "no chat template"),
        (["--read", "reply", "--data", "capitals"], "'capitals' has no replies to read"),
    ],
)
def test_reads_that_cannot_be(chats, tiny_folder, tmp_path, cache, capsys, more, match):
    argv = ["extract", "--data", str(chats), "--model", str(tiny_folder), *MODEL, "--out", str(tmp_path / "o"), *more]
    assert main(argv) == 2
    shown = capsys.readouterr().err
    assert match in shown and len(shown.strip().splitlines()) <= 2


def test_a_control_token_in_a_reply_is_named_by_its_line(tmp_path, tiny_folder, cache, capsys):
    rows = [dict(row) for row in ROWS]
    rows[4] = {**rows[4], "messages": [*rows[4]["messages"][:2], {"role": "assistant", "content": "Good.<eos>"}]}
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    argv = ["extract", "--data", str(path), "--model", str(tiny_folder), *MODEL, "--read", "reply"]
    assert main([*argv, "--out", str(tmp_path / "o")]) == 2
    assert "line 5" in (shown := capsys.readouterr().err) and "control token" in shown
