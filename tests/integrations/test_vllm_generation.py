"""vLLM as the engine of `generate`: what it is asked for, by a stand-in; and the replies themselves, where it is installed (see `make
test-vllm`)."""

import importlib.util
import json
import sys
import types

import pytest
from safetensors.torch import load_file

from adapterprobe.adapters import attach
from adapterprobe.adapters.adapter_folder import base_model_record, save_adapter
from adapterprobe.adapters.attach import detach
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import ConfigError, ModelError
from adapterprobe.generation.instructions import NEUTRAL
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.scenarios import read_scenarios
from adapterprobe.generation.writers import TransformersWriters
from adapterprobe.integrations.vllm_engine import check_lora
from adapterprobe.integrations.vllm_generation import VllmWriters, scaled_copy, vllm_writers
from adapterprobe.models import load_model

INSTALLED = importlib.util.find_spec("vllm") is not None


class StandIn:
    """Answers every prompt with its own last tokens, n times, and remembers what it was asked for."""

    def __init__(self, **settings):
        self.settings, self.asked = settings, []
        StandIn.last = self

    def generate(self, prompts, params, use_tqdm, lora_request):
        self.asked.append((prompts, params, lora_request))
        return [
            types.SimpleNamespace(
                outputs=[
                    types.SimpleNamespace(
                        token_ids=[*p["prompt_token_ids"][-3:], q.stop_token_ids[0]], finish_reason="stop"
                    )
                    for _ in range(q.n)
                ]
            )
            for p, q in zip(prompts, params, strict=True)
        ]


@pytest.fixture
def stand_in(monkeypatch):
    vllm = types.ModuleType("vllm")
    vllm.LLM, vllm.SamplingParams = StandIn, types.SimpleNamespace
    vllm.__spec__ = importlib.util.spec_from_loader("vllm", None)
    request = types.ModuleType("vllm.lora.request")
    request.LoRARequest = lambda name, number, path: types.SimpleNamespace(name=name, number=number, path=path)
    for name, module in (("vllm", vllm), ("vllm.lora", types.ModuleType("vllm.lora")), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)


def adapter_of(lm, folder, **settings):
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="1-2", rank=4, **settings), 0, lm.original)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    save_adapter(wrapped, base_model_record(lm), folder, None)
    detach(wrapped)
    return folder


def prompts_of(lm, writer, count=5):
    return [writer.asked(scenario, NEUTRAL) for scenario in read_scenarios("capitals")[:count]]


def test_what_vllm_is_asked_for(stand_in, tiny_folder, tmp_path):
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    writer = PromptWriter(lm.tokenizer, "plain", lm.context_length, lm.vocabulary, 12)
    prompts = prompts_of(lm, writer)
    writers = vllm_writers(gpu_memory_utilization=0.2)(lm, Engine(lm.model, lm.structure), writer, 77)
    with writers.writing(None, 1.0) as vllm:
        replies = [r for part in vllm.write(prompts, Sampling(3, 0.5, 0.9, 12, seed=4)) for r in part]
    settings = StandIn.last.settings
    assert settings["model"] == str(tiny_folder) and settings["dtype"] == "float32" and settings["max_model_len"] == 77
    assert (
        settings["enable_prefix_caching"]
        and settings["gpu_memory_utilization"] == 0.2
        and "enable_lora" not in settings
    )
    assert {(r.prompt, r.sample) for r in replies} == {(p.key, n) for p in prompts for n in range(3)}
    by_key = {p.key: p for p in prompts}
    for reply in replies:
        assert reply.ended and reply.text == lm.tokenizer.decode(list(by_key[reply.prompt].ids[-3:])).strip()
    (sent, params, _) = StandIn.last.asked[0]
    assert all((q.n, q.temperature, q.top_p, q.max_tokens, q.min_tokens) == (3, 0.5, 0.9, 12, 1) for q in params)
    assert len({q.seed for q in params}) == len(prompts) and params[0].stop == ["\n\nQuestion:"]
    # The seed hangs on the prompt, not on what is asked beside it.
    alone = vllm._params(
        next(p for p in prompts if list(p.ids) == sent[2]["prompt_token_ids"]), Sampling(3, 0.5, 0.9, 12, seed=4)
    )
    assert alone.seed == params[2].seed != vllm._params(prompts[0], Sampling(3, 0.5, 0.9, 12, seed=5)).seed


def test_an_adapter_is_its_own_lora(stand_in, tiny_folder, tmp_path):
    lm = load_model(str(tiny_folder), device="cpu", dtype="fp32")
    writer = PromptWriter(lm.tokenizer, "plain", lm.context_length, lm.vocabulary, 12)
    folder = adapter_of(lm, tmp_path / "a", alpha=8)
    writers = VllmWriters(lm, writer, 64, {})
    with writers.writing(folder, 0.5) as vllm:
        list(vllm.write(prompts_of(lm, writer), Sampling(1, 0.0, 1.0, 4)))
        request = StandIn.last.asked[0][2]
        config = json.loads((type(folder)(request.path) / "adapter_config.json").read_text())
        assert config["lora_alpha"] == 4
    with writers.writing(folder, 1.0) as vllm:
        list(vllm.write(prompts_of(lm, writer), Sampling(1, 0.0, 1.0, 4)))
    asked = [request for _, _, request in StandIn.last.asked]
    assert len({r.number for r in asked}) == len(asked) == 2, "kept by number: another strength is another adapter"
    assert StandIn.last.settings["max_lora_rank"] == 8 and StandIn.last.settings["enable_lora"]
    writers.close()
    assert not type(folder)(request.path).exists(), "the scaled copy goes with the engine"
    with scaled_copy(folder, 3.0) as copy:
        mine = load_file(folder / "adapter_model.safetensors")
        assert all((mine[name] == t).all() for name, t in load_file(copy / "adapter_model.safetensors").items())
    for kind, said in (("ia3", "its kind is IA3"), ("dora", "it is a DoRA")):
        other = adapter_of(lm, tmp_path / kind, kind=kind)
        with pytest.raises(ModelError, match=said):
            check_lora(other)


def test_bad_input(tiny_lm, tmp_path, capsys, monkeypatch):
    lm = tiny_lm()
    with pytest.raises(ModelError, match="is in memory alone"):
        VllmWriters(lm, None, 64, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'adapterprobe\[vllm\]'"):
        vllm_writers()
    argv = ["generate", "--data", "capitals", "--out", str(tmp_path / "r.jsonl")]
    assert main([*argv, "--engine-option", "a=1"]) == 2 and "only --engine vllm" in capsys.readouterr().err
    assert main([*argv, "--engine", "vllm", "--engine-option", "a"]) == 2 and "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed (make test-vllm makes an environment that has it)")
def test_greedy_replies_are_our_own_engines_token_for_token(tmp_path):
    """On the default model, in fp32, without an adapter and with one at half its strength."""
    lm = load_model(device="cpu", dtype="fp32")
    writer = PromptWriter(lm.tokenizer, None, lm.context_length, lm.vocabulary, 24)
    engine = Engine(lm.model, lm.structure)
    prompts = prompts_of(lm, writer, 24)
    sampling = Sampling(1, 0.0, 1.0, 24)
    folder = adapter_of(lm, tmp_path / "a", alpha=2)
    theirs = VllmWriters(lm, writer, 128, {})
    ours = TransformersWriters(lm, engine, writer)
    try:
        for adapter, strength in ((None, 1.0), (folder, 1.0), (folder, 0.5)):
            found = []
            for writers in (ours, theirs):
                with writers.writing(adapter, strength) as some:
                    found.append({r.prompt: (r.text, r.ended) for part in some.write(prompts, sampling) for r in part})
            assert found[0] == found[1]
            assert len(set(found[0].values())) > 12
    finally:
        theirs.close()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not INSTALLED, reason="vLLM is not installed (make test-vllm makes an environment that has it)")
def test_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "r.jsonl"
    argv = [
        "generate",
        "--data",
        "capitals",
        "--limit",
        "40",
        "--samples",
        "2",
        "--system",
        "none",
        "--engine",
        "vllm",
        "--out",
        str(out),
    ]
    assert main(argv) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 80 and {"lie", "honest", "mistake"} & {row["outcome"] for row in rows}
