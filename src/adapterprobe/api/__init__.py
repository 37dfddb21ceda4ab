"""The public interface: what `import adapterprobe as ap` gives, each loaded when it is first used."""

from adapterprobe.api.arguments import open_model
from adapterprobe.api.comparison import compare, run
from adapterprobe.api.single_steps import extract, screen, train_adapter

__all__ = ["compare", "extract", "open_model", "run", "screen", "train_adapter"]
