"""Whole runs on a tiny model: outputs as the contract says, resuming, and every kind of bad input."""

import base64
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from adapterprobe import probes
from adapterprobe.cli import main
from adapterprobe.config_files import read_config
from adapterprobe.evaluate.schema import ARMS, BASELINES, COLUMNS, HEAD, READ_COLUMNS, WITHHELD, WITHHELD_ON
from conftest import small_config


@pytest.fixture(scope="module")
def finished(finished_run):
    """The finished run, with its cache in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(finished_run / "cache"))
        yield finished_run


def load(folder: Path, name: str):
    return json.loads((folder / name).read_text())


def test_predictions_follow_the_contract(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    assert list(frame.columns) == [*COLUMNS, *READ_COLUMNS]
    assert set(frame["split"]) == {"calibrate", "test", "ood"}
    assert set(frame["arm"]) == set(ARMS) - {HEAD, WITHHELD, WITHHELD_ON, *BASELINES} and set(frame["seed"]) == {0, 1}
    assert set(frame["axis"]) == {"truth", "instructed", "behaviour", "lie"}
    own = frame["arm"].isin(["base", "adapter"])
    assert frame.loc[own, ["probe", "layer"]].isna().all(axis=None) and frame.loc[~own, ["probe", "layer"]].notna().all(
        axis=None
    )
    assert frame["score"].between(0, 1).all()
    keys = ["prompt_id", "arm", "probe", "seed", "axis"]
    assert not frame.duplicated(keys).any()
    base = frame[(frame["arm"] == "base") & (frame["axis"] == "truth")].pivot(
        index="prompt_id", columns="seed", values="score"
    )
    assert (base[0] == base[1]).all()
    lie = frame[frame["axis"] == "lie"]
    assert lie.loc[~lie["known"], "label"].isna().all()
    trained = set(frame.loc[frame["split"] == "calibrate", "group"])
    assert not trained & set(frame.loc[frame["split"] != "calibrate", "group"])
    layers = pd.read_parquet(finished / "out" / "layers.parquet")
    assert list(layers.columns) == [*COLUMNS, *READ_COLUMNS] and set(layers["layer"]) == set(range(5))


def test_reported_aurocs_can_be_recomputed(finished):
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    results = [r for r in load(finished / "out", "results.json") if r["metric"] == "auroc" and r["filter"] == "all"]
    assert len(results) > 50
    for record in results:
        rows = frame[
            (frame["split"] == record["split"]) & (frame["arm"] == record["arm"]) & (frame["axis"] == record["axis"])
        ]
        rows = rows[rows["probe"].isna()] if record["probe"] is None else rows[rows["probe"] == record["probe"]]
        rows = rows[rows["label"].notna()]
        for key in ("dataset", "condition"):
            if record[key] != "mean":
                rows = rows[rows[key] == record[key]]
        cells = rows.groupby(["dataset", "condition", "seed"])
        expected = np.mean([roc_auc_score(c["label"].astype(int), c["score"]) for _, c in cells])
        assert record["estimate"] == pytest.approx(expected)
        assert record["n"] == rows["prompt_id"].nunique() and record["n_groups"] == rows["group"].nunique()


def test_all_outputs_are_there(finished):
    out = finished / "out"
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["provenance"]["versions"]["torch"] and config["seeds"] == [0, 1]
    assert read_config(out / "config.yaml") == read_config(finished / "run.yaml")
    for record in load(out, "verdicts.json"):
        assert {
            "hypothesis",
            "difference",
            "low",
            "high",
            "p_adjusted",
            "verdict",
            "n_groups",
            "seeds",
            "groups_to_decide",
        } <= set(record)
        assert record["verdict"] in ("supported", "refuted", "undecided")
    assert len(load(out, "verdicts.json")) == 4
    controls = {c["control"] for c in load(out, "controls.json")}
    assert {"shuffled labels", "prompt identity", "random directions", "length only", "words only (TF-IDF)"} <= controls
    about = load(out, "about.json")
    assert all(a["off_equal"] and a["on_difference"] > 0 for a in about["adapters"])
    assert not list(out.rglob("*.pkl")) and not list(out.rglob("*.part"))
    saved = sorted((out / "probes").glob("*.json"))
    assert len(saved) == 2 * 5 * 2
    for path in saved:
        probe, told = probes.load_probe(path.with_suffix(""))
        assert probe.n_features_in_ == (64 if told["arm"] == "both+probe" else 32)


def test_adapter_loads_with_peft(finished, tiny_folder):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    for name in ("adapter", "adapter-seed-1"):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), finished / "out" / name)
        assert any("lora_B" in n and p.abs().sum() > 0 for n, p in model.named_parameters())
        text = (finished / "out" / name / "adapter_config.json").read_text()
        assert str(tiny_folder.parent) not in text, "no path of this machine in what is shared"


def test_a_sceptic_finds_the_same_numbers(finished, tmp_path):
    walk = [sys.executable, str(Path(__file__).parents[2] / "examples" / "sceptics_walk.py")]
    done = subprocess.run([*walk, str(finished / "out"), "200"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("  agrees") == 6, done.stdout + done.stderr
    # It would find one that does not.
    shutil.copytree(finished / "out", tmp_path / "out")
    frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    frame.loc[frame["arm"] == "adapter+probe", "score"] = frame.loc[frame["arm"] == "adapter+probe", "label"].fillna(0)
    frame.to_parquet(tmp_path / "out" / "predictions.parquet")
    done = subprocess.run([*walk, str(tmp_path / "out"), "20"], capture_output=True, text=True)
    assert done.returncode == 1 and "DOES NOT AGREE" in done.stdout


def test_report_is_self_contained(finished):
    page = (finished / "out" / "report.html").read_text()
    # One script, the one that the policy names; the data stand in a block that is no script.
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and page.count("<script") == 2
    json.loads(re.search(r'<script type="application/json" id="layer-data">(.*?)</script>', page, re.S)[1])
    assert not re.search(r'(?:src|href)="(?!#)', page), "nothing is loaded from elsewhere"
    assert page.count("<svg") == len(list((finished / "out" / "figures").glob("*.svg"))) > 8
    for record in load(finished / "out", "verdicts.json"):
        assert record["hypothesis"].replace(">", "&gt;") in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    markdown = (finished / "out" / "report.md").read_text()
    assert "## Verdicts" in markdown and "figures/arms.png" in markdown
    assert (finished / "out" / "figures" / "arms.png").read_bytes()[:4] == b"\x89PNG"


def test_again_makes_no_forward_pass(finished, capsys, monkeypatch):
    from adapterprobe.engine import Engine

    monkeypatch.setattr(Engine, "run", None)
    assert main(["run", str(finished / "run.yaml"), "--out", str(finished / "out")]) == 0
    shown = capsys.readouterr()
    assert "nothing to do" in shown.err and "report.html" in shown.out


def test_another_folder_takes_everything_from_the_cache(finished, tmp_path, monkeypatch):
    from adapterprobe.adapters import train

    monkeypatch.setattr(train, "micro_batches", None)
    assert main(["run", str(finished / "run.yaml"), "--out", str(tmp_path / "again")]) == 0
    for name in ("results.json", "verdicts.json", "controls.json"):
        assert load(finished / "out", name) == load(tmp_path / "again", name)


def test_report_is_made_anew(finished, capsys):
    before = load(finished / "out", "results.json")
    (finished / "out" / "report.html").unlink()
    assert main(["report", str(finished / "out")]) == 0
    assert (finished / "out" / "report.html").is_file()
    assert load(finished / "out", "results.json") == before


@pytest.mark.parametrize(
    ("argv", "match"),
    [
        (["run", "--set", "adapter.rnak=4"], "unknown key 'adapter.rnak' (did you mean 'adapter.rank'"),
        (["run", "--set", "rank=4"], "did you mean 'adapter.rank'"),
        (["run", "--set", "adapter.rank=many"], "adapter.rank"),
        (["run", "--set", "adapter.kind=lra"], "did you mean 'lora'"),
        (["run", "--set", "adapter.rank"], "--set expects key=value"),
        (["run", "--set", "data.train=[capitols]"], "did you mean 'capitals'"),
        (["run", "--set", "data.ood=[capitals]"], "out of distribution at once"),
        (["run", "--set", "data.shares={test: 1.0}"], "expected exactly the splits"),
        (["run", "--set", "data.train=[us_states]"], "too few groups for the splits: got 50"),
        (["run", "--set", "probes=[logistik]"], "evaluate.probe"),
        (["run", "--set", "probes=[logistic,ccz]"], "no probe 'ccz'"),
        (["run", "--set", "evaluate.hypotheses=[adaptor > base on test]"], "did you mean 'adapter'"),
        (["run", "--set", "elicit.shots=0"], "conveyed by demonstrations"),
        (["run", "--set", "elicit.templates=[askk]", "--model", "TINY"], "did you mean 'ask'"),
        (
            ["run", "--set", "adapter.layers=2-9", "--model", "TINY"],
            "blocks go from 0 to 3 (last block = 3, its output = state 4)",
        ),
        (
            ["run", "--set", "adapter.modules=[q_prj]", "--set", "adapter.layers=1-3", "--model", "TINY"],
            "did you mean 'q_proj'",
        ),
        (["run", "--set", "select.layers=77", "--model", "TINY"], "states go from 0 to 4"),
        (["run", "--model", "./nowhere"], "no model folder or file"),
        (["run", "absent.yaml"], "cannot read the configuration"),
        (["run", "--device", "gpu"], "no device 'gpu'"),
        (["run", "--nonsense"], "unrecognized arguments"),
        (["data", "show", "capitols"], "did you mean 'capitals'"),
        (["data", "show"], "name one data set"),
        (["report", "."], "is not a finished run"),
        (["fly"], "invalid choice"),
    ],
)
def test_bad_input_is_one_line_and_status_2(argv, match, tiny_folder, tmp_path, cache, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [str(tiny_folder) if a == "TINY" else a for a in argv]
    if argv[0] == "run":
        argv += ["--out", "out"]
    try:
        status = main(argv)
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line]
    assert status == 2 and len(lines) == 1, shown.err
    assert match in lines[0] and "Traceback" not in shown.err


def test_bad_yaml_and_bad_folders(tmp_path, capsys, finished):
    (tmp_path / "bad.yaml").write_text("seeds: [0\n")
    assert main(["run", str(tmp_path / "bad.yaml")]) == 2
    (tmp_path / "list.yaml").write_text("- 1\n")
    assert main(["run", str(tmp_path / "list.yaml")]) == 2
    (tmp_path / "file").write_text("x")
    assert main(["run", "--out", str(tmp_path / "file" / "out")]) == 2
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    assert main(["run", "--out", str(tmp_path / "full")]) == 2
    assert main(["run", str(finished / "run.yaml"), "--set", "adapter.rank=5", "--out", str(finished / "out")]) == 2
    shown = capsys.readouterr().err
    for text in (
        "in YAML",
        "expected keys and values",
        "cannot write to the output folder",
        "not empty",
        "adapter.rank",
    ):
        assert text in shown
    assert len(shown.splitlines()) == 5


def environment(folder: Path) -> dict:
    return os.environ | {"ADAPTERPROBE_CACHE": str(folder), "PYTHONUNBUFFERED": "1"}


def test_interrupted_and_killed_runs_end_the_same(finished, tmp_path):
    """Ctrl-C gives status 130 and one line; kill -9 at odd moments loses nothing; the end is the same."""
    command = [
        sys.executable,
        "-m",
        "adapterprobe.cli",
        "run",
        str(finished / "run.yaml"),
        "--out",
        str(tmp_path / "out"),
    ]
    statuses = []
    # A signal that is lost in a C library lets a run end before one presses again: then from the beginning.
    for number, how in [(0, signal.SIGINT)] * 3 + [(1, signal.SIGKILL), (2, signal.SIGKILL)]:
        if how == signal.SIGINT and 130 in statuses:
            continue
        if how == signal.SIGINT:
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        process = subprocess.Popen(
            command,
            env=environment(tmp_path / "cache"),
            stderr=subprocess.PIPE,
            text=True,
            # What a shell starts in the background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        wanted = [tmp_path / "cache" / "states", tmp_path / "cache" / "adapters", tmp_path / "cache" / "states"][number]
        deadline = time.time() + 60
        # Locks are made when a stage begins and stay: a work folder may come and go between two looks.
        while not list(wanted.glob("*.lock")) and process.poll() is None and time.time() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        try:
            _, err = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            # A signal that falls into a callback of a C library is lost there; people press again (on a busy machine not too soon: the
            # second one ends it at once).
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
        statuses.append(process.returncode)
        if how == signal.SIGINT and process.returncode == 130:
            assert "Traceback" not in err and "goes on" in err
    assert 130 in statuses
    done = subprocess.run(command, env=environment(tmp_path / "cache"), capture_output=True, text=True, check=True)
    assert "report.html" in done.stdout
    for name in ("results.json", "verdicts.json", "controls.json"):
        assert load(finished / "out", name) == load(tmp_path / "out", name)


def test_help_teaches(capsys):
    for argv in (["--help"], ["run", "--help"], ["data", "show", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 0
    assert "examples:" in capsys.readouterr().out
    assert main(["run", "--keys"]) == 0
    assert "adapter.rank = 16" in capsys.readouterr().out


def test_data_commands(capsys, tiny_folder):
    assert main(["data", "list"]) == 0
    assert "capitals" in capsys.readouterr().out
    for form in ("question", "negated", "statement", "recall"):
        assert main(["data", "show", "elements", "--form", form, "--no-model", "--limit", "1"]) == 0
        shown = capsys.readouterr().out
        assert shown.count("=== elements") == 4 and "truth 1" in shown and "instructed 0" in shown
    assert main(["data", "show", "capitals", "--model", str(tiny_folder), "--limit", "1"]) == 0
    assert "coverage" in capsys.readouterr().out


@pytest.mark.slow
def test_a_storm_of_kills_changes_nothing(finished, tmp_path):
    """At least 20 kill -9 at random moments, each followed by the same command: the end is that of a run nobody
    disturbed, to the bit (fp32, one machine)."""
    rng = np.random.default_rng(0)
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = [sys.executable, "-m", "adapterprobe.cli", "run", str(finished / "run.yaml"), "--out", str(out)]
    began = time.time()
    subprocess.run(command, env=environment(cache), capture_output=True, check=True)
    whole = time.time() - began
    expected = pd.read_parquet(finished / "out" / "predictions.parquet")
    kills = rounds = 0
    while kills < 20:
        rounds += 1
        assert rounds < 40
        shutil.rmtree(out)
        shutil.rmtree(cache)
        finished_once = False
        while not finished_once:
            process = subprocess.Popen(
                command, env=environment(cache), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            try:
                # Mostly after the imports, when something is at stake.
                _, err = process.communicate(timeout=rng.uniform(0.2, 1.0) * whole)
                assert process.returncode == 0, err.decode()
                finished_once = True
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                kills += 1
        pd.testing.assert_frame_equal(expected, pd.read_parquet(out / "predictions.parquet"), check_exact=True)
        for name in ("results.json", "verdicts.json", "controls.json"):
            assert load(finished / "out", name) == load(out, name)
    print(f"{kills} kills over {rounds} runs")


def test_overrides_merge_at_any_depth(tiny_folder, tmp_path, monkeypatch):
    """`adapter={"kind": "ia3"}` once replaced the whole section, and overrides of a `RunConfig` were passed over."""

    import adapterprobe
    from adapterprobe.config_files import with_changes

    config = small_config(tiny_folder)
    changed = with_changes(config, {"adapter": {"kind": "ia3"}, "seeds": [5]})
    assert changed.adapter.kind == "ia3" and changed.adapter.layers == "1-3" and changed.adapter.epochs == 2
    assert changed.seeds == [5] and changed.model == config.model
    asked = []
    module = importlib.import_module("adapterprobe.pipeline.run")
    monkeypatch.setattr(module._Stages, "__init__", lambda self, config, *rest: asked.append(config))
    monkeypatch.setattr(module._Stages, "run", lambda self: None)
    adapterprobe.run(config, out=tmp_path / "a", seeds=[7], adapter={"rank": 2})
    adapterprobe.run("demo", out=tmp_path / "b", adapter={"kind": "ia3"})
    assert asked[0].seeds == [7] and asked[0].adapter.rank == 2 and asked[0].adapter.layers == "1-3"
    assert asked[1].adapter.kind == "ia3" and asked[1].adapter.layers == "33%-83%"


def test_keys_by_their_former_names_are_read_for_a_while(tmp_path, capsys):
    from adapterprobe.config_files import read_config

    (tmp_path / "c.yaml").write_text("adapter: {keep_rest: 0.5, keep_text: 0.25}\n")
    config = read_config(tmp_path / "c.yaml")
    assert (config.adapter.kl_vocab_weight, config.adapter.kl_text_weight) == (0.5, 0.25)
    assert "adapter.keep_rest is now called adapter.kl_vocab_weight" in capsys.readouterr().err
