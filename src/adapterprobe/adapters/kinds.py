"""The kinds of adapter: one table over PEFT's tuners (docs/adapters.md).

PEFT's defaults are made for large models (ranks of 64, blocks of 256); here each kind's settings come from `rank`, `alpha`
and `dropout` where it has such, and from what divides the widths of the adapted maps.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.plugins import load_plugins

MANAGED = frozenset(
    {"target_modules", "task_type", "peft_type", "inference_mode", "modules_to_save", "layers_to_transform"}
)
"""Settings of PEFT that `adapter.layers` and `adapter.modules` decide, or that would leave something on when off."""

REWRITING = frozenset({"pissa", "olora", "loftq", "corda", "eva", "lora", "mica"})
"""First words of PEFT's initialisations that change the base model or need data that PEFT is not given here."""


Update = Callable[[int, AdapterConfig], nn.Module]
"""Makes the update of one block's output, out of the width of the residual stream."""


@dataclass(frozen=True)
class AdapterSpec:
    """One kind of adapter."""

    name: str
    what: str
    """What it learns, and the paper."""
    peft: str
    """PEFT's name of the tuner; empty for our own."""
    rank: str | None = None
    alpha: str | None = None
    dropout: str | None = None
    """PEFT's names of these settings; None where the kind has none."""
    settings: Mapping[str, object] = field(default_factory=dict)
    sized: Callable[[AdapterConfig, Sequence[int]], dict] | None = None
    """Settings that follow from the widths (inputs and outputs) of the adapted maps."""
    by_rank: bool = False
    """Whether these follow from the rank too."""
    targets: str = "linear"
    """What it adapts: `linear` maps, `norms`, or whole `blocks`."""
    merges: bool = True
    """Whether it can be merged into the weights, for passes at the speed of the bare model, equal within rounding (a
    spectrum merged into bf16 is not)."""
    full_precision: bool = False
    """Its weights stay in fp32 in a bf16 model: it solves or transforms in ways that bf16 lacks."""
    quantizes: bool = False
    """Whether it was seen to train right on 8-bit and 4-bit weights."""
    rate: float = 1e-3
    """Peak learning rate that suits it, by `python -m benchmarks.kinds` on the default model."""
    reads_weights: bool = False
    """Whether its passes look at the model's own weights, beside running them: not for weights that are brought to a device for a pass only."""
    initial: str | None = None
    """Which factor of the weights it starts from (see `initial`)."""
    module: Update | None = None
    """Of kinds that are not PEFT's: from the width of the residual stream to the update of one block's output, nought at the start."""


def _divisor(widths: Sequence[int], most: int) -> int:
    """The largest divisor of all widths up to `most`."""
    common = functools.reduce(math.gcd, widths)
    return max(d for d in range(1, min(most, common) + 1) if common % d == 0)


def _even(number: int) -> int:
    return max(2, number - number % 2)


def _linear_update(width: int, config: AdapterConfig) -> nn.Module:
    update = nn.Linear(width, width)
    for parameter in update.parameters():
        nn.init.zeros_(parameter)
    return update


LORA: dict[str, Any] = {"rank": "r", "alpha": "lora_alpha", "dropout": "lora_dropout"}

KINDS = {
    kind.name: kind
    for kind in (
        AdapterSpec("lora", "low-rank update (Hu et al. 2021)", "LORA", quantizes=True, **LORA),
        AdapterSpec("rslora", "LoRA scaled by 1/sqrt(rank) (Kalajdzievski 2023)", "LORA", rate=0.0003, settings={"use_rslora": True}, **LORA),
        AdapterSpec("pissa", "LoRA from the weight's leading singular vectors (Meng et al. 2024)", "LORA", quantizes=True, initial="pissa", **LORA),
        AdapterSpec("olora", "LoRA from the weight's QR decomposition (Buyukakyuz 2024)", "LORA", quantizes=True, initial="olora", **LORA),
        AdapterSpec("loftq", "LoRA from what quantisation loses (Li et al. 2023)", "LORA", quantizes=True, initial="loftq", **LORA),
        AdapterSpec("adalora", "LoRA with ranks dealt out by importance while it is trained (Zhang et al. 2023)", "ADALORA", rate=0.003,
             alpha="lora_alpha", dropout="lora_dropout", by_rank=True, full_precision=True,
             sized=lambda c, w: {"target_r": c.rank, "init_r": c.rank + max(1, c.rank // 2), "total_step": 1000}),
        AdapterSpec("dora", "LoRA with magnitudes apart (Liu et al. 2024)", "LORA", settings={"use_dora": True}, **LORA, reads_weights=True),
        AdapterSpec("ia3", "rescaled outputs (Liu et al. 2022)", "IA3", rate=0.01, settings={"feedforward_modules": []}),
        AdapterSpec("loha", "Hadamard product of two low-rank updates (Hyeon-Woo et al. 2022)", "LOHA", rank="r", alpha="alpha", dropout="module_dropout"),
        AdapterSpec("lokr", "Kronecker product with a low-rank factor (Yeh et al. 2023)", "LOKR", rate=0.003, rank="r", alpha="alpha", dropout="module_dropout"),
        AdapterSpec("oft", "rotation of weight blocks (Qiu et al. 2023)", "OFT", dropout="module_dropout", full_precision=True,
             by_rank=True, sized=lambda c, w: {"oft_block_size": _divisor(w, c.rank)}),
        AdapterSpec("boft", "butterfly rotation (Liu et al. 2023)", "BOFT", dropout="boft_dropout", full_precision=True,
             by_rank=True, sized=lambda c, w: {"boft_block_size": _divisor(w, c.rank)}),
        AdapterSpec("hra", "Householder reflections (Yuan et al. 2024)", "HRA", rank="r", full_precision=True, reads_weights=True),
        AdapterSpec("vera", "scales of shared random projections (Kopiczko et al. 2024)", "VERA", rate=0.01, rank="r", dropout="vera_dropout"),
        AdapterSpec("randlora", "scaled sum of random low-rank bases (Albert et al. 2025)", "RANDLORA", rank="r", alpha="randlora_alpha", dropout="randlora_dropout"),
        AdapterSpec("fourierft", "sparse spectrum of the update (Gao et al. 2024)", "FOURIERFT", rate=0.005, full_precision=True, merges=False,
             by_rank=True, sized=lambda c, w: {"n_frequency": 16 * c.rank}),
        AdapterSpec("waveft", "sparse wavelet coefficients of the update", "WAVEFT", rate=0.005, full_precision=True,
             by_rank=True, sized=lambda c, w: {"n_frequency": 16 * c.rank}),
        AdapterSpec("ln_tuning", "the norms' own weights (Qi et al. 2022)", "LN_TUNING", rate=0.005, targets="norms", merges=False, reads_weights=True),
        AdapterSpec("bias", "biases alone: a vector added to each output (BitFit, Ben Zaken et al. 2022; PEFT's BEFT)", "BEFT", rate=0.005, merges=False),
        AdapterSpec("delora", "LoRA with bounded strength (Bini et al. 2025)", "DELORA", rate=0.003, rank="r", dropout="module_dropout", full_precision=True),
        AdapterSpec("gralora", "LoRA in blocks", "GRALORA", alpha="alpha", dropout="gralora_dropout",
             by_rank=True, sized=lambda c, w: {"r": _even(c.rank), "gralora_k": 2 if all(n % 2 == 0 for n in w) else 1}),
        AdapterSpec("hira", "Hadamard product with the weight itself (Huang et al. 2025)", "HIRA", rate=0.005, rank="r", dropout="hira_dropout", reads_weights=True),
        AdapterSpec("c3a", "circular convolution in blocks (Chen et al. 2024)", "C3A", rate=0.01, full_precision=True,
             sized=lambda c, w: {"block_size": _divisor(w, 64)}),
        AdapterSpec("road", "rotation of pairs of outputs (Liao et al. 2024)", "ROAD", rate=0.003,
             sized=lambda c, w: {"group_size": _even(_divisor(w, 64))}),
        AdapterSpec("shira", "sparse update (Bhardwaj et al. 2024)", "SHIRA", rate=0.003, rank="r", settings={"random_seed": 0}, reads_weights=True),
        AdapterSpec("miss", "shared shards of the update", "MISS", rank="r", dropout="miss_dropout"),
        AdapterSpec("deft", "projection of the weight with low-rank update", "DEFT", rank="r", dropout="deft_dropout", full_precision=True),
        AdapterSpec("psoft", "rotation in the principal subspace", "PSOFT", rate=0.01, rank="r", alpha="psoft_alpha", dropout="psoft_dropout", full_precision=True),
        AdapterSpec("pvera", "VeRA with learned variances", "PVERA", rate=0.02, rank="r", dropout="pvera_dropout"),
        AdapterSpec("tinylora", "a handful of weights over the singular vectors", "TINYLORA", rate=0.01, rank="r", dropout="tinylora_dropout", full_precision=True),
        AdapterSpec("vblora", "LoRA out of a shared bank of vectors (Li et al. 2024)", "VBLORA", rate=0.005, dropout="vblora_dropout",
             by_rank=True, sized=lambda c, w: {"vector_length": _divisor(w, 256), "r": c.rank}),
        AdapterSpec("unilora", "LoRA projected from one small vector (Li et al. 2025)", "UNILORA", rate=0.3, rank="r", dropout="unilora_dropout"),
        AdapterSpec("glora", "generalised LoRA (Chavan et al. 2023)", "GLORA", rank="r", reads_weights=True),
        AdapterSpec("peanut", "a small network on the weights", "PEANUT", rank="r", reads_weights=True),
        AdapterSpec("lily", "low-rank updates with shared halves", "LILY", rank="r", merges=False),
        AdapterSpec("linear", "a linear map on the residual stream after each block, identity at the start", "", rate=0.0003, targets="blocks", merges=False, module=_linear_update),
    )
}  # fmt: skip


def kind_of(name: str) -> AdapterSpec:
    """A kind by name.

    Raises:
        ConfigError: there is none (with the nearest).
    """
    if name not in KINDS:
        load_plugins("adapters")
    if name not in KINDS:
        raise ConfigError(f"no adapter kind '{name}'{nearest(name, KINDS)}; there are {', '.join(KINDS)}")
    return KINDS[name]


def peft_class(kind: AdapterSpec) -> type:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    for peft_type, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        if str(peft_type.value) == kind.peft:
            return config
    raise ConfigError(
        f"the installed PEFT has no '{kind.peft}', which adapter.kind={kind.name} needs; install a newer one"
    )


def rate_of(config: AdapterConfig) -> float:
    """The peak learning rate: as configured, or what suits the kind."""
    return kind_of(config.kind).rate if config.lr is None else config.lr


DECIDED = {
    "initial": frozenset({"r", "lora_alpha", "use_rslora", "use_dora", "init_lora_weights"}),
    "adalora": frozenset({"tinit", "tfinal", "total_step"}),
}
"""Options of PEFT's that a kind sets, by kind (`initial`: those that start from the weights)."""


def _needs_bitsandbytes() -> None:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "adapter.kind=loftq quantises weights with bitsandbytes; pip install 'adapterprobe[quantize]'"
        )


def check_kind(config: AdapterConfig) -> AdapterSpec:
    """Everything about an adapter's kind and options that can be known without a model.

    Raises:
        ConfigError: unknown kind, or an option that the kind does not have (with the nearest).
    """
    kind = kind_of(config.kind)
    known = set(inspect.signature(peft_class(kind)).parameters) - MANAGED if kind.peft else set()
    if kind.targets == "blocks" and config.modules != "all":
        raise ConfigError(
            f"adapter.kind={kind.name} adapts whole blocks, which have no modules to choose; take adapter.modules="
            f"{','.join(config.modules)} out and choose adapter.layers"
        )
    start = config.options.get("init_lora_weights")
    if isinstance(start, str) and (kind.initial or start.split("_")[0] in REWRITING):
        raise ConfigError(
            f"adapter.options: init_lora_weights={start} rewrites the model's own weights, so that switching off would not "
            "give the model back; use adapter.kind=pissa, olora or loftq, which keep them"
        )
    if kind.initial == "loftq":
        _needs_bitsandbytes()
    for option in config.options:
        if option in DECIDED.get("initial" if kind.initial else kind.name, ()):
            raise ConfigError(
                f"adapter.options: {option} is decided by the kind '{kind.name}' itself; take it out (adapter.rank and "
                "adapter.alpha say the size)"
            )
        if option not in known:
            raise ConfigError(
                f"adapter.options: the kind '{kind.name}' has no '{option}'{nearest(option, known)}; it has "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    return kind


def keeps_full_precision(peft_type: str) -> bool:
    """Whether adapters of one of PEFT's types keep fp32 weights in a model of another dtype."""
    return any(kind.full_precision and kind.peft == peft_type for kind in KINDS.values())


def looks_at_weights(peft_type: str, settings: Mapping[str, Any]) -> bool:
    """Whether an adapter of one of PEFT's types looks at the model's own weights in a pass."""
    if settings.get("use_dora"):
        return True
    return any(k.reads_weights and k.peft == peft_type and not k.settings.get("use_dora") for k in KINDS.values())


def unused(config: AdapterConfig) -> list[str]:
    """Settings that were given and that the kind does not have."""
    kind = kind_of(config.kind)
    has = {
        "rank": kind.rank is not None or kind.by_rank,
        "alpha": kind.alpha is not None,
        "dropout": kind.dropout is not None,
    }
    return [name for name, there in has.items() if not there and name in config.model_fields_set]


def peft_config(config: AdapterConfig, names: list[str], widths: Sequence[int], transposed: bool):
    """PEFT's configuration of an adapter on the modules called `names`.

    Args:
        widths: inputs and outputs of these modules.
        transposed: whether their weights are (transformers' Conv1D).

    Raises:
        ConfigError: PEFT refuses the settings.
    """
    kind = check_kind(config)
    make = peft_class(kind)
    parameters = inspect.signature(make).parameters
    values: dict[str, object] = {"target_modules": names, "task_type": "CAUSAL_LM"}
    if "fan_in_fan_out" in parameters:
        values["fan_in_fan_out"] = transposed
    for setting, value in ((kind.rank, config.rank), (kind.alpha, config.alpha), (kind.dropout, config.dropout)):
        if setting is not None:
            values[setting] = value
    values |= kind.settings
    if kind.sized is not None:
        values |= kind.sized(config, widths)
    try:
        return make(**(values | config.options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"adapter.kind={kind.name} cannot be made with these settings: {str(error)[:200]}") from error
