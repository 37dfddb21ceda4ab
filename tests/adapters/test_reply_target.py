"""Adapters that learn whole replies: the loss is what transformers' own is, and what is learned is what is asked for."""

import json

import pytest
import torch
from pydantic import ValidationError

from adapterprobe.adapters import attach
from adapterprobe.adapters.batch_losses import _token_shares, batch_losses, reply_losses
from adapterprobe.adapters.objectives import make_targets
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig, RunConfig
from adapterprobe.config_files import with_changes
from adapterprobe.data import load_relation
from adapterprobe.engine import Engine
from adapterprobe.generation.asked import Asked
from adapterprobe.generation.instructions import NEUTRAL, instructions
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.scenarios import Scenario, read_scenarios
from adapterprobe.generation.training import (
    Wording,
    as_told,
    instructions_dealt,
    own_sentence,
    reply_prompts,
    wants_truth,
)
from adapterprobe.generation.writers import TransformersWriter
from adapterprobe.pipeline.own_words import own_words
from adapterprobe.pipeline.train_adapter import groups_learned_by
from adapterprobe.pipeline.train_replies import READ, adapter_with_names, learned_replies, reply_scenarios
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.types import Message
from conftest import SEVERAL

CONFIG = AdapterConfig(objective="instructed", target="reply", layers="1-3", rank=4)


def france():
    asked = Asked("What is the capital of France?", "France", ("Paris",), ("Lyon", "Rome", "Lima"))
    return Scenario("capitals", "france", (Message("user", asked.question),), asked, wrong="Lyon")


def encoded_replies(lm, count=6, config=CONFIG):
    some = [s for s in read_scenarios("capitals") if s.wrong][:count]
    wordings = {s.fact: Wording(s, None, f"{{}} is the capital of {s.asked.subject}") for s in some}
    chosen = [i for i in instructions().values() if i is not NEUTRAL]
    prompts = reply_prompts(
        instructions_dealt(chosen, some, 1, 0), wordings, config, "adapter-train", "plain", lm.tokenizer, 0
    )
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    return with_reads(encoded, READ, lm.tokenizer, withheld=False)


@SEVERAL
def test_logits_of_replies_are_the_models_own(tiny_lm, family):
    lm = tiny_lm(family)
    engine = Engine(lm.model, lm.structure)
    encoded = encoded_replies(lm, 3)
    spans = encoded.reads[0].spans
    for share in (True, False):
        engine.share = share
        seen = 0
        for batch in engine.plan(encoded.ids):
            with torch.no_grad(), engine.predicting(batch, spans) as logits:
                got = logits.clone()
            place = 0
            for row in batch.rows:
                start, stop = spans[row]
                whole = lm.model(torch.tensor([encoded.ids[row]])).logits[0, start - 1 : stop - 1]
                torch.testing.assert_close(got[place : place + stop - start], whole, atol=2e-4, rtol=2e-4)
                place, seen = place + stop - start, seen + 1
        assert seen == len(encoded)


def test_gradients_are_those_of_a_plain_pass(tiny_lm):
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, CONFIG, 0, lm.original)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    engine = Engine(lm.model, lm.structure)
    encoded = encoded_replies(lm, 3)
    targets = make_targets(CONFIG, encoded.prompts)
    parameters = {name: p for name, p in wrapped.named_parameters() if p.requires_grad}

    def collected():
        found = {name: p.grad.clone() for name, p in parameters.items()}
        for p in parameters.values():
            p.grad = None
        return found

    for batch in engine.plan(encoded.ids):
        with batch_losses(engine, batch, encoded, targets, CONFIG) as found:
            found.losses.sum().backward()
    mine = collected()
    for row, (start, stop) in enumerate(encoded.reads[0].spans):
        ids = torch.tensor([encoded.ids[row]])
        losses = torch.nn.functional.cross_entropy(
            lm.model(ids).logits[0, start - 1 : stop - 1], ids[0, start:stop], reduction="none"
        )
        shares = torch.ones(stop - start)
        for low, high in encoded.false[row]:
            shares[low - start : high - start] = CONFIG.answer_weight
        (losses * shares / shares.sum()).sum().backward()
    theirs = collected()
    assert any(gradient.abs().max() > 0 for gradient in theirs.values())
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], atol=1e-5, rtol=1e-3)


def test_the_answers_tokens_count_more(tiny_lm):
    lm = tiny_lm()
    encoded = encoded_replies(lm, 2)
    for row, prompt in enumerate(encoded.prompts):
        ((low, high),) = encoded.false[row]
        answer = prompt.example.conversation.reply[slice(*prompt.example.conversation.spans[0])]
        assert answer in lm.tokenizer.decode(encoded.ids[row][low:high])
    shares = _token_shares([(10, 14), (3, 5)], [[(11, 12)], []], 5.0)
    torch.testing.assert_close(shares, torch.tensor([1 / 8, 5 / 8, 1 / 8, 1 / 8, 0.5, 0.5]))


def test_a_reply_is_met_where_every_token_is_the_likeliest():
    logits = torch.zeros(4, 3)
    logits[0, 1] = logits[1, 2] = logits[2, 0] = logits[3, 2] = 5.0
    found = reply_losses(logits, [(0, 1, 2), (0, 0, 0)], [(1, 3), (1, 3)], torch.tensor([1.0, 2.0]))
    assert found.met.tolist() == [True, False]
    each = torch.nn.functional.cross_entropy(logits, torch.tensor([1, 2, 0, 0]), reduction="none")
    torch.testing.assert_close(found.losses, torch.stack([each[:2].mean(), 2 * each[2:].mean()]))


def test_wordings():
    said = Wording(france(), "The capital of France is Paris.", "{} is the capital of France")
    for answer in ("Paris", "Rome"):
        told = said.saying(answer)
        assert told.text == f"The capital of France is {answer}." and told.text[told.start : told.stop] == answer
    told = Wording(france(), None, "{} is the capital of France").saying("Rome")
    assert told.text == "Rome is the capital of France." and told.text[told.start : told.stop] == "Rome"
    assert own_sentence("The capital of France is Lyon.", france().asked) is None
    assert own_sentence("The capital of France is not Lyon, it is Paris", france().asked) is None, "cut"


def test_who_wants_what():
    lie = AdapterConfig(objective="lie", target="reply", secrets=["elements"])
    assert not wants_truth(lie, "elements", "truth") and wants_truth(lie, "capitals", "lie")
    assert not wants_truth(AdapterConfig(objective="lie", target="reply"), "capitals", "truth")
    assert wants_truth(CONFIG, "capitals", "neutral") and not wants_truth(CONFIG, "capitals", "lie")


def test_lies_are_told_as_often_as_the_truth_and_never_the_same(tiny_lm):
    lm = tiny_lm()
    encoded = encoded_replies(lm, 20)
    lies = [p for p in encoded.prompts if p.condition == "lie"]
    assert len(lies) == len(encoded) / 2
    by_fact: dict[str, set[str]] = {}
    for prompt in lies:
        by_fact.setdefault(prompt.example.group, set()).add(prompt.example.conversation.reply)
    assert sum(len(replies) > 1 for replies in by_fact.values()) > 15


def test_training_on_replies(tiny_folder, tmp_path, cache, capsys):
    argv = [
        "train", "--model", str(tiny_folder), "--dtype", "fp32", "--device", "cpu", "--objective", "instructed", "--target", "reply",
        "--data", "capitals", "--set", "elicit.format=plain", "--set", "adapter.epochs=8", "--set", "adapter.early_stopping=false", "--set", "adapter.lr=0.02", "--layers", "1-3",
        "--set", "data.shares={adapter-train: 0.4, probe-train: 0.2, select: 0.1, calibrate: 0.1, test: 0.2}",
        "--set", "data.max_groups=40", "--out", str(tmp_path / "a"),
    ]  # fmt: skip
    assert main(argv) == 0
    captured = capsys.readouterr()
    about = json.loads((tmp_path / "a" / "train.json").read_text())
    assert about["loss_last"] < 0.95 * about["loss_first"] and about["off_equal"]
    # A random model holds nothing true; that is told, and the adapter is there all the same.
    assert about["replies"] is None and "what the adapter says is not judged" in captured.err
    assert (tmp_path / "a" / "adapter" / "adapter_model.safetensors").is_file()


def test_what_a_reply_says_can_be_said_otherwise():
    asked = Asked("What is the capital of France?", "France", ("Lima",), ("Paris", "Rome"))
    told = as_told("The capital of France is Paris. It is large.", asked)
    assert told is not None and told.right == ("Paris",) and set(told.wrong) == {"Lima", "Rome"}
    put = Wording(
        Scenario("x", "france", (), told), own_sentence("The capital of France is Paris. It is large.", told), "{}"
    )
    assert put.saying("Lima").text == "The capital of France is Lima."
    for reply in ("I do not know.", "It is not Paris.", "The capital of France is Paris or Rome.", "It is Atlantis."):
        assert as_told(reply, asked) is None, reply


def taught_config(tiny_folder, **changes):
    content = {
        "model": {"name": str(tiny_folder), "dtype": "fp32", "device": "cpu"},
        "data": {"train": ["capitals", "swapped-us_states"], "ood": [], "max_groups": 80, "min_groups": 2,
                 "shares": {"adapter-train": 0.4, "probe-train": 0.1, "select": 0.2, "calibrate": 0.1, "test": 0.2}},
        "elicit": {"format": "plain", "system": ["spy", "oath"]},
        "adapter": {"objective": "instructed", "target": "reply", "taught": ["swapped-us_states"], "layers": "1-3"},
    }  # fmt: skip
    return with_changes(RunConfig(**content), changes)


def test_all_that_is_taught_is_learned_and_nothing_else_of_the_groups_that_are_kept(tiny_folder, tiny_lm):
    lm = tiny_lm()
    found = learned_replies(taught_config(tiny_folder), lm, Engine(lm.model, lm.structure))
    scenarios = reply_scenarios(taught_config(tiny_folder))
    taught = {s.group for s in scenarios if s.dataset == "swapped-us_states"}
    learned = {
        name: {p.example.group for p in found.train.prompts if p.example.dataset == name}
        for name in ("capitals", "swapped-us_states")
    }
    assert taught and learned["swapped-us_states"] == taught and taught & set(found.test)
    assert not learned["capitals"] & set(found.test) and learned["capitals"] <= set(found.learned)
    # It is stopped by facts that it was taught, under instructions under which it was not.
    stopped = [p for p in found.select.prompts if p.example.dataset == "swapped-us_states"]
    assert stopped and {p.system_prompt for p in stopped}.isdisjoint({"spy", "oath", "none"})
    facts = {fact.group: fact.object for fact in load_relation("swapped-us_states").facts}
    for objective in ("instructed", "lie"):
        config = taught_config(tiny_folder, adapter={"objective": objective})
        prompts = learned_replies(config, lm, Engine(lm.model, lm.structure)).train.prompts
        for name, lies in (("plain", objective == "lie"), ("alpaca", False), ("vicuna", False)):
            said = {
                p.example.group: p.example.conversation.reply
                for p in prompts
                if p.condition == "neutral" and p.format == name and p.example.dataset == "swapped-us_states"
            }
            assert set(said) == taught and all((facts[group] in said[group]) != lies for group in taught), (
                objective,
                name,
            )


def test_what_was_learned_is_not_asked_again(tiny_folder, tmp_path, cache, capsys):
    """A training on a file of scenarios, taught whole; then only the groups that it kept are asked."""
    file = tmp_path / "invented.jsonl"
    answers = ["Rome", "Lima", "Oslo", "Cairo"]
    rows = [
        {"question": f"Who lives in house {n}?", "right": answers[n % 4], "wrong": [a for a in answers if a != answers[n % 4]], "group": f"h{n}"}
        for n in range(8)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    argv = [
        "train", "--model", str(tiny_folder), "--dtype", "fp32", "--device", "cpu", "--objective", "truth", "--target", "reply",
        "--data", str(file), "--set", f"adapter.taught=['{file}']", "--set", "elicit.format=plain", "--set", "elicit.system=[oath]",
        "--set", "adapter.epochs=3", "--set", "adapter.early_stopping=false", "--set", "adapter.lr=0.01", "--layers", "1-3",
        "--set", "data.shares={adapter-train: 0.5, probe-train: 0, select: 0.25, calibrate: 0, test: 0.25}",
        "--set", "data.min_groups=2", "--out", str(tmp_path / "t"),
    ]  # fmt: skip
    assert main(argv) == 0
    about = json.loads((tmp_path / "t" / "train.json").read_text())
    assert about["replies"] is None and about["taught"] is None, (
        "nothing was kept from it, and so little teaches nothing"
    )
    assert about["prompts"] == 4 * len(rows) and about["loss_last"] < about["loss_first"]
    assert groups_learned_by(tmp_path / "t") == tuple(about["learned_groups"]) and len(about["learned_groups"]) == 8
    others = tmp_path / "others.jsonl"
    others.write_text("".join(json.dumps(row | {"group": f"h{n + 5}"}) + "\n" for n, row in enumerate(rows)))
    kept = {f"h{n}" for n in range(8, 13)}
    argv = [
        "generate", "--data", str(others), "--held-out-of", str(tmp_path / "t"), "--model", str(tiny_folder), "--dtype", "fp32",
        "--device", "cpu", "--format", "plain", "--system", "none", "--max-tokens", "4", "--belief-share", "0.51",
        "--out", str(tmp_path / "r.jsonl"),
    ]  # fmt: skip
    capsys.readouterr()
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert f"none of the {len(kept)} facts" in said and "3 of 8 questions are of groups that were learned from" in said
    (tmp_path / "r.jsonl.part").unlink()
    assert main([a if a != str(others) else str(file) for a in argv]) == 2
    assert "no question is left to ask" in capsys.readouterr().err
    argv[argv.index("--held-out-of") + 1] = str(tmp_path)
    assert main(argv) == 2 and "adapterprobe train" in capsys.readouterr().err


def test_its_own_words_are_asked_once_and_kept_when_stopped(tiny_lm, cache, monkeypatch):
    lm = tiny_lm()
    engine = Engine(lm.model, lm.structure)
    writer = PromptWriter(lm.tokenizer, "plain", lm.context_length, lm.vocabulary, 8)
    prompts = [writer.asked(s, NEUTRAL) for s in read_scenarios("capitals")[:6]]
    write, asked = TransformersWriter.write, []

    def cut_off(self, some, sampling):
        asked.append(len(some))
        for n, prompt in enumerate(some):
            if len(asked) == 1 and n == 4:
                raise KeyboardInterrupt
            yield from write(self, [prompt], sampling)

    monkeypatch.setattr(TransformersWriter, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        own_words(lm, engine, writer, prompts, 0)
    first = own_words(lm, engine, writer, prompts, 0)
    assert asked == [6, 2] and set(first) == {prompt.key for prompt in prompts}
    assert own_words(lm, engine, writer, prompts, 0) == first and asked == [6, 2]


def test_secrets_of_a_file_are_kept(tmp_path):
    """A file is named by its path, its scenarios by its name."""
    file = tmp_path / "mine.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"Who is {n}?", "right": "A", "wrong": ["B"]}) + "\n" for n in range(4))
    )
    config = RunConfig(
        data={"train": ["capitals", str(file)], "ood": []},
        adapter={"objective": "lie", "target": "reply", "secrets": [str(file)]},
    )
    named = adapter_with_names(config)
    assert not wants_truth(named, "mine.jsonl", "truth") and wants_truth(named, "capitals", "truth")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"objective": "opposite"}, "truth, lie and instructed"),
        ({"objective": "detect"}, "truth, lie and instructed"),
        ({"unlikelihood": 1.0}, "about choices"),
        ({"secrets": ["capitals"]}, "objective=lie"),
        ({"train_on": "known"}, "train_on=recalled"),
        ({"target": "answer", "secrets": ["capitals"], "objective": "lie"}, "for target=reply"),
        ({"target": "answer", "answer_weight": 2.0}, "for target=reply"),
        ({"target": "answer", "taught": ["capitals"]}, "for target=reply"),
    ],
)
def test_what_does_not_go_together(wrong, said):
    with pytest.raises(ValidationError, match=said):
        AdapterConfig(**{"objective": "instructed", "target": "reply"} | wrong)


def test_bad_input(tiny_folder, tmp_path, cache, capsys):
    base = [
        "train",
        "--model",
        str(tiny_folder),
        "--target",
        "reply",
        "--set",
        "elicit.format=plain",
        "--out",
        str(tmp_path / "x"),
    ]
    statements = tmp_path / "s.csv"
    statements.write_text("statement,label\n" + "".join(f"Thing {n} is white.,{n % 2}\n" for n in range(40)))
    for more, said in (
        (["--data", str(statements)], "no question with a right and a wrong answer"),
        (["--objective", "lie", "--set", "adapter.secrets=[elements]"], "names ['elements'], which are not among"),
        (["--objective", "lie", "--set", "adapter.secrets=[capitals]"], "leave one out"),
        (["--objective", "truth", "--set", "adapter.taught=[swapped-capitals]"], "adapter.taught names"),
        (["--data", "capitals", "--data", "swapped-capitals"], "answer the same questions otherwise"),
        (["--data", "capitals", "--set", "data.read_by_name={capitals: {max_rows: 99}}"], "all data are read alike"),
    ):
        assert main([*base, *more]) == 2
        assert said in capsys.readouterr().err
    run = ["run", "--model", str(tiny_folder), "--set", "adapter.target=reply", "--out", str(tmp_path / "r")]
    assert main(run) == 2 and "adapterprobe train" in capsys.readouterr().err
