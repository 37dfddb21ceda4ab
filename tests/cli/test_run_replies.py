"""`adapterprobe run --data chats.jsonl`: a whole comparison over replies on a tiny model, its files, its report, and `score`."""

import json

import numpy as np
import pandas as pd
import pytest
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from adapterprobe.cli import main
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config, with_changes
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.evaluate.controls import SWAPPED
from adapterprobe.evaluate.schema import ARMS, BASELINES, COLUMNS, HEAD, READ_COLUMNS, WITHHELD, WITHHELD_ON
from adapterprobe.prompts.reading import reading_found
from adapterprobe.report import preliminary
from chats import NAMES, PLACES, TEMPLATE, chatty, rows, write
from conftest import FAMILIES

CONTROLS = (WITHHELD, WITHHELD_ON)


def stranger(tiny_folder, folder):
    """Another model, of another family, with fewer blocks and a template of its own."""
    config = CONFIG_MAPPING["gpt2"](**FAMILIES["gpt2"] | {"n_layer": 3}, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = TEMPLATE.replace("<{{ m.role }}>", "{{ m.role }}: ").replace("<assistant>", "assistant: ")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("replies")
    model = chatty(tiny_folder, base / "chatty")
    write(base / "chats.jsonl", rows())
    write(
        base / "others.jsonl",
        [{**r, "group": f"other {r['group']}"} for r in rows([f"New {n}" for n in NAMES[:12]], "someone")],
    )
    argv = [
        "run",
        "--data",
        str(base / "chats.jsonl"),
        "--ood",
        str(base / "others.jsonl"),
        "--model",
        str(model),
        "--dtype",
        "fp32",
    ]
    for setting in (
        "adapter.layers=1-3", "adapter.epochs=2", "adapter.rank=4", "seeds=[0,1]", "probes=[logistic,mass_mean,attention,token_logistic]",
        f"evaluate.stranger={stranger(tiny_folder, base / 'stranger')}", "evaluate.baselines=[tfidf,followups]",
        "select.strengths=[0.01,1.0]", "select.curve=[]", "evaluate.resamples=1000", "data.min_groups=4", "evaluate.adapter_controls=false",
    ):  # fmt: skip
        argv += ["--set", setting]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
        # The finished run's report takes the preliminary one's place: kept here beside it.
        patch.setattr(
            preliminary, "write_atomic", lambda path, text: (base / f"preliminary{path.suffix}").write_text(text)
        )
        assert main([*argv, "--out", str(base / "out")]) == 0
    return base


def test_the_preliminary_report_says_who_wrote_the_replies(finished):
    """As the finished one does, for the first seed."""
    early, whole = (finished / "preliminary.md").read_text(), (finished / "out" / "report.md").read_text()
    assert early.count("Preliminary") == 1 and "Preliminary" not in whole
    (said,) = [line for line in whole.splitlines() if "off-policy" in line][:1]
    authorship = said.split(". ")[0]
    assert authorship in early, (authorship, early[:600])
    assert "| stranger+probe |" in early and "| tfidf |" in early


def test_predictions_are_about_deception(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    assert list(frame.columns) == [*COLUMNS, *READ_COLUMNS] and set(frame["axis"]) == {"deception"}
    assert set(frame["read"]) == {"reply"} and set(frame["pool"]) == {"mean"} and set(frame["condition"]) == {"neutral"}
    assert (
        set(frame["arm"]) == set(ARMS) - {HEAD}
        and frame["score"].between(0, 1).all()
        and frame["label"].isin([0, 1]).all()
    )
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").set_index("prompt_id")
    said = frame["prompt_id"].map(sent["turn"])
    for name, place in zip(NAMES, range(len(NAMES)), strict=True):
        mine = frame[said.str.contains(f"town of {name} ")]
        true = said[mine.index].str.contains(PLACES[place % len(PLACES)])
        assert ((mine["label"] == 1) == ~true).all(), "label 1 is a deceptive reply, whatever the follow-up asks"
    assert not frame.loc[frame["split"] == "ood", "on_policy"].any() and set(frame["template"]) >= {
        "deceive",
        "sincere",
    }
    trained = set(frame.loc[frame["split"] == "calibrate", "group"])
    assert not trained & set(frame.loc[frame["split"] != "calibrate", "group"])


def test_the_models_own_answer_is_turned_where_no_means_deceptive(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").set_index("prompt_id")
    base = frame[(frame["arm"] == "base") & (frame["seed"] == 0)].set_index("prompt_id")
    assert np.allclose(base["score"], sent.loc[base.index, "p_positive_off"])
    asked = sent.loc[base.index]
    deceptive = asked["text"].str.contains("meant to deceive|know is not true")
    assert (asked.loc[deceptive, "positive"] == "Yes").all() and (asked.loc[~deceptive, "positive"] == "No").all()
    assert deceptive.any() and (~deceptive).any(), "both polarities are asked"


def test_the_withheld_reply_is_the_same_for_both_replies_to_a_context(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").set_index("prompt_id")
    before = sent.apply(lambda r: r["text"][: r["read_start"]], axis=1)
    for arm, same in ((WITHHELD, True), (WITHHELD_ON, True), ("base+probe", False)):
        mine = frame[(frame["arm"] == arm) & (frame["seed"] == 0) & (frame["probe"] == "logistic")]
        spread = mine.groupby(mine["prompt_id"].map(before))["score"].agg(lambda s: s.max() - s.min())
        assert (spread < 1e-4).all() if same else (spread > 1e-4).any()
    results = json.loads((finished / "out" / "results.json").read_text())
    chance = [r for r in results if r["arm"] in CONTROLS and r["metric"] == "auroc" and r["probe"] == "logistic"]
    assert chance and all(abs(r["estimate"] - 0.5) < 0.02 for r in chance), (
        "where contexts are matched it can tell nothing"
    )


def test_what_the_report_says_first(finished):
    text = (finished / "out" / "report.md").read_text()
    lead = text.split("\n\n")[1]
    assert "off-policy: written by" in lead and "someone" in lead
    assert "reads the reply" in lead and "AUROC for deception" in lead
    page = (finished / "out" / "report.html").read_text()
    assert "Token by token" in page and 'class="s' in page and "Score along the reply" in page
    assert "What is really detected" not in page and "what the model knows" not in page.lower()
    about = json.loads((finished / "out" / "about.json").read_text())
    (test,) = (e for e in about["replies"] if e["split"] == "test")
    assert test["matched"] == test["contexts"] == test["replies"] / 2 and test["authors"] == {"tiny": test["replies"]}
    verdicts = json.loads((finished / "out" / "verdicts.json").read_text())
    assert f"base+probe > {WITHHELD} on test" in {v["hypothesis"] for v in verdicts} and len(verdicts) == 9
    challenge = json.loads((finished / "out" / "challenge.json").read_text())
    assert {r["pool"] for r in challenge["pools"]} == {"mean", "last", "first", "max", "rolling:8"}
    assert {r["shift"] for r in challenge["shifts"]} == {"no system prompt", "another format"}
    main_pool = {(r["split"]): r["auroc"] for r in challenge["pools"] if r["pool"] == "mean"}
    results = json.loads((finished / "out" / "results.json").read_text())
    for record in results:
        if (record["arm"], record["probe"], record["metric"], record["condition"]) == (
            "base+probe",
            "logistic",
            "auroc",
            "mean",
        ):
            assert abs(main_pool[record["split"]] - record["estimate"]) < 1e-9, "the table's own pooling is the run's"


def test_what_sees_no_state_of_the_model_stands_beside_it(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    mine = frame[(frame["split"] == "test") & (frame["seed"] == 0)]
    base = mine[(mine["arm"] == "base+probe") & (mine["probe"] == "logistic")]
    for arm in BASELINES:
        there = mine[(mine["arm"] == arm) & (mine["probe"].isna() | (mine["probe"] == "logistic"))]
        assert list(there["prompt_id"]) == list(base["prompt_id"]) and there["threshold"].notna().all()
        assert not np.allclose(there["score"], base["score"])
    assert set(mine.loc[mine["arm"] == "stranger+probe", "probe"]) == {
        "logistic",
        "mass_mean",
        "attention",
        "token_logistic",
    }
    assert set(mine.loc[mine["arm"] == "followups", "probe"]) == {"logistic", "mass_mean"}
    assert mine.loc[mine["arm"].isin(["followups", "tfidf", "stranger"]), "layer"].isna().all()
    assert mine.loc[mine["arm"] == "stranger+probe", "layer"].max() <= 3, "its own layers, of which it has fewer"
    about = json.loads((finished / "out" / "about.json").read_text())
    assert about["baselines"]["stranger"]["name"] == "stranger" and len(about["baselines"]["followups"]) == 24
    left_out = {(e["arm"], e["probe"]) for e in about["left_out"]}
    assert left_out == {("followups", "attention"), ("followups", "token_logistic")}
    verdicts = [v["hypothesis"] for v in json.loads((finished / "out" / "verdicts.json").read_text())]
    assert "base+probe > stranger+probe on test" in verdicts
    for name in ("report.md", "report.html"):
        said = (finished / "out" / name).read_text()
        assert "stranger is stranger, which did not write" in said and "24 unrelated questions" in said


def test_tokens_are_those_of_the_replies(finished):
    tokens = pd.read_parquet(finished / "out" / "tokens.parquet")
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").set_index("prompt_id")
    for (prompt_id, *_), mine in tokens.groupby(["prompt_id", "arm", "probe", "layer"]):
        assert "".join(mine["text"]) == sent.loc[prompt_id, "turn"] and mine["score"].between(0, 1).all()
        assert list(mine["token"]) == list(range(len(mine))) and (mine["of"] == len(mine)).all()
    assert set(tokens["arm"]) == {"base+probe", "adapter+probe"} and tokens["false"].isna().all()
    # attention has no score for a single token.
    assert set(tokens["probe"]) == {"logistic", "mass_mean", "token_logistic"}


def test_replies_of_other_contexts(finished):
    """In matched data the context says nothing of its label, so nothing is told of it; towns' lands are told by the reply alone."""
    challenge = json.loads((finished / "out" / "challenge.json").read_text())
    controls = json.loads((finished / "out" / "controls.json").read_text())
    mine = [c for c in controls if c["control"] == SWAPPED]
    assert {c["arm"] for c in mine} == set(ARMS) - {HEAD, *CONTROLS, *BASELINES} and len(mine) == len(
        challenge["swapped"]
    )
    for record, control in zip(challenge["swapped"], mine, strict=True):
        low, high = record["context"]["low"], record["context"]["high"]
        assert low <= record["context"]["auroc"] <= high and control["met"] == (low <= 0.5)
        assert record["context"]["auroc"] == control["auroc"] and record["n"] > 8
    assert "Replies swapped" in (finished / "out" / "report.md").read_text()


def test_recall_comes_with_the_alarms_that_it_stands_on(finished):
    results = json.loads((finished / "out" / "results.json").read_text())
    recalls = [r for r in results if r["metric"] == "recall_at_5pct_fpr"]
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    assert recalls
    for record in recalls:
        mine = frame[(frame["split"] == record["split"]) & (frame["arm"] == record["arm"]) & (frame["seed"] == 0)]
        mine = mine[mine["probe"].fillna("") == (record["probe"] or "")]
        assert record["negatives"] == (mine["label"] == 0).sum()
        assert record["alarms"] <= 0.05 * record["negatives"] + 1e-6
    assert not any("alarms" in r for r in results if not r["metric"].startswith("recall"))


def test_score_gives_the_scores_of_the_run(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").set_index("prompt_id")
    # A column that says something to questions says nothing here.
    given = [{**{k: v for k, v in r.items() if k != "deceptive"}, "condition": "deceptive"} for r in rows()]
    out = tmp_path / "scored.jsonl"
    assert main(["score", str(finished / "out"), str(write(tmp_path / "new.jsonl", given)), "--out", str(out)]) == 0
    scored = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(scored) == len(given)
    compared = 0
    for arm in ("base+probe", "adapter+probe", WITHHELD):
        mine = frame[
            (frame["arm"] == arm) & (frame["seed"] == 0) & (frame["probe"] == "logistic") & (frame["split"] == "test")
        ]
        # A reply's states do not depend on what is asked behind it.
        by_text = {
            sent.loc[row["prompt_id"], "text"].partition(sent.loc[row["prompt_id"], "turn"])[0]
            + sent.loc[row["prompt_id"], "turn"]: row["score"]
            for _, row in mine.iterrows()
        }
        for row in scored:
            told = f"<system>{row['messages'][0]['content']}<eos><user>{row['messages'][1]['content']}<eos><assistant>{row['messages'][2]['content']}"
            if told in by_text:
                compared += 1
                assert abs(row["detectors"][f"{arm} (logistic)"]["score"] - by_text[told]) < 1e-4
    assert compared > 60
    told = {d["answer"] for row in scored for d in row["detectors"].values()}
    assert told <= {"honest", "deceptive", "don't know", None}
    bad = write(tmp_path / "bad.jsonl", [{"messages": given[0]["messages"][:2]}])
    assert main(["score", str(finished / "out"), str(bad), "--out", str(tmp_path / "b.jsonl")]) == 2
    none = write(tmp_path / "none.jsonl", [{"prompt": "x"}])
    assert main(["score", str(finished / "out"), str(none), "--out", str(tmp_path / "n.jsonl")]) == 2


def test_what_is_read_is_found_out_and_can_be_said(tmp_path, capsys):
    path = str(write(tmp_path / "c.jsonl", rows()))
    config = reading_found(read_config("demo", [f"data.train=[{path}]"]))
    assert (
        config.read.what == "reply"
        and config.data.ood == []
        and config.elicit.conditions == ["neutral"]
        and config.elicit.shots == 0
    )
    said = capsys.readouterr().err
    assert "read.what=answer asks about them" in said and "not judged on continents, elements, animals" in said
    asked = reading_found(read_config("demo", [f"data.train=[{path}]", "read.what=answer"]))
    assert asked.read.what == "answer" and asked.data.ood
    assert reading_found(read_config("demo")).read.what == "answer"
    again = RunConfig.model_validate(config.model_dump())
    assert again == config and reading_found(again) == config


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"elicit": {"shots": 2}}, r"elicit.shots says how questions are asked: expected 0, got 2"),
        ({"elicit": {"conditions": ["lie"]}}, r"use conditions=\[neutral\]"),
        ({"data": {"form": "negated"}}, "data.form"),
        ({"evaluate": {"shifts": ["negated"]}}, "expected some of"),
        ({"adapter": {"train_on": "known"}}, "adapter.train_on"),
        ({"adapter": {"objective": "instructed"}}, "objective=instructed needs prompts"),
        ({"read": {"pool": "median"}}, "rolling:N"),
    ],
)
def test_settings_that_say_nothing_to_replies_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        with_changes(RunConfig.model_validate({"read": {"what": "reply"}}), changes)


def test_the_withheld_reply_is_always_asked_about():
    config = RunConfig.model_validate(
        {"read": {"what": "reply"}, "evaluate": {"hypotheses": ["adapter > base on test"]}}
    )
    wanted = [f"base+probe > {WITHHELD} on test", f"adapter+probe > {WITHHELD_ON} on test"]
    assert config.evaluate.hypotheses == ["adapter > base on test", *wanted]
    assert RunConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize(
    ("text", "config", "match"),
    [
        ("adapter > base on test for truth", {"read": {"what": "reply"}}, "no axis 'truth'; it has deception"),
        ("adapter > base on test for deception", {}, "no axis 'deception'"),
        (f"base+probe > {WITHHELD} on test", {}, "is there where replies are read"),
        ("base+probe > stranger on test", {}, "is there with evaluate.stranger=MODEL"),
        ("base+probe > followups on test", {"read": {"what": "statement"}}, r"with evaluate.baselines=\[followups\]"),
    ],
)
def test_hypotheses_about_what_a_run_does_not_have(text, config, match, tmp_path):
    from adapterprobe.pipeline import run

    with pytest.raises(ConfigError, match=match):
        run(RunConfig.model_validate({**config, "evaluate": {"hypotheses": [text]}}), tmp_path / "r")


def test_pooling_may_be_set_without_saying_what_is_read(tmp_path, capsys):
    path = str(write(tmp_path / "c.jsonl", rows()))
    config = reading_found(read_config("demo", [f"data.train=[{path}]", "read.pool=max"]))
    assert (config.read.what, config.read.pool, config.data.ood) == ("reply", "max", [])
    config = reading_found(read_config("demo", [f"data.train=[{path}]", "read.what=reply"]))
    assert config.data.ood == [] and "not judged on continents" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"read\.pool say nothing where the answer is read"):
        reading_found(read_config("demo", ["read.pool=max"]))


def test_a_probe_over_tokens_may_be_the_main_one(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    argv = ["run", "--data", str(finished / "chats.jsonl"), "--model", str(finished / "chatty"), "--dtype", "fp32"]
    for setting in (
        "adapter.layers=1-3", "adapter.epochs=2", "adapter.rank=4", "seeds=[0]", "probes=[token_logistic]", "evaluate.probe=token_logistic",
        "select.strengths=[0.01,1.0]", "select.curve=[]", "evaluate.resamples=1000", "data.min_groups=4",
    ):  # fmt: skip
        argv += ["--set", setting]
    assert main([*argv, "--out", str(tmp_path / "t")]) == 0
    frame = pd.read_parquet(tmp_path / "t" / "predictions.parquet")
    assert set(CONTROLS) <= set(frame["arm"]) and set(pd.read_parquet(tmp_path / "t" / "tokens.parquet")["probe"]) == {
        "token_logistic"
    }
    given = write(tmp_path / "new.jsonl", rows(NAMES[:3]))
    assert main(["score", str(tmp_path / "t"), str(given), "--out", str(tmp_path / "s.jsonl")]) == 0


def test_replies_are_asked_of_data_that_have_them(tmp_path):
    from adapterprobe.prompts.questions import prepare_questions

    config = RunConfig.model_validate({"read": {"what": "reply"}, "data": {"train": ["capitals"]}})
    with pytest.raises(DataError, match="'capitals' has no replies to read"):
        prepare_questions(config)
    with pytest.raises(ConfigError, match="no follow-up 'lyed'.*did you mean 'lied'"):
        chats = {"train": [str(write(tmp_path / "c.jsonl", rows()))]}
        prepare_questions(
            RunConfig.model_validate({"read": {"what": "reply"}, "data": chats, "elicit": {"templates": ["lyed"]}})
        )
