"""The stages in their order: the only place that knows all of them."""

from adapterprobe.pipeline.finished_run import Run
from adapterprobe.pipeline.run import run

__all__ = ["Run", "run"]
