"""The whole configuration of a run: one frozen model per stage, checked when made.

A field's description is its help text. Nothing here executes anything.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from adapterprobe.config_stage import Stage
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import AXES, DECEPTION, FORMS, READ_FORMS

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
    trust_remote_code: bool = Field(
        False,
        exclude=True,
        description="run Python code that comes with the model; never taken from a file: give --trust-remote-code every time",
    )

    def arguments(self) -> dict[str, Any]:
        """As arguments of `load_model`; the permission to run code is among them, and in no file that is written."""
        return self.model_dump() | {"trust_remote_code": self.trust_remote_code}


class ReadConfig(Stage):
    """How files and data sets of the hub are read; built-in relations need none of it."""

    columns: dict[str, str] = Field(
        {}, description="our column names to the file's own: {statement: claim, label: gold}"
    )
    group: str | None = Field(
        None, description="column that names what a row is about; null: near-duplicates form groups"
    )
    split: str | None = Field(None, description="split of a data set that has several")
    config: str | None = Field(None, description="configuration of a hub data set that has several")
    exact: bool = Field(
        False,
        description="take statements exactly as they stand; false: a closing stop goes and a first 'The' becomes small, so that "
        "they stand inside a question",
    )
    contradictions: Literal["stop", "drop"] = Field(
        "stop", description="claims that stand there as true and as false: stop and name them, or leave both out"
    )
    skip_bad: int = Field(0, ge=0, description="leave out up to so many rows that cannot be used, rather than stop")
    max_rows: int = Field(20_000, ge=10, description="most rows kept in memory, by a seeded choice, balanced by class")
    max_chars: int | None = Field(None, ge=1, description="leave out rows with longer texts")
    balance: bool = Field(True, description="leave out, by chance, what one class of claims has more than the other")
    hub_folder: str | None = Field(
        None, description="folder with downloaded repositories of the hub as OWNER/NAME, instead of the hub"
    )


class DataConfig(Stage):
    """Which questions, and how their groups are split."""

    train: list[str] = Field(
        ["capitals"],
        min_length=1,
        description="data sets that splits are made of: names, files, or hub:NAME",
    )
    ood: list[str] = Field(
        ["continents", "elements", "animals"],
        description="data sets that are only judged on, never fitted on",
    )
    read: ReadConfig = ReadConfig()
    read_by_name: dict[str, ReadConfig] = Field(
        {}, description="what data.read is, for single data sets by name or file name: {ood.csv: {group: null}}"
    )
    form: Literal["question", "negated", "statement", "choice"] = Field("question", description=f"one of {FORMS[:4]}")
    negations: bool = Field(
        False,
        description="where statements are read (read.what=statement), built-in facts are denied too: both polarities stand in every split",
    )
    data_seed: int = Field(0, ge=0, description="decides groups, wrong objects, templates, demonstrations")
    shares: dict[str, float] = Field(
        {"adapter-train": 0.155, "probe-train": 0.255, "select": 0.09, "calibrate": 0.10, "test": 0.40},
        description="share of the training data's groups that each split gets; they sum to 1 (`train` needs the first and "
        "select, a run all)",
    )
    wrong: Literal["any", "near"] = Field(
        "any", description="wrong objects: any of the relation's, or near misses where the balance allows"
    )
    pool_groups: int = Field(6, ge=1, description="groups kept for each of the three demonstration pools")
    min_groups: int = Field(8, ge=2, description="fewest groups a split or out-of-distribution set may have")
    max_groups: int | None = Field(1000, ge=10, description="most groups of the training data sets; null: all")
    max_ood_groups: int | None = Field(60, ge=2, description="most groups of each out-of-distribution set; null: all")

    @field_validator("shares")
    @classmethod
    def _shares(cls, shares: dict[str, float]) -> dict[str, float]:
        expected = ["adapter-train", "probe-train", "select", "calibrate", "test"]
        if sorted(shares) != sorted(expected):
            raise ValueError(f"expected exactly the splits {expected}, got {sorted(shares)}")
        learned = min(shares["adapter-train"], shares["select"])
        if learned <= 0 or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
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
        description="auto (of replies: the tokenizer's chat template if there is one, else plain), plain, phi, alpaca, chatml, llama, llama3, vicuna, mistral, gemma, chat (the tokenizer's own), "
        "or the path of a .jinja file",
    )
    templates: list[str] | None = Field(
        None,
        description="wordings of tested prompts, by name or as patterns of your own with braces; null: all of the form, "
        "by their roles: some for fitting, others for selection, others for what is judged",
    )
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


RENAMED = {"keep_rest": "kl_vocab_weight", "keep_text": "kl_text_weight"}
"""Keys of `adapter` by their former names, which are still read."""


class AdapterConfig(Stage):
    """The adapter and its training."""

    @model_validator(mode="before")
    @classmethod
    def _former_names(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for old, new in RENAMED.items():
            if old in values and new in values:
                raise ValueError(f"adapter.{old} is the former name of adapter.{new}; give one of them")
        return {RENAMED.get(key, key): value for key, value in values.items()}

    kind: str = Field("lora", description="kind of adapter: lora, dora, ia3, oft, bias ... (docs/adapters.md has all)")
    options: dict[str, bool | int | float | str | list | None] = Field(
        {}, description="further settings of the kind, by PEFT's names"
    )
    objective: Literal["truth", "lie", "instructed", "opposite"] = Field(
        "truth",
        description="what is asked for: truth, lie (the false choice, always), instructed (as the prompt demands), opposite "
        "(of what the base model says)",
    )
    targets: Literal["hard", "soft"] | None = Field(
        None,
        description="hard: all for the wanted choice; soft: the base model's own two probabilities, the larger for the "
        "wanted choice; null: soft for opposite, else hard",
    )
    unlikelihood: float = Field(0.0, ge=0, description="weight of -log(1 - p) of the choice that is not wanted")
    kl_vocab_weight: float = Field(
        0.0, ge=0, description="weight of KL from the base model over the rest of the vocabulary, so that it stays"
    )
    kl_text_weight: float = Field(
        0.0, ge=0, description="weight of KL from the base model on neutral text, so that everything else stays"
    )
    neutral_text: str | None = Field(
        None,
        description="text file of neutral paragraphs (blank lines between them); null: ours. Every second one is kept for "
        "measuring drift, never trained on",
    )
    train_on: Literal["all", "known", "recalled"] = Field(
        "all", description="train on all groups, or on those that the model knows in the tested form, or recalls"
    )
    layers: LayerSpec = Field(
        "all",
        description="blocks that are adapted: all, last:4, first:4, 8-20, 3,5, 33%-83%; of 30 blocks the last is 29, its output is "
        "state 30 of select.layers",
    )
    modules: list[str] | Literal["all"] = Field(
        "all",
        description="linear maps by role (q, k, v, o, attention, mlp_in, mlp_out, mlp; found by structure) or by name "
        "(q_proj ...), or all",
    )
    rank: int = Field(16, ge=1, description="rank of the update")
    alpha: float = Field(32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout in front of the update")
    epochs: int = Field(8, ge=1, description="most passes over adapter-train")
    max_steps: int | None = Field(None, ge=1, description="stop after so many optimiser steps; null: after the epochs")
    early_stopping: bool = Field(True, description="keep the epoch with the lowest loss on select; false: the last one")
    patience: int = Field(5, ge=1, description="stop after so many epochs without a better loss on select")
    batch_size: int = Field(8, ge=1, description="prompts per optimiser step")
    micro_batch: int = Field(
        8,
        ge=1,
        description="most prompts of a forward pass (memory), up to batch_size; halved by itself where memory runs out",
    )
    checkpoint_activations: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them: slower, less memory"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        "stop",
        description="a loss or gradient that is not finite: stop with an explanation, or skip the step and say so",
    )
    track: list[Literal["tensorboard", "mlflow"]] = Field(
        [], description="write learning curves for TensorBoard or MLflow too (in the run's folder)"
    )
    lr: float | None = Field(None, gt=0, description="peak learning rate (AdamW); null: what suits the kind")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay")


class SelectConfig(Stage):
    """How layers and regularisation are chosen, the same search for every arm."""

    layers: LayerSpec = Field(
        "all",
        description="hidden states probes may use: all, last:4, 10-20, 15; 0 enters the first block, 30 leaves the last of 30 blocks",
    )
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
    rule: Literal["best", "one_se"] = Field(
        "best",
        description="best: the highest AUROC; one_se: the strongest penalty, then the earliest layer, within one standard error "
        "of it (Hastie et al. 2009, section 7.10)",
    )
    nested: int = Field(
        0,
        ge=0,
        description="k: judge the main probe of every arm by nested cross-validation too, k folds of groups outside, 3 inside",
    )
    tokens: int = Field(16, ge=1, description="last tokens of a prompt that probes over tokens (attention) see")
    curve: list[float] = Field(
        [0.25, 0.5, 1.0],
        description="shares of the groups that are fitted on, for the learning curve at the chosen layer; [] for none",
    )

    @field_validator("curve")
    @classmethod
    def _shares(cls, curve: list[float]) -> list[float]:
        if any(not 0 < share <= 1 for share in curve):
            raise ValueError(f"shares of a learning curve lie in (0, 1], got {curve}")
        return sorted(set(curve))

    @field_validator("folds", "nested")
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


class ProbeConfig(Stage):
    """One probe of a run, where its name alone does not say everything."""

    probe: str = Field(description="its name: one of ours, or a scikit-learn classifier's class")
    name: str | None = Field(None, description="what tables call it; null: the probe's name")
    features: Literal["layer", "concat", "steps", "tokens"] | None = Field(
        None,
        description="what it sees: one layer at a time, several layers side by side, the steps between them, or the last tokens "
        "of the prompt at one layer; null: what suits the probe (conv: concat, attention: tokens, else layer)",
    )
    layers: LayerSpec | None = Field(None, description="layers it may use; null: those of select.layers")
    params: dict[str, bool | int | float | str | None] = Field(
        {}, description="parameters that are fixed, and not searched over"
    )

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or self.probe


class EvaluateConfig(Stage):
    """Statistics: fixed before anything is computed."""

    hypotheses: list[str] = Field(
        [
            "adapter+probe > base+probe@matched on test",
            "adapter+probe > base+probe@matched on ood",
            "adapter+probe > adapter on test",
            "adapter+probe > adapter on ood",
        ],
        description="one pre-registered family, 'ARM > ARM on test|ood', about truth unless it ends with 'for lie' (or "
        "instructed, behaviour); Holm's correction goes over all of it",
    )
    under_test: Literal["base", "adapter"] | None = Field(
        None,
        description="whose answers are the behaviour, and may be lies: base (adapter off) or adapter (on); null: adapter where "
        "it was trained to lie (objectives lie, instructed), else base",
    )
    belief: Literal["known", "recalled"] = Field(
        "known",
        description="what the model must hold true for an answer against it to be a lie: known in the tested form, "
        "or recalled",
    )
    probe: str = Field("logistic", description="the probe that hypotheses are about")
    resamples: int = Field(10_000, ge=1000, description="bootstrap resamples of groups")
    draws: int = Field(100, ge=100, description="draws of each chance control")
    margin: float = Field(0.02, gt=0, description="a difference surely below this is refuted")
    coverage: float = Field(0.9, ge=0.5, lt=1, description="how often conformal sets are to hold the truth")
    false_positive_rate: float = Field(
        0.1, gt=0, le=0.5, description="wanted rate of false alarms; its threshold is guaranteed, or refused"
    )
    adapter_controls: bool = Field(
        True,
        description="hold the lowest seed's adapter against noise of its norm, and against one trained on shuffled labels (costs "
        "one more training)",
    )
    shifts: list[
        Literal["wordings of training", "negated", "another format", "chat format", "informal", "no system prompt"]
    ] = Field(
        ["wordings of training", "negated", "another format", "chat format", "informal"],
        description="ways in which 40 groups of test are asked again, of every arm as it was fitted; [] for none. Of replies: no system "
        "prompt (the same reply after the system's text was taken away) and another format",
    )
    directions: bool = Field(
        True, description="compare directions, draw projections, and add the direction to the model's states"
    )


READ_SHIFTS = ["no system prompt", "another format"]
"""Ways in which replies are read again (`evaluate.shifts`)."""

READ_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "statement": {
        "elicit": {"conditions": ["neutral"], "shots": 0},
        "evaluate": {"shifts": []},
    },
    "reply": {
        "data": {"ood": []},
        "elicit": {"conditions": ["neutral"], "shots": 0, "format": "auto"},
        "evaluate": {
            "shifts": READ_SHIFTS,
            "hypotheses": [
                f"{comparison} on {split}"
                for comparison in (
                    "base+probe > withheld+probe",
                    "adapter+probe > withheld+probe",
                    "adapter+probe > base+probe@matched",
                    "adapter+probe > adapter",
                )
                for split in ("test", "ood")
            ],
        },
    },
}
"""What holds, by what is read, where a configuration does not say."""


class RunConfig(Stage):
    """Everything a run depends on."""

    name: str = Field("run", description="a title for the report")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    elicit: ElicitConfig = ElicitConfig()
    read: ReadoutConfig = ReadoutConfig()
    adapter: AdapterConfig = AdapterConfig()
    probes: list[str | ProbeConfig] = Field(
        ["logistic", "mass_mean"],
        min_length=1,
        description="probes of the probe arms: names, or {probe: conv, layers: 8-20, params: {channels: 8}}",
    )
    select: SelectConfig = SelectConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="training seeds; data are data.data_seed's")

    @model_validator(mode="before")
    @classmethod
    def _of_what_is_read(cls, values: Any) -> Any:
        """Where replies or statements are read, nobody is told to lie and nothing is demonstrated: other defaults hold."""
        if not isinstance(values, dict):
            return values
        read = values.get("read")
        what = read.get("what") if isinstance(read, dict) else getattr(read, "what", None)
        if what not in READ_FORMS:
            return values
        found = dict(values)
        for section, defaults in READ_DEFAULTS[what].items():
            given = found.get(section, {})
            if isinstance(given, dict):
                found[section] = {**defaults, **given}
        return found

    @model_validator(mode="after")
    def _reads_itself(self) -> RunConfig:
        if self.data.negations and self.read.what != "statement":
            raise ValueError("data.negations is for statements that are read by themselves (read.what=statement)")
        if self.read.what == "answer":
            if self.elicit.format == "auto":
                raise ValueError("elicit.format=auto is for replies (read.what=reply); name a format")
            return self
        wanted = {
            "elicit.conditions": (self.elicit.conditions, ["neutral"]),
            "elicit.shots": (self.elicit.shots, 0),
            "elicit.system": (self.elicit.system, None),
            "elicit.renders": (self.elicit.renders, 1),
            "data.form": (self.data.form, "question"),
            "evaluate.under_test": (self.evaluate.under_test, None),
            "adapter.train_on": (self.adapter.train_on, "all"),
        }
        ways = READ_SHIFTS if self.read.what == "reply" else []
        if strange := [way for way in self.evaluate.shifts if way not in ways]:
            raise ValueError(f"evaluate.shifts of what is read by itself: expected some of {ways}, got {strange}")
        for key, (got, expected) in wanted.items():
            if got != expected:
                raise ValueError(
                    f"read.what={self.read.what} reads what stands there, and {key} says how questions are asked: expected {expected}, "
                    f"got {got}; leave it out"
                )
        if self.adapter.objective == "instructed":
            raise ValueError("adapter.objective=instructed needs prompts that push to truth or lie; here none does")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        both = set(self.data.train) & set(self.data.ood)
        names = [*self.data.train, *self.data.ood]
        known = {*names, *(PurePath(name).name for name in names)}
        strange = sorted(set(self.data.read_by_name) - known)
        if strange:
            raise ValueError(f"data.read_by_name names {strange}, which are not among the data sets {names}")
        if both:
            raise ValueError(f"{sorted(both)} cannot be trained on and out of distribution at once")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds must be different and not negative, got {self.seeds}")
        labels = [spec.label for spec in self.probe_specs]
        if len(set(labels)) != len(labels):
            raise ValueError(f"two probes have one name: {labels}; give one of them a name of its own")
        if self.evaluate.probe not in labels:
            raise ValueError(f"evaluate.probe '{self.evaluate.probe}' is not among probes {labels}")
        return self

    @property
    def probe_specs(self) -> list[ProbeConfig]:
        """The probes, all written out."""
        return [ProbeConfig(probe=entry) if isinstance(entry, str) else entry for entry in self.probes]

    @property
    def under_test(self) -> str:
        """`base` or `adapter`: the model whose answers are the behaviour."""
        lies = self.adapter.objective in ("lie", "instructed")
        return self.evaluate.under_test or ("adapter" if lies else "base")

    @property
    def form(self) -> str:
        """The form of its examples (see `FORMS`, `READ_FORMS`)."""
        return READ_FORMS.get(self.read.what, self.data.form)

    @property
    def axes(self) -> tuple[str, ...]:
        """The label axes that its detectors are judged against; the first is what they are made for."""
        return {"answer": AXES, "statement": AXES[:1], "reply": (DECEPTION,)}[self.read.what]

    def reading(self, name: str) -> ReadConfig:
        """How one of its data sets is read; files go by their path or by their name alone."""
        own = self.data.read_by_name
        found = own.get(name) or own.get(PurePath(name).name) or self.data.read
        return found.model_copy(update={"exact": True}) if self.read.what == "statement" else found
