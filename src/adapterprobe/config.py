"""The whole configuration of a run: one frozen model per stage, checked when made.

A field's description is its help text. Nothing here executes anything.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from pydantic import Field, field_validator, model_validator

from adapterprobe.config_data import DataConfig, ElicitConfig, ModelConfig, ReadConfig
from adapterprobe.config_fit import RENAMED, AdapterConfig, EvaluateConfig, ProbeConfig, SelectConfig
from adapterprobe.config_stage import LayerSpec, Stage
from adapterprobe.readout import LINEAR_POOLS, ReadoutConfig
from adapterprobe.types import AXES, CLAIM, DECEPTION, READ_FORMS

__all__ = [
    "RENAMED",
    "AdapterConfig",
    "DataConfig",
    "ElicitConfig",
    "EvaluateConfig",
    "LayerSpec",
    "ModelConfig",
    "ProbeConfig",
    "ReadConfig",
    "RunConfig",
    "SelectConfig",
    "Stage",
]

READ_SHIFTS = ["no system prompt", "another format"]
"""Ways in which replies are read again (`evaluate.shifts`)."""

DETECT_HYPOTHESES = (
    "adapter+head > base+probe@matched",
    "adapter+head > adapter+probe",
    "adapter+probe > base+probe@matched",
)
"""What a run whose adapter is trained with a head asks, where its configuration names no hypotheses; on test and ood each."""

WITHHELD_COMPARISONS = ("base+probe > withheld+probe", "adapter+probe > withheld+probe@adapter")
"""What every run over replies is asked, whatever else its hypotheses are: is more found in the reply than in front of it?"""

STRANGER_COMPARISONS = ("base+probe > stranger+probe",)
"""What a run with `evaluate.stranger` is asked on test: does reading the model itself tell more than reading its words by another?"""

DETECT_WITHHELD = ("adapter+head > withheld+probe@adapter",)
"""And where a head is trained with the adapter."""

VARIANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

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
            "baselines": ["tfidf"],
            "hypotheses": [
                f"{comparison} on {split}"
                for comparison in (
                    *WITHHELD_COMPARISONS,
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

    name: str = Field(default="run", description="a title for the report")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    elicit: ElicitConfig = ElicitConfig()
    read: ReadoutConfig = ReadoutConfig()
    adapter: AdapterConfig = AdapterConfig()
    probes: list[str | ProbeConfig] = Field(
        default=["logistic", "mass_mean"],
        min_length=1,
        description="probes of the probe arms: names, or {probe: conv, layers: 8-20, params: {channels: 8}}",
    )
    select: SelectConfig = SelectConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="training seeds; data are data.data_seed's")
    variants: dict[str, dict[str, Any]] = Field(
        default={},
        description="of `adapterprobe train`: several adapters by one configuration, each with a name and the keys that differ: "
        "{spy: {elicit: {system: [spy, oath]}, seeds: [1]}}",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_what_is_read(cls, values: Any) -> Any:
        """Where replies or statements are read, nobody is told to lie and nothing is demonstrated: other defaults hold."""
        if not isinstance(values, dict):
            return values
        read = values.get("read")
        what = read.get("what") if isinstance(read, dict) else getattr(read, "what", None)
        found = dict(values)
        adapter = found.get("adapter")
        detects = (
            adapter.get("objective") if isinstance(adapter, dict) else getattr(adapter, "objective", None)
        ) == "detect"
        given = found.get("evaluate", {})
        if detects and isinstance(given, dict) and "hypotheses" not in given:
            asked = [*(DETECT_WITHHELD if what == "reply" else ()), *DETECT_HYPOTHESES]
            both = [f"{comparison} on {split}" for comparison in asked for split in ("test", "ood")]
            found["evaluate"] = {**given, "hypotheses": both}
        if what not in READ_FORMS:
            return found
        for section, defaults in READ_DEFAULTS[what].items():
            given = found.get(section, {})
            if isinstance(given, dict):
                found[section] = {**defaults, **given}
        evaluate = found.get("evaluate")
        if what == "reply" and isinstance(evaluate, dict) and isinstance(evaluate.get("hypotheses"), list):
            stated = [str(text) for text in evaluate["hypotheses"]]
            asked = [f"{comparison} on test" for comparison in (*WITHHELD_COMPARISONS, *DETECT_WITHHELD * detects)]
            asked += [f"{comparison} on test" for comparison in STRANGER_COMPARISONS if evaluate.get("stranger")]
            found["evaluate"] = {**evaluate, "hypotheses": [*stated, *(text for text in asked if text not in stated)]}
        return found

    @model_validator(mode="after")
    def _reads_itself(self) -> RunConfig:
        if self.data.negations and (
            self.read.what == "reply" or (self.read.what, self.data.form) == ("answer", "negated")
        ):
            raise ValueError(
                "data.negations asks each question both ways, or denies each statement: it is for data.form=question (or statement) and for "
                "statements that are read by themselves (read.what=statement)"
            )
        if self.data.negations and self.read.what == "answer" and self.data.form == "choice":
            raise ValueError(
                "data.negations: which of two answers is right has no negated twin; use data.form=question"
            )
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
        if self.adapter.objective == "detect" and self.read.pooling not in LINEAR_POOLS:
            raise ValueError(
                f"adapter.objective=detect gives a reply the mean of its tokens' logits, which the state pooled by {self.read.pooling} does "
                f"not have; set read.pool to one of {', '.join(LINEAR_POOLS)}"
            )
        if self.adapter.objective == "instructed":
            raise ValueError("adapter.objective=instructed needs prompts that push to truth or lie; here none does")
        return self

    @field_validator("variants")
    @classmethod
    def _named_variants(cls, variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, changes in variants.items():
            if not VARIANT.fullmatch(name):
                raise ValueError(f"a variant's name is a folder's too: letters, digits, - and _, got {name!r}")
            if "variants" in changes:
                raise ValueError(f"variant '{name}' has variants of its own")
        return variants

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        both = set(self.data.train) & set(self.data.ood)
        names = [*self.data.train, *self.data.ood]
        strange = sorted(set(self.data.read_by_name) - set(self.data.reads_of(names)))
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
    def probe_by_label(self) -> dict[str, ProbeConfig]:
        """The same, by what tables call them."""
        return {spec.label: spec for spec in self.probe_specs}

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
        found = {"answer": AXES, "statement": AXES[:1], "reply": (DECEPTION,)}[self.read.what]
        return (*found, CLAIM) if self.data.negations else found

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms in which its data sets are asked: its own, and with `data.negations` its negated twin."""
        if not self.data.negations:
            return (self.form,)
        return (self.form, "bare_negated" if self.read.what == "statement" else "negated")

    def reading(self, name: str) -> ReadConfig:
        """How one of its data sets is read; files go by their path or by their name alone."""
        own = self.data.read_by_name
        found = own.get(name) or own.get(PurePath(name).name) or self.data.read
        return found.model_copy(update={"exact": True}) if self.read.what == "statement" else found
