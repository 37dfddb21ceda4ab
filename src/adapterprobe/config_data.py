"""The sections of the configuration that say which model, which data, and how they become prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from adapterprobe.config_stage import Stage
from adapterprobe.types import FORMS


class ModelConfig(Stage):
    """Which language model, where, and in which number format."""

    name: str | None = Field(default=None, description="hub id, local folder or GGUF file; null: SmolLM2-135M-Instruct")
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub model")
    device: str | dict[str, int | str] = Field(
        default="auto",
        description="auto, cpu, cuda, cuda:1, mps; balanced, balanced_low_0, sequential: over all devices, then main memory and disk; or "
        "a mapping of modules to devices",
    )
    max_memory: dict[int | str, int | str] | None = Field(
        default=None,
        description="most that each device holds of a model that is spread out: {0: 20GiB, cpu: 60GiB}; null: what is free",
    )
    dtype: str = Field(default="auto", description="auto (bf16 where it is fast), bf16, fp16, fp32")
    attention: str | None = Field(default=None, description="attention implementation; null: transformers' choice")
    quantize: Literal["8bit", "4bit"] | None = Field(
        default=None, description="load weights in 8 or 4 bits (bitsandbytes); null: as they are"
    )
    trust_remote_code: bool = Field(
        default=False,
        exclude=True,
        description="run Python code that comes with the model; never taken from a file: give --trust-remote-code every time",
    )

    def arguments(self) -> dict[str, Any]:
        """As arguments of `load_model`; the permission to run code is among them, and in no file that is written."""
        values = self.model_dump() | {"trust_remote_code": self.trust_remote_code}
        if self.max_memory is None:
            # Records of former versions, which are compared with these, lack it.
            del values["max_memory"]
        return values


class ReadConfig(Stage):
    """How files and data sets of the hub are read; built-in relations need none of it."""

    columns: dict[str, str] = Field(
        default={}, description="our column names to the file's own: {statement: claim, label: gold}"
    )
    group: str | None = Field(
        default=None, description="column that names what a row is about; null: near-duplicates form groups"
    )
    split: str | None = Field(default=None, description="split of a data set that has several")
    config: str | None = Field(default=None, description="configuration of a hub data set that has several")
    exact: bool = Field(
        default=False,
        description="take statements exactly as they stand; false: a closing stop goes and a first 'The' becomes small, so that "
        "they stand inside a question",
    )
    contradictions: Literal["stop", "drop"] = Field(
        default="stop",
        description="claims that stand there as true and as false: stop and name them, or leave both out",
    )
    skip_bad: int = Field(
        default=0, ge=0, description="leave out up to so many rows that cannot be used, rather than stop"
    )
    max_rows: int = Field(
        default=20_000, ge=10, description="most rows kept in memory, by a seeded choice, balanced by class"
    )
    max_chars: int | None = Field(default=None, ge=1, description="leave out rows with longer texts")
    balance: bool = Field(
        default=True, description="leave out, by chance, what one class of claims has more than the other"
    )
    matched: bool = Field(
        default=False,
        description="replies: keep contexts (all turns before the reply) with honest and deceptive ones alone, as many of each by "
        "chance, so that no context tells the label",
    )
    hub_folder: str | None = Field(
        default=None, description="folder with downloaded repositories of the hub as OWNER/NAME, instead of the hub"
    )


class DataConfig(Stage):
    """Which questions, and how their groups are split."""

    train: list[str] = Field(
        default=["capitals"],
        min_length=1,
        description="data sets that splits are made of: names, files, or hub:NAME",
    )
    ood: list[str] = Field(
        default=["continents", "elements", "animals"],
        description="data sets that are only judged on, never fitted on",
    )
    read: ReadConfig = ReadConfig()
    read_by_name: dict[str, ReadConfig] = Field(
        default={}, description="what data.read is, for single data sets by name or file name: {ood.csv: {group: null}}"
    )
    form: Literal["question", "negated", "statement", "choice"] = Field(
        default="question", description=f"one of {FORMS[:4]}"
    )
    negations: bool = Field(
        default=False,
        description="both polarities stand in every split: questions are asked the other way round too (is it so, is it not so, is it false "
        "that), and of statements that are read by themselves (read.what=statement) built-in facts are denied",
    )
    data_seed: int = Field(default=0, ge=0, description="decides groups, wrong objects, templates, demonstrations")
    shares: dict[str, float] = Field(
        default={"adapter-train": 0.155, "probe-train": 0.255, "select": 0.09, "calibrate": 0.10, "test": 0.40},
        description="share of the training data's groups that each split gets; they sum to 1 (`train` needs the first and "
        "select, a run all)",
    )
    wrong: Literal["any", "near"] = Field(
        default="any", description="wrong objects: any of the relation's, or near misses where the balance allows"
    )
    labels: dict[Literal["adapter-train", "probe-train", "select"], int] = Field(
        default={},
        description="most labelled examples of splits that are fitted on or chosen by, {adapter-train: 96}: whole groups, of the data sets in "
        "turn, objects balanced; a split that is not named keeps all",
    )
    pool_groups: int = Field(default=6, ge=1, description="groups kept for each of the three demonstration pools")
    min_groups: int = Field(default=8, ge=2, description="fewest groups a split or out-of-distribution set may have")
    max_groups: int | None = Field(default=1000, ge=10, description="most groups of the training data sets; null: all")
    max_ood_groups: int | None = Field(
        default=60, ge=2, description="most groups of each out-of-distribution set; null: all"
    )

    def reads_of(self, names: Sequence[str]) -> dict[str, ReadConfig]:
        """What `read_by_name` says of these data sets."""
        known = {*names, *(PurePath(name).name for name in names)}
        return {name: read for name, read in self.read_by_name.items() if name in known}

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, int]) -> dict[str, int]:
        if any(count < 4 for count in labels.values()):
            raise ValueError(f"a split needs at least 4 labels, got data.labels {labels}")
        return labels

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
        default=["truth", "lie"],
        min_length=1,
        description="what prompts push to: truth and lie by demonstrations, by system prompts, or by both",
    )
    system: list[str] | str | None = Field(
        default=None,
        description="system prompts: null for none, all of ours, a list of their names, or a .yaml file of your own",
    )
    format: str = Field(
        default="plain",
        description="auto (of replies: the tokenizer's chat template if there is one, else plain), plain, phi, alpaca, chatml, llama, llama3, vicuna, mistral, gemma, chat (the tokenizer's own), "
        "or the path of a .jinja file",
    )
    templates: list[str] | None = Field(
        default=None,
        description="wordings of tested prompts, by name or as patterns of your own with braces; null: all of the form, "
        "by their roles: some for fitting, others for selection, others for what is judged",
    )
    shots: int = Field(default=4, ge=0, le=64, description="demonstrations in a prompt")
    demo_sets: int = Field(default=2, ge=1, description="demonstration sets for training splits, and as many for test")
    renders: int = Field(default=1, ge=1, description="different prompts made of each question under each condition")
    ood_demos: Literal["train", "own"] = Field(
        default="train", description="out-of-distribution prompts demonstrate the training relation, or their own"
    )
    belief_draws: int = Field(default=3, ge=3, description="separate truthful prompts by which knowing is told")

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
