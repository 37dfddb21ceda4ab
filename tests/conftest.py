"""Tiny random models of several families, built from configs: no downloads."""

from __future__ import annotations

import os
from pathlib import Path

# One thread a process: tiny tensors gain nothing from a second one, and two processes share the cores (`make test`).
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The hub is never asked, so nothing waits for a network that may not be there.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from jaxtyping import install_import_hook

# Shapes at the boundaries are checked whenever a test runs.
install_import_hook(
    [
        f"adapterprobe.{module}"
        for module in (
            "activations.in_memory",
            "adapters.detect_head",
            "adapters.objectives",
            "engine.answers",
            "evaluate.statistics",
        )
    ],
    "beartype.beartype",
)

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from adapterprobe.config import RunConfig
from adapterprobe.data import load_relation
from adapterprobe.models import find_structure
from adapterprobe.models.load import LanguageModel
from adapterprobe.progress import messages_shown
from reply_detectors import reply_detectors  # noqa: F401  a fixture of all rooms

os.environ["TOKENIZERS_PARALLELISM"] = "false"

COMMON = {
    "vocab_size": 600,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
LLAMA = COMMON | {"intermediate_size": 48, "num_key_value_heads": 2}
FAMILIES = {
    "llama": LLAMA,
    "phi": COMMON | {"intermediate_size": 48},
    "gpt_neox": COMMON | {"intermediate_size": 48},
    "gpt2": {"vocab_size": 600, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512},
    "qwen2": LLAMA,
    # A window shorter than the prompts, so that sliding attention really slides.
    "gemma3_text": LLAMA | {"head_dim": 8, "sliding_window": 16, "sliding_window_pattern": 2},
    "mistral": LLAMA | {"sliding_window": 16},
}
SEVERAL = pytest.mark.parametrize("family", sorted(FAMILIES))


@pytest.fixture(autouse=True)
def messages():
    """What the library says stands on stderr, as the command line shows it."""
    with messages_shown():
        yield


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level BPE trained on our own facts."""
    words = [text for name in ("capitals", "elements", "animals") for text in _sentences(name)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*words, " Yes", " No", " True", " False"] * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")


def _sentences(name: str) -> list[str]:
    relation = load_relation(name)
    return [
        f"Question: {relation.texts(f, f.object)['question']}\nAnswer: Yes\n\nQuestion: Is it true that "
        f"{relation.texts(f, f.object)['statement']}?\nAnswer: No\n\n"
        for f in relation.facts
    ]


def tiny(family: str) -> torch.nn.Module:
    """A random model with weights large enough that layers matter."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**FAMILIES[family], bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return model


@pytest.fixture
def tiny_lm(tokenizer):
    """Make a tiny `LanguageModel` of a family."""

    def make(family: str = "llama") -> LanguageModel:
        model = tiny(family)
        return LanguageModel(family, model, tokenizer, find_structure(model))

    return make


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory) -> Path:
    """A tiny llama in a local folder, as `save_pretrained` and the hub lay it out."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the test's own."""
    monkeypatch.setenv("ADAPTERPROBE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def small_config(model: str | Path, **changes) -> RunConfig:
    """A whole comparison in seconds."""
    content = {
        "model": {"name": str(model), "dtype": "fp32", "device": "cpu"},
        "data": {"train": ["capitals"], "ood": ["elements"], "max_groups": 70, "max_ood_groups": 16, "min_groups": 4},
        "elicit": {"shots": 2, "demo_sets": 1},
        "adapter": {"layers": "1-3", "epochs": 2, "rank": 4, "alpha": 8, "lr": 0.01, "batch_size": 8, "micro_batch": 8},
        "select": {"strengths": [0.01, 1.0]},
        "evaluate": {"resamples": 1000, "adapter_controls": False, "shifts": [], "preliminary": False},
        "seeds": [0, 1],
    }
    for key, value in changes.items():
        if isinstance(value, dict):
            content[key] = content.get(key, {}) | value
        else:
            content[key] = value
    return RunConfig.model_validate(content)


@pytest.fixture(scope="session")
def finished_run(tiny_folder, tmp_path_factory) -> Path:
    """A folder with `run.yaml`, the finished run `out` that came of it through the command line, and its `cache`."""
    from adapterprobe.cli import main
    from adapterprobe.config_files import to_yaml

    base = tmp_path_factory.mktemp("run")
    (base / "run.yaml").write_text(to_yaml(small_config(tiny_folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
        assert main(["run", str(base / "run.yaml"), "--out", str(base / "out")]) == 0
    return base
