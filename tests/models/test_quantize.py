"""Weights in 8 and 4 bits: the engine, the adapter and its switch work on them as they are."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.adapters import adapter_merged, adapter_off, attach
from adapterprobe.adapters.attach import detach, trainable
from adapterprobe.adapters.kinds import KINDS
from adapterprobe.adapters.weight_init import dequantized
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.fidelity import fidelity
from adapterprobe.errors import ConfigError
from adapterprobe.models import load_model
from conftest import FAMILIES

IDS = [[5, 9, 11, 40, 41, 42, 43, 44, 45, 46, 300 + i, 17, 200 + i] for i in range(4)]


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """Wide enough for the blocks of 64 weights that share a scale in 4 bits."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llama"](**(FAMILIES["llama"] | {"hidden_size": 128, "intermediate_size": 128}))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    made = tmp_path_factory.mktemp("models") / "wider-llama"
    model.save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
@pytest.mark.parametrize("kind", [kind.name for kind in KINDS.values() if kind.quantizes])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_engine_and_adapter_on_quantised_weights(bits, kind, folder):
    lm = load_model(str(folder), device="cpu", dtype="fp32", quantize=bits)
    assert any(not p.is_floating_point() for p in lm.model.parameters())
    assert lm.fingerprint != load_model(str(folder), device="cpu", dtype="fp32").fingerprint
    engine = Engine(lm.model, lm.structure)
    assert engine.share
    found = fidelity(engine, IDS)
    # 8-bit products round each token's inputs, so that other batches give other roundings.
    assert max(found.logits, found.states) < (1e-3 if bits == "4bit" else 0.05) and found.exact_logits is None
    (batch,) = engine.plan(IDS)

    @torch.no_grad()
    def logits():
        return engine.run(batch, states=False).logits

    before = logits()
    wrapped = attach(lm.model, lm.structure, AdapterConfig(kind=kind, layers="2-3", rank=4, alpha=8), 0, lm.original)
    if kind == "loftq":
        # At the start, on is nearer to the full-precision weights than off: in each module.
        exact = load_model(str(folder), device="cpu", dtype="fp32").model
        for name, module in lm.model.named_modules():
            if hasattr(module, "lora_A"):
                weight, now = exact.get_submodule(name).weight, dequantized(module.get_base_layer())
                assert (now + module.get_delta_weight("default") - weight).norm() < 0.95 * (now - weight).norm()
    elif kind != "lora":
        # What the start takes up it takes off again.
        assert (logits() - before).abs().max() < (0.2 if bits == "8bit" else 1e-3) * before.abs().max()
    for parameter in trainable(wrapped).values():
        torch.nn.init.normal_(parameter, std=0.3)
    on = logits()
    assert (on - before).abs().max() > 1e-2
    with adapter_off(lm.model):
        assert torch.equal(logits(), before)
    with adapter_merged(lm.model):
        assert torch.equal(logits(), on), "quantised weights are never merged"

    def loss():
        return engine.run(batch, states=False).logits.logsumexp(1).sum()

    loss().backward()
    parameters = trainable(wrapped)
    square = sum(float((p.grad**2).sum()) for p in parameters.values())
    assert square > 0 and all(p.grad is not None for p in parameters.values())
    if bits == "4bit":
        # Along the gradient the loss rises as the gradient says (8-bit rounding of inputs is too coarse for this).
        step = 1e-3 / square**0.5
        values = []
        for side in (1, -1):
            with torch.no_grad():
                for p in parameters.values():
                    p.add_(p.grad, alpha=side * step)
                values.append(float(loss()))
                for p in parameters.values():
                    p.sub_(p.grad, alpha=side * step)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(square, rel=0.05)
    with adapter_off(lm.model):
        assert torch.equal(logits(), before)
    detach(wrapped)
    assert torch.equal(logits(), before)


def test_kinds_that_cannot_adapt_quantised_weights(folder):
    lm = load_model(str(folder), device="cpu", dtype="fp32", quantize="4bit")
    with pytest.raises(
        ConfigError, match="adapter.kind=vera cannot adapt 8-bit or 4-bit weights; lora, pissa, olora, loftq can"
    ):
        attach(lm.model, lm.structure, AdapterConfig(kind="vera"), 0)


def test_refusals(tiny_folder, monkeypatch):
    with pytest.raises(ConfigError, match="8bit or 4bit"):
        load_model(str(tiny_folder), quantize="2bit")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install bitsandbytes"):
        load_model(str(tiny_folder), quantize="4bit")
