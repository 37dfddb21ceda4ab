"""A finished run's detectors on new prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from adapterprobe.activations import record_tokens
from adapterprobe.activations.in_memory import MemoryStates, states_in_memory
from adapterprobe.adapters.adapter_folder import adapter_digest, adapter_loaded
from adapterprobe.adapters.detect_head import SavedHead, load_head
from adapterprobe.cache import digest
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_run_config
from adapterprobe.detectors.centred import probabilities
from adapterprobe.detectors.features import ActivationPair, FeatureSpec, feature_spec
from adapterprobe.detectors.fit import own_detector
from adapterprobe.detectors.novelty import Novelty
from adapterprobe.detectors.passes import probed
from adapterprobe.engine import Engine
from adapterprobe.errors import CacheError, ModelError, OutputError
from adapterprobe.evaluate.conformal import answers
from adapterprobe.evaluate.schema import ANSWERS, BASELINES, HEAD, WITHHELD, WITHHELD_ON
from adapterprobe.models import LanguageModel, load_model
from adapterprobe.models.source_files import differing, source_record
from adapterprobe.output_folder import AGAIN, check_run, read_predictions
from adapterprobe.probes import Probe, load_probe
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.small_files import as_path, read_records, read_table
from adapterprobe.types import Example, Prompt

READ = ("config.yaml", "predictions.parquet", "prompts.parquet", "results.json", "probes/", "adapter/")
"""What is read of a run's folder: as the run left it, or refused."""
OOD_P_VALUE = 0.01
"""A prompt is called unlike the run's where fewer of those are as far from the others."""


@dataclass(frozen=True)
class SavedDetector:
    """A detector of a run: an arm's own answer, or a saved probe."""

    arm: str
    label: str | None
    probe: Probe | None
    probe_input: FeatureSpec | None
    layer: int | None
    threshold: float
    calibrate: pd.DataFrame
    false_positives: dict | None
    head: SavedHead | None = None
    """Of the arm that is one: trained with the adapter."""

    @property
    def name(self) -> str:
        return self.arm if self.label is None else f"{self.arm} ({self.label})"

    @property
    def reads_tokens(self) -> bool:
        return self.probe_input is not None and self.probe_input.kind == "tokens"

    @property
    def layers(self) -> set[int]:
        """Those whose states it looks at."""
        if self.layer is None:
            return set()
        if self.head is not None:
            return {self.layer}
        if self.probe_input is None or (self.reads_tokens and self.arm not in (WITHHELD, WITHHELD_ON)):
            return set()
        return {self.layer, *self.probe_input.seen(self.layer)}


class Scorer:
    """Everything that a run saved, ready for new prompts; the lowest seed's adapter and probes.

    Args:
        lm: the run's model, where it is loaded already.
        device: where else to load it than the run did.

    Raises:
        OutputError: the folder is not a finished run.
        ModelError: the model is not the one that the run was made with, or its code is not what it was.
    """

    def __init__(
        self,
        folder: str | Path,
        trust_remote_code: bool = False,
        lm: LanguageModel | None = None,
        device: str = "auto",
    ) -> None:
        self.folder = as_path(folder, OutputError)
        if not self.folder.is_dir():
            raise OutputError(
                f"{folder} is not a finished run: there is no such folder; make one with `adapterprobe run --out {folder}`"
            )
        check_run(self.folder, READ)
        self.config, provenance = read_run_config(self.folder)
        self.seed = min(self.config.seeds)
        self.sent = read_table(
            self.folder / "prompts.parquet", "the prompts", ("prompt_id", "positive", "negative", "split"), AGAIN
        )
        hashes = provenance.get("hashes")
        wanted = hashes.get("model") if isinstance(hashes, dict) else None
        if not isinstance(hashes, dict) or not isinstance(wanted, str):
            raise OutputError(f"{self.folder / 'config.yaml'} does not say which model the run was made with; {AGAIN}")
        if trust_remote_code:
            _check_code(self.config, hashes.get("model_files"))
        settings: dict[str, Any] = self.config.model.arguments() | {"trust_remote_code": trust_remote_code}
        if device != "auto":
            settings |= {"device": device, "max_memory": None}
        self.lm = lm or load_model(**settings)
        if self.lm.fingerprint != wanted:
            raise ModelError(
                f"the model {self.lm.name} has the fingerprint {self.lm.fingerprint}, the run was made with {wanted}; load the same "
                "weights in the same precision"
            )
        self.engine = Engine(self.lm.model, self.lm.structure)
        self.detectors = self._detectors()

    @property
    def choices(self) -> tuple[str, str]:
        """The positive and the negative answer of most judged prompts (those of rows that bring no question of their own)."""
        pairs = self.sent.groupby(["positive", "negative"]).size()
        return cast(tuple[str, str], pairs.idxmax())

    def _detectors(self) -> list[SavedDetector]:
        frame = read_predictions(self.folder)
        frame = frame[(frame["axis"] == self.config.axes[0]) & (frame["seed"] == self.seed)]
        results = [
            r
            for r in read_records(self.folder / "results.json", "the results", AGAIN)
            if r.get("metric") == "false_positive_rate"
            and r.get("split") == "test"
            and r.get("filter") == "all"
            and r.get("condition") == "mean"
        ]
        rates = {(r.get("arm"), r.get("probe")): r for r in sorted(results, key=lambda r: r.get("dataset") == "mean")}
        specs = self.config.probe_by_label
        found = []
        for key, rows in frame.groupby(["arm", "probe"], dropna=False, sort=False, observed=True):
            arm, label = cast(tuple[str, Any], key)
            if arm in BASELINES:
                # They are there to be beaten; what they read is not this model's.
                continue
            label = None if pd.isna(label) else str(label)
            probe, probe_input, layer = None, None, None
            head = load_head(self.folder / "adapter") if arm == HEAD else None
            if head is not None:
                layer = head.layer
            elif arm == HEAD:
                raise CacheError(
                    f"{self.folder / 'adapter'} lacks the head of {HEAD}; take the run from a copy, or run it again"
                )
            if label is not None:
                if label not in specs:
                    raise OutputError(
                        f"{self.folder / 'predictions.parquet'} has scores of the probe '{label}', config.yaml has only "
                        f"{', '.join(specs)}: the files are of different runs; {AGAIN}"
                    )
                probe_input = feature_spec(specs[label], self.config, self.lm.structure.n_layers)
                probe, about = load_probe(self.folder / "probes" / f"{arm}-{label}-seed-{self.seed}")
                layer = about.get("layer")
                if layer != int(rows["layer"].iloc[0]):
                    raise CacheError(
                        f"the probe {label} of {arm} in {self.folder} is not the one that was judged; run again"
                    )
            rate = rates.get((arm, label))
            found.append(
                SavedDetector(
                    arm, label, probe, probe_input, layer, float(rows["threshold"].iloc[0]), rows[rows["split"] == "calibrate"],
                    rate and {name: rate.get(name) for name in ("estimate", "low", "high")}, head,
                )
            )  # fmt: skip
        return found

    @cached_property
    def _layers(self) -> list[int]:
        return sorted({self.home, *(layer for detector in self.detectors for layer in detector.layers)})

    @property
    def home(self) -> int:
        """The adapter-off layer where it is told whether a prompt is like the run's."""
        main = [d for d in self.detectors if d.arm.startswith("base+probe") and d.layer is not None]
        mine = [d for d in main if d.label == self.config.evaluate.probe] or main
        return cast(int, mine[-1].layer)

    def stored(self, splits: Sequence[str]) -> tuple[list[Prompt], np.ndarray]:
        """The run's judged prompts of some splits, as they were sent, and their groups."""
        sent = self.sent[self.sent["split"].isin(splits)].reset_index(drop=True)
        prompts = [
            Prompt(
                r.prompt_id, Example(r.prompt_id, r.dataset, r.group, self.config.form, r.positive, r.negative, bool(r.truth), {}),
                r.split, r.condition, r.template, getattr(r, "format", self.config.elicit.format), None, "", (), 0, r.turn, r.text,
                r.positive, r.negative, None if self.config.read.what == "answer" else (int(r.read_start), int(r.read_stop)),
            )
            for r in cast(Iterable[Any], sent.itertuples())
        ]  # fmt: skip
        return prompts, sent["group"].to_numpy(str)

    @cached_property
    def novelty(self) -> Novelty:
        """Of the run's calibrating and held-out prompts; out-of-distribution ones are none of them."""
        return Novelty(*self.reference())

    def reference(self, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """What novelty is told by: states (adapter off) of the run's calibrating and held-out prompts, and their groups.

        Args:
            most: so many of them at most, drawn by a fixed seed; None: all.
        """
        prompts, groups = self.stored(["calibrate", "test"])
        if most is not None:
            rows = np.sort(np.random.default_rng(0).permutation(len(prompts))[:most])
            prompts, groups = [prompts[row] for row in rows], groups[rows]
        states = states_in_memory(self.engine, self.encoded(prompts), [self.home], "prompts of the run")
        return states.layer(self.home), groups

    def encoded(self, prompts: Sequence[Prompt]) -> Encoded:
        """Prompts as the model takes them.

        Raises:
            DataError: too long, or choices that begin alike.
        """
        encoded = encode(self.lm.tokenizer, prompts, self.lm.context_length, self.lm.vocabulary)
        return with_reads(encoded, self.config.read, self.lm.tokenizer)

    def score(self, prompts: Sequence[Prompt]) -> list[dict]:
        """A record per prompt: `detectors` (by name: score that the positive answer is true, threshold, whether it is above it, the
        false positive rate that this threshold has on held-out questions of the run, the conformal answer), `novelty_p`, `unlike`."""
        encoded = self.encoded(prompts)
        off = states_in_memory(self.engine, encoded, self._layers, "adapter off")
        tokens_off = self._tokens(encoded, self.lm.fingerprint)
        adapter = self.folder / "adapter"
        with adapter_loaded(self.lm, adapter):
            on = states_in_memory(self.engine, encoded, self._layers, "adapter on")
            tokens_on = self._tokens(encoded, digest(self.lm.fingerprint, adapter_digest(adapter)))
        views = ActivationPair.of(off, {self.seed: on}).views()
        token_views = {}
        if tokens_off:
            token_views = ActivationPair(tokens_off, {self.seed: tokens_on}).views()
            token_views |= ActivationPair.of(off, {self.seed: on}).withheld_tokens()
        scored = [
            (d, self._scores(d, encoded, off, on, token_views if d.reads_tokens else views)) for d in self.detectors
        ]
        novel = self.novelty.p_values(off.layer(self.home))
        records: list[dict] = [
            {"detectors": {}, "novelty_p": float(p), "unlike": bool(p <= OOD_P_VALUE)} for p in novel
        ]
        for detector, scores in scored:
            said, coverage, how = answers(
                detector.calibrate,
                scores,
                self.config.evaluate.coverage,
                ANSWERS[self.config.axes[0]],
            )
            known = np.isfinite(detector.threshold)
            for row, value in enumerate(scores):
                records[row]["detectors"][detector.name] = {
                    "score": float(value),
                    "threshold": detector.threshold if known else None,
                    "above": bool(value > detector.threshold) if known else None,
                    "false_positive_rate": detector.false_positives,
                    "answer": said[row] if said else None,
                    "coverage": coverage,
                    "sets": how,
                }
        return records

    def _scores(
        self, detector: SavedDetector, encoded: Encoded, off: MemoryStates, on: MemoryStates, views
    ) -> np.ndarray:
        if detector.head is not None:
            return detector.head.probability(on.layer(detector.head.layer))
        if detector.probe is None:
            states, objective = (off, None) if detector.arm == "base" else (on, self.config.adapter.objective)
            return own_detector(detector.arm, self.seed, encoded, states, objective).truth_score
        view = views.get((detector.arm, self.seed)) or views[detector.arm, None]
        assert detector.probe_input is not None and detector.layer is not None
        what = f"the saved probe of {detector.name} in {self.folder}"
        remedy = "take the run from a copy, or run it again"
        spec = self.config.probe_by_label[str(detector.label)]

        def says(probe: Probe, X: np.ndarray) -> np.ndarray:
            return probabilities(spec, probe, X, encoded.prompts)

        return probed(detector.probe, detector.probe_input, view, detector.layer, what, remedy, says)

    def _tokens(self, encoded: Encoded, weights: str):
        wanted = sorted({d.layer for d in self.detectors if d.reads_tokens and d.layer is not None})
        if not wanted:
            return None
        return record_tokens(self.engine, encoded, weights, wanted, self.config.select.tokens, "tokens")


def _check_code(config: RunConfig, recorded: object) -> None:
    """Whether a model's own code is what it was when the run was made; looked at, not run.

    Raises:
        ModelError: it has changed, or was not recorded.
    """
    if not isinstance(recorded, dict) or not recorded:
        raise ModelError(
            "the run does not record which code its model came with, so none of it is run; make the run again with --trust-remote-code"
        )
    source = config.model.name
    changed = differing(recorded, source_record(source, config.model.revision))
    if changed:
        raise ModelError(
            f"the model {source} has other code or settings than the run was made with ({', '.join(changed[:5])}), so none of it is run; "
            "take the model as it was" + (f" (revision {recorded['commit']})" if "commit" in recorded else "")
        )
