"""A packed detector: equal scores elsewhere without the run and its data, refused where it would score otherwise, calibrated by benign
inputs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapterprobe as ap
from adapterprobe.cache import seal
from adapterprobe.cli import main
from adapterprobe.detectors.bundle_record import read_record
from adapterprobe.detectors.detector import Detector, score_all
from adapterprobe.detectors.pack import pack
from adapterprobe.errors import CacheError, ConfigError, DataError, ModelError, OutputError
from adapterprobe.evaluate.thresholds import Scored
from adapterprobe.models import load_model

STATEMENTS = ["Paris is the capital of France", "Lima is the capital of Norway", "Oslo is the capital of Norway"]


@pytest.fixture(scope="module")
def packed(finished_run, tmp_path_factory):
    """Bundles of the session's run, moved away from it."""
    base = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
        for name, arm, probe in (
            ("on", "adapter+probe", None), ("off", "base+probe", "mass_mean"), ("both", "both+probe", None), ("own", "adapter", None)
        ):  # fmt: skip
            assert (
                main(
                    [
                        "pack",
                        str(finished_run / "out"),
                        "--arm",
                        arm,
                        *(["--probe", probe] if probe else []),
                        "--out",
                        str(base / "made" / name),
                    ]
                )
                == 0
            )
    shutil.copytree(base / "made", base / "elsewhere")
    shutil.rmtree(base / "made")
    return base / "elsewhere"


@pytest.fixture
def lm(tiny_folder):
    return load_model(str(tiny_folder), device="cpu", dtype="fp32")


def test_scores_are_those_of_the_run(packed, finished_run, lm, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps({"statement": s}) + "\n" for s in STATEMENTS))
    assert main(["score", str(finished_run / "out"), str(file), "--out", str(tmp_path / "run.jsonl")]) == 0
    theirs = [json.loads(line)["detectors"] for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    for name, key in (
        ("on", "adapter+probe (logistic)"),
        ("off", "base+probe (mass_mean)"),
        ("both", "both+probe (logistic)"),
        ("own", "adapter"),
    ):
        d = Detector.load(packed / name, lm)
        assert d.golden.level == "equal" and d.golden.rows == 20 and d.golden.checksums == 20
        table = d.score(STATEMENTS)
        assert list(table.columns) == ["score", "probability", "decision", "answer", "novelty_p"]
        np.testing.assert_allclose(table["score"], [row[key]["score"] for row in theirs], atol=2e-5)
        assert list(table["decision"]) == [row[key]["above"] for row in theirs]
        assert list(table["answer"].fillna("")) == [row[key]["answer"] or "" for row in theirs]
        assert table["probability"].between(0, 1).all() and table["novelty_p"].between(0, 1).all()
        assert np.array_equal(d.decide(STATEMENTS), table["decision"])
    # One row, a table, and the command give the same.
    assert d.score(STATEMENTS[1])["score"][0] == pytest.approx(table["score"][1], abs=1e-6)
    np.testing.assert_allclose(d.score(pd.DataFrame({"statement": STATEMENTS}))["score"], table["score"], atol=1e-6)
    record = json.loads((packed / "own" / "detector.json").read_text())
    assert record["schema"] == 1 and str(finished_run) not in json.dumps(record)


def test_a_new_process_needs_neither_run_nor_data(packed, tiny_folder, tmp_path):
    code = (
        "import adapterprobe as ap, json; "
        f"d = ap.Detector.load({str(packed / 'on')!r}, {str(tiny_folder)!r}); "
        f"print(json.dumps(d.score({STATEMENTS!r})['score'].tolist()))"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ADAPTERPROBE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env, check=True
    )
    here = Detector.load(packed / "on", load_model(str(tiny_folder), device="cpu", dtype="fp32")).score(STATEMENTS)[
        "score"
    ]
    np.testing.assert_allclose(json.loads(done.stdout), here, atol=1e-6)


def test_several_share_their_passes(packed, lm, monkeypatch):
    ds = [Detector.load(packed / name, lm) for name in ("on", "off", "both")]
    apart = [d.score(STATEMENTS)["score"].to_numpy() for d in ds]
    calls = []
    original = type(ds[0].engine).run

    def counted(self, batch, *args, **kwargs):
        calls.append(len(batch.rows))
        return original(self, batch, *args, **kwargs)

    monkeypatch.setattr(type(ds[0].engine), "run", counted)
    ds[0].score(STATEMENTS)
    one = len(calls)
    together = score_all(ds, STATEMENTS)
    # Of two adapter folders, each is a pass of its own; the pass without adapter is one for all.
    assert len(calls) - one <= one + 1
    for table, scores in zip(together, apart, strict=True):
        np.testing.assert_allclose(table["score"], scores, atol=1e-6)
    assert ap.score_all([], STATEMENTS) == []


def test_the_folder_is_what_its_page_says(packed):
    files = {str(p.relative_to(packed / "on")) for p in (packed / "on").rglob("*") if p.is_file()}
    assert files == {
        "README.md", "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "adapter/made_for.json", "checksums.json",
        "detector.json", "golden.json", "novelty.safetensors", "probe.json", "probe.safetensors",
    }  # fmt: skip
    card = (packed / "off" / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["library_name"] == "adapterprobe" and metadata["model-index"][0]["results"]
    assert "peft" not in metadata["tags"] and "Intended use" in card and "ap.Detector.load" in card and "AUROC" in card
    assert read_record(packed / "off").probe == "mass_mean"


def changed(packed, tmp_path, name="off"):
    return shutil.copytree(packed / name, tmp_path / "changed")


def test_what_is_damaged_or_newer_is_refused(packed, tmp_path, lm):
    folder = changed(packed, tmp_path)
    content = (folder / "probe.safetensors").read_bytes()
    (folder / "probe.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CacheError, match=r"probe\.safetensors .*changed|probe\.safetensors"):
        Detector.load(folder, lm)
    (folder / "probe.safetensors").unlink()
    with pytest.raises(CacheError, match="probe.safetensors"):
        Detector.load(folder, lm)
    shutil.rmtree(folder)
    folder = changed(packed, tmp_path)
    record = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps(record | {"schema": 2}))
    with pytest.raises(CacheError, match="schema 2, this version of adapterprobe reads up to 1; upgrade"):
        Detector.load(folder, lm)
    for place, value in (("pattern", "{statement.__class__}"), ("pattern", "{statement:>9999999999}")):
        record["prompting"][place] = value
        (folder / "detector.json").write_text(json.dumps(record))
        seal(folder)
        with pytest.raises(CacheError, match="is damaged: prompting.pattern"):
            Detector.load(folder, lm)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(CacheError, match="JSON and safetensors alone"):
        Detector.load(folder, lm)
    shutil.rmtree(folder / "adapter")
    (folder / "link").symlink_to("/etc/hostname")
    with pytest.raises(CacheError, match="is a link"):
        Detector.load(folder, lm)
    (folder / "link").unlink()
    (folder / "checksums.json").write_text(json.dumps({"../../x": [1, "y"]}))
    with pytest.raises(CacheError, match="which is not in the bundle"):
        Detector.load(folder, lm)
    with pytest.raises(CacheError, match="adapterprobe pack RUN"):
        Detector.load(tmp_path, lm)


def weights_moved(lm):
    torch.manual_seed(3)
    with torch.no_grad():
        weight = lm.model.model.layers[0].mlp.up_proj.weight
        weight.add_(torch.randn_like(weight))


def test_what_the_golden_rows_catch(packed, tiny_folder, tmp_path, lm):
    """Each is told by what differs; another number format is borne, and told."""
    other = load_model(str(tiny_folder), device="cpu", dtype="bf16")
    report = Detector.load(packed / "off", other).golden
    assert report.level == "tolerated" and "fp32 there, bf16 here" in report.sentence and report.checksums < 20
    moved = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    weights_moved(moved)
    with pytest.raises(ModelError, match="has other weights in the same number format"):
        Detector.load(packed / "off", moved)
    assert Detector.load(packed / "off", moved, verify=False).record.verified is False
    # Another checkpoint: its norms differ.
    with torch.no_grad():
        moved.model.model.norm.weight.mul_(2)
    moved.__dict__.pop("vectors_hash", None)
    with pytest.raises(ModelError, match="another checkpoint"):
        Detector.load(packed / "off", moved)
    folder = changed(packed, tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    golden["rows"][3]["ids"] = [0, *golden["rows"][3]["ids"]]
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder)
    with pytest.raises(ModelError, match=r"golden row 3 .*the first token \(0\) is missing: .*BOS"):
        Detector.load(folder, lm)
    shutil.rmtree(folder)
    folder = changed(packed, tmp_path)
    golden = json.loads((folder / "golden.json").read_text())
    golden["rows"][5]["score"] = abs(golden["rows"][5]["score"] - 0.3)
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder)
    with pytest.raises(ModelError, match="does not score on .* as it did: the score of a golden row shifts by 0.3"):
        Detector.load(folder, lm)
    # A layer off by one: the record names the next layer, as a converter that counts otherwise would.
    shutil.rmtree(folder)
    folder = changed(packed, tmp_path)
    record = json.loads((folder / "detector.json").read_text())
    step = 1 if record["seen"]["layer"] < record["model"]["blocks"] else -1
    golden = json.loads((folder / "golden.json").read_text())
    golden["layer"] += step
    (folder / "golden.json").write_text(json.dumps(golden))
    seal(folder)
    with pytest.raises(ModelError, match="a layer off by one"):
        Detector.load(folder, lm)


def test_another_model_is_refused_by_its_shape(packed, tokenizer, tmp_path):
    from transformers import CONFIG_MAPPING

    from conftest import FAMILIES

    config = CONFIG_MAPPING["gpt2"](**FAMILIES["gpt2"], bos_token_id=0, eos_token_id=0, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    tokenizer.save_pretrained(tmp_path / "m")
    other = load_model(str(tmp_path / "m"), device="cpu", dtype="fp32")
    if (other.structure.n_layers, other.structure.width) == (
        read_record(packed / "on").model.blocks,
        read_record(packed / "on").model.width,
    ):
        match = "other weights"
    else:
        match = "blocks of width"
    with pytest.raises(ModelError, match=match):
        Detector.load(packed / "on", other)


def test_calibrated_on_benign_inputs(packed, lm, tmp_path, capsys):
    d = Detector.load(packed / "off", lm)
    benign = [f"City {n} is the capital of land {n}" for n in range(120)]
    with pytest.raises(DataError, match="120 benign inputs cannot promise a rate of 0.01 .* 299 are needed, 179 more"):
        d.calibrate(benign)
    fixed = d.calibrate(benign, 0.05)
    scores = d.score(benign)["score"]
    assert fixed.threshold.alarms == (scores > fixed.threshold.value).sum() and fixed.threshold.upper <= 0.05
    assert fixed.threshold.benign == 120 and d.threshold.value != fixed.threshold.value
    saved = Detector.load(fixed.save(tmp_path / "saved"), lm)
    assert saved.threshold == fixed.threshold and saved.score(STATEMENTS)["score"].equals(d.score(STATEMENTS)["score"])
    with pytest.raises(OutputError, match="is not empty"):
        fixed.save(tmp_path / "saved")
    with pytest.raises(DataError, match="calibrate it on benign inputs of your own"):
        d.decide(STATEMENTS, false_positive_rate=0.001)
    assert d.decide(STATEMENTS, false_positive_rate=0.2).dtype == bool
    with pytest.raises(DataError, match="reads answers, and only replies have turns"):
        d.calibrate(benign, 0.05, "conversation")
    file = tmp_path / "benign.csv"
    pd.DataFrame({"statement": benign}).to_csv(file, index=False)
    argv = ["calibrate", str(packed / "off"), str(file), "--model", str(lm.source), "--out", str(tmp_path / "c")]
    assert main([*argv, "--false-positive-rate", "0.05"]) == 0
    assert (
        read_record(tmp_path / "c").threshold == fixed.threshold
        and "benign inputs are above it" in capsys.readouterr().out
    )
    assert main([*argv, "--false-positive-rate", "1.5"]) == 2 and "at most 0.5, got 1.5" in capsys.readouterr().err


def test_calibrated_on_unlabelled_inputs(packed, lm, tmp_path, capsys):
    d = Detector.load(packed / "off", lm)
    mixed = [f"City {n} is the capital of land {n}" for n in range(60)]
    scores = d.score(mixed)["score"].to_numpy()
    rare, common = (d.calibrate(mixed, 0.3, base_rate=rate).threshold for rate in (0.02, 0.6))
    known = d.record.calibration
    own = Scored(np.array(known.scores), np.array(known.labels), np.array(known.groups))
    recall = (own.scores[own.labels == 1] > own.negative_threshold(0.3)).mean()
    for found, base_rate in ((rare, 0.02), (common, 0.6)):
        above = base_rate * recall + (1 - base_rate) * 0.3
        assert abs((scores > found.value).mean() - above) <= 1 / 60 + 1e-9
        assert found.benign is None and "no rate is promised" in found.how
    with pytest.raises(ConfigError, match="above 0 and below 1, got 1"):
        d.calibrate(mixed, 0.3, base_rate=1.0)
    with pytest.raises(DataError, match="got per=conversation"):
        d.calibrate(mixed, 0.3, "conversation", base_rate=0.1)
    with pytest.raises(DataError, match="too few to know its recall at a rate of 0.01"):
        d.calibrate(mixed, 0.01, base_rate=0.1)
    file = tmp_path / "mixed.csv"
    pd.DataFrame({"statement": mixed}).to_csv(file, index=False)
    argv = ["calibrate", str(packed / "off"), str(file), "--model", str(lm.source), "--out", str(tmp_path / "c")]
    assert main([*argv, "--false-positive-rate", "0.3", "--base-rate", "0.02"]) == 0
    assert read_record(tmp_path / "c").threshold == rare and "no rate is promised" in capsys.readouterr().out
    assert main([*argv, "--base-rate", "0"]) == 2 and "above 0 and below 1, got 0" in capsys.readouterr().err


def test_bad_input(packed, finished_run, lm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    d = Detector.load(packed / "on", lm)
    for given, said in (
        ([3], "input 0 is 3"),
        ([""], "row 0: 'statement' is ''"),
        ([{"text": "x"}], "row 0: 'statement' is"),
        (["word " * 5000], "context"),
    ):
        with pytest.raises(DataError, match=said):
            d.score(given)
    assert d.score([]).empty
    with pytest.raises(DataError, match="no tokens yet"):
        d.tokens(STATEMENTS[0])
    with pytest.raises(ConfigError, match=r"no arm 'adapter\+prob'.*did you mean 'adapter\+probe'"):
        pack(finished_run / "out", "adapter+prob", tmp_path / "p")
    with pytest.raises(ConfigError, match="has no probe 'logistc'"):
        pack(finished_run / "out", "adapter+probe", tmp_path / "p", "logistc")
    with pytest.raises(ConfigError, match="is a control or a baseline"):
        pack(finished_run / "out", "tfidf", tmp_path / "p")
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="is not empty"):
        pack(finished_run / "out", "adapter+probe", packed / "on")
    with pytest.raises(ModelError, match="is for the local model .*; say where it is here"):
        Detector.load(packed / "on")


def test_a_loaded_transformers_model_serves(packed, tiny_folder):
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    d = Detector.load(packed / "on", model, tokenizer=AutoTokenizer.from_pretrained(tiny_folder))
    before = {name: p.clone() for name, p in model.named_parameters()}
    first = d.score(STATEMENTS)["score"]
    for _ in range(3):
        assert d.score(STATEMENTS)["score"].equals(first)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters()), "the model is left as it was"


def test_from_the_hub(packed, lm, tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot_download(repo_id, revision, allow_patterns, token):
        asked.update(repo=repo_id, revision=revision, patterns=allow_patterns)
        # The hub's own cache: files are links into a store.
        store = tmp_path / "hub" / "models--me--lie"
        snapshot = store / "snapshots" / "abc"
        for path in (packed / "off").rglob("*"):
            if path.is_file():
                blob = store / "blobs" / str(path.relative_to(packed / "off")).replace("/", "-")
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, blob)
                link = snapshot / path.relative_to(packed / "off")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(blob)
        return str(snapshot)

    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    d = Detector.load("me/lie", lm, revision="v1")
    assert (
        asked["repo"] == "me/lie"
        and asked["revision"] == "v1"
        and all(p.endswith((".json", ".safetensors", ".md", ".jinja")) for p in asked["patterns"])
    )
    assert d.score(STATEMENTS)["score"].equals(Detector.load(packed / "off", lm).score(STATEMENTS)["score"])
    pushed = {}

    class Api:
        def __init__(self, token=None):
            pushed["token"] = token

        def create_repo(self, repo_id, private, exist_ok):
            pushed.update(repo=repo_id, private=private)

        def upload_folder(self, repo_id, folder_path, commit_message, allow_patterns):
            pushed["record"] = read_record(folder_path).name
            import types

            return types.SimpleNamespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert d.push_to_hub("me/again") == "https://hub/commit"
    assert pushed == {"token": None, "repo": "me/again", "private": True, "record": "off"}
    with pytest.raises(OutputError, match="expected OWNER/NAME"):
        d.push_to_hub("again")


def test_score_takes_a_bundle(packed, lm, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("adapterprobe.detectors.detector.load_model", lambda *a, **k: lm)
    folder = changed(packed, tmp_path, "on")
    record = json.loads((folder / "detector.json").read_text())
    record["model"]["hub_id"] = "me/model"
    (folder / "detector.json").write_text(json.dumps(record))
    seal(folder)
    file = tmp_path / "s.csv"
    pd.DataFrame({"statement": STATEMENTS, "id": [1, 2, 3]}).to_csv(file, index=False)
    assert main(["score", str(folder), str(file), "--out", str(tmp_path / "o.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    scores = Detector.load(packed / "on", lm).score(STATEMENTS)["score"]
    np.testing.assert_allclose([row["detectors"]["on"]["score"] for row in rows], scores, atol=1e-6)
    assert [row["id"] for row in rows] == ["1", "2", "3"] and "novelty_p" in rows[0]
    pd.DataFrame({"claim": STATEMENTS}).to_csv(tmp_path / "b.csv", index=False)
    capsys.readouterr()
    assert main(["score", str(folder), str(tmp_path / "b.csv"), "--out", str(tmp_path / "b.jsonl")]) == 2
    assert "needs statement" in capsys.readouterr().err
    assert main(["score", str(folder), str(file), "--condition", "lie", "--out", str(tmp_path / "c.jsonl")]) == 2
    assert "pack the run with --condition lie" in capsys.readouterr().err


def test_score_takes_a_model_for_a_bundle_and_a_bundle_of_the_hub(
    packed, tiny_folder, finished_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
    file = tmp_path / "s.csv"
    pd.DataFrame({"statement": STATEMENTS}).to_csv(file, index=False)
    bundle = str(packed / "on")

    def scored(name, source, *options):
        out = tmp_path / f"{name}.jsonl"
        assert main(["score", source, str(file), "--out", str(out), *options]) == 0
        return [json.loads(line)["detectors"]["on"]["score"] for line in out.read_text().splitlines()]

    # A local model is not looked for where the bundle was made.
    assert main(["score", bundle, str(file)]) == 2 and "say where it is here" in capsys.readouterr().err
    wanted = scored("model", bundle, "--model", str(tiny_folder))
    assert "replayed" not in capsys.readouterr().err
    assert scored("unverified", bundle, "--model", str(tiny_folder), "--no-verify") == wanted
    assert "its golden rows were not replayed" in capsys.readouterr().err
    monkeypatch.setattr(
        "adapterprobe.detectors.score_file.fetched", lambda repo: packed / "on" if repo == "me/lie" else None
    )
    assert scored("hub", "me/lie", "--model", str(tiny_folder)) == wanted
    # A run has a model of its own; a folder that is not there beside others is no repository.
    for argv, said in (
        ([str(finished_run / "out"), str(file), "--model", str(tiny_folder)], "is no packed detector, and --model"),
        ([str(finished_run / "out"), str(file), "--no-verify"], "is no packed detector"),
        ([str(packed / "onn"), str(file)], "onn"),
    ):
        assert main(["score", *argv]) == 2
        assert said in capsys.readouterr().err


def test_the_page(packed, tiny_folder, tmp_path, monkeypatch):
    """Its snippet, as it stands."""
    import re
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "detector.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(packed / "on", "detectors/mine")
    Path(tiny_folder.name).symlink_to(tiny_folder)
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)), names)
    assert isinstance(names["d"], Detector)
