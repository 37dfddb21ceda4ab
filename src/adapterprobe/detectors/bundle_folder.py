"""A bundle's folder: written whole or not at all, with what every bundle says of its model and of what it was made with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peft
import torch
import transformers

import adapterprobe
from adapterprobe.cache import seal, write_atomic
from adapterprobe.detectors.bundle_record import CARD, BaseModelRecord, DetectorRecord
from adapterprobe.detectors.card import card
from adapterprobe.detectors.golden import template_hash
from adapterprobe.detectors.hub import HUB_ID
from adapterprobe.errors import OutputError
from adapterprobe.models import LanguageModel
from adapterprobe.models.hardware import dtype_name
from adapterprobe.small_files import as_path


def free_folder(out: str | Path) -> Path:
    """The path of a bundle that is to be written.

    Raises:
        OutputError: something is there.
    """
    out = as_path(out, OutputError)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not empty; choose another folder for the detector")
    return out


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Within, a folder to write a bundle into; when that ends well, it is sealed and stands at `out` (see `free_folder`).

    Raises:
        OutputError: it cannot be written.
    """
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        seal(part)
        if out.exists():
            out.rmdir()
        part.rename(out)
    except OSError as error:
        raise OutputError(
            f"cannot write the detector to {out} ({error.strerror or error}); free some space, or choose another"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_card(folder: Path, record: DetectorRecord) -> None:
    """Write the model card of a bundle whose other files are there."""
    write_atomic(folder / CARD, card(record, sorted(path.name for path in folder.iterdir())))


def model_record(lm: LanguageModel, name: str | None, revision: str | None) -> BaseModelRecord:
    """What is recorded of a detector's model.

    Args:
        name: as it was named; what looks like an id of the hub and lies nowhere on this machine is one.
    """
    return BaseModelRecord(
        name=lm.name,
        hub_id=name if name and HUB_ID.fullmatch(name) and not Path(name).exists() else None,
        revision=revision,
        fingerprint=lm.fingerprint,
        vectors=lm.vectors_hash,
        dtype=dtype_name(lm.dtype),
        blocks=lm.structure.n_layers,
        width=lm.structure.width,
        vocabulary=lm.vocabulary,
        chat_template=template_hash(lm),
    )


def made_with() -> dict[str, str]:
    """Versions of what takes part in scoring."""
    return {
        "adapterprobe": adapterprobe.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
