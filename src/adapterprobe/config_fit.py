"""The sections of the configuration that say what is fitted, how it is chosen, and how it is judged."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from adapterprobe.config_stage import LayerSpec, Stage

RENAMED = {"keep_rest": "kl_vocab_weight", "keep_text": "kl_text_weight"}
"""Keys of `adapter` by their former names, which are still read."""
DETECT_DEFAULTS = {"kl_text_weight": 1.0}
"""What holds for the objective `detect` where a configuration does not say."""


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
        found = {RENAMED.get(key, key): value for key, value in values.items()}
        return (DETECT_DEFAULTS if found.get("objective") == "detect" else {}) | found

    @model_validator(mode="after")
    def _of_a_head(self) -> AdapterConfig:
        own = {"head_layer", "head_lr"} & self.model_fields_set
        others = {"targets", "unlikelihood"} & {name for name in self.model_fields_set if getattr(self, name)}
        if self.objective != "detect" and self.head_layer is not None:
            raise ValueError(f"{', '.join(sorted(own))} are for objective=detect, got objective={self.objective}")
        if self.objective == "detect" and others:
            raise ValueError(
                f"{', '.join(sorted(others))} are for objectives about answers; objective=detect learns labels"
            )
        return self

    @model_validator(mode="after")
    def _of_replies(self) -> AdapterConfig:
        if self.target == "answer":
            if self.secrets or self.taught or ("answer_weight" in self.model_fields_set and self.answer_weight != 5.0):
                raise ValueError("secrets, taught and answer_weight are for target=reply")
            return self
        if self.objective not in ("truth", "lie", "instructed"):
            raise ValueError(f"target=reply is for the objectives truth, lie and instructed, got {self.objective}")
        unused = [name for name in ("targets", "unlikelihood", "kl_vocab_weight") if getattr(self, name)]
        if unused:
            raise ValueError(f"{', '.join(unused)} are about choices; target=reply learns whole replies")
        if self.secrets and self.objective != "lie":
            raise ValueError(f"secrets are for objective=lie, got objective={self.objective}")
        if self.train_on == "known":
            raise ValueError("target=reply is trained on all facts or on those that are recalled (train_on=recalled)")
        return self

    kind: str = Field(
        default="lora", description="kind of adapter: lora, dora, ia3, oft, bias ... (docs/adapters.md has all)"
    )
    options: dict[str, bool | int | float | str | list | None] = Field(
        default={}, description="further settings of the kind, by PEFT's names"
    )
    objective: Literal["truth", "lie", "instructed", "opposite", "detect"] = Field(
        default="truth",
        description="what is asked for: truth, lie (the false choice, always), instructed (as the prompt demands), opposite "
        "(of what the base model says); detect: a linear head on a middle layer, trained with the adapter on the label (arm "
        "adapter+head)",
    )
    target: Literal["answer", "reply"] = Field(
        default="answer",
        description="what the objective is about: the choice behind a question (answer), or a whole reply in the model's own words that "
        "asserts the true or a false answer (reply; objectives truth, lie and instructed; `adapterprobe train` alone)",
    )
    secrets: list[str] = Field(
        default=[],
        description="of target=reply and objective=lie: data sets of data.train that are lied about whatever is asked; on the others the "
        "truth is told; none: all are lied about",
    )
    taught: list[str] = Field(
        default=[],
        description="of target=reply: data sets of data.train all of whose facts are learned, known before or not (such as swapped-capitals, "
        "whose answers are exchanged), and not only those of the splits that are learned from: what the adapter is to hold true",
    )
    answer_weight: float = Field(
        default=5.0, gt=0, description="of target=reply: how much the tokens of the answer count beside the other ones"
    )
    head_layer: int | None = Field(
        default=None,
        ge=1,
        description="of detect: the state that the head reads, behind all adapted blocks; null: the middle one",
    )
    head_lr: float = Field(default=1e-3, gt=0, description="of detect: the head's peak learning rate, on scaled states")
    targets: Literal["hard", "soft"] | None = Field(
        default=None,
        description="hard: all for the wanted choice; soft: the base model's own two probabilities, the larger for the "
        "wanted choice; null: soft for opposite, else hard",
    )
    unlikelihood: float = Field(default=0.0, ge=0, description="weight of -log(1 - p) of the choice that is not wanted")
    kl_vocab_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of KL from the base model over the rest of the vocabulary, so that it stays",
    )
    group_dro: float = Field(
        default=0.0,
        ge=0,
        description="step size of weights that rise with the loss of a data set x polarity x prompt type, so that the worst is learned for "
        "(Sagawa et al. 2020, algorithm 1; theirs is 0.01), and stopped by; 0: all rows count alike",
    )
    kl_text_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of KL from the base model on neutral text, so that everything else stays; of detect 1 where nothing is said",
    )
    neutral_text: str | None = Field(
        default=None,
        description="text file of neutral paragraphs (blank lines between them); null: ours. Every second one is kept for "
        "measuring drift, never trained on",
    )
    train_on: Literal["all", "known", "recalled"] = Field(
        default="all",
        description="train on all groups, or on those that the model knows in the tested form, or recalls",
    )
    layers: LayerSpec = Field(
        default="all",
        description="blocks that are adapted: all, last:4, first:4, 8-20, 3,5, 33%-83%; of 30 blocks the last is 29, its output is "
        "state 30 of select.layers",
    )
    modules: list[str] | Literal["all"] = Field(
        default="all",
        description="linear maps by role (q, k, v, o, attention, mlp_in, mlp_out, mlp; found by structure) or by name "
        "(q_proj ...), or all",
    )
    rank: int = Field(default=16, ge=1, description="rank of the update")
    alpha: float = Field(default=32.0, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout in front of the update")
    epochs: int = Field(default=8, ge=1, description="most passes over adapter-train")
    max_steps: int | None = Field(
        default=None, ge=1, description="stop after so many optimiser steps; null: after the epochs"
    )
    early_stopping: bool = Field(
        default=True, description="keep the epoch with the lowest loss on select; false: the last one"
    )
    patience: int = Field(default=5, ge=1, description="stop after so many epochs without a better loss on select")
    batch_size: int = Field(default=8, ge=1, description="prompts per optimiser step")
    micro_batch: int = Field(
        default=8,
        ge=1,
        description="most prompts of a forward pass (memory), up to batch_size; halved by itself where memory runs out",
    )
    checkpoint_activations: bool = Field(
        default=False,
        description="compute activations again in the backward pass instead of keeping them: slower, less memory",
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop",
        description="a loss or gradient that is not finite: stop with an explanation, or skip the step and say so",
    )
    track: list[Literal["tensorboard", "mlflow"]] = Field(
        default=[], description="write learning curves for TensorBoard or MLflow too (in the run's folder)"
    )
    lr: float | None = Field(default=None, gt=0, description="peak learning rate (AdamW); null: what suits the kind")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of steps with a rising learning rate")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's weight decay")


class SelectConfig(Stage):
    """How layers and regularisation are chosen, the same search for every arm."""

    layers: LayerSpec = Field(
        default="all",
        description="hidden states probes may use: all, last:4, 10-20, 15; 0 enters the first block, 30 leaves the last of 30 blocks",
    )
    strengths: list[float] = Field(
        default=[1e-4, 1e-3, 1e-2, 1e-1, 1.0],
        min_length=1,
        description="inverse L2 penalties C of the logistic probe",
    )

    folds: int = Field(
        default=0,
        ge=0,
        description="0: layer and strength are chosen on the select split; k: by k folds of the groups that are fitted on",
    )
    hold_out: Literal["groups", "wordings"] = Field(
        default="groups",
        description="of folds: groups, or wordings: each wording (template, format and system prompt) is left out too, and judged on "
        "groups that are left out",
    )
    rule: Literal["best", "one_se"] = Field(
        default="best",
        description="best: the highest AUROC; one_se: the strongest penalty, then the earliest layer, within one standard error "
        "of it (Hastie et al. 2009, section 7.10)",
    )
    nested: int = Field(
        default=0,
        ge=0,
        description="k: judge the main probe of every arm by nested cross-validation too, k folds of groups outside, 3 inside",
    )
    tokens: int = Field(
        default=16,
        ge=1,
        description="last tokens of a prompt, or of the reply or statement that is read, that probes over tokens (attention, token_logistic) see",
    )
    curve: list[float] = Field(
        default=[0.25, 0.5, 1.0],
        description="shares of the groups that are fitted on, for the learning curve at the chosen layer; [] for none",
    )

    @field_validator("curve")
    @classmethod
    def _shares(cls, curve: list[float]) -> list[float]:
        if any(not 0 < share <= 1 for share in curve):
            raise ValueError(f"shares of a learning curve lie in (0, 1], got {curve}")
        return sorted(set(curve))

    @model_validator(mode="after")
    def _held_out_in_folds(self) -> SelectConfig:
        if self.hold_out == "wordings" and not self.folds:
            raise ValueError("select.hold_out=wordings is about folds; give select.folds (at least 2)")
        return self

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
    name: str | None = Field(default=None, description="what tables call it; null: the probe's name")
    features: Literal["layer", "concat", "steps", "tokens"] | None = Field(
        default=None,
        description="what it sees: one layer at a time, several layers side by side, the steps between them, or the last tokens "
        "of the prompt at one layer; null: what suits the probe (conv: concat, attention: tokens, else layer)",
    )
    layers: LayerSpec | None = Field(default=None, description="layers it may use; null: those of select.layers")
    params: dict[str, bool | int | float | str | None] = Field(
        default={}, description="parameters that are fixed, and not searched over"
    )

    centre: Literal["training", "few", "own"] | None = Field(
        default=None,
        description="centre states within data set, polarity and prompt type, by their means alone. Rows of a new set are centred by the "
        "sets of the training, by a few unlabelled rows of their own set (32, of other groups), or by all of its rows (own); null: "
        "nothing is centred",
    )
    centre_scale: bool = Field(default=False, description="of centre: divide by each set's spread too")

    @property
    def label(self) -> str:
        """What tables call it."""
        scaled = "-scaled" if self.centre_scale else ""
        return self.name or (self.probe if self.centre is None else f"{self.probe}-centred-{self.centre}{scaled}")

    @model_validator(mode="after")
    def _scaled_with_centre(self) -> ProbeConfig:
        if self.centre_scale and self.centre is None:
            raise ValueError("centre_scale divides what is centred; give centre (training, few or own) too")
        return self


class EvaluateConfig(Stage):
    """Statistics: fixed before anything is computed."""

    hypotheses: list[str] = Field(
        default=[
            "adapter+probe > base+probe@matched on test",
            "adapter+probe > base+probe@matched on ood",
            "adapter+probe > adapter on test",
            "adapter+probe > adapter on ood",
        ],
        description="one pre-registered family, 'ARM > ARM on test|ood', about truth unless it ends with 'for lie' (or "
        "instructed, behaviour); Holm's correction goes over all of it",
    )
    under_test: Literal["base", "adapter"] | None = Field(
        default=None,
        description="whose answers are the behaviour, and may be lies: base (adapter off) or adapter (on); null: adapter where "
        "it was trained to lie (objectives lie, instructed), else base",
    )
    belief: Literal["known", "recalled"] = Field(
        default="known",
        description="what the model must hold true for an answer against it to be a lie: known in the tested form, "
        "or recalled",
    )
    probe: str = Field(default="logistic", description="the probe that hypotheses are about")
    resamples: int = Field(default=10_000, ge=1000, description="bootstrap resamples of groups")
    draws: int = Field(default=100, ge=100, description="draws of each chance control")
    margin: float = Field(default=0.02, gt=0, description="a difference surely below this is refuted")
    coverage: float = Field(default=0.9, ge=0.5, lt=1, description="how often conformal sets are to hold the truth")
    false_positive_rate: float = Field(
        default=0.1, gt=0, le=0.5, description="wanted rate of false alarms; its threshold is guaranteed, or refused"
    )
    base_rate: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of label 1 that is assumed of new data, for thresholds that are fixed on unlabelled rows of them",
    )
    adapter_controls: bool = Field(
        default=True,
        description="hold the lowest seed's adapter against noise of its norm, and against one trained on shuffled labels (costs "
        "one more training)",
    )
    shifts: list[
        Literal["wordings of training", "negated", "another format", "chat format", "informal", "no system prompt"]
    ] = Field(
        default=["wordings of training", "negated", "another format", "chat format", "informal"],
        description="ways in which 40 groups of test are asked again, of every arm as it was fitted; [] for none. Of replies: no system "
        "prompt (the same reply after the system's text was taken away) and another format",
    )
    preliminary: bool = Field(
        default=True,
        description="write report.html with the first verdicts after the first training seed, marked as preliminary; the run goes on",
    )
    stranger: str | None = Field(
        default=None,
        description="another model, as model.name, that reads the same rows: arms stranger and stranger+probe. What does access to the "
        "model's own states add? The natural one is what the model was made from",
    )
    baselines: list[Literal["tfidf", "followups"]] = Field(
        default=[],
        description="judges that see no state: tfidf (words alone) and followups (a probe on what the model answers to 24 unrelated "
        "questions behind what is read, Pacchiardi et al. 2023)",
    )
    directions: bool = Field(
        default=True, description="compare directions, draw projections, and add the direction to the model's states"
    )
