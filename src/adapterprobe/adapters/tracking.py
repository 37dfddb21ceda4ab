"""Learning curves for TensorBoard and MLflow, by accelerate's trackers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapterprobe.adapters.train import Log
from adapterprobe.errors import ConfigError

NEEDS = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",)}


def check_trackers(names: Sequence[str]) -> None:
    """Whether the libraries are installed.

    Raises:
        ConfigError: one is not.
    """
    for name in names:
        if not any(importlib.util.find_spec(module) for module in NEEDS[name]):
            raise ConfigError(
                f"adapter.track={name} needs {name}, which is not installed; pip install {NEEDS[name][0]}"
            )


@contextlib.contextmanager
def tracked(names: Sequence[str], folder: Path, run: str, about: dict) -> Iterator[Log]:
    """Within, what is logged goes to the trackers: below `folder`, MLflow's where MLFLOW_TRACKING_URI says if it is set.

    Args:
        run: its name there. about: settings that are kept beside the curves (plain values).
    """
    from accelerate.tracking import MLflowTracker, TensorBoardTracker

    trackers = []
    for name in names:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        if name == "tensorboard":
            trackers.append(TensorBoardTracker(run, logging_dir=place))
        else:
            import mlflow

            if "MLFLOW_TRACKING_URI" not in os.environ:
                if importlib.util.find_spec("alembic"):
                    mlflow.set_tracking_uri(f"sqlite:///{place.resolve()}/mlflow.db")
                else:
                    # The slim package has files alone, and wants to be told that they will do.
                    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
                    mlflow.set_tracking_uri(place.resolve().as_uri())
            trackers.append(MLflowTracker("adapterprobe", run_name=run))
    flat = {key: value for key, value in about.items() if isinstance(value, (bool, int, float, str))}
    try:
        for tracker in trackers:
            tracker.start()
            tracker.store_init_configuration(flat)

        def log(step: int, values: dict[str, float]) -> None:
            for tracker in trackers:
                tracker.log(values, step=step)

        yield log
    finally:
        for tracker in trackers:
            tracker.finish()
