"""A run with many probes: what it writes about them, and what happens to one that cannot be fitted."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adapterprobe import probes
from adapterprobe.cli import main
from adapterprobe.config import ProbeConfig, RunConfig
from adapterprobe.config_files import to_yaml
from adapterprobe.detectors.features import feature_spec
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts.contrast_pairs import pair_numbers
from conftest import small_config

PROBES = [
    "logistic",
    "gpp",
    "ensemble",
    "ranking",
    {"probe": "conv", "params": {"steps": 20}},
    {"probe": "attention", "params": {"steps": 20}, "layers": "1-3"},
    {"probe": "logistic", "name": "wide", "features": "concat", "layers": "2-4"},
    {"probe": "logistic", "name": "steps", "features": "steps", "params": {"C": 0.1}},
    {"probe": "logistic", "centre": "training", "centre_scale": True},
    "layers_mean",
    "stack",
    "GaussianNB",
    "never_fits",
]


class NeverFits(probes.Probe):
    """Stands for a probe that these data are too few for."""

    def _fit(self, X, y, sample_weight):
        raise ValueError("too few rows")


@pytest.fixture(scope="module")
def finished(tiny_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("many")
    patch = pytest.MonkeyPatch()
    patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
    probes.register("never_fits")(NeverFits)
    config = small_config(
        tiny_folder,
        probes=PROBES,
        seeds=[0],
        select={"strengths": [0.1], "tokens": 4, "nested": 3, "rule": "one_se", "curve": [0.5, 1.0]},
        evaluate={"resamples": 1000, "coverage": 0.7, "false_positive_rate": 0.3},
    )
    (base / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(base / "run.yaml"), "--out", str(base / "out")]) == 0
    yield base
    # Registered for these tests alone: others go over all probes that there are.
    del probes.registry._REGISTRY["never_fits"]
    patch.undo()


def load(path):
    return json.loads(path.read_text())


def test_every_probe_is_in_the_tables(finished):
    specs = [ProbeConfig(probe=p) if isinstance(p, str) else ProbeConfig(**p) for p in PROBES]
    names = {spec.label for spec in specs} - {"never_fits"}
    assert "logistic-centred-training-scaled" in names
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    arms = frame.dropna(subset=["probe"])
    assert set(arms["probe"]) == names
    for name in names:
        assert arms.loc[arms["probe"] == name, "arm"].nunique() == 5
    layers = pd.read_parquet(finished / "out" / "layers.parquet").groupby("probe")["layer"].unique()
    assert set(layers["logistic"]) == set(range(5)) and set(layers["attention"]) == {1, 2, 3}
    assert list(layers["wide"]) == [4] and list(layers["conv"]) == [4]
    selected = load(finished / "out" / "about.json")["selected"]
    assert {s["probe"] for s in selected} == names and all(s["seconds"] > 0 and s["tried"] for s in selected)
    assert {s["params"]["C"] for s in selected if s["probe"] == "steps"} == {0.1}


def test_a_probe_that_cannot_be_fitted_is_left_out_and_told(finished):
    left = load(finished / "out" / "about.json")["left_out"]
    assert {entry["probe"] for entry in left} == {"never_fits"} and len(left) == 5
    assert "cannot be fitted at layer 1: too few rows" in left[0]["reason"]
    assert "never_fits is left out of base+probe" in (finished / "out" / "report.html").read_text()


def test_the_main_probe_must_be_fitted(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    argv = ["run", str(finished / "run.yaml"), "--out", str(tmp_path / "o"), "--set", "evaluate.probe=never_fits"]
    assert main(argv) == 2
    assert "too few rows" in capsys.readouterr().err


def test_saved_probes_score_as_in_the_run(finished, tmp_path, monkeypatch):
    """Every probe of every arm, read from its files, gives the prompts of the run the scores of its predictions."""
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    saved = sorted((finished / "out" / "probes").glob("*.json"))
    assert len(saved) == 5 * 12
    assert {probes.load_probe(path.with_suffix(""))[1]["axis"] for path in saved} == {"truth"}
    sent = pd.read_parquet(finished / "out" / "prompts.parquet").query("split == 'test'").iloc[::4]
    sent[["text", "condition", "prompt_id"]].rename(columns={"text": "prompt"}).to_parquet(tmp_path / "p.parquet")
    out = tmp_path / "o.parquet"
    assert main(["score", str(finished / "out"), str(tmp_path / "p.parquet"), "--out", str(out)]) == 0
    scored = pd.read_parquet(out)
    frame = pd.read_parquet(finished / "out" / "predictions.parquet").query("axis == 'truth'").dropna(subset=["probe"])
    compared = 0
    for (arm, probe), rows in frame.groupby(["arm", "probe"]):
        expected = rows.set_index("prompt_id").loc[sent["prompt_id"], "score"].to_numpy()
        got = np.array([row[f"{arm} ({probe})"]["score"] for row in scored["detectors"]])
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(got, expected, atol=2e-4 * scale, err_msg=f"{arm} {probe}")
        compared += 1
    assert compared == 5 * 12


def test_searches_come_out_of_the_cache(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    from adapterprobe.detectors import search_cache as fitted

    def refuse(*args, **kwargs):
        raise DataError("fitted anew")

    monkeypatch.setattr(fitted, "select_probe", refuse)
    names = "probes=[logistic,gpp,{probe: conv, params: {steps: 20}}]"
    out = tmp_path / "again"
    argv = ["run", str(finished / "run.yaml"), "--set", names, "--set", "select.nested=0", "--out", str(out)]
    assert main(argv) == 0
    first, again = (pd.read_parquet(folder / "predictions.parquet") for folder in (finished / "out", out))
    assert load(out / "about.json")["left_out"] == []
    for name in ("logistic", "gpp", "conv"):
        a, b = (frame.loc[frame["probe"] == name, "score"].to_numpy() for frame in (first, again))
        assert np.array_equal(a, b)


def test_what_is_told_of_probes(finished):
    told = load(finished / "out" / "probes.json")
    assert {r["probe"] for r in told["flagging"]} == {"gpp", "ensemble"}
    assert {r["arm"] for r in told["nested"]} == {
        "base+probe",
        "base+probe@matched",
        "adapter+probe",
        "both+probe",
        "diff+probe",
    }
    curve = [r for r in told["curves"] if (r["arm"], r["probe"]) == ("base+probe", "logistic")]
    assert [r["groups"] for r in curve] == sorted({r["groups"] for r in curve}) and len(curve) == 2
    frame = pd.read_parquet(finished / "out" / "predictions.parquet")
    mine = frame[(frame["arm"] == "base+probe") & (frame["probe"] == "logistic") & (frame["axis"] == "truth")]
    test = mine[mine["split"] == "test"]
    from sklearn.metrics import roc_auc_score

    expected = np.mean([roc_auc_score(c["label"].astype(int), c["score"]) for _, c in test.groupby("condition")])
    assert curve[-1]["auroc"] == pytest.approx(expected), "with all groups it is the run's own figure"
    matrix = told["cosines"]["probes"]["base+probe"]
    assert {"logistic", "ensemble", "ranking"} <= set(matrix["names"])
    assert np.allclose(np.diag(matrix["cosines"]), 1) and np.allclose(
        matrix["cosines"], np.transpose(matrix["cosines"])
    )
    below = [r for r in told["cosines"]["arms"] if r["layer"] <= 1]
    assert all(r["cosine"] == pytest.approx(1) for r in below), "below the adapter nothing changes"
    steering = pd.DataFrame(told["steering"])
    assert set(steering["direction"]) == {"probe", "random"} and set(steering["arm"]) == {"base+probe", "adapter+probe"}
    assert steering["change"].abs().max() > 0
    assert {r["arm"] for r in told["soft"]} == {"base+probe", "adapter+probe"}
    uncertainty = pd.read_parquet(finished / "out" / "uncertainty.parquet")
    assert np.isfinite(uncertainty[["epistemic", "aleatoric"]]).all(axis=None)


def test_the_report_shows_it(finished):
    page = (finished / "out" / "report.html").read_text()
    for title in (
        "Every probe by layer",
        "Calibration",
        "Conformal sets",
        "A threshold with a guarantee",
        "What the model will say",
        "Epistemic and aleatoric uncertainty",
        "Would more labels help?",
        "Nested cross-validation",
        "Directions",
        "Where the states are",
        "Does the direction matter to the model?",
    ):
        assert f"<h3>{title}" in page
        assert f"### {title}" in (finished / "out" / "report.md").read_text()
    for name in ("probe-layers", "reliability", "coverage", "epistemic", "cosines", "projections", "steering", "curve"):
        assert (finished / "out" / "figures" / f"{name}.png").stat().st_size > 5000
        assert f'aria-label="{name}"' in page


def test_pairs_have_one_right_and_one_wrong_answer(tokenizer):
    from adapterprobe.config import DataConfig
    from adapterprobe.prompts.questions import prepare_questions
    from adapterprobe.prompts.run_prompts import prepare_prompts

    config = RunConfig(data=DataConfig(max_groups=40, ood=[], min_groups=2), evaluate={"hypotheses": []})
    prompts = list(prepare_prompts(config, prepare_questions(config), tokenizer)[0])
    numbers = pair_numbers(prompts)
    assert (numbers >= 0).mean() > 0.9
    for number in np.unique(numbers[numbers >= 0]):
        a, b = (prompts[row] for row in np.flatnonzero(numbers == number))
        assert a.example.truth != b.example.truth and a.example.group == b.example.group
        assert (a.condition, a.template, a.demo_set, a.split) == (b.condition, b.template, b.demo_set, b.split)


def test_the_example_of_ones_own_probe(finished, tmp_path, monkeypatch, capsys):
    """The file in examples/, by the command that it names."""
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(finished / "cache"))
    example = Path(__file__).parents[2] / "examples" / "own_probe.py"
    argv = ["run", str(finished / "run.yaml"), "--out", str(tmp_path / "out"), "--set", "select.nested=0"]
    argv += ["--set", "evaluate.directions=false", "--set", "select.curve=[]", "--set", "probes=[logistic,median]"]
    try:
        assert main([*argv, "--import", str(example)]) == 0
        frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
        assert set(frame["probe"].dropna()) == {"logistic", "median"}
        assert "steering" not in load(tmp_path / "out" / "probes.json")
        assert not (tmp_path / "out" / "projections.parquet").exists()
    finally:
        probes.registry._REGISTRY.pop("median", None)
    assert main([*argv, "--import", str(tmp_path / "nothing.py")]) == 2
    (tmp_path / "bad.py").write_text("1 / 0")
    assert main([*argv, "--import", str(tmp_path / "bad.py")]) == 2
    err = capsys.readouterr().err
    assert "there is no such Python file" in err and "bad.py fails: ZeroDivisionError" in err


def test_features_that_do_not_suit_are_refused():
    for spec, match in (
        ({"probe": "logistic", "features": "tokens"}, "tokens are for probes that read them"),
        ({"probe": "attention", "features": "concat"}, "it looks at tokens"),
        ({"probe": "attention", "layers": "0"}, "reads tokens at layers 1 to"),
        ({"probe": "logistik"}, "did you mean 'logistic'"),
    ):
        config = RunConfig(probes=["logistic", spec | {"name": "x"}])
        with pytest.raises(ConfigError, match=match):
            feature_spec(config.probe_specs[1], config, 12)
    with pytest.raises(ValueError, match="two probes have one name"):
        RunConfig(probes=["logistic", {"probe": "logistic"}])


def test_wordings_left_out_and_sets_centred(tiny_folder, tmp_path, cache, capsys):
    """A whole run whose layers are chosen over groups and wordings, with new sets centred in all three ways."""
    config = small_config(
        tiny_folder,
        probes=["logistic", *({"probe": "logistic", "centre": way} for way in ("training", "few", "own"))],
        seeds=[0],
        select={"strengths": [0.1], "folds": 2, "hold_out": "wordings", "curve": [1.0]},
        evaluate={
            "resamples": 1000,
            "shifts": ["negated"],
            "coverage": 0.7,
            "false_positive_rate": 0.3,
            "directions": False,
        },
    )
    (tmp_path / "run.yaml").write_text(to_yaml(config))
    out = tmp_path / "out"
    assert main(["run", str(tmp_path / "run.yaml"), "--out", str(out)]) == 0
    frame = pd.read_parquet(out / "predictions.parquet").query("axis == 'truth' and arm == 'base+probe'")
    by = {name: rows.set_index("prompt_id") for name, rows in frame.groupby("probe")}
    assert set(by) == {"logistic", *(f"logistic-centred-{way}" for way in ("training", "few", "own"))}
    # By its own rows a set's log-odds are centred where the probe's are on its training: their means agree over sets.
    own, training = by["logistic-centred-own"], by["logistic-centred-training"]
    sets = ["dataset", "condition", "template"]
    odds = own.assign(odds=np.log(own["score"] / (1 - own["score"]))).query("split != 'calibrate'")
    probe, _ = probes.load_probe(out / "probes" / "base+probe-logistic-centred-own-seed-0")
    middle = float(probe.decision_function(probe.centre_[None])[0])
    sizes = odds.groupby(sets).size()
    means = odds.groupby(sets)["odds"].mean()[sizes >= 8]
    assert len(means) > 4 and np.allclose(means, middle, atol=1e-3)
    assert training.groupby(sets)["score"].mean().std() > 1e-3
    selected = [s for s in load(out / "about.json")["selected"] if s["probe"] == "logistic"]
    # Two folds of groups, four wordings, one penalty, five layers.
    assert selected[0]["tried"] == 2 * 4 * 5
    shifts = pd.read_parquet(out / "shifts.parquet")
    assert set(shifts["shift"]) == {"negated"}
    assert (
        main(["pack", str(out), "--arm", "base+probe", "--probe", "logistic-centred-own", "--out", str(tmp_path / "d")])
        == 2
    )
    assert "a detector scores each text by itself" in capsys.readouterr().err
    assert (
        main(
            [
                "pack",
                str(out),
                "--arm",
                "base+probe",
                "--probe",
                "logistic-centred-training",
                "--out",
                str(tmp_path / "d"),
            ]
        )
        == 0
    )
    argv = ["run", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "o2"), "--set", "elicit.templates=[ask]"]
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "select.hold_out=wordings leaves one wording out" in error and "adapter off" not in error
