"""Does a language model know better than it says, and can we catch it lying?"""

__version__ = "0.1.0"
__all__ = ["RunConfig", "__version__", "load_model", "read_config", "run"]


def __getattr__(name: str):
    """The public names, imported when first used (importing torch takes seconds)."""
    if name == "run":
        from adapterprobe.pipeline import run

        return run
    if name in ("RunConfig", "read_config"):
        from adapterprobe import config

        return getattr(config, name)
    if name == "load_model":
        from adapterprobe.models import load_model

        return load_model
    raise AttributeError(f"module 'adapterprobe' has no attribute {name!r}")
