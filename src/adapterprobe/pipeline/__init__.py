"""The stages in their order: the only place that knows all of them."""

from adapterprobe.pipeline.run import Run, run

__all__ = ["Run", "run"]
