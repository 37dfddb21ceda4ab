"""The single steps of a run by themselves: `extract`, `train_adapter`, `screen`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterprobe.activations import HiddenStates
from adapterprobe.adapters.sharding import fsdp_requested
from adapterprobe.api.arguments import Data, DataArguments, Model, model_of, refuse_for_loaded, tuple_or_none
from adapterprobe.config import ReadConfig, RunConfig
from adapterprobe.config_files import read_config, with_changes
from adapterprobe.errors import ConfigError
from adapterprobe.pipeline.extract import ExtractConfig
from adapterprobe.pipeline.extract import extract as record_to_folder
from adapterprobe.pipeline.train_adapter import Training
from adapterprobe.pipeline.train_adapter import train as train_to_folder
from adapterprobe.readout import Reading, readout_of
from adapterprobe.screening.grid import Screen, ScreenConfig
from adapterprobe.screening.grid import screen as screen_to_folder


def extract(
    data: Data,
    out: str | Path,
    *,
    model: Model = None,
    tokenizer: Any = None,
    adapter: str | Path | None = None,
    layers: str | int = "all",
    shots: int = 4,
    form: str = "question",
    format: str | None = None,
    conditions: Sequence[str] | str | None = None,
    templates: Sequence[str] | str | None = None,
    system: Sequence[str] | str | None = None,
    limit: int | None = None,
    seed: int = 0,
    read: ReadConfig | None = None,
    what: Reading = "answer",
    pool: str | None = None,
    skip: int = 0,
    closing: bool = False,
    drop_turns: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    trust_remote_code: bool = False,
) -> HiddenStates:
    """Record the hidden states of a data set's prompts: at the position from which the answer is given, or pooled over the tokens of
    a statement or a reply.

    What was computed before comes from the cache; a stopped extraction goes on where it was.

    Args:
        data: a name, a file, `hub:NAME`, or a `Dataset` in memory.
        out: folder of the states and of `prompts.parquet`, a row per prompt in the same order.
        model, tokenizer: see `load_model`.
        adapter: folder of an adapter that is on (as PEFT saves it); None: none.
        layers: hidden states: `all`, `last:4`, `10-20`, `15`; 0 is what enters the first block, l what leaves the l-th.
        shots: demonstrations in a prompt.
        form: what is asked: `question`, `negated`, `statement` or `choice`.
        format: None for `plain` (of replies: the tokenizer's chat template, if it has one); `chat` (the tokenizer's own template), the name of another, or a `.jinja` file.
        conditions: `truth`, `lie`, `neutral`: what prompts push to; None: truth and lie, neutral without shots.
        templates: wordings, by name or as patterns; None: all of the form.
        system: system prompts, by name or in a `.yaml` file; None: none.
        limit: only the first prompts.
        seed: decides demonstrations and wrong answers.
        read: how a file is read (columns, groups, split).
        what: `answer`, `statement` (the row's statement standing by itself) or `reply` (that of its conversation).
        pool: how the tokens of a statement or reply become one state: `mean`, `last`, `first`, `max`, `rolling:N`; None: mean over a
            reply, last of a statement.
        skip: first tokens of what is read that are left out.
        closing: whether the token that closes the reply's turn is read too.
        drop_turns: of conversations beyond the model's context, leave out the earliest turns rather than stop.
        device, dtype, quantize, trust_remote_code: of a model that is named, see `load_model`.

    Returns:
        The states: `.layer(l)` is an array of rows x width in fp32, `.logprobs` of rows x 2 (positive, negative answer; NaN where
        nothing is asked). `.prompts` has the tokens that were read as `token_start` and `token_stop`.

    Raises:
        AdapterProbeError: bad input, before anything is computed; or another extraction in `out`.
    """
    name, loaded = model_of(model, tokenizer)
    options = {"device": device, "dtype": dtype, "quantize": quantize, "trust_remote_code": trust_remote_code}
    refuse_for_loaded(loaded, options)
    given = DataArguments(Path(out))
    (reference,) = given.names([data])
    given.save()
    config = ExtractConfig(
        data=reference,
        model={"name": name} | options,
        adapter=None if adapter is None else Path(adapter),
        layers=str(layers),
        shots=shots,
        limit=limit,
        form=form,
        format=format,
        conditions=tuple_or_none(conditions),
        seed=seed,
        system=system if system is None or isinstance(system, str) else tuple(system),
        templates=tuple_or_none(templates),
        read=read or given.readings.get(reference) or ReadConfig(),
        readout=readout_of(what, pool, skip, closing, drop_turns),
    )
    states, _ = record_to_folder(config, out, lm=loaded)
    return states


def train_adapter(
    out: str | Path,
    *,
    data: Data | Sequence[Data] | None = None,
    model: Model = None,
    tokenizer: Any = None,
    adapter: Mapping[str, Any] | None = None,
    seed: int | None = None,
    config: RunConfig | str | Path = "train",
    trust_remote_code: bool = False,
    **changes: Any,
) -> Training:
    """Train one adapter on an objective and save it in PEFT's layout.

    Args:
        out: output folder; a finished training there with the same configuration is returned at once.
        data: data sets whose groups are learned from and selected on; None: the configuration's.
        model, tokenizer: see `load_model`.
        adapter: keys of the configuration's section: `{"kind": "ia3", "objective": "lie", "layers": "last:8", "rank": 8}`.
        seed: training seed.
        config: what everything else is taken from: a configuration, a YAML file, or a preset.
        trust_remote_code: run code that comes with the model.
        changes: other top-level keys, merged at any depth.

    Returns:
        The training: `.adapter` is the folder for `PeftModel.from_pretrained`, `.about` what was measured (`train.json`).

    Raises:
        AdapterProbeError: whatever makes it impossible, before training where that can be known.
    """
    name, loaded = model_of(model, tokenizer)
    if loaded is not None and fsdp_requested():
        raise ConfigError(
            "a model that is loaded already cannot be shared out among processes; give its name or folder"
        )
    given = DataArguments(Path(out))
    if model is not None:
        changes["model"] = {"name": name}
    if section := given.section(changes.pop("data", None), train=data, ood=None if data is None else []):
        changes["data"] = section
    if adapter is not None:
        changes["adapter"] = dict(adapter)
    if seed is not None:
        changes["seeds"] = [seed]
    given.save()
    base = config if isinstance(config, RunConfig) else read_config(config, trust_remote_code=trust_remote_code)
    return train_to_folder(with_changes(base, changes) if changes else base, out, loaded)


def screen(
    out: str | Path,
    *,
    models: Model | Sequence[str | None] = None,
    tokenizer: Any = None,
    data: Data | Sequence[Data] = "capitals",
    formats: Sequence[str] | str = ("plain", "chat"),
    shots: Sequence[int] | int = (1, 2, 4),
    systems: Sequence[str | None] | str | None = None,
    facts: int = 100,
    form: str = "question",
    templates: Sequence[str] | str | None = None,
    read: ReadConfig | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
) -> Screen:
    """Ask in which format, with how many demonstrations, a model is fit for the experiment: every list is crossed with every other.

    Args:
        out: output folder, with `screen.html`.
        models: one or several names, or one that is loaded already (with its `tokenizer`).
        data: data sets, by name, file or in memory.
        formats, shots, systems: ways to ask.
        facts: groups asked in each cell.
        form, templates, read, seed: see `extract`.
        device, dtype, trust_remote_code: of models that are named.

    Returns:
        The screening: `.cells` (a record per cell), `.advice` (a sentence), `.folder`.

    Raises:
        AdapterProbeError: bad input, a model that cannot be loaded, or another screening in `out`.
    """
    several = isinstance(models, (list, tuple))
    name, loaded = (None, None) if several else model_of(models, tokenizer)  # type: ignore[arg-type]
    refuse_for_loaded(loaded, {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code})
    given = DataArguments(Path(out))
    names = tuple(given.names(data))
    if len(names) > 1 and any(reading.group for reading in given.readings.values()) and read is None:
        raise ConfigError("several data sets of which one is in memory with groups are screened one at a time")
    given.save()
    own = next(iter(given.readings.values()), None)
    config = ScreenConfig(
        models=tuple(models) if several else (name,),  # type: ignore[arg-type]
        data=names,
        formats=tuple_or_none(formats) or (),
        shots=(shots,) if isinstance(shots, int) else tuple(shots),
        systems=(systems,) if systems is None or isinstance(systems, str) else tuple(systems),
        facts=facts,
        form=form,
        templates=tuple_or_none(templates),
        read=read or own or ReadConfig(),
        seed=seed,
        device=device,
        dtype=dtype,
    )
    return screen_to_folder(config, out, trust_remote_code, loaded)
