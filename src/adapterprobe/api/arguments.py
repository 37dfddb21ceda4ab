"""What people hand to the functions of the public interface, as the stages below take it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from adapterprobe.config import ReadConfig
from adapterprobe.data import Dataset
from adapterprobe.data.references import check_dataset_names
from adapterprobe.errors import ConfigError, DataError, ModelError, OutputError
from adapterprobe.models import LanguageModel, load_model, wrap_model
from adapterprobe.output_folder import DATA_FOLDER
from adapterprobe.terminal import shortened

Model = str | Path | nn.Module | LanguageModel | None
"""A hub id, folder or GGUF file, a loaded transformers model, what `load_model` gave, or None for the default."""
Data = str | Path | Dataset
"""A data set by name, file or `hub:NAME`, or one that is in memory."""


def model_of(model: Model, tokenizer: Any) -> tuple[str | None, LanguageModel | None]:
    """(name to be loaded, model that is loaded already): one of the two says all.

    Raises:
        ModelError: not a model, a loaded one without tokenizer, or a tokenizer beside a name.
    """
    if isinstance(model, LanguageModel):
        return model.source or model.name, model
    if isinstance(model, nn.Module):
        loaded = wrap_model(model, tokenizer)
        return loaded.source or loaded.name, loaded
    if tokenizer is not None:
        raise ModelError("tokenizer belongs to a model that is loaded already; one that is named brings its own")
    if model is not None and not isinstance(model, (str, Path)):
        raise ModelError(f"expected a name, a folder, or a transformers model, got {type(model).__name__}")
    return None if model is None else str(model), None


def open_model(model: Model = None, tokenizer: Any = None, **options: Any) -> LanguageModel:
    """Load a model for probing, or make one that is loaded already ready for it.

    Args:
        model: hub id, local folder, GGUF file, or None for the default SmolLM2-135M-Instruct; or a transformers model (it is
            put into eval mode without gradients, and otherwise left as it is).
        tokenizer: that of a transformers model.
        options: of a model that is named: `device`, `dtype` (auto, bf16, fp16, fp32), `revision`, `trust_remote_code`,
            `attention`, `quantize` (8bit, 4bit).

    Raises:
        ModelError: it cannot be found or loaded, or is no causal decoder with one residual stream.
        ConfigError: unknown device or dtype, or options beside a loaded model.
    """
    name, loaded = model_of(model, tokenizer)
    refuse_for_loaded(loaded, options)
    return loaded or load_model(name, **options)


def refuse_for_loaded(loaded: LanguageModel | None, options: Mapping[str, Any]) -> None:
    """Raises `ConfigError` where a model that is loaded already is given options that say how to load one."""
    given = [name for name, value in options.items() if value not in (None, False, "auto")]
    if loaded is not None and given:
        raise ConfigError(f"{', '.join(given)} is for a model that is named; this one is loaded already")


@dataclass
class DataArguments:
    """Data sets as names for a configuration, and those of them that are in memory."""

    out: Path
    in_memory: list[Dataset] = field(default_factory=list)
    readings: dict[str, ReadConfig] = field(default_factory=dict)

    def names(self, data: Data | Sequence[Data]) -> list[str]:
        """The names of data sets, in order; those in memory go by the path that they are written to.

        Raises:
            DataError: not a data set, or two in memory with one name.
        """
        found = []
        for given in [data] if isinstance(data, (str, Path, Dataset, pd.DataFrame)) else list(data):
            if isinstance(given, Dataset):
                check_dataset_names([*(dataset.name for dataset in self.in_memory), given.name])
                self.in_memory.append(given)
                path = given.path_in(self.out / DATA_FOLDER)
                self.readings[str(path)] = given.reading
                found.append(str(path))
            elif isinstance(given, (str, Path)):
                found.append(str(given))
            else:
                raise DataError(
                    f"expected the name or file of a data set, or an adapterprobe.Dataset, got {shortened(given)}; "
                    "Dataset.from_pandas and Dataset.from_list make one"
                )
        return found

    def section(self, changes: Mapping[str, Any] | None, **sets: Data | Sequence[Data] | None) -> dict[str, Any]:
        """The configuration's section `data`: what was given of it, with `train` and `ood` where they were given.

        Raises:
            DataError: see `names`.
        """
        found: dict[str, Any] = dict(changes or {}) | {
            key: self.names(data) for key, data in sets.items() if data is not None
        }
        if self.readings:
            given: dict = found.get("read_by_name") or {}
            found["read_by_name"] = given | self.readings
        return found

    def save(self) -> None:
        """Write those that are in memory into the output folder, where the configuration names them.

        Raises:
            OutputError: the folder holds something else, or other rows under one of the names.
        """
        folder = self.out / DATA_FOLDER
        if not self.in_memory:
            return
        if self.out.is_dir() and not folder.is_dir() and any(not p.name.startswith(".") for p in self.out.iterdir()):
            raise OutputError(
                f"{self.out} is not empty and holds nothing that was made of data in memory; choose another folder"
            )
        for dataset in self.in_memory:
            dataset.save(folder)


def tuple_or_none(values: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """One or several names as a tuple; nothing as None."""
    if values is None:
        return None
    return (values,) if isinstance(values, str) else tuple(values)
