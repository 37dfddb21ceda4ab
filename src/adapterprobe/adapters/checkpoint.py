"""Training state on disk, so that a stopped training goes on where it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def save_checkpoint(folder: Path, name: str, tensors: dict[str, torch.Tensor], state: dict) -> None:
    """Write both under a new name, then point to them: a crash leaves the older checkpoint whole."""
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(state))
    part = folder / "latest.part"
    part.write_text(name)
    os.replace(part, folder / "latest")
    for old in folder.glob("step-*"):
        if old.stem != name:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict] | None:
    """The latest whole checkpoint, or None."""
    try:
        name = (folder / "latest").read_text()
        return load_file(folder / f"{name}.safetensors"), json.loads((folder / f"{name}.json").read_text())
    except Exception:
        # Whatever is wrong with a checkpoint, training from the start is right.
        return None


def drop_checkpoints(folder: Path) -> None:
    for path in [*folder.glob("step-*"), *folder.glob("latest*")]:
        path.unlink()
