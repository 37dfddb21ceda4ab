"""Does a language model know better than it says, and can we catch it lying?"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapterprobe import activations, hidden, probes
    from adapterprobe.adapters.registry import register_adapter
    from adapterprobe.api import compare, extract, run, screen, train_adapter
    from adapterprobe.api import open_model as load_model
    from adapterprobe.config import RunConfig
    from adapterprobe.config_files import read_config
    from adapterprobe.data import Dataset, register_dataset
    from adapterprobe.detectors.alarms import Monitor
    from adapterprobe.detectors.detector import Detector, score_all
    from adapterprobe.detectors.pack import pack
    from adapterprobe.errors import AdapterProbeError
    from adapterprobe.pipeline import Run
    from adapterprobe.probes import register as register_probe

__version__ = "0.1.0"
__all__ = [
    "AdapterProbeError",
    "Dataset",
    "Detector",
    "Monitor",
    "Run",
    "RunConfig",
    "__version__",
    "activations",
    "compare",
    "extract",
    "hidden",
    "load_model",
    "pack",
    "probes",
    "read_config",
    "register_adapter",
    "register_dataset",
    "register_probe",
    "run",
    "score_all",
    "screen",
    "train_adapter",
]

_PLACES = {
    "AdapterProbeError": "errors:AdapterProbeError",
    "Dataset": "data:Dataset",
    "Detector": "detectors.detector:Detector",
    "Monitor": "detectors.alarms:Monitor",
    "Run": "pipeline:Run",
    "RunConfig": "config:RunConfig",
    "activations": "activations",
    "compare": "api:compare",
    "extract": "api:extract",
    "hidden": "hidden",
    "load_model": "api:open_model",
    "pack": "detectors.pack:pack",
    "probes": "probes",
    "read_config": "config_files:read_config",
    "register_adapter": "adapters.registry:register_adapter",
    "register_dataset": "data:register_dataset",
    "register_probe": "probes:register",
    "run": "api:run",
    "score_all": "detectors.detector:score_all",
    "screen": "api:screen",
    "train_adapter": "api:train_adapter",
}
"""Where each public name lives; it is imported when first used (importing torch takes seconds)."""

# PEFT imports bitsandbytes wherever it is installed, and that reports which kernels it has not found.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    if name not in _PLACES:
        raise AttributeError(f"module 'adapterprobe' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, attribute = _PLACES[name].partition(":")
    found = importlib.import_module(f"adapterprobe.{module}")
    value = getattr(found, attribute) if attribute else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
