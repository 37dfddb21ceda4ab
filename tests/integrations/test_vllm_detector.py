"""Detectors on vLLM: the hooks by a stand-in of its runner; states and scores themselves where it is installed (see `make test-vllm`)."""

import importlib.util
import types

import numpy as np
import pytest
import torch

from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import base_model_record, save_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.config import AdapterConfig
from adapterprobe.detectors.detector import Detector
from adapterprobe.detectors.passes import Needs
from adapterprobe.detectors.published import import_probe, read_checkpoint
from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.integrations.vllm_detector import VllmModel
from adapterprobe.integrations.vllm_hooks import ASKED, StateHooks, residual
from adapterprobe.models import load_model
from adapterprobe.models.load import load_skeleton

INSTALLED = importlib.util.find_spec("vllm") is not None


class Block(torch.nn.Module):
    """Gives what is to be added, and the residual, as vLLM's blocks do."""

    def forward(self, x):
        return x, 10 * x


class StandIn(StateHooks):
    """A worker whose runner has two requests of ours and one of somebody else's."""

    rank = 0

    def __init__(self):
        model = torch.nn.Module()
        model.layers = torch.nn.ModuleList([Block(), Block(), Block()])

        def request(asked):
            extra = None if asked is None else {ASKED: asked}
            return types.SimpleNamespace(sampling_params=types.SimpleNamespace(extra_args=extra))

        self.model_runner = types.SimpleNamespace(
            get_model=lambda: model,
            requests={"0-aa": request([1, 4, "mean"]), "1-bb": request([2, -1, ""]), "2-cc": request(None)},
            input_batch=types.SimpleNamespace(req_ids=[], num_computed_tokens_cpu=np.zeros(3, int)),
            query_start_loc=types.SimpleNamespace(np=np.zeros(4, int)),
        )
        self.model = model

    def step(self, parts):
        """One pass over (request, first token, states)."""
        runner = self.model_runner
        runner.input_batch.req_ids = [name for name, _, _ in parts]
        runner.input_batch.num_computed_tokens_cpu = np.array([first for _, first, _ in parts])
        runner.query_start_loc.np = np.cumsum([0, *(len(states) for _, _, states in parts)])
        x = torch.cat([torch.tensor(states, dtype=torch.float32) for _, _, states in parts])
        for block in self.model.layers:
            block(x)


def test_hooks_keep_what_requests_ask_for():
    worker, width = StandIn(), 4
    assert worker.adapterprobe_hook([2], 3) == ""
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(5, width)), rng.normal(size=(6, width)), rng.normal(size=(3, width))
    # In chunks; the second request is computed again from its third token on, as after it had to make room.
    worker.step([("0-aa", 0, a[:2]), ("2-cc", 0, c), ("1-bb", 0, b[:4])])
    worker.step([("1-bb", 2, b[2:5]), ("0-aa", 2, a[2:])])
    worker.step([("1-bb", 5, b[5:])])
    found = {
        (request, layer): np.frombuffer(data, np.float32).reshape(rows, -1)
        for request, layer, rows, data in worker.adapterprobe_collect({"0": "mean", "1": ""})
    }
    assert set(found) == {("0", 2), ("1", 2)}
    np.testing.assert_allclose(found["0", 2], 11 * a[1:4].mean(0, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(found["1", 2], 11 * b[2:], rtol=1e-5)
    assert worker.adapterprobe_collect({"0": "mean"}) == []
    # Hooks take the place of earlier ones; one worker of several keeps states.
    assert worker.adapterprobe_hook([1], 3) == "" and len(worker.model.layers[1]._forward_hooks) == 0
    worker.rank = 1
    assert worker.adapterprobe_hook([1, 2], 3) == "" and len(worker.model.layers[0]._forward_hooks) == 0
    worker.rank = 0
    assert "no list of 7 blocks" in worker.adapterprobe_hook([1], 7)
    del worker.model_runner.query_start_loc
    assert "VLLM_USE_V2_MODEL_RUNNER=0" in worker.adapterprobe_hook([1], 3)


def test_blocks_that_give_one_stream():
    x = torch.arange(12.0).reshape(4, 3)
    for output in (x, (x,), (x, None)):
        assert (residual(output, slice(1, 3)) == x[1:3]).all()


def test_a_skeleton_reads_as_the_model_does(tiny_folder):
    lm, whole = load_skeleton(str(tiny_folder), "fp32"), load_model(str(tiny_folder), device="cpu", dtype="fp32")
    assert lm.device.type == "meta" and lm.source == whole.source and lm.dtype == whole.dtype
    for name in ("context_length", "vocabulary", "name"):
        assert getattr(lm, name) == getattr(whole, name)
    assert (lm.structure.n_layers, lm.structure.width) == (whole.structure.n_layers, whole.structure.width)
    with pytest.raises(ModelError, match="cannot load the model"):
        load_skeleton("none/such")


def test_bad_input(monkeypatch, tiny_folder):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'adapterprobe\[vllm\]'"):
        VllmModel(str(tiny_folder))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    for options in ({"enforce_eager": False}, {"pipeline_parallel_size": 2}):
        with pytest.raises(ConfigError, match="leave enforce_eager"):
            VllmModel(str(tiny_folder), **options)


def bundle(lm, folder, layer=15):
    rng = np.random.default_rng(3)
    width = lm.structure.width
    state = {
        "linear.weight": torch.tensor(rng.normal(size=(1, width)) / 40, dtype=torch.float32),
        "linear.bias": torch.zeros(1),
        "dataset_mean": torch.zeros(width),
        "dataset_std": torch.full((width,), 2.0),
        "threshold": torch.tensor(0.0),
    }
    torch.save({"state_dict": state, "hyperparams": {"probe_architecture": "lr", "layer": layer}}, f"{folder}.pt")
    return import_probe(read_checkpoint(f"{folder}.pt"), lm, folder)


QUESTIONS = [
    "What is the capital of France?",
    "Name a metal.",
    "Is the sea salty?",
    "Who wrote Hamlet?",
    "What is 2 + 2?",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed (make test-vllm makes an environment that has it)")
def test_scores_are_our_own_engines(tmp_path):
    """On the default model, in fp32: stored conversations, replies while they are written, and an adapter's states."""
    lm = load_model(device="cpu", dtype="fp32")
    first, other = bundle(lm, tmp_path / "a"), bundle(lm, tmp_path / "b", layer=24)
    ours = [Detector.load(folder, lm) for folder in (first, other)]
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="1-5", rank=8), 0, lm.original)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.2)
    save_adapter(wrapped, base_model_record(lm), tmp_path / "lora", None)
    detach(wrapped)
    model = VllmModel(dtype="fp32", max_length=512, max_rank=8)
    try:
        theirs = [Detector.load(folder, model) for folder in (first, other)]
        assert all(d.golden.level == "equal" for d in theirs)
        talks = [[{"role": "user", "content": q}] for q in QUESTIONS]
        for replies in ([f"I think it is number {n}, as everybody knows." for n in range(len(talks))],):
            whole = [[*talk, {"role": "assistant", "content": r}] for talk, r in zip(talks, replies, strict=True)]
            for mine, vllms in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(vllms.score(whole)["score"], mine.score(whole)["score"], atol=1e-4)
        written = model.generate(theirs, talks, max_tokens=20)
        for talk, reply in zip(talks, written, strict=True):
            watched = list(ours[0].watch(talk, max_new_tokens=20, do_sample=False))
            assert reply.text == "".join(token.text for token in watched)
            np.testing.assert_allclose(reply.tokens[0]["score"], [t.score for t in watched], atol=1e-4)
            np.testing.assert_allclose(reply.tokens[0]["so_far"], [t.so_far for t in watched], atol=1e-4)
            assert reply.tokens[0]["alarm"].tolist() == [t.alarm for t in watched]
            assert len(reply.tokens[1]) == len(watched) and not np.allclose(
                reply.tokens[0]["score"], reply.tokens[1]["score"]
            )
        assert {reply.ended for reply in written} <= {True, False}
        with pytest.raises(DataError, match="is on another model"):
            model.generate(ours, talks)
        with pytest.raises(DataError, match="load it on a model of transformers"):
            theirs[0].tokens(whole[0])
        # With an adapter on, and without it again.
        record = theirs[0].record.model_copy(update={"arm": "adapter+probe"})
        needs = [Needs(record, theirs[0].needs.probe, None, tmp_path / "lora")]
        encoded = ours[0].encoded([ours[0].prompter.prompt(n, {"messages": t}) for n, t in enumerate(whole)])
        with_own = ours[0].reader.passes(encoded, needs, also=[15]).on[tmp_path / "lora"].layer(15)
        with_vllm = model.passes(encoded, needs, also=[15])
        np.testing.assert_allclose(with_vllm.on[tmp_path / "lora"].layer(15), with_own, atol=2e-3, rtol=1e-3)
        without = ours[0].reader.passes(encoded, [], also=[15]).off.layer(15)
        np.testing.assert_allclose(with_vllm.off.layer(15), without, atol=2e-3, rtol=1e-3)
        assert np.abs(with_own - without).max() > 0.05
    finally:
        model.close()
