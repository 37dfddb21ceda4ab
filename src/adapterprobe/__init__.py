"""Does a language model know better than it says, and can we catch it lying?"""

import logging

__version__ = "0.1.0"
__all__ = ["RunConfig", "__version__", "activations", "hidden", "load_model", "probes", "read_config", "run"]

# PEFT imports bitsandbytes wherever it is installed, and that reports which kernels it has not found.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str):
    """The public names, imported when first used (importing torch takes seconds)."""
    if name == "run":
        from adapterprobe.pipeline import run

        return run
    if name == "RunConfig":
        from adapterprobe.config import RunConfig

        return RunConfig
    if name == "read_config":
        from adapterprobe.config_files import read_config

        return read_config
    if name == "load_model":
        from adapterprobe.models import load_model

        return load_model
    if name in ("activations", "hidden", "probes"):
        import importlib

        return importlib.import_module(f"adapterprobe.{name}")
    raise AttributeError(f"module 'adapterprobe' has no attribute {name!r}")
