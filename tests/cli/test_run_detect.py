"""Runs whose adapter is trained together with a head: the arm `adapter+head`, over replies and over answers, and `score`."""

import json

import numpy as np
import pandas as pd
import pytest

from adapterprobe.adapters.detect_head import load_head
from adapterprobe.cli import main
from adapterprobe.config_files import to_yaml
from adapterprobe.errors import ConfigError
from adapterprobe.evaluate.schema import HEAD
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.probes import lookup
from chats import chatty, rows, write
from conftest import small_config

SMALL = ("evaluate.resamples=1000", "data.min_groups=4", "select.curve=[]", "select.strengths=[0.01,1.0]", "seeds=[0]")


def marked(row, place):
    """With the false part of a lie marked, and every second town counting twice."""
    said = row["messages"][-1]["content"]
    start = said.index(" is in ") + 7
    return row | {"weight": 1 + place % 2} | ({"spans": [[start, said.index(",")]]} if row["deceptive"] else {})


@pytest.fixture(scope="module")
def replies(tiny_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("detect")
    chatty(tiny_folder, base / "chatty")
    write(base / "chats.jsonl", [marked(row, place) for place, row in enumerate(rows())])
    argv = ["run", "--data", str(base / "chats.jsonl"), "--model", str(base / "chatty"), "--dtype", "fp32"]
    settings = ("adapter.objective=detect", "adapter.head_layer=3", "adapter.epochs=3", "adapter.rank=4", "adapter.lr=0.01",
                "adapter.head_lr=0.05", "probes=[logistic,token_logistic,mass_mean]", *SMALL)  # fmt: skip
    for setting in settings:
        argv += ["--set", setting]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
        assert main([*argv, "--out", str(base / "out")]) == 0
    return base


def test_the_head_is_an_arm_of_its_own(replies):
    frame = pd.read_parquet(replies / "out" / "predictions.parquet")
    mine = frame[frame["arm"] == HEAD]
    assert len(mine) and mine["probe"].isna().all() and set(mine["layer"]) == {3} and set(mine["axis"]) == {"deception"}
    assert mine["score"].between(0, 1).all() and mine["score"].nunique() > 10
    assert load_head(replies / "out" / "adapter").layer == 3
    results = json.loads((replies / "out" / "results.json").read_text())
    assert [r for r in results if r["arm"] == HEAD and r["metric"] == "auroc"]
    verdicts = {v["hypothesis"] for v in json.loads((replies / "out" / "verdicts.json").read_text())}
    assert verdicts >= {
        f"{HEAD} > withheld+probe@adapter on test", f"{HEAD} > base+probe@matched on test", f"{HEAD} > adapter+probe on test",
        "base+probe > withheld+probe on test",
    }  # fmt: skip
    shifts = pd.read_parquet(replies / "out" / "shifts.parquet")
    assert HEAD in set(shifts["arm"])


def test_a_head_of_shuffled_labels_stands_beside_it(replies):
    controls = json.loads((replies / "out" / "controls.json").read_text())
    (record,) = (
        r
        for r in controls
        if r["arm"] == HEAD and r["control"] == "adapter of shuffled labels" and r["split"] == "test"
    )
    assert record["detector"] - record["auroc"] == pytest.approx(record["difference"])


def test_the_report_names_it(replies):
    text = (replies / "out" / "report.md").read_text()
    assert f"| {HEAD} | its head |" in text and "all below its head" not in text.split("\n\n")[0]
    assert f"{HEAD} " in text.split("\n\n")[1], "whether it reads the reply is said first"


def test_tokens_are_shown_by_every_probe_and_some_layers(replies):
    tokens = pd.read_parquet(replies / "out" / "tokens.parquet")
    assert set(tokens["arm"]) == {"base+probe", "adapter+probe", HEAD}
    assert set(tokens.loc[tokens["arm"] != HEAD, "probe"]) == {"logistic", "token_logistic", "mass_mean"}
    assert tokens.groupby(["arm", "probe"])["chosen"].any().all() and tokens["score"].between(0, 1).all()
    lies = tokens[tokens["false"].notna()]
    assert set(lies["label"]) == {1} and lies["false"].nunique() == 2
    inside = lies[(lies["false"] == 1) & (lies["arm"] == HEAD)].groupby("prompt_id", sort=False)["text"].agg("".join)
    sent = pd.read_parquet(replies / "out" / "prompts.parquet").set_index("prompt_id")["turn"]
    assert len(inside) and all(sent[key].split(" is in ")[1].split(",")[0] in text for key, text in inside.items())
    challenge = json.loads((replies / "out" / "challenge.json").read_text())
    assert {r["arm"] for r in challenge["false_spans"]} == {"base+probe", "adapter+probe", HEAD}
    record = next(r for r in challenge["false_spans"] if r["arm"] == HEAD)
    assert record["low"] <= record["auroc"] <= record["high"] and record["inside"] < record["tokens"]


def test_the_page_has_a_picker_whose_views_are_the_tokens(replies):
    page = (replies / "out" / "report.html").read_text()
    data = json.loads(page.split('id="token-data">')[1].split("</script>")[0])
    tokens = pd.read_parquet(replies / "out" / "tokens.parquet")
    assert 'class="view"' in page and "Tokens inside of false ranges" in page
    names = {name for reply in data["replies"] for arm, views in reply.items() for name in views if arm == "base+probe"}
    mine = tokens[tokens["arm"] == "base+probe"].drop_duplicates(["probe", "layer"])
    assert names == {f"{r.probe}, layer {r.layer}" for r in mine.itertuples()} and len(names) > 3
    for place in range(len(data["replies"])):
        shown = page.split(f'data-place="{place}"')[1].split("</pre>")[0]
        first = next(iter(data["replies"][place]))
        assert all(len(view) == shown.count("<span class=") for view in data["replies"][place][first].values())


def test_weights_count_in_fitting(replies):
    sums = json.loads((replies / "out" / "probes.json").read_text())
    assert sums, "probes that take weights were fitted with them"
    with pytest.raises(ValueError, match="no weights for rows"):
        lookup("ccs").fit_settings([{}], np.eye(4), np.array([0, 1, 0, 1]), sample_weight=np.array([1.0, 2, 1, 1]))


def test_score_gives_the_same_as_the_run(replies, capsys, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(replies / "cache"))
    out = replies / "scored.jsonl"
    assert main(["score", str(replies / "out"), str(replies / "chats.jsonl"), "--out", str(out)]) == 0
    frame = pd.read_parquet(replies / "out" / "predictions.parquet")
    sent = pd.read_parquet(replies / "out" / "prompts.parquet").set_index("prompt_id")
    mine = frame[(frame["arm"] == HEAD) & (frame["split"] == "test")]
    expected = dict(
        zip(
            sent.loc[mine["prompt_id"], "text"].str.split("<assistant>").str[0] + sent.loc[mine["prompt_id"], "turn"],
            mine["score"],
            strict=True,
        )
    )
    given = [json.loads(line) for line in (replies / "chats.jsonl").read_text().splitlines()]
    got = [json.loads(line) for line in out.read_text().splitlines()]
    compared = 0
    for row, record in zip(given, got, strict=True):
        head = (
            "".join(f"<{m['role']}>{m['content']}<eos>" for m in row["messages"][:-1]) + row["messages"][-1]["content"]
        )
        if head in expected:
            assert record["detectors"][HEAD]["score"] == pytest.approx(expected[head], abs=1e-3)
            compared += 1
    assert compared == len(mine)


def test_over_answers(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    config = small_config(
        tiny_folder,
        adapter={"objective": "detect", "layers": "1", "epochs": 3},
        seeds=[0],
        evaluate={"shifts": ["negated"]},
    )
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "out")]) == 0
    frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    mine = frame[(frame["arm"] == HEAD) & (frame["axis"] == "truth")]
    assert set(mine["layer"]) == {2} and set(mine["split"]) == {"calibrate", "test", "ood"}
    on = frame[(frame["arm"] == "adapter") & (frame["axis"] == "truth")].set_index("prompt_id")["score"]
    off = frame[(frame["arm"] == "base") & (frame["axis"] == "truth")].set_index("prompt_id")["score"]
    assert np.abs(on - off.loc[on.index]).max() < 0.2, "the KL keeps the model's own answers near what they were"


def test_train_alone_keeps_the_head(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    argv = [
        "train",
        "--model",
        str(tiny_folder),
        "--dtype",
        "fp32",
        "--objective",
        "detect",
        "--steps",
        "4",
        "--out",
        str(tmp_path / "a"),
    ]
    assert main([*argv, "--set", "data.max_groups=40", "--set", "data.min_groups=4", "--set", "elicit.shots=2"]) == 0
    assert load_head(tmp_path / "a" / "adapter").weight.shape == (32,)


def test_the_arm_needs_the_objective():
    with pytest.raises(ConfigError, match=r"adapter\.objective=detect"):
        parse_hypothesis(f"{HEAD} > base on test", head=False)
