"""Published probes (checkpoints of the `lie-detectors` package) as bundles, read without running anything in them: `adapterprobe import`."""

from __future__ import annotations

import enum
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit

from adapterprobe.cache import write_atomic
from adapterprobe.detectors.bundle_folder import free_folder, made_with, model_record, whole_folder, write_card
from adapterprobe.detectors.bundle_record import (
    GOLDEN,
    PROBE,
    Calibration,
    DetectorRecord,
    Prompting,
    Seen,
    Threshold,
    write_record,
)
from adapterprobe.detectors.golden import make_golden
from adapterprobe.detectors.inputs import InputPrompter
from adapterprobe.detectors.passes import Needs, OwnEngine
from adapterprobe.errors import CacheError, ConfigError
from adapterprobe.generation.scenarios import read_scenarios
from adapterprobe.models import LanguageModel
from adapterprobe.probes import Probe, make, save_probe
from adapterprobe.prompts.conversations import conversation_format
from adapterprobe.readout import ReadoutConfig
from adapterprobe.small_files import as_path
from adapterprobe.terminal import reason_of
from adapterprobe.types import DECEPTION

LARGEST = 1 << 31
"""Bytes of a checkpoint: a hidden layer of half a width of 16,384 has one billion of them in fp32."""
KINDS = {"lr": "logistic regression", "dim": "difference of means", "mlp": "one hidden layer"}
TENSORS = {
    "lr": {"linear.weight", "linear.bias", "dataset_mean", "dataset_std", "threshold"},
    "dim": {"direction", "threshold"},
    "mlp": {"net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias", "dataset_mean", "dataset_std", "threshold"},
}
GOLDEN_FACTS = 10


class ProbeArchitecture(enum.StrEnum):
    """Stands in for the class that published checkpoints name, which is nowhere published: its value says all."""

    DIFFERENCE_IN_MEANS = "dim"
    LOGISTIC_REGRESSION = "lr"
    MULTI_LAYER_PERCEPTRON = "mlp"


NAMED_AS = ("deception.detectors.utils.types.ProbeArchitecture", "lie_detectors.types.ProbeArchitecture")


@dataclass(frozen=True)
class PublishedProbe:
    """One checkpoint: what kind it is, its tensors, the layer that it names (None: none), and its own threshold on its raw score."""

    kind: str
    tensors: dict[str, np.ndarray]
    layer: int | None
    hyperparameters: dict[str, Any]

    @property
    def threshold(self) -> float:
        return float(self.tensors["threshold"])

    @property
    def width(self) -> int:
        """Of the states that it reads."""
        names = {"lr": "dataset_mean", "dim": "direction", "mlp": "dataset_mean"}
        return len(self.tensors[names[self.kind]])

    def probe(self) -> Probe:
        """The same as a probe of ours: `decision_function` is its raw score."""
        t = {name: array.astype(np.float64) for name, array in self.tensors.items()}
        zeros, ones = np.zeros(self.width), np.ones(self.width)
        if self.kind == "mlp":
            found = make("mlp", hidden=len(t["net.0.bias"]))
            fitted = {
                "mean_": t["dataset_mean"],
                "scale_": t["dataset_std"],
                "inner_": t["net.0.weight"].T,
                "inner_bias_": t["net.0.bias"],
                "outer_": t["net.2.weight"][0],
                "intercept_": float(t["net.2.bias"][0]),
            }
        elif self.kind == "lr":
            found = make("linear")
            fitted = {
                "mean_": t["dataset_mean"],
                "scale_": t["dataset_std"],
                "coef_": t["linear.weight"][0],
                "intercept_": float(t["linear.bias"][0]),
            }
        else:
            found = make("linear")
            fitted = {"mean_": zeros, "scale_": ones, "coef_": t["direction"], "intercept_": 0.0}
        for name, value in (fitted | {"classes_": np.array([0, 1]), "n_features_in_": self.width}).items():
            setattr(found, name, value)
        return found


def read_checkpoint(path: str | Path) -> PublishedProbe:
    """Read a `.pt` file of the `lie-detectors` collection by PyTorch's reader for weights alone; the only other thing that may be named in it
    is the probe's kind.

    Raises:
        CacheError: no such file, too large, no checkpoint of that form, or one that would run something.
    """
    path = as_path(path, CacheError)
    if not path.is_file():
        raise CacheError(f"there is no file {path}; give a .pt checkpoint of the lie-detectors collection")
    if path.stat().st_size > LARGEST:
        raise CacheError(f"{path} has {path.stat().st_size} bytes, at most {LARGEST} are read")
    allowed: list[Any] = [(ProbeArchitecture, name) for name in NAMED_AS]
    try:
        with torch.serialization.safe_globals(allowed):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = reason_of(error)
        raise CacheError(f"{path} is not read: it is damaged, or holds more than weights ({reason})") from error
    given = content.get("hyperparams") if isinstance(content, Mapping) else None
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(given, Mapping) or not isinstance(state, Mapping):
        raise CacheError(
            f"{path} has no 'state_dict' and 'hyperparams'; expected a checkpoint of the lie-detectors collection"
        )
    named = given.get("probe_architecture")
    kind = str(getattr(named, "value", named))
    if kind not in KINDS:
        raise CacheError(f"{path}: the kind of probe is {kind!r}, expected one of {', '.join(KINDS)}")
    if set(state) != TENSORS[kind] or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise CacheError(
            f"{path}: a probe '{kind}' has the tensors {', '.join(sorted(TENSORS[kind]))}, got {', '.join(sorted(map(str, state)))}"
        )
    tensors = {str(name): tensor.float().numpy() for name, tensor in state.items()}
    if bad := [name for name, array in tensors.items() if not np.isfinite(array).all()]:
        raise CacheError(f"{path}: {bad[0]} has values that are no numbers")
    layer = given.get("layer")
    plain = {str(k): v for k, v in given.items() if isinstance(v, (int, float, str)) and k != "probe_architecture"}
    return PublishedProbe(kind, tensors, layer if isinstance(layer, int) else None, plain)


def import_probe(
    found: PublishedProbe,
    lm: LanguageModel,
    out: str | Path,
    pool: str = "mean",
    layer: int | None = None,
    name: str | None = None,
) -> Path:
    """Write a published probe (see `read_checkpoint`) as a bundle for the model that it was made for.

    Args:
        pool: how the tokens of a reply become one state; checkpoints do not say.
        layer: the hidden state that it reads (0 enters the first block); None: the number that the checkpoint names.

    Raises:
        ConfigError: the model has no such layer, or states of another width.
        OutputError: `out` holds something, or cannot be written.
    """
    out = free_folder(out)
    layer = found.layer if layer is None else layer
    blocks, width = lm.structure.n_layers, lm.structure.width
    if layer is None or not 0 <= layer <= blocks:
        raise ConfigError(
            f"the checkpoint names {'no layer' if layer is None else f'layer {layer}'}, and {lm.name} has the states 0 to {blocks}; say which "
            "with --layer"
        )
    if found.width != width:
        raise ConfigError(
            f"the checkpoint reads states of width {found.width}, and those of {lm.name} have {width}: it is for another model"
        )
    probe = found.probe()
    record = _record(found, probe, lm, pool, layer, name or out.name)
    prompter = InputPrompter(record.prompting, record.read, lm.tokenizer, lm.context_length)
    prompts = [prompter.prompt(number, row) for number, row in enumerate(_golden_rows())]
    golden = make_golden(record, OwnEngine(lm), Needs(record, probe, None, None), prompts)
    with whole_folder(out) as folder:
        save_probe(folder / PROBE, probe, layer=layer)
        write_record(folder, record)
        write_atomic(folder / GOLDEN, json.dumps(golden))
        write_card(folder, record)
    return out


def _golden_rows() -> list[dict]:
    """Conversations of built-in facts, each with a true and a false reply."""
    rows = []
    for scenario in [s for s in read_scenarios("capitals") if s.asked is not None and s.wrong][:GOLDEN_FACTS]:
        assert scenario.asked is not None
        for answer in (scenario.asked.right[0], scenario.wrong):
            reply = {"role": "assistant", "content": f"It is {answer}."}
            rows.append({"messages": [{"role": "user", "content": scenario.question}, reply]})
    return rows


def _record(found: PublishedProbe, probe: Probe, lm: LanguageModel, pool: str, layer: int, name: str) -> DetectorRecord:
    return DetectorRecord(
        name=name,
        made_with=made_with(),
        axis=DECEPTION,
        arm="base+probe",
        probe=probe.probe_name,
        model=model_record(lm, lm.source, lm.options.get("revision")),
        read=ReadoutConfig(what="reply", pool=pool),
        prompting=Prompting(
            format=conversation_format(None, lm.tokenizer), form="reply", positive="Yes", negative="No"
        ),
        seen=Seen(layer=layer),
        calibration=Calibration(scores=(), labels=(), groups=()),
        threshold=Threshold(
            value=float(expit(found.threshold)),
            how=f"the checkpoint's own, {found.threshold:.4f} on its raw score; on other traffic and other pooling it may give any rate",
        ),
        coverage=0.9,
        trained_on=[str(found.hyperparameters["train_dataset"])] if "train_dataset" in found.hyperparameters else [],
    )
