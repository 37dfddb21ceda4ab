"""A run whose questions are asked both ways: what is true of the answer, and what of the claim."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from adapterprobe import probes
from adapterprobe.cli import main
from adapterprobe.config import RunConfig
from adapterprobe.config_files import to_yaml
from adapterprobe.detectors.pack import pack
from adapterprobe.errors import ConfigError
from adapterprobe.prompts.contrast_pairs import pair_numbers, polarities
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts
from conftest import small_config

TOLD = {"probe": "two_directions", "name": "told", "params": {"polarity": "told"}}


@pytest.fixture(scope="module")
def both(tiny_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("both")
    patch = pytest.MonkeyPatch()
    patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
    config = small_config(
        tiny_folder,
        data={"negations": True},
        probes=["logistic", "ttpd", "two_directions", "ccs", TOLD],
        seeds=[0],
        select={"strengths": [0.1], "curve": []},
        evaluate={
            "resamples": 1000,
            "coverage": 0.7,
            "false_positive_rate": 0.3,
            "directions": False,
            "hypotheses": ["adapter+probe > base+probe on test", "base+probe > base on test for claim"],
        },
    )
    (base / "run.yaml").write_text(to_yaml(config))
    assert main(["run", str(base / "run.yaml"), "--out", str(base / "out")]) == 0
    yield base, config
    patch.undo()


def test_both_polarities_stand_in_every_split(both, tokenizer):
    _, config = both
    prompts, belief = prepare_prompts(config, prepare_questions(config), tokenizer)
    by_split: dict[str, dict[str, list]] = {}
    for prompt in prompts:
        by_split.setdefault(prompt.split, {}).setdefault(prompt.example.form, []).append(prompt)
    for split, forms in by_split.items():
        assert set(forms) == {"question", "negated"} and len(forms["question"]) == len(forms["negated"]), split
        # Demonstrations ask as the question does.
        assert {"-negated" in p.demo_set for p in forms["negated"]} == {True}
        for mine in forms.values():
            assert np.mean([p.example.truth for p in mine]) == 0.5
    templates = {split: {p.template for p in forms["negated"]} for split, forms in by_split.items()}
    assert not templates["test"] & templates["probe-train"] and not templates["ood"] & templates["probe-train"]
    # The same groups are affirmed and negated, in one split alone.
    assert {p.example.group for p in by_split["test"]["question"]} == {
        p.example.group for p in by_split["test"]["negated"]
    }
    # Belief is asked as it always was.
    plain = config.model_copy(update={"data": config.data.model_copy(update={"negations": False})})
    assert len(belief.known[0]) == len(prepare_prompts(plain, prepare_questions(plain), tokenizer)[1].known[0])


def test_pairs_are_a_question_and_its_negation(both, tokenizer):
    _, config = both
    prompts, _ = prepare_prompts(config, prepare_questions(config), tokenizer)
    numbers, polarity = pair_numbers(prompts), polarities(prompts)
    assert (numbers >= 0).mean() > 0.9
    for number in np.unique(numbers[numbers >= 0])[:50]:
        first, second = np.flatnonzero(numbers == number)
        one, other = prompts[first], prompts[second]
        assert polarity[first] == -polarity[second] and one.example.truth != other.example.truth
        assert one.example.group == other.example.group and one.condition == other.condition
        assert one.example.texts["answer"] == other.example.texts["answer"]


def test_a_pattern_of_ones_own_is_never_its_own_negation(both, tokenizer):
    _, config = both
    asked = config.elicit.model_copy(update={"templates": ["Is this so: {statement}?", "ask"]})
    own = config.model_copy(update={"elicit": asked})
    prompts, _ = prepare_prompts(own, prepare_questions(own), tokenizer)
    by_text: dict[tuple, set] = {}
    for prompt in prompts:
        by_text.setdefault((prompt.turn, prompt.condition), set()).add(prompt.example.truth)
    assert all(len(found) == 1 for found in by_text.values())


def test_both_ways_of_asking_have_one_system_prompt(both, tokenizer):
    _, config = both
    some = config.model_copy(update={"elicit": config.elicit.model_copy(update={"system": "all"})})
    prompts, _ = prepare_prompts(some, prepare_questions(some), tokenizer)
    systems: dict[tuple, set] = {}
    for prompt in prompts:
        key = (prompt.split, prompt.example.dataset, prompt.example.group, prompt.condition)
        systems.setdefault(key, set()).add(prompt.system_prompt)
    assert len({p.system_prompt for p in prompts}) > 4 and all(len(found) == 1 for found in systems.values())
    assert (pair_numbers(prompts) >= 0).mean() > 0.9


def test_claims_are_an_axis_of_their_own(both):
    base, config = both
    assert config.axes[-1] == "claim"
    frame = pd.read_parquet(base / "out" / "predictions.parquet")
    wide = frame[frame["axis"].isin(["truth", "claim"])].pivot_table(
        index=["prompt_id", "form"], columns="axis", values="label", aggfunc="first"
    )
    denied = wide.index.get_level_values("form") == "negated"
    assert denied.any() and (wide["truth"][~denied] == wide["claim"][~denied]).all()
    assert (wide["truth"][denied] == 1 - wide["claim"][denied]).all()
    verdicts = json.loads((base / "out" / "verdicts.json").read_text())
    assert {v["hypothesis"] for v in verdicts} == set(config.evaluate.hypotheses)


def test_the_table_of_answers_and_claims(both):
    base, _ = both
    records = json.loads((base / "out" / "challenge.json").read_text())["polarity"]
    frame = pd.read_parquet(base / "out" / "predictions.parquet")
    found = {(r["split"], r["arm"], r["probe"], r["axis"], r["polarity"]): r for r in records}
    for (split, arm, probe, axis), rows in frame[frame["split"] != "calibrate"].groupby(
        ["split", "arm", "probe", "axis"], observed=True
    ):
        if axis not in ("truth", "claim"):
            continue
        for name, part in (("negated", rows[rows["form"] == "negated"]), ("both", rows)):
            expected = np.mean(
                [roc_auc_score(c["label"].astype(int), c["score"]) for _, c in part.groupby(["dataset", "condition"])]
            )
            assert found[split, arm, probe, axis, name]["auroc"] == pytest.approx(expected)
    turned = found["test", "base", None, "claim", "negated"]["auroc"]
    assert turned == pytest.approx(1 - found["test", "base", None, "truth", "negated"]["auroc"])
    page = (base / "out" / "report.html").read_text()
    assert "Answers, not claims" in page and "two_directions" in page


def test_new_statements_are_scored(both, tmp_path, monkeypatch):
    base, _ = both
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
    (tmp_path / "s.csv").write_text("statement\nParis is the capital of France\n")
    out = tmp_path / "o.jsonl"
    assert main(["score", str(base / "out"), str(tmp_path / "s.csv"), "--out", str(out)]) == 0
    with pytest.raises(ConfigError, match="told which way each question is asked"):
        pack(base / "out", "base+probe", tmp_path / "packed", probe="told")
    found = json.loads(out.read_text().splitlines()[0])["detectors"]
    assert 0 < found["base+probe (told)"]["score"] < 1 and "base+probe (two_directions)" in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"negations": True, "form": "choice"}}, "has no negated twin"),
        ({"data": {"negations": True, "form": "negated"}}, "asks each question both ways"),
        ({"data": {"negations": True}, "read": {"what": "reply"}}, "asks each question both ways"),
    ],
)
def test_polarities_that_there_cannot_be(changes, said):
    with pytest.raises(ValueError, match=said):
        RunConfig.model_validate(changes)


def test_a_detector_that_reads_the_claim_alone_is_told_by_the_two_axes():
    """States that hold the claim's truth, and the polarity, and not their product: only the probe that puts the two together tells whether the
    answer is true."""
    rng = np.random.default_rng(0)
    rows, width = 800, 24
    claim, polarity = rng.integers(0, 2, rows), rng.choice([1, -1], rows)
    y = np.where(polarity > 0, claim, 1 - claim)
    X = rng.standard_normal((rows, width))
    X[:, 0] += 3.0 * claim
    X[:, 1] += 4.0 * polarity
    fit, test = np.arange(500), np.arange(500, 800)
    scores = {
        name: probes.make(name).fit(X[fit], y[fit], polarity=polarity[fit]).decision_function(X[test])
        for name in ("two_directions", "ttpd")
    }
    scores["logistic"] = probes.make("logistic").fit(X[fit], y[fit]).decision_function(X[test])
    found = {name: roc_auc_score(y[test], score) for name, score in scores.items()}
    assert found["two_directions"] > 0.95 and found["logistic"] < 0.6 and found["ttpd"] < 0.6
    # Where the state does not show which way it is asked, the probe that is told is the only one that knows; untold it says nothing.
    hidden = X.copy()
    hidden[:, 1] = rng.standard_normal(rows)
    shown = probes.make("two_directions").fit(hidden[fit], y[fit], polarity=polarity[fit])
    told = probes.make("two_directions", polarity="told").fit(hidden[fit], y[fit], polarity=polarity[fit])
    assert told.needs_polarity and not shown.needs_polarity
    assert roc_auc_score(y[test], shown.decision_function(hidden[test])) < 0.6
    assert roc_auc_score(y[test], told.told(polarity[test]).decision_function(hidden[test])) > 0.95
    for bad in (told, told.told(polarity[fit])):
        with pytest.raises(ValueError, match="told the polarity of every row"):
            bad.decision_function(hidden[test])
    with pytest.raises(ValueError, match="scores rows whatever"):
        probes.make("logistic").fit(hidden[fit], y[fit]).told(polarity[test])
    with pytest.raises(ValueError, match="shown or told, got 'guessed'"):
        probes.make("two_directions", polarity="guessed").fit(hidden[fit], y[fit], polarity=polarity[fit])
    # A state in which the answer's truth stands by itself is read as well as ever, and one polarity alone is no error.
    Z = rng.standard_normal((rows, width))
    Z[:, 0] += 3.0 * y
    plain = probes.make("two_directions").fit(Z[fit], y[fit], polarity=polarity[fit]).decision_function(Z[test])
    alone = probes.make("two_directions").fit(Z[fit], y[fit]).decision_function(Z[test])
    assert roc_auc_score(y[test], plain) > 0.95 and roc_auc_score(y[test], alone) > 0.95
