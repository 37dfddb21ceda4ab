"""A random adapter of a trained one's size: what any change of the model's weights does, whatever was learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from adapterprobe.adapters.adapter_folder import MADE_FOR, seal_adapter
from adapterprobe.small_files import read_json

WEIGHTS = "adapter_model.safetensors"


def randomised(trained: Path, initial: Path | None, seed: int, target: Path) -> dict[str, float]:
    """Write a copy of an adapter in which what training changed is noise of the same norm, tensor by tensor.

    Args:
        trained: folder of the trained adapter.
        initial: of the same adapter as it was before training; None: each tensor as a whole is replaced.

    Returns:
        `trained` and `random`: the norm of all changes together.
    """
    learned = load_file(trained / WEIGHTS)
    before = load_file(initial / WEIGHTS) if initial is not None else {}
    generator = torch.Generator().manual_seed(seed)
    made, sizes = {}, {"trained": 0.0, "random": 0.0}
    for name, tensor in sorted(learned.items()):
        start = before.get(name)
        if not tensor.is_floating_point():
            made[name] = tensor
            continue
        if start is None or start.shape != tensor.shape:
            start = torch.zeros_like(tensor)
        change = tensor.double() - start.double()
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        noise *= change.norm() / noise.norm().clamp_min(1e-30)
        made[name] = (start.double() + noise).to(tensor.dtype).contiguous()
        sizes["trained"] += float(change.norm()) ** 2
        sizes["random"] += float((made[name].double() - start.double()).norm()) ** 2
    shutil.copytree(trained, target, dirs_exist_ok=True)
    save_file(made, target / WEIGHTS, metadata={"format": "pt"})
    if (target / MADE_FOR).is_file():
        seal_adapter(target, read_json(target / MADE_FOR, "the record of the adapter"))
    return {name: value**0.5 for name, value in sizes.items()}
