"""What sees no state of the model that is read: another model's reading is that model's, questions stand in their columns, words are
all that the judge of words sees."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adapterprobe.activations import record
from adapterprobe.config_files import with_changes
from adapterprobe.detectors.baselines import FollowupAnswers, check_baselines, read_baselines
from adapterprobe.detectors.fit import all_rows, own_detector
from adapterprobe.detectors.text_judge import text_judge
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.evaluate.verdict import parse_hypothesis
from adapterprobe.models import load_model
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.prompts.unrelated_questions import questions_behind, unrelated_questions
from conftest import small_config, tiny


@pytest.fixture
def other(tokenizer, tmp_path):
    torch.manual_seed(7)
    model = tiny("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def prepared(config, lm):
    questions = prepare_questions(config)
    prompts, _ = prepare_prompts(config, questions, lm.tokenizer, lm.context_length)
    return questions, with_reads(
        encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary), config.read, lm.tokenizer
    )


def test_a_stranger_reads_as_if_it_were_asked_alone(tiny_folder, other, cache):
    config = small_config(tiny_folder, evaluate={"stranger": str(other), "resamples": 1000})
    lm = load_model(str(tiny_folder), dtype="fp32")
    questions, encoded = prepared(config, lm)
    found = read_baselines(config, questions, lm, Engine(lm.model, lm.structure), encoded)
    theirs = load_model(str(other), dtype="fp32")
    states = record(Engine(theirs.model, theirs.structure), encoded, "theirs", [2, 4])
    (arm,) = found.arms
    for layer in (2, 4):
        np.testing.assert_allclose(arm.states.layer(layer), states.layer(layer), atol=1e-5)
    own = own_detector("stranger", config.seeds[0], encoded, states, None)
    np.testing.assert_allclose(found.own[0].truth_score, own.truth_score, atol=1e-5)
    assert found.about["stranger"]["name"] == "other"


def test_the_model_itself_is_no_stranger(tiny_folder, cache):
    config = small_config(tiny_folder, evaluate={"stranger": str(tiny_folder), "resamples": 1000})
    lm = load_model(str(tiny_folder), dtype="fp32")
    questions, encoded = prepared(config, lm)
    with pytest.raises(ModelError, match="is the model that is read itself"):
        read_baselines(config, questions, lm, Engine(lm.model, lm.structure), encoded)
    nowhere = with_changes(config, {"evaluate": {"stranger": "./nowhere"}})
    with pytest.raises(ModelError, match="evaluate.stranger"):
        read_baselines(nowhere, questions, lm, Engine(lm.model, lm.structure), encoded)


def test_answers_to_unrelated_questions_stand_in_their_columns(tiny_folder, cache):
    config = small_config(
        tiny_folder,
        read={"what": "statement"},
        elicit={"conditions": ["neutral"], "shots": 0},
        evaluate={"baselines": ["followups"], "shifts": [], "resamples": 1000},
    )
    lm = load_model(str(tiny_folder), dtype="fp32")
    engine = Engine(lm.model, lm.structure)
    questions, encoded = prepared(config, lm)
    (arm,) = read_baselines(config, questions, lm, engine, encoded).arms
    features = arm.states.layer(0)
    assert features.shape == (len(encoded), 24) and len({q.name for q in unrelated_questions()}) == 24
    row, column = 5, 13
    prompts = questions_behind([encoded.prompts[row]], [unrelated_questions()[column]], config.read, lm.tokenizer, None)
    alone = record(engine, encode(lm.tokenizer, prompts, None), "alone", [])
    assert features[row, column] == pytest.approx(alone.logprobs[0, 0] - alone.logprobs[0, 1], abs=1e-4)
    assert isinstance(arm.states, FollowupAnswers) and prompts[0].text.endswith("Answer Yes or No.\nAnswer:")


def test_words_are_all_that_the_judge_of_words_sees(tiny_folder, cache):
    config = small_config(tiny_folder)
    lm = load_model(str(tiny_folder), dtype="fp32")
    _, encoded = prepared(config, lm)
    rows = all_rows(config, encoded)
    judged = text_judge(encoded, rows)
    assert judged.scores.shape == (len(encoded),) and judged.scores.min() >= 0 and judged.scores.max() <= 1
    elsewhere = tuple(replace(p, text="elsewhere", condition="neutral") for p in encoded.prompts)
    again = text_judge(replace(encoded, prompts=elsewhere), rows)
    assert np.array_equal(again.scores, judged.scores), "what stands around the words is not seen"
    # A word that gives the label away is found.
    marked = tuple(replace(p, turn=f"{p.turn} {'xyzzy' if p.example.truth else ''}") for p in encoded.prompts)
    assert text_judge(replace(encoded, prompts=marked), rows).select_auroc == 1.0


def test_what_is_asked_of_baselines_is_checked(tiny_folder):
    config = small_config(tiny_folder, evaluate={"baselines": ["followups"], "resamples": 1000})
    with pytest.raises(ConfigError, match="behind a reply or a statement"):
        check_baselines(config, [])
    plain = small_config(tiny_folder)
    for arm, remedy in (("stranger+probe", "evaluate.stranger=MODEL"), ("tfidf", r"evaluate.baselines=\[tfidf\]")):
        with pytest.raises(ConfigError, match=remedy):
            check_baselines(plain, [parse_hypothesis(f"base+probe > {arm} on test")])
