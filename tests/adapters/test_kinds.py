"""One contract for every kind: it learns, every tensor moves, off is the untouched model, merged equals on, loads elsewhere."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapter_contract import contract
from adapterprobe.adapters import attach
from adapterprobe.adapters.attach import detach, target_names, trainable
from adapterprobe.adapters.kinds import KINDS, check_kind, unused
from adapterprobe.config import AdapterConfig, ModelConfig
from adapterprobe.data import load_relation
from adapterprobe.errors import ConfigError
from adapterprobe.pipeline import run
from adapterprobe.prompts import draw_demo_sets, make_prompts, templates_for
from adapterprobe.prompts.encoded import encode
from conftest import small_config

# Rates at which three epochs of a tiny model show that a kind learns.
RATES = {
    "unilora": 0.3,
    "pvera": 0.3,
    "vera": 0.1,
    "psoft": 0.05,
    "c3a": 0.05,
    "ia3": 0.05,
    "ln_tuning": 0.05,
    "hira": 0.05,
}
EACH = pytest.mark.parametrize("kind", sorted(KINDS))


@pytest.fixture(scope="module")
def encoded(tokenizer):
    relation = load_relation("capitals")
    examples = relation.examples(relation.groups[:12], "question", 0)
    demos = draw_demo_sets(examples[:8], 2, 1, "demos", np.random.default_rng(0))
    prompts = make_prompts(examples[8:], "x", ["truth"], templates_for(relation, "question"), demos, "plain", 0)
    return encode(tokenizer, prompts, None)


def parts_of(lm):
    return lm.model, lm.structure


def config_of(kind, **changes):
    values = {"layers": "1-3", "rank": 4, "epochs": 4, "lr": RATES.get(kind, 0.01), "batch_size": 8, "patience": 9}
    return AdapterConfig(kind=kind, **(values | changes))


@EACH
def test_contract_on_a_llama(kind, tiny_lm, encoded, tmp_path):
    # Fourier transforms and the solves of rotations are exact to fewer digits than products.
    contract(tiny_lm("llama"), tiny_lm("llama"), encoded, config_of(kind), tmp_path, 1e-3)


@EACH
def test_contract_in_bf16(kind, tiny_lm, encoded, tmp_path):
    """Merging rounds to bf16; everything else holds to the bit."""
    one, two = tiny_lm("llama"), tiny_lm("llama")
    one.model.bfloat16(), two.model.bfloat16()
    contract(one, two, encoded, config_of(kind, epochs=5), tmp_path, 0.25)


UNFIT = {("gpt2", kind) for kind in ("loha", "oft", "bias", "hra")}
"""PEFT's tuners that do not know transformers' transposed Conv1D."""


@pytest.mark.parametrize("family", ["gpt2", "phi", "gpt_neox"])
@pytest.mark.parametrize("kind", ["dora", "ia3", "loha", "oft", "vera", "ln_tuning", "bias", "hra", "fourierft"])
def test_contract_on_other_families(kind, family, tiny_lm, encoded, tmp_path):
    config = config_of(kind)
    if (family, kind) in UNFIT:
        with pytest.raises(ConfigError, match="does not fit this model"):
            attach(tiny_lm(family).model, tiny_lm(family).structure, config, 0)
        return
    contract(tiny_lm(family), tiny_lm(family), encoded, config, tmp_path, 1e-3)


def test_norms_are_found_by_structure(tiny_lm):
    for family, names in [("llama", {"input_layernorm", "post_attention_layernorm"}), ("gpt2", {"ln_1", "ln_2"})]:
        found = target_names(*parts_of(tiny_lm(family)), config_of("ln_tuning", layers="last:1"))
        assert {name.rsplit(".", 1)[-1] for name in found} == names and all(".3." in name for name in found)
    with pytest.raises(ConfigError, match="no module 'q_proj' in these blocks; there are input_layernorm"):
        target_names(*parts_of(tiny_lm("llama")), config_of("ln_tuning", modules=["q_proj"]))


def test_options_by_pefts_names(tiny_lm):
    lm = tiny_lm()
    wrapped = attach(
        lm.model, lm.structure, config_of("loha", options={"use_effective_conv2d": True, "rank_dropout": 0.5}), 0
    )
    assert wrapped.peft_config["default"].rank_dropout == 0.5
    detach(wrapped)
    with pytest.raises(ConfigError, match="the kind 'loha' has no 'rnk_dropout' .did you mean 'rank_dropout'"):
        check_kind(config_of("loha", options={"rnk_dropout": 0.5}))
    with pytest.raises(ConfigError, match="has no 'target_modules'"):
        check_kind(config_of("lora", options={"target_modules": ["q_proj"]}))
    with pytest.raises(ConfigError, match="no adapter kind 'lhoa' .did you mean .*'loha'"):
        check_kind(config_of("lora").model_copy(update={"kind": "lhoa"}))
    with pytest.raises(ConfigError, match="does not fit this model|cannot be made"):
        attach(lm.model, lm.structure, config_of("boft", options={"boft_block_size": 7}), 0)
    assert not any("boft" in type(m).__module__ for m in lm.model.modules())


def test_settings_that_a_kind_does_not_have_are_said():
    assert unused(AdapterConfig(kind="ln_tuning", rank=8, alpha=4)) == ["rank", "alpha"]
    assert (
        unused(AdapterConfig(kind="oft", rank=8))
        == []
        == unused(AdapterConfig(kind="lora", rank=8, alpha=4, dropout=0.1))
    )
    assert unused(AdapterConfig(kind="ln_tuning")) == []


def test_saved_adapters_load_in_another_process(tiny_folder, tiny_lm, encoded, tmp_path):
    lm = tiny_lm("llama")
    wrapped = attach(lm.model, lm.structure, config_of("vera"), 0)
    with torch.no_grad():
        for parameter in trainable(wrapped).values():
            parameter.add_(0.1)
    ids = list(encoded.ids[0])
    with torch.no_grad():
        here = wrapped(torch.tensor([ids])).logits[0, -1].tolist()
    wrapped.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    code = (
        "import json, sys, torch\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n"
        f"m = AutoModelForCausalLM.from_pretrained({str(tiny_folder)!r}, dtype=torch.float32)\n"
        f"m = PeftModel.from_pretrained(m, {str(tmp_path / 'adapter')!r}).eval()\n"
        f"print(json.dumps(m(torch.tensor([{ids}])).logits[0, -1].tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert np.allclose(json.loads(done.stdout.splitlines()[-1]), here, atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    ["oft", "ln_tuning", pytest.param("dora", marks=pytest.mark.slow), pytest.param("bias", marks=pytest.mark.slow)],
)
def test_whole_runs(kind, tiny_folder, tmp_path, cache, capsys):
    """Trained, recorded with the adapter on, saved and loaded: merged or not, in fp32 or with fp32 weights in bf16."""
    config = small_config("", adapter={"kind": kind, "lr": 0.05}, seeds=[0])
    config = config.model_copy(update={"model": ModelConfig(name=str(tiny_folder), dtype="bf16", device="cpu")})
    finished = run(config, tmp_path / "out")
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert all(a["off_equal"] and a["on_difference"] > 1e-3 for a in about["adapters"])
    scores = finished.predictions[finished.predictions["axis"] == "truth"]
    on, off = (scores.loc[scores["arm"] == arm, "score"].to_numpy() for arm in ("adapter", "base"))
    assert np.isfinite(on).all() and not np.allclose(on, off)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, str(tmp_path / "out" / "adapter"))
    told = capsys.readouterr().err
    assert ("adapter.rank says nothing" in told) == (kind in ("ln_tuning", "bias"))


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_rank_beyond_the_matrix_is_padded(kind, tiny_lm):
    lm = tiny_lm()
    width = lm.structure.width
    config = AdapterConfig(kind=kind, rank=2 * width, alpha=2 * width)
    wrapped = attach(lm.model, lm.structure, config, 0)
    assert all(p.isfinite().all() for p in trainable(wrapped).values())


@pytest.mark.parametrize(
    ("kind", "option"), [("pissa", "r"), ("loftq", "use_rslora"), ("olora", "lora_alpha"), ("adalora", "tinit")]
)
def test_options_that_a_kind_decides_are_refused(kind, option):
    with pytest.raises(ConfigError, match=f"{option} is decided by the kind '{kind}'"):
        check_kind(AdapterConfig(kind=kind, options={option: 8}))
