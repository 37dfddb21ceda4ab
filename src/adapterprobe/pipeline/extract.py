"""Hidden states of a data set's prompts, adapter off or on, in a folder of one's own."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from adapterprobe.activations import HiddenStates, record
from adapterprobe.activations.store import open_states
from adapterprobe.adapters.adapter_folder import adapter_digest, adapter_loaded
from adapterprobe.cache import digest, seal
from adapterprobe.config import ReadConfig
from adapterprobe.data.items import ItemDataset
from adapterprobe.data.references import refuse_unused
from adapterprobe.data.source import load_data
from adapterprobe.engine import Engine
from adapterprobe.engine.fidelity import Fidelity, faithful
from adapterprobe.errors import DataError, ModelError, OutputError
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.layers import parse_states
from adapterprobe.output_folder import claim_folder, named_files
from adapterprobe.output_lock import output_lock
from adapterprobe.pipeline.extract_tables import source_table, whole_table
from adapterprobe.progress import say
from adapterprobe.prompts.dataset_prompts import DatasetSpec, check_spec, dataset_prompts
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.formats import check_format
from adapterprobe.prompts.read_prompts import check_readable, read_prompts, with_reads
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import READ_FORMS, Prompt

MARK = "extract.json"
FIDELITY_PROMPTS = 16
MOST_ROWS = 5_000_000
"""Rows of a file that are taken where --max-rows does not say otherwise: all, in practice."""


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
    format: str | None = None
    """None: `plain`; of conversations that are read at their reply, the tokenizer's chat template if it has one."""
    conditions: tuple[str, ...] | None = None
    seed: int = 0
    system: tuple[str, ...] | str | None = None
    templates: tuple[str, ...] | None = None
    read: ReadConfig = field(default_factory=ReadConfig)
    readout: ReadoutConfig = field(default_factory=ReadoutConfig)
    """What is read of a prompt, and how it is pooled."""

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
        if self.readout.what == "answer":
            check_spec(self.spec)
        else:
            self._check_readout()

    def _check_readout(self) -> None:
        unused = {
            "--form": self.form != "question",
            "--condition": self.conditions is not None,
            "--system": self.system is not None,
            "--template": self.templates is not None,
            "--format": self.readout.what == "statement" and self.format is not None,
        }
        if named := [option for option, given in unused.items() if given]:
            raise DataError(
                f"{', '.join(named)} say how a question is asked, and with --read {self.readout.what} none is: what is read stands by "
                "itself; leave them out"
            )
        if self.format is not None:
            check_format(self.format)
        check_readable(load_data(self.data, self.spec.read, self.seed, every_row=True), self.readout.what)

    @property
    def spec(self) -> DatasetSpec:
        read = self.read
        if "max_rows" not in read.model_fields_set:
            read = read.model_copy(update={"max_rows": MOST_ROWS})
        if self.readout.what == "statement":
            read = read.model_copy(update={"exact": True})
        return DatasetSpec(
            self.data,
            self.form,
            self.shots,
            self.format or "plain",
            self.seed,
            self.system,
            conditions=self.conditions,
            templates=self.templates,
            read=read,
            every_row=True,
        )

    def describe(self) -> dict:
        reads, asked = self.readout.what != "answer", self.format or "plain"
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "readout"}
        content |= {
            "read": self.read.model_dump(),
            "files": named_files(asked, self.system, data=[(self.data, self.read)]),
            # A permission, not a setting: it decides nothing of the outcome.
            "model": {name: value for name, value in self.model.items() if name != "trust_remote_code"},
        }
        # As former versions wrote it, where there is nothing new to say.
        content |= {"readout": self.readout.model_dump()} if reads else {"format": asked}
        return json.loads(json.dumps(content | {"adapter": adapter_digest(self.adapter)}, default=str))


def extract(
    config: ExtractConfig,
    out: str | Path,
    check: bool = False,
    lm: LanguageModel | None = None,
) -> tuple[HiddenStates, Fidelity | None]:
    """Record hidden states into `out`, with `prompts.parquet` in the order of the rows.

    What was computed before comes from the cache; a stopped extraction goes on where it was.

    Args:
        check: also compare the engine with the plain forward pass on some of the prompts.
        lm: the model, where it is loaded already; its content is then part of what the folder is held against.

    Raises:
        AdapterProbeError: bad input, before anything is computed; or another extraction in `out`.
    """
    with output_lock(out) as folder:
        return _extract(config, folder, check, lm)


def _extract(
    config: ExtractConfig, out: Path, check: bool, lm: LanguageModel | None
) -> tuple[HiddenStates, Fidelity | None]:
    described = config.describe() | ({} if lm is None else {"fingerprint": lm.fingerprint})
    finished = claim_folder(out, MARK, described, "extraction")
    if finished and not check:
        say(f"{out} is finished; nothing to do (remove the folder to extract again)")
        return open_states(out), None
    lm = lm or load_model(**config.model)
    layers = parse_states(config.layers, lm.structure.n_layers)
    prompts = _in_order(config, lm)
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    encoded = with_reads(encoded, config.readout, lm.tokenizer, withheld=False)
    # Before any pass: columns that cannot be written are found now.
    rows = source_table(encoded, config.data, config.spec.read)
    engine = Engine(lm.model, lm.structure)
    report = None
    if config.adapter is None:
        # Before anything is recorded: what is wrong stays out of the cache too.
        report = faithful(engine, encoded.ids[:FIDELITY_PROMPTS]) if check else None
        states = record(engine, encoded, lm.fingerprint, layers, "adapter off")
    else:
        weights = digest(lm.fingerprint, adapter_digest(config.adapter))
        with adapter_loaded(lm, config.adapter):
            # An adapter from elsewhere may be of a kind that nobody here has seen: two prompts tell.
            faithful(engine, encoded.ids[:2], exact=False)
            report = faithful(engine, encoded.ids[:FIDELITY_PROMPTS]) if check else None
            states = record(engine, encoded, weights, layers, "adapter on")
    if not finished:
        _write(out, states, encoded, rows)
    return open_states(out), report


def _in_order(config: ExtractConfig, lm: LanguageModel) -> list[Prompt]:
    """Prompts in the order of the rows they were made of, and a line for people about the rows that are not among them."""
    dataset = load_data(config.data, config.spec.read, config.seed, every_row=True)
    if config.readout.what == "answer":
        prompts = dataset_prompts(config.spec, lm.tokenizer)
    else:
        examples = dataset.examples(dataset.groups, READ_FORMS[config.readout.what], config.seed)
        prompts = read_prompts(
            examples, "test", config.readout, config.format, lm.tokenizer, context_length=lm.context_length
        )
    left_out = dict(dataset.dropped)
    if isinstance(dataset, ItemDataset):
        prompts = sorted(prompts, key=lambda prompt: prompt.example.line or 0)
        shown = {item.line for item in dataset.items} - {prompt.example.line for prompt in prompts}
        if shown:
            left_out[f"in the groups that {config.shots} demonstrations come from (--shots 0 takes none)"] = len(shown)
    if left_out:
        say(f"{config.data}: left out are {', '.join(f'{count} rows {reason}' for reason, count in left_out.items())}")
    if config.limit is not None and config.limit < len(prompts):
        say(f"{config.data}: the first {config.limit} of {len(prompts)} prompts (--limit)")
    return prompts[: config.limit]


def _write(out: Path, states: HiddenStates, encoded: Encoded, rows: pd.DataFrame) -> None:
    try:
        for path in sorted(states.folder.iterdir()):
            if path.suffix in (".bin", ".npy") or path.name == "meta.json":
                (out / path.name).unlink(missing_ok=True)
                try:
                    os.link(path, out / path.name)
                except OSError:
                    shutil.copyfile(path, out / path.name)
        whole_table(encoded, states, rows).to_parquet(out / "prompts.parquet", index=False)
        seal(out)
    except OSError as error:
        raise OutputError(f"cannot write the states to {out} ({error}); free some space and run again") from error
