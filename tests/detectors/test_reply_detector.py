"""A packed detector of replies: conversations, single tokens, and a threshold for whole conversations."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from adapterprobe.cli import main
from adapterprobe.cli.chat import shaded
from adapterprobe.detectors.detector import Detector
from adapterprobe.errors import DataError, ModelError
from adapterprobe.models import load_model
from adapterprobe.terminal import printable
from reply_detectors import TEMPLATE, talk


@pytest.fixture
def packed(reply_detectors):
    return reply_detectors


@pytest.fixture
def lm(packed, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(packed / "cache"))
    return load_model(str(packed / "chatty"), device="cpu", dtype="fp32")


def test_conversations_are_scored_as_the_run_scored_them(packed, lm, tmp_path):
    talks = [talk(n, n % 2 == 0) for n in range(6)]
    file = tmp_path / "new.jsonl"
    file.write_text("\n".join(json.dumps({"messages": t}) for t in talks))
    assert main(["score", str(packed / "out"), str(file), "--out", str(tmp_path / "run.jsonl")]) == 0
    theirs = [json.loads(line)["detectors"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    for name, key in (("on", "adapter+probe (logistic)"), ("tokens", "base+probe (token_logistic)"), ("own", "base")):
        d = Detector.load(packed / name, lm)
        np.testing.assert_allclose(d.score(talks)["score"], [row[key]["score"] for row in theirs], atol=2e-5)
        assert d.record.axis == "deception" and set(d.score(talks)["answer"].dropna()) <= {
            "honest",
            "deceptive",
            "don't know",
        }
    one = d.score(talks[0])
    assert len(one) == 1 and one["score"][0] == pytest.approx(theirs[0]["base"]["score"], abs=2e-5)


def test_every_token_of_a_reply(packed, lm):
    d = Detector.load(packed / "on", lm)
    reply = talk(3, True)[-1]["content"]
    table = d.tokens(talk(3, True))
    assert "".join(table["token"]) == reply and table["score"].between(0, 1).all()
    assert all(reply[row.start : row.stop] == row.token for row in table.itertuples())
    # A mean-pooled linear probe's log-odds are the mean of its tokens'.
    logit = np.log(table["score"] / (1 - table["score"])).mean()
    score = d.score([talk(3, True)])["score"][0]
    assert logit == pytest.approx(np.log(score / (1 - score)), abs=1e-3)
    assert len(Detector.load(packed / "tokens", lm).tokens(talk(3, True))) == len(table)
    with pytest.raises(DataError, match="no score for a single token"):
        Detector.load(packed / "own", lm).tokens(talk(3, True))
    with pytest.raises(DataError, match="one conversation at a time, got 2"):
        d.tokens([talk(1, True), talk(2, True)])


def test_in_a_notebook(packed, lm):
    d = Detector.load(packed / "off", lm)
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<b>It is</b> so.\nYes \x1b[31m"}]
    table = d.tokens(asked)
    page = table._repr_html_()
    text = re.sub("<[^>]*>", "", page.split("</div>")[0])
    assert text == "&lt;b&gt;It is&lt;/b&gt; so.\nYes \\x1b[31m" and page.count("<span") == len(table)
    assert f'title="{table["score"][0]:.3f}"' in page and f"mean score {table['score'].mean():.3f}" in page
    # What is made of it is a plain table.
    assert "background" not in (table.sort_values("score")._repr_html_() or "")
    page = d._repr_html_()
    assert "base+probe" in page and f"{d.threshold.value:.3f}" in page and "equal" in page
    assert "not replayed" in Detector.load(packed / "off", lm, verify=False)._repr_html_()


def test_a_threshold_for_whole_conversations(packed, lm):
    d = Detector.load(packed / "on", lm)
    talks = [[*talk(n, False), *talk(n + 100, False), *talk(n + 200, False)] for n in range(60)]
    fixed = d.calibrate(talks, 0.05, per="conversation")
    each = np.array([[d.score([t[:stop]])["score"][0] for stop in (2, 4, 6)] for t in talks[:3]])
    np.testing.assert_allclose(d.conversation_scores(talks[:3]), each.max(1), atol=1e-5)
    assert fixed.threshold.per == "conversation" and fixed.threshold.benign == 60
    assert (d.conversation_scores(talks) > fixed.threshold.value).sum() == fixed.threshold.alarms
    with pytest.raises(DataError, match="conversation 0 has no turn of the assistant"):
        d.conversation_scores([[{"role": "user", "content": "x"}]])


def test_what_is_no_conversation(packed, lm):
    d = Detector.load(packed / "on", lm)
    with pytest.raises(DataError, match="is a text, and this detector reads replies"):
        d.score(["just a text"])
    with pytest.raises(DataError, match="give conversations that end with the assistant's turn"):
        d.score([[{"role": "user", "content": "x"}]])
    lm.tokenizer.chat_template = TEMPLATE.replace("<eos>", "")
    with pytest.raises(ModelError, match="another chat template"):
        Detector.load(packed / "on", lm)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 9},
        {"max_new_tokens": 12, "do_sample": True, "temperature": 2.0},
        {
            "max_new_tokens": 12,
            "do_sample": True,
            "temperature": 3.0,
            "top_k": 7,
            "top_p": 0.9,
            "repetition_penalty": 1.3,
        },
        {"max_new_tokens": 12, "min_new_tokens": 12, "no_repeat_ngram_size": 2},
    ],
)
def test_watched_while_it_writes(packed, lm, options):
    """The tokens are those that `generate` gives by itself, and their scores those of the finished text."""
    d = Detector.load(packed / "off", lm)
    context = talk(5, False)[:1]
    torch.manual_seed(11)
    watched = list(d.watch(context, **options))
    text = "".join(token.text for token in watched)
    ids = lm.tokenizer(
        f"<user>{context[0]['content']}<eos><assistant>", add_special_tokens=False, return_tensors="pt"
    ).input_ids
    torch.manual_seed(11)
    alone = lm.model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **options)[0, ids.shape[1] :]
    alone = [token for token in alone.tolist() if token != lm.tokenizer.eos_token_id]
    # Bytes that are no whole character when the reply ends are shown by nobody.
    assert lm.tokenizer.decode(alone).rstrip("\ufffd") == text and len(watched) == len(alone)
    states = lm.model(torch.tensor([[*ids[0].tolist(), *alone]]), output_hidden_states=True).hidden_states[
        d.record.seen.layer
    ]
    mine = states[0, ids.shape[1] :].detach().numpy()
    each = d.needs.probe.predict_proba(mine)[:, 1]
    np.testing.assert_allclose([token.score for token in watched], each, atol=1e-4)
    whole = d.needs.probe.predict_proba(mine.mean(0, keepdims=True))[0, 1]
    assert watched[-1].so_far == pytest.approx(whole, abs=1e-4)
    assert [t.alarm for t in watched] == [t.so_far > d.threshold.value for t in watched]


def test_whoever_stops_watching_stops_the_writing(packed, lm):
    d = Detector.load(packed / "off", lm)
    passes = []
    handle = lm.model.register_forward_hook(lambda *_: passes.append(1))
    hooks = lm.structure.blocks[d.record.seen.layer - 1]._forward_hooks
    try:
        for token in d.watch(talk(5, False)[:1], max_new_tokens=400):
            assert 0 <= token.score <= 1
            assert not any("residual_states" in repr(hook) for hook in hooks.values()), (
                "the model is free between two tokens"
            )
            break
    finally:
        handle.remove()
    assert len(passes) == 2, "the prompt, and the token that was asked for"
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_the_model_may_be_used_between_two_tokens(packed, lm):
    d = Detector.load(packed / "off", lm)
    context = talk(5, False)[:1]
    alone = list(d.watch(context, max_new_tokens=5))
    beside = []
    for token in d.watch(context, max_new_tokens=5):
        d.score([talk(9, True)])
        beside.append(token)
    assert beside == alone


def test_what_cannot_be_watched(packed, lm):
    d = Detector.load(packed / "off", lm)
    with pytest.raises(DataError, match="ends with the assistant's turn"):
        d.watch(talk(1, False))
    with pytest.raises(DataError, match="expected a conversation"):
        d.watch("hello")
    with pytest.raises(DataError, match="message 0: 'content' is not UTF-8"):
        d.watch([{"role": "user", "content": "half a pair \ud800"}])
    with pytest.raises(DataError, match="message 0: 'content' is 3, expected a text"):
        d.watch([{"role": "user", "content": 3}])
    with pytest.raises(DataError, match="with its adapter on"):
        Detector.load(packed / "on", lm).watch(talk(1, False)[:1])
    with pytest.raises(DataError, match="control token"):
        d.watch([{"role": "user", "content": "So.<eos>"}])
    for several in (
        {"num_beams": 2},
        {"num_return_sequences": 2, "do_sample": True},
        {"use_cache": False},
        {"prompt_lookup_num_tokens": 3},
        {"assistant_model": lm.model},
        {"streamer": object()},
    ):
        with pytest.raises(DataError, match="as one reply, token by token"):
            list(d.watch(talk(1, False)[:1], max_new_tokens=4, **several))
    with pytest.raises(ValueError, match="no_such_option"):
        list(d.watch(talk(1, False)[:1], no_such_option=3))


def test_a_page_of_stored_conversations(packed, lm, tmp_path, capsys):
    talks = [talk(n, n % 2 == 0) for n in range(4)]
    talks[2][0]["content"] = "<script>alert(1)</script>"
    file = tmp_path / "t.jsonl"
    file.write_text("\n".join(json.dumps({"messages": t}) for t in talks))
    argv = [
        "watch",
        str(packed / "off"),
        str(file),
        "--model",
        str(packed / "chatty"),
        "--html",
        str(tmp_path / "w.html"),
    ]
    assert main([*argv, "--limit", "3"]) == 0
    page = (tmp_path / "w.html").read_text()
    assert "3 conversations watched" in page and "<script" not in page and "&lt;script&gt;" in page
    assert "default-src 'none'" in page and "http" not in page.split("</style>")[1].replace("http-equiv", "")
    d = Detector.load(packed / "off", lm)
    shown = re.findall(r'<span class="t(\d+)" title="([\d.]+)">', page)
    scores = [score for t in talks[:3] for score in d.tokens(t)["score"]]
    np.testing.assert_allclose([float(title) for _, title in shown], scores, atol=6e-4)
    assert [int(step) for step, _ in shown] == [round(float(s) * 10) for s in scores]
    assert main([*argv, "--limit", "0"]) == 2
    file.write_text(json.dumps({"messages": talks[0][:1]}))
    assert main(argv) == 2 and "row 1" in capsys.readouterr().err


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_a_chat_says_whether_the_reply_as_a_whole_is_an_alarm(packed, lm, tmp_path, monkeypatch, capsys, threshold):
    d = Detector.load(packed / "off", lm)
    bound = d.threshold.model_copy(update={"value": threshold})
    folder = replace(d, record=d.record.model_copy(update={"threshold": bound})).save(tmp_path / "bound")
    said = iter(["In which land is town 5?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    assert main(["chat", str(folder), "--model", str(packed / "chatty"), "--max-new-tokens", "6"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        re.fullmatch(r"\[score 0\.\d{3} for deception\]", last)
        if threshold
        else "above the threshold since token 1 of " in last
    )
    assert last.startswith("[ALARM") == (threshold == 0.0)


def test_a_chat(packed, lm, monkeypatch, capsys):
    said = iter(["In which land is town 5?", "Are you sure?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    argv = ["chat", str(packed / "off"), "--model", str(packed / "chatty"), "--max-new-tokens", "6"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.count("for deception") == 2 and "\x1b[" not in out
    d = Detector.load(packed / "off", lm)
    first = "".join(
        t.text for t in d.watch([{"role": "user", "content": "In which land is town 5?"}], max_new_tokens=6)
    )
    assert out.startswith(printable(first))
    monkeypatch.setattr("builtins.input", lambda prompt: (_ for _ in ()).throw(EOFError))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(argv) == 0 and main([*argv, "--temperature", "-1"]) == 2
    assert shaded("x", 0.0) == "x" and "48;5;196" in shaded("x", 1.0)
