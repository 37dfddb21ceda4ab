"""Shipped configurations: each is valid, and runs on a tiny model; what is under test; plans."""

import json

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score

from adapterprobe.cli import main
from adapterprobe.config import RunConfig
from adapterprobe.config_files import preset_names, read_config
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.models import load_model
from adapterprobe.pipeline import run
from conftest import tiny
from hub_layout import repository

SMALL = {
    "data": {"max_groups": 70, "max_ood_groups": 16, "min_groups": 4},
    "elicit": {"shots": 2, "demo_sets": 1},
    "adapter": {"layers": "1-3", "epochs": 2, "rank": 4, "alpha": 8, "lr": 0.02},
    "select": {"strengths": [0.01, 1.0]},
    "evaluate": {"resamples": 1000},
}


def shrunk(name: str, model, **more) -> RunConfig:
    """A preset on a tiny model and little data; everything else as it is shipped."""
    content = read_config(name).model_dump(mode="json")
    for stage, values in SMALL.items():
        content[stage] |= values
    content["model"] |= {"name": str(model), "device": "cpu", "dtype": "fp32", "quantize": None}
    content["seeds"] = [0, 1]
    for stage, values in more.items():
        content[stage] |= values
    return RunConfig.model_validate(content)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid(name):
    config = read_config(name)
    for text in config.evaluate.hypotheses:
        parse_hypothesis(text)
    assert (
        config.name
        and RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
    )


def test_presets_are_the_logs_experiments():
    found = {name: read_config(name) for name in preset_names()}
    assert set(found) == {
        "demo",
        "probes",
        "train",
        "truth",
        "told-to-lie",
        "liar",
        "answers",
        "universal",
        "liars",
        "taught",
        "opposite",
        "log",
        "geometry",
        "detect",
    }
    liar, maker = found["liar"], found["told-to-lie"]
    assert liar.under_test == "base" and liar.data == maker.data, "what is judged is new to the liar too"
    assert [found[n].adapter.objective for n in ("truth", "told-to-lie", "opposite")] == [
        "truth",
        "instructed",
        "opposite",
    ]
    assert found["told-to-lie"].under_test == "adapter" and found["truth"].under_test == "base"
    log = found["log"]
    assert (log.model.name, log.model.quantize, log.elicit.shots) == ("microsoft/phi-2", "4bit", 2)


@pytest.fixture(scope="module")
def told_to_lie(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(folder / "cache"))
        # Trained so little, without system prompts, that a random model's answers are not all the same.
        shares = read_config("demo").data.shares
        config = shrunk(
            "told-to-lie",
            tiny_folder,
            data={"ood": ["elements"], "shares": shares},
            elicit={"system": None},
            adapter={"epochs": 1, "lr": 0.003},
        )
        return run(config, folder / "out")


def test_told_to_lie_is_about_the_adapters_answers(told_to_lie):
    """Behaviour is what the adapter of that seed says; a lie goes against the truth of a group that is recalled."""
    frame = told_to_lie.predictions
    own = frame[(frame["arm"] == "adapter") & (frame["axis"] == "behaviour")]
    assert ((own["score"] > 0.5) == (own["label"] == 1)).all()
    by_seed = [own.loc[own["seed"] == seed, "label"].to_numpy(int) for seed in (0, 1)]
    assert not np.array_equal(*by_seed), "two adapters do not answer alike"
    base = frame[(frame["arm"] == "base") & (frame["axis"] == "behaviour") & (frame["seed"] == 0)]
    assert ((base["score"] > 0.5) != (base["label"] == 1)).any(), "it is not the base model that is judged"
    keys = ["prompt_id", "seed", "arm", "probe"]
    axes = {axis: frame[frame["axis"] == axis].set_index(keys) for axis in ("truth", "behaviour", "lie")}
    lie = (axes["truth"]["label"] != axes["behaviour"]["label"]).astype(int)
    recalled = axes["lie"]["recall_known"].fillna(False).astype(bool)
    assert recalled.any() and axes["lie"]["label"].notna().equals(recalled)
    assert (axes["lie"]["label"][recalled].astype(int) == lie[recalled]).all()
    # A probe's score for lies is its truth score, turned by the answer of the model under test.
    probe = axes["lie"].xs("base+probe", level="arm")
    truth, said = (axes[name].xs("base+probe", level="arm") for name in ("truth", "behaviour"))
    expected = np.where(said["label"].astype(int) == 1, 1 - truth["score"], truth["score"])
    assert np.allclose(probe["score"], expected)


def test_figures_for_lies(told_to_lie):
    results, frame = told_to_lie.results, told_to_lie.predictions
    pooled = results[
        (results["metric"] == "auroc_pooled") & (results["arm"] == "base+probe") & (results["split"] == "test")
    ]
    pooled = pooled[pooled["probe"] == "logistic"]
    rows = frame[(frame["arm"] == "base+probe") & (frame["probe"] == "logistic") & (frame["axis"] == "lie")]
    rows = rows[(rows["split"] == "test") & rows["label"].notna()]
    expected = np.mean([roc_auc_score(part["label"].astype(int), part["score"]) for _, part in rows.groupby("seed")])
    assert pooled["estimate"].iloc[0] == pytest.approx(expected, abs=1e-9)
    controls = json.loads((told_to_lie.folder / "controls.json").read_text())
    (alone,) = [
        c
        for c in controls
        if c["control"].startswith("condition alone") and c["split"] == "test" and c["arm"] == "base+probe"
    ]
    parts = [part for _, part in rows.groupby("seed")]
    expected = np.mean([roc_auc_score(p["label"].astype(int), p["condition"] == "lie") for p in parts])
    assert alone["auroc"] == pytest.approx(expected)
    assert alone["detector"] == pytest.approx(pooled["estimate"].iloc[0]) and alone["met"] == (
        alone["detector"] > expected
    )
    assert [v.hypothesis for v in told_to_lie.verdicts][2].endswith("for lie")
    page = told_to_lie.report.path.read_text()
    assert "The model under test is the one with the adapter on" in page and "turned like the base model" in page


def test_scores_of_adapters_are_turned_by_their_objective():
    from adapterprobe.detectors.fit import ASKED_FALSE

    told = np.array([False, True])
    found = {name: ASKED_FALSE[name](told).tolist() for name in ASKED_FALSE}
    assert found == {
        None: [False, True],
        "truth": [False, False],
        "lie": [True, True],
        "instructed": [False, True],
        "opposite": [True, False],
        "detect": [False, True],
    }


@pytest.mark.parametrize("name", [pytest.param("truth", marks=pytest.mark.slow), "opposite", "detect"])
def test_the_other_presets_on_a_tiny_model(name, tiny_folder, tmp_path, cache):
    # Of four blocks none lies between a third and the head in the middle.
    own = {"adapter": {"layers": "all"}} if name == "detect" else {}
    config = shrunk(name, tiny_folder, data={"ood": ["elements"]}, **own)
    finished = run(config.model_copy(update={"seeds": [0]}), tmp_path / "out")
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["under_test"] == "base" and about["adapters"][0]["loss_last"] < about["adapters"][0]["loss_first"]
    assert finished.predictions["score"].notna().all()


def test_the_logs_set_up_on_a_tiny_phi(tokenizer, tmp_path, cache):
    """The preset as shipped, but for model, size and where the data sets lie: folders in the hub's layout."""
    torch.manual_seed(0)
    tiny("phi").save_pretrained(tmp_path / "phi")
    tokenizer.save_pretrained(tmp_path / "phi")
    rng = np.random.default_rng(0)
    letters = list("abcdefghiklmnoprstuvw")

    def text(i):
        return " ".join("".join(rng.choice(letters, 5)) for _ in range(6))

    hub, rows = tmp_path / "hub", range(120)
    repository(hub, "amazon_polarity", [{"label": i % 2, "title": text(i), "content": text(i)} for i in rows])
    repository(hub, "boolq", [{"question": text(i), "answer": bool(i % 2), "passage": text(i)} for i in rows])
    repository(hub, "qnli", [{"question": text(i), "sentence": text(i), "label": i % 2, "idx": i} for i in rows])
    repository(hub, "imdb", [{"text": text(i), "label": i % 2} for i in rows])
    config = shrunk("log", tmp_path / "phi", adapter={"layers": "all", "rank": 3, "alpha": 6})
    assert config.adapter.modules == ["attention", "mlp_out"] and config.elicit.format == "phi"
    reading = config.data.model_copy(
        update={"read": config.data.read.model_copy(update={"hub_folder": str(hub)}), "max_groups": 140}
    )
    config = config.model_copy(update={"data": reading, "seeds": [0]})
    finished = run(config, tmp_path / "out")
    assert set(finished.predictions["dataset"]) == {"amazon_polarity", "boolq", "qnli", "imdb"}
    settings = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    names = {name.rsplit(".", 1)[-1] for name in settings["target_modules"]}
    assert names == {"q_proj", "k_proj", "v_proj", "dense", "fc2"} and settings["r"] == 3
    assert finished.predictions["format"].eq("phi").all()


def test_plan_of_a_training(tiny_folder, tmp_path, cache, capsys):
    argv = ["plan", "--train", "--model", str(tiny_folder), "--device", "cpu", "--dtype", "fp32", "--json"]
    few = ["--set", "data.max_groups=60", "--set", "elicit.shots=1", "--steps", "12", "--layers", "2-3"]
    assert main([*argv, *few]) == 0
    plan = json.loads(capsys.readouterr().out)
    model = load_model(str(tiny_folder), device="cpu", dtype="fp32").model
    assert plan["memory"]["weights"] == sum(t.numel() * 4 for t in model.state_dict().values())
    # Rank 16 on q, k, v, o and the three maps of the MLP in two blocks.
    size = 2 * 16 * sum(a + b for a, b in ((32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)))
    assert plan["memory"]["optimizer"] == 2 * 4 * size
    assert plan["steps"] == 12 and plan["peak"] == sum(plan["memory"].values()) and plan["largest_micro_batch"] > 100
    assert all(value >= 0 for value in (*plan["memory"].values(), *plan["seconds"].values()))
    assert main([*argv, *few, "--batch", "32", "--set", "adapter.batch_size=32"]) == 0
    larger = json.loads(capsys.readouterr().out)
    assert 1.2 < larger["memory"]["activations"] / plan["memory"]["activations"] < 6
    assert main([*argv, *few, "--length", "300"]) == 0
    longer = json.loads(capsys.readouterr().out)
    assert longer["longest"] == 300 and longer["memory"]["activations"] > 2 * plan["memory"]["activations"]
    assert main([*argv, *few, "--set", "adapter.checkpoint_activations=true"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["memory"]["activations"] < plan["memory"]["activations"]
    assert main([*argv, *few, "--length", "9999"]) == 2
    assert "--length expects from 2 to 512 tokens" in capsys.readouterr().err
    assert plan["weights"] == {}, "it is on one device"
    spread = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    spread |= {f"model.layers.{i}": "disk" if i == 1 else "cpu" for i in range(4)}
    assert (
        main([*[a for a in argv if a not in ("--device", "cpu")], *few, "--set", f"model.device={json.dumps(spread)}"])
        == 0
    )
    apart = json.loads(capsys.readouterr().out)
    assert sum(apart["weights"].values()) == sum(p.numel() * 4 for p in model.parameters())
    assert 0 < apart["weights"]["elsewhere"] < apart["weights"]["cpu"] and apart["device"] == "cpu"
    assert not list(tmp_path.glob("*/adapters")), "a plan leaves nothing behind"


def test_plan_of_a_run(tiny_folder, tmp_path, cache, capsys):
    file = tmp_path / "config.yaml"
    config = shrunk("truth", tiny_folder, data={"ood": ["elements"]})
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    for part in (
        "weights",
        "activations",
        "trunk cache",
        "hidden states",
        "train adapters",
        "probes, controls",
        "would fit",
    ):
        assert part in shown
    prompts, _ = shown.split("time, for ")[1].split(" prompts and ")
    finished = run(config, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert int(prompts) == sum(part["prompts"] for part in about["splits"])
    steps = int(shown.split(" prompts and ")[1].split(" steps")[0])
    assert steps == about["adapters"][0]["steps"] and finished.folder.exists()
