"""What a process holds: memory that is resident, kept for backward passes, or free."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from adapterprobe.adapters.on_off import tuner_layers


@dataclass
class Kept:
    """Bytes that passes keep for going back."""

    activations: int = 0
    logits: int = 0


@contextlib.contextmanager
def counted(model: torch.nn.Module, vocabulary: int) -> Iterator[Kept]:
    """Within, what is saved for backward passes is added up, each piece of memory once, the model's own weights not."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: set[int] = set()
    kept = Kept()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            if tensor.ndim and tensor.shape[-1] == vocabulary:
                kept.logits += storage.nbytes()
            else:
                kept.activations += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def since_start(now: float) -> float:
    """Seconds that this process had lived at `now` (of `time.perf_counter`): importing libraries takes some."""
    try:
        with open("/proc/self/stat") as file:
            ticks = int(file.read().rpartition(")")[2].split()[19])
        with open("/proc/uptime") as file:
            lived = float(file.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    except OSError:
        return 0.0
    return max(0.0, lived - (time.perf_counter() - now))


def resident() -> int:
    """Bytes that this process holds."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1024 if sys.platform != "darwin" else 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def watched(device: torch.device) -> Iterator[list[int]]:
    """Within, the most memory that is held is noted: (before, peak)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        found = [torch.cuda.memory_allocated(device)] * 2
        yield found
        found[1] = torch.cuda.max_memory_allocated(device)
        return
    found = [resident()] * 2
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            found[1] = max(found[1], resident())

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        # What this process has reserved, its weights among it, is counted as its own need.
        return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def adapted_weights(wrapped) -> list[torch.Tensor]:
    """Of which a merged adapter holds copies."""
    return [p for layer in tuner_layers(wrapped) for p in layer.get_base_layer().parameters(recurse=False)]


def size_of(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
