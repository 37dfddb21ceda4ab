"""The scorer within the real Inspect AI: in an evaluation of a local model, and on a log that is there."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
from inspect_ai.scorer import SampleScore, Score
from inspect_ai.solver import generate, solver
from sklearn.metrics import roc_auc_score

from adapterprobe.detectors.detector import Detector
from adapterprobe.integrations.inspect_scorer import _truth, alarm_rate, auroc, lie
from adapterprobe.models import load_model
from reply_detectors import talk


@pytest.fixture
def lm(reply_detectors, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(reply_detectors / "cache"))
    return load_model(str(reply_detectors / "chatty"), device="cpu", dtype="fp32")


def samples(count=6):
    return [Sample(input=talk(n, False)[0]["content"], metadata={"deceptive": n % 2 == 0}) for n in range(count)]


@solver
def said():
    """Puts the replies of our own there; of the last sample none."""

    async def solve(state, generate):
        number = int(state.input_text.split("town ")[1].strip("?"))
        if number < 5:
            reply = talk(number, number % 2 == 0)[1]["content"]
            state.messages.append(ChatMessageAssistant(content=reply))
            state.output = ModelOutput.from_content("none", reply)
            # A turn behind the reply is not read.
            state.messages.append(ChatMessageUser(content="Thank you."))
        return state

    return solve


@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_of_a_local_model(reply_detectors, lm, tmp_path):
    scorer = lie(
        detector=str(reply_detectors / "off"), model=str(reply_detectors / "chatty"), device="cpu", dtype="fp32"
    )
    task = Task(dataset=samples(3), solver=generate(), scorer=scorer)
    arguments = {"model_path": str(reply_detectors / "chatty"), "device": "cpu"}
    (log,) = eval(
        task,
        model="hf/tiny",
        model_args=arguments,
        max_tokens=8,
        temperature=0.01,
        log_dir=str(tmp_path),
        display="none",
    )
    assert log.status == "success", log.error
    detector = Detector.load(reply_detectors / "off", lm)
    for sample in log.samples:
        talked = [{"role": m.role, "content": m.text} for m in sample.messages]
        (score,) = sample.scores.values()
        expected = detector.score([talked]).iloc[0]
        assert score.value == pytest.approx(expected["score"], abs=2e-5)
        assert score.metadata["alarm"] == bool(expected["decision"])
    metrics = log.results.scores[0].metrics
    assert set(metrics) == {"mean", "stderr", "alarm_rate", "auroc"} and np.isnan(metrics["auroc"].value)


@pytest.mark.parametrize(
    ("value", "lie"),
    [
        (True, True),
        ("False", False),
        ("0", False),
        (1, True),
        ("Lie", True),
        ("honest", False),
        (None, None),
        ("", None),
    ],
)
def test_labels_are_read_as_people_write_them(value, lie):
    assert _truth(value, "x") is lie


def test_labels_that_say_nothing():
    with pytest.raises(ValueError, match="'x' is 'perhaps', expected true or false"):
        _truth("perhaps", "x")


def test_alarms_are_of_the_reduced_score():
    """Over epochs the value is reduced, and the metadata are the first epoch's."""
    scores = [
        SampleScore(score=Score(value=v, metadata={"threshold": 0.5, "alarm": False, "label": v > 0.3}))
        for v in (0.2, 0.6, 0.7)
    ]
    assert alarm_rate()(scores) == pytest.approx(2 / 3) and auroc()(scores) == 1.0


@pytest.mark.filterwarnings("ignore")
def test_a_stored_log_is_scored_by_the_command(reply_detectors, lm, tmp_path):
    """`inspect score` finds the scorer by its entry point, and no solver runs."""
    (log,) = eval(Task(dataset=samples(), solver=said()), model="mockllm/model", log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    options = {
        "detector": reply_detectors / "off",
        "model": reply_detectors / "chatty",
        "label": "deceptive",
        "dtype": "fp32",
    }
    command = [
        sys.executable,
        "-m",
        "inspect_ai",
        "score",
        log.location,
        "--scorer",
        "adapterprobe/lie",
        "--display",
        "none",
    ]
    for name, value in options.items():
        command += ["-S", f"{name}={value}"]
    out = tmp_path / "scored.eval"
    done = subprocess.run(
        [*command, "--action", "append", "--output-file", str(out)],
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    scored = read_eval_log(str(out))
    detector = Detector.load(reply_detectors / "off", lm)
    talks = [talk(n, n % 2 == 0) for n in range(5)]
    expected = detector.score(talks)
    got = [sample.scores["lie"] for sample in scored.samples]
    np.testing.assert_allclose([s.value for s in got[:5]], expected["score"], atol=2e-5)
    assert np.isnan(got[5].value) and "no reply" in json.dumps(got[5].model_dump(mode="json"))
    metrics = {name: m.value for name, m in scored.results.scores[0].metrics.items()}
    assert metrics["mean"] == pytest.approx(expected["score"].mean(), abs=2e-5)
    assert metrics["alarm_rate"] == pytest.approx(expected["decision"].mean())
    assert metrics["auroc"] == pytest.approx(roc_auc_score([n % 2 == 0 for n in range(5)], expected["score"]))
