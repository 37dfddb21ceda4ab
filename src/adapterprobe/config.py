"""The whole configuration of a run: one frozen model per stage, checked when made, YAML in and out.

A field's description is its help text. Nothing here executes anything; presets are plain YAML files.
"""

from __future__ import annotations

import contextlib
import difflib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.types import FORMS

DEFAULT_PRESET = "demo"


class Stage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


LayerSpec = Annotated[str, BeforeValidator(lambda spec: str(spec) if isinstance(spec, int) else spec)]
"""Layers as people write them (see `parse_layers`); YAML reads a single one as a number."""


class ModelConfig(Stage):
    """Which language model, where, and in which number format."""

    name: str | None = Field(None, description="hub id, local folder or GGUF file; null: SmolLM2-135M-Instruct")
    revision: str | None = Field(None, description="branch, tag or commit of a hub model")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: str = Field("auto", description="auto (bf16 where it is fast), bf16, fp16, fp32")
    attention: str | None = Field(None, description="attention implementation; null: transformers' choice")
    quantize: Literal["8bit", "4bit"] | None = Field(
        None, description="load weights in 8 or 4 bits (bitsandbytes); null: as they are"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")


class DataConfig(Stage):
    """Which questions, and how their groups are split."""

    train: list[str] = Field(["capitals"], min_length=1, description="data sets that splits are made of")
    ood: list[str] = Field(
        ["continents", "elements", "animals"],
        description="data sets that are only judged on, never fitted on",
    )
    form: Literal["question", "negated", "statement"] = Field("question", description=f"one of {FORMS[:3]}")
    data_seed: int = Field(0, ge=0, description="decides groups, wrong objects, templates, demonstrations")
    shares: dict[str, float] = Field(
        {"adapter-train": 0.155, "probe-train": 0.255, "select": 0.09, "calibrate": 0.10, "test": 0.40},
        description="share of the training data's groups that each split gets; they sum to 1",
    )
    wrong: Literal["any", "near"] = Field(
        "any", description="wrong objects: any of the relation's, or near misses where the balance allows"
    )
    pool_groups: int = Field(6, ge=1, description="groups kept for each of the three demonstration pools")
    min_groups: int = Field(8, ge=2, description="fewest groups a split or out-of-distribution set may have")
    max_groups: int | None = Field(None, ge=10, description="most groups of the training data sets; null: all")
    max_ood_groups: int | None = Field(60, ge=2, description="most groups of each out-of-distribution set; null: all")

    @field_validator("shares")
    @classmethod
    def _shares(cls, shares: dict[str, float]) -> dict[str, float]:
        expected = ["adapter-train", "probe-train", "select", "calibrate", "test"]
        if sorted(shares) != sorted(expected):
            raise ValueError(f"expected exactly the splits {expected}, got {sorted(shares)}")
        if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must be positive and sum to 1, got {shares} (sum {sum(shares.values()):g})")
        return {name: shares[name] for name in expected}


class ElicitConfig(Stage):
    """How questions become prompts."""

    conditions: list[Literal["truth", "lie", "neutral"]] = Field(
        ["truth", "lie"],
        min_length=1,
        description="what prompts push to: truth and lie by demonstrations, by system prompts, or by both",
    )
    system: list[str] | str | None = Field(
        None,
        description="system prompts: null for none, all of ours, a list of their names, or a .yaml file of your own",
    )
    format: str = Field(
        "plain",
        description="plain, phi, alpaca, chatml, llama, llama3, vicuna, mistral, gemma, chat (the tokenizer's own), "
        "or the path of a .jinja file",
    )
    templates: list[str] | None = Field(None, description="wordings of tested prompts; null: all of the form")
    shots: int = Field(4, ge=0, le=64, description="demonstrations in a prompt")
    demo_sets: int = Field(2, ge=1, description="demonstration sets for training splits, and as many for test")
    renders: int = Field(1, ge=1, description="different prompts made of each question under each condition")
    ood_demos: Literal["train", "own"] = Field(
        "train", description="out-of-distribution prompts demonstrate the training relation, or their own"
    )
    belief_draws: int = Field(3, ge=3, description="separate truthful prompts by which knowing is told")

    @model_validator(mode="after")
    def _lie_needs_shots(self) -> ElicitConfig:
        if len(set(self.conditions)) != len(self.conditions):
            raise ValueError(f"a condition is named twice: {self.conditions}")
        if self.shots == 0 and self.system is None and set(self.conditions) != {"neutral"}:
            raise ValueError(
                "truth and lie are conveyed by demonstrations or system prompts, and elicit.shots is 0; raise it, give "
                "elicit.system, or use conditions=[neutral]"
            )
        return self


class AdapterConfig(Stage):
    """The adapter and its training."""

    kind: Literal["lora"] = Field("lora", description="kind of adapter")
    objective: Literal["truth"] = Field("truth", description="truth: answer with the true choice, whatever the prompt")
    layers: LayerSpec = Field("all", description="blocks that are adapted: all, last:4, first:4, 8-20, 3,5, 33%-83%")
    modules: list[str] | Literal["all"] = Field("all", description="linear maps by name (q_proj ...), or all")
    rank: int = Field(16, ge=1, description="rank of the update")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in front of the update")
    epochs: int = Field(8, ge=1, description="most passes over adapter-train")
    patience: int = Field(5, ge=1, description="stop after so many epochs without a better loss on select")
    batch_size: int = Field(8, ge=1, description="prompts per optimiser step")
    micro_batch: int = Field(8, ge=1, description="prompts per forward pass (memory)")
    lr: float = Field(1e-3, gt=0, description="peak learning rate (AdamW)")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")


class SelectConfig(Stage):
    """How layers and regularisation are chosen, the same search for every arm."""

    layers: LayerSpec = Field("all", description="hidden states probes may use: all, last:4, 10-20, 15")
    strengths: list[float] = Field(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        min_length=1,
        description="inverse L2 penalties C of the logistic probe",
    )

    folds: int = Field(
        0,
        ge=0,
        description="0: layer and strength are chosen on the select split; k: by k folds of the groups that are fitted on",
    )

    @field_validator("folds")
    @classmethod
    def _not_one(cls, folds: int) -> int:
        if folds == 1:
            raise ValueError("one fold leaves nothing to judge by; use 0 or at least 2")
        return folds

    @field_validator("strengths")
    @classmethod
    def _positive(cls, strengths: list[float]) -> list[float]:
        if min(strengths) <= 0:
            raise ValueError(f"strengths must be positive, got {strengths}")
        return strengths


class EvaluateConfig(Stage):
    """Statistics: fixed before anything is computed."""

    hypotheses: list[str] = Field(
        [
            "adapter+probe > base+probe@matched on test",
            "adapter+probe > base+probe@matched on ood",
            "adapter+probe > adapter on test",
            "adapter+probe > adapter on ood",
        ],
        description="one pre-registered family, 'ARM > ARM on test|ood'; Holm's correction goes over all of it",
    )
    probe: str = Field("logistic", description="the probe that hypotheses are about")
    resamples: int = Field(10_000, ge=1000, description="bootstrap resamples of groups")
    draws: int = Field(100, ge=100, description="draws of each chance control")
    margin: float = Field(0.02, gt=0, description="a difference surely below this is refuted")


class RunConfig(Stage):
    """Everything a run depends on."""

    name: str = Field("run", description="a title for the report")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    elicit: ElicitConfig = ElicitConfig()
    adapter: AdapterConfig = AdapterConfig()
    probes: list[str] = Field(["logistic", "mass_mean"], min_length=1, description="probes of the probe arms")
    select: SelectConfig = SelectConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="training seeds; data are data.data_seed's")

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        both = set(self.data.train) & set(self.data.ood)
        if both:
            raise ValueError(f"{sorted(both)} cannot be trained on and out of distribution at once")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different and not negative, got {self.seeds}")
        if self.evaluate.probe not in self.probes:
            raise ValueError(f"evaluate.probe '{self.evaluate.probe}' is not among probes {self.probes}")
        return self


def _field_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        names.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names += _field_names(field.annotation, f"{prefix}{name}.")
    return names


def _explain(error: ValidationError, source: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _field_names(RunConfig)
        hint = nearest(where, known) or _same_leaf(where, known)
        return ConfigError(f"{source}: unknown key '{where}'{hint}; `adapterprobe run --keys` lists all{more}")
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    hint = ""
    expected = (first.get("ctx") or {}).get("expected")
    if isinstance(first["input"], str) and expected:
        hint = nearest(first["input"], [word.strip("' ") for word in expected.replace(" or ", ",").split(",")])
    return ConfigError(f"{source}: {where or 'configuration'}: {message}{got}{hint}{more}")


def _same_leaf(where: str, known: list[str]) -> str:
    leaf = where.rsplit(".", 1)[-1]
    ends = {name.rsplit(".", 1)[-1]: name for name in known}
    close = difflib.get_close_matches(leaf, list(ends), n=1)
    return f" (did you mean '{ends[close[0]]}'?)" if close else ""


def preset_names() -> list[str]:
    return sorted(f.name[:-5] for f in resources.files("adapterprobe.presets").iterdir() if f.name.endswith(".yaml"))


def read_config(source: str | Path | None = None, overrides: list[str] | None = None) -> RunConfig:
    """A configuration from a YAML file or the name of a preset, then `key.subkey=value` overrides in order.

    Raises:
        ConfigError: no such file, not YAML, an unknown key (with the nearest right one) or an impossible value.
    """
    source = source or DEFAULT_PRESET
    if str(source) in preset_names():
        text = (resources.files("adapterprobe.presets") / f"{source}.yaml").read_text("utf-8")
    else:
        try:
            text = Path(source).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the configuration {source} ({error}); give a YAML file or a preset: {', '.join(preset_names())}"
            ) from error
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: expected keys and values, got {type(values).__name__}")
    # What a run writes beside its configuration (versions, hashes) is not part of it.
    values.pop("provenance", None)
    for override in overrides or []:
        _override(values, override)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, str(source) if not overrides else f"{source} with --set") from error


def _override(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set expects key=value, got '{override}'; for example --set adapter.rank=8")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: '{text}' is not a YAML value") from error
    if isinstance(value, str):
        # YAML 1.1 reads 1e-3 as text; people mean a number.
        with contextlib.suppress(ValueError):
            value = float(value)
    *parents, leaf = key.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise ConfigError(f"--set {key}: '{parent}' has no keys below it")
    place[leaf] = value


def to_yaml(config: RunConfig, provenance: dict | None = None) -> str:
    """The resolved configuration as YAML, with where it ran (versions, hashes) below it."""
    content = config.model_dump(mode="json")
    if provenance:
        content["provenance"] = provenance
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def keys_help() -> str:
    """Every key with its default and meaning, for `adapterprobe run --keys`."""
    lines = []
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines.append(f"{name}: {(field.annotation.__doc__ or '').strip()}")
            lines += [
                f"  {name}.{inner} = {spec.default!r}\n      {spec.description}"
                for inner, spec in field.annotation.model_fields.items()
            ]
        else:
            lines.append(f"{name} = {field.default!r}\n      {field.description}")
    return "\n".join(lines)
