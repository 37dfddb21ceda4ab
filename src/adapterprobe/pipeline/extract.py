"""Hidden states of a data set's prompts, adapter off or on, in a folder of one's own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from adapterprobe.adapt import adapter_merged
from adapterprobe.adapt.files import adapter_digest, loaded
from adapterprobe.cache import digest, seal
from adapterprobe.config import ReadConfig
from adapterprobe.data.references import refuse_unused
from adapterprobe.engine import Engine
from adapterprobe.engine.fidelity import Fidelity, fidelity
from adapterprobe.errors import DataError, ModelError, OutputError
from adapterprobe.hidden import HiddenStates, record
from adapterprobe.hidden.store import open_states
from adapterprobe.models import load_model
from adapterprobe.models.encode import Encoded, encode
from adapterprobe.models.layers import parse_layers
from adapterprobe.pipeline.dataset import DatasetSpec, check_spec, dataset_prompts
from adapterprobe.pipeline.outputs import claim_folder, named_files
from adapterprobe.progress import say

MARK = "extract.json"
FIDELITY_PROMPTS = 16


@dataclass(frozen=True)
class ExtractConfig:
    """What to extract; every field decides the outcome."""

    data: str
    model: dict
    """Arguments of `load_model`."""
    adapter: Path | None = None
    layers: str = "all"
    shots: int = 4
    limit: int | None = None
    form: str = "question"
    format: str = "plain"
    conditions: tuple[str, ...] | None = None
    seed: int = 0
    system: tuple[str, ...] | str | None = None
    templates: tuple[str, ...] | None = None
    read: ReadConfig = field(default_factory=ReadConfig)

    def __post_init__(self) -> None:
        if self.shots < 0 or self.seed < 0 or (self.limit is not None and self.limit < 1):
            raise DataError(
                f"expected shots and seed of at least 0 and limit of at least 1, got {self.shots}, {self.seed}, {self.limit}"
            )
        if self.adapter is not None and not (self.adapter / "adapter_config.json").is_file():
            raise ModelError(
                f"no adapter in {self.adapter} (adapter_config.json is missing); give a folder that PEFT saved, "
                "such as the adapter/ of a run"
            )
        refuse_unused([self.data], self.read)
        check_spec(self.spec)

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            self.data,
            self.form,
            self.shots,
            self.format,
            self.seed,
            self.system,
            conditions=self.conditions,
            templates=self.templates,
            read=self.read,
        )

    def describe(self) -> dict:
        content = {name: getattr(self, name) for name in self.__dataclass_fields__}
        content |= {
            "read": self.read.model_dump(),
            "files": named_files(self.format, self.system, data=[(self.data, self.read)]),
        }
        return json.loads(json.dumps(content | {"adapter": adapter_digest(self.adapter)}, default=str))


def extract(config: ExtractConfig, out: str | Path, check: bool = False) -> tuple[HiddenStates, Fidelity | None]:
    """Record hidden states into `out`, with `prompts.parquet` in the order of the rows.

    What was computed before comes from the cache; a stopped extraction goes on where it was.

    Args:
        check: also compare the engine with the plain forward pass on some of the prompts.

    Raises:
        AdapterProbeError: bad input, before anything is computed; or another extraction in `out`.
    """
    out = Path(out)
    finished = claim_folder(out, MARK, config.describe(), "extraction")
    if finished and not check:
        say(f"{out} is finished; nothing to do (remove the folder to extract again)")
        return open_states(out), None
    lm = load_model(**config.model)
    layers = parse_layers(config.layers, 0, lm.structure.n_layers)
    prompts = dataset_prompts(config.spec, lm.tokenizer)[: config.limit]
    encoded = encode(lm.tokenizer, prompts, lm.context_length)
    engine = Engine(lm.model, lm.structure)
    report = None
    if config.adapter is None:
        states = record(engine, encoded, lm.fingerprint, layers, "adapter off")
        report = fidelity(engine, list(encoded.ids[:FIDELITY_PROMPTS])) if check else None
    else:
        weights = digest(lm.fingerprint, adapter_digest(config.adapter))
        with loaded(lm, config.adapter), adapter_merged(lm.model):
            states = record(engine, encoded, weights, layers, "adapter on")
            report = fidelity(engine, list(encoded.ids[:FIDELITY_PROMPTS])) if check else None
    if not finished:
        _write(out, states, encoded)
    return open_states(out), report


def _write(out: Path, states: HiddenStates, encoded: Encoded) -> None:
    try:
        for path in sorted(states.folder.iterdir()):
            if path.suffix in (".bin", ".npy") or path.name == "meta.json":
                (out / path.name).unlink(missing_ok=True)
                try:
                    os.link(path, out / path.name)
                except OSError:
                    shutil.copyfile(path, out / path.name)
        prompt_table(encoded, states).to_parquet(out / "prompts.parquet", index=False)
        seal(out)
    except OSError as error:
        raise OutputError(f"cannot write the states to {out} ({error}); free some space and run again") from error


def prompt_table(encoded: Encoded, states: HiddenStates) -> pd.DataFrame:
    """A row per prompt, in the order of the states: text as tokenised, its tokens, labels, answers."""
    answers = states.logprobs
    return pd.DataFrame(
        {
            "prompt_id": [p.prompt_id for p in encoded.prompts],
            "text": [p.text for p in encoded.prompts],
            "tokens": [list(ids) for ids in encoded.ids],
            "dataset": [p.example.dataset for p in encoded.prompts],
            "example_id": [p.example.example_id for p in encoded.prompts],
            "group": [p.example.group for p in encoded.prompts],
            "condition": [p.condition for p in encoded.prompts],
            "template": [p.template for p in encoded.prompts],
            "truth": [p.example.truth for p in encoded.prompts],
            "instructed": pd.array([p.instructed for p in encoded.prompts], dtype="boolean"),
            "positive": [p.positive for p in encoded.prompts],
            "negative": [p.negative for p in encoded.prompts],
            "logprob_positive": answers[:, 0],
            "logprob_negative": answers[:, 1],
        }
    )
