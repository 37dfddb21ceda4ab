"""A detector to take away: a folder, its model, and scores for whatever it is given."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from adapterprobe.adapters.detect_head import SavedHead, load_head
from adapterprobe.detectors import live
from adapterprobe.detectors.alarms import FixedThreshold, check_rate, fixed_threshold
from adapterprobe.detectors.bundle_folder import free_folder, whole_folder
from adapterprobe.detectors.bundle_record import (
    ADAPTER,
    NOVELTY,
    PROBE,
    DetectorRecord,
    Threshold,
    read_record,
    write_record,
)
from adapterprobe.detectors.golden import GoldenReport, check_model, replay
from adapterprobe.detectors.hub import HUB_ID, fetched, push
from adapterprobe.detectors.inputs import InputPrompter, Inputs, rows_of
from adapterprobe.detectors.notebook import TokenTable, detector_html
from adapterprobe.detectors.novelty import Novelty
from adapterprobe.detectors.passes import Needs, OwnEngine, StateReader, encoded_for
from adapterprobe.detectors.sketches import REFERENCE, projected
from adapterprobe.detectors.token_scores import token_scores
from adapterprobe.engine import Engine
from adapterprobe.errors import CacheError, DataError, ModelError
from adapterprobe.evaluate.calibration import calibrator, enough
from adapterprobe.evaluate.conformal import alarm_threshold, answers, needed
from adapterprobe.evaluate.schema import ANSWERS
from adapterprobe.evaluate.thresholds import Scored, check_base_rate, unlabelled_threshold
from adapterprobe.models import LanguageModel, load_model, wrap_model
from adapterprobe.models.gguf import DEFAULT_NAME
from adapterprobe.probes import Probe, load_probe
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.small_files import as_path
from adapterprobe.types import Prompt

PIECE = 512
"""Rows that are scored at once."""


@dataclass(frozen=True, eq=False)
class Detector:
    """A detector on a model. Made by `Detector.load`.

    Attributes:
        record: what its folder says of it (`detector.json`).
        folder: where its files are.
        reader: what gives it the states of the model that it reads.
        golden: what replaying its golden rows on this model has shown; None where it was not replayed.
    """

    record: DetectorRecord
    folder: Path
    reader: StateReader
    golden: GoldenReport | None = None

    @classmethod
    def load(
        cls,
        source: str | Path,
        model: Any = None,
        *,
        tokenizer: Any = None,
        verify: bool = True,
        revision: str | None = None,
        token: str | None = None,
        device: str = "auto",
        dtype: str | None = None,
        trust_remote_code: bool = False,
    ) -> Detector:
        """A detector from a folder, or from the hub.

        Args:
            source: folder of a bundle, or `OWNER/NAME` on the hub.
            model: the model that it reads, loaded already (what `load_model` gave, another detector's `.lm`, a transformers model with its
                `tokenizer`, or a `VllmModel`), or where to load it from; None: what the bundle names.
            verify: replay the golden rows; without that, whether this model gives the scores that it should is not known, and is recorded
                (`record.verified`).
            revision, token: of a repository of the hub.
            device, dtype: of a model that is loaded here; None: the number format that the detector was made with.
            trust_remote_code: run code that comes with a model that is loaded here.

        Raises:
            CacheError: no such bundle, or one that is damaged, or of a newer schema.
            ModelError: the model cannot be loaded, is another one, or reads the golden rows otherwise.
        """
        path = as_path(source, CacheError)
        if not path.exists() and HUB_ID.fullmatch(str(source)):
            path = fetched(str(source), revision, token)
        record = read_record(path)
        reader = _reader(record, model, tokenizer, device, dtype, trust_remote_code)
        check_model(record, reader)
        detector = cls(record, path, reader)
        # Whatever can be wrong with its files is told now.
        needs = detector.needs
        if not verify:
            say(f"{record.name}: its golden rows were not replayed, so nobody knows whether it scores here as it did")
            return detector._changed(verified=False)
        report = replay(path, record, reader, needs)
        if report.level != "equal":
            say(f"{record.name}: {report.sentence}")
        return replace(detector, golden=report)

    def _changed(self, **changes: Any) -> Detector:
        """The same detector with another record."""
        return replace(self, record=self.record.model_copy(update=changes))

    @property
    def lm(self) -> LanguageModel:
        """The model that it reads."""
        return self.reader.lm

    @property
    def engine(self) -> Engine:
        """The engine that it reads with.

        Raises:
            DataError: it is not ours.
        """
        if not isinstance(self.reader, OwnEngine):
            raise DataError(
                f"{self.record.name} reads {self.lm.name} by {type(self.reader).__name__}, which scores whole inputs; load it on a model of "
                "transformers for this"
            )
        return self.reader.engine

    @cached_property
    def needs(self) -> Needs:
        """Its probe or head, and the folder of its adapter."""
        adapter = self.folder / ADAPTER if self.record.sees_adapter else None
        probe: Probe | None = None
        head: SavedHead | None = None
        if self.record.probe is not None:
            probe, _ = load_probe(self.folder / PROBE)
        elif self.record.arm == "adapter+head" and adapter is not None:
            head = load_head(adapter)
            if head is None:
                raise CacheError(f"{adapter} lacks the head of {self.record.name}; take the bundle from a copy")
        if adapter is not None and not adapter.is_dir():
            raise CacheError(f"{self.folder} lacks its adapter; take the bundle from a copy")
        return Needs(self.record, probe, head, adapter)

    @cached_property
    def prompter(self) -> InputPrompter:
        """Makes prompts of rows."""
        record = self.record
        return InputPrompter(record.prompting, record.read, self.lm.tokenizer, self.lm.context_length, self.folder)

    @cached_property
    def _novelty(self) -> Novelty | None:
        path = self.folder / NOVELTY
        if self.record.novelty_layer is None or not path.is_file():
            return None
        kept = load_file(path)
        return Novelty(kept["states"].astype(np.float32), kept["groups"])

    @cached_property
    def _calibrate(self) -> pd.DataFrame:
        rows = self.record.calibration
        return pd.DataFrame({"score": rows.scores, "label": rows.labels, "group": rows.groups})

    @cached_property
    def _platt(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Probabilities of scores; None where too few rows calibrate."""
        labels = self._calibrate["label"].to_numpy(int)
        if not len(labels) or not enough(labels):
            return None
        return calibrator("Platt", self._calibrate["score"].to_numpy(float), labels)

    @property
    def threshold(self) -> Threshold:
        """Where a score becomes an alarm, and how that was fixed."""
        return self.record.threshold

    def score(self, inputs: Inputs) -> pd.DataFrame:
        """Score texts, conversations, or a table of them.

        Args:
            inputs: statements as texts; conversations as lists of messages; or rows (a table) with the columns that the detector's wording
                places (`statement`; `question` and `answer`; `messages`), or `prompt`, sent as it is.

        Returns:
            A row for each, in their order: `score` (0 to 1, higher means label 1: of deception a lie, of truth a true answer),
            `probability` (the score calibrated by rows that nothing was fitted on; null where there are too few), `decision` (whether the
            score is above the threshold), `answer` (`lie` or `deceptive`, `truth` or `honest`, `don't know`: a conformal set; null where
            too few rows calibrate), `novelty_p` (share of reference inputs that are as unlike the others).

        Raises:
            DataError: an input that cannot be read (by its place); nothing is scored then.
        """
        (found,) = score_all([self], inputs)
        return found

    def tokens(self, conversation: Any) -> TokenTable:
        """The score of every token of one conversation's reply (or of one statement).

        Returns:
            A row for each token (a notebook shows the text, shaded): `token` (its text), `start`, `stop` (characters in the reply), `score` (0 to 1, of the state at that token
            alone: a detector that pools by the mean was fitted on means, so single tokens scatter more).

        Raises:
            DataError: several inputs, or the detector has no score for a single token.
        """
        rows = rows_of(conversation, self.record.read)
        if len(rows) != 1:
            raise DataError(f"tokens of one conversation at a time, got {len(rows)}")
        (table,) = token_scores(self, [self.prompter.prompt(0, rows[0])])
        return table

    def watch(self, conversation: list[dict[str, str]], **generate_options: Any) -> Iterator[live.WatchedToken]:
        """Let the model write the next turn of a conversation, and score every token as it comes.

        Args:
            conversation: messages that end where the model is to write.
            generate_options: of transformers' `generate`: `max_new_tokens`, `do_sample`, `temperature`, ...

        Yields:
            For each token its text, its own score, the score of the reply so far (pooled as the detector pools; the last one is what
            `score` gives the finished text where that has the same tokens), and whether that is an alarm. Whoever stops watching stops
            the writing.

        Raises:
            DataError: the detector reads no replies, or states with an adapter on, or cannot tell a reply's score before it is whole.
        """
        return live.watch(self, conversation, **generate_options)

    def decide(self, inputs: Inputs, false_positive_rate: float | None = None) -> np.ndarray:
        """Whether each input is an alarm: of deception, that the reply deceives; of truth, that the answer is true.

        Args:
            false_positive_rate: alarms among rows of label 0 that are wanted, at most, on inputs like those that calibrate; None: the
                detector's own threshold.

        Raises:
            DataError: too few calibrating rows for that rate; or it has no threshold.
        """
        value = self.threshold.value
        if false_positive_rate is not None:
            rows = self._calibrate[self._calibrate["label"] == 0]
            value = alarm_threshold(rows["score"].to_numpy(), rows["group"].to_numpy(str), false_positive_rate)
            if value is None:
                raise DataError(
                    f"{rows['group'].nunique()} groups of label 0 calibrate {self.record.name}, at least {needed(false_positive_rate)} are "
                    f"needed for a rate of {false_positive_rate:g}; calibrate it on benign inputs of your own (d.calibrate, `adapterprobe calibrate`)"
                )
        if value is None:
            raise DataError(
                f"{self.record.name} has no threshold; calibrate it (d.calibrate, `adapterprobe calibrate`)"
            )
        return self.score(inputs)["score"].to_numpy() > value

    def calibrate(
        self,
        benign: Inputs,
        false_positive_rate: float = 0.01,
        per: Literal["row", "reply", "conversation"] = "row",
        base_rate: float | None = None,
    ) -> Detector:
        """The same detector with the threshold that benign inputs fix (see `fixed_threshold`), or unlabelled ones whose share of alarms is
        known (see `unlabelled_threshold`).

        Args:
            benign: inputs none of which is to be an alarm.
            false_positive_rate: share of benign inputs that may be alarms; holds with a confidence of 95 %.
            per: `row` (or `reply`): the score of each input; `conversation`: the highest score over all of the assistant's turns, so that an
                alarm over the whole conversation, wherever one stops, keeps the rate.
            base_rate: the inputs are unlabelled, and this share of them should be alarms. Nothing is promised then: the rate holds as far
                as the detector's recall carries over.

        Raises:
            DataError: too few inputs (says how many more).
            ConfigError: an impossible rate or base rate.
        """
        if base_rate is not None:
            return self._changed(threshold=self._by_base_rate(benign, false_positive_rate, per, base_rate))
        scores = self.conversation_scores(benign) if per == "conversation" else self.score(benign)["score"].to_numpy()
        fixed: FixedThreshold = fixed_threshold(scores, false_positive_rate)
        threshold = Threshold(
            value=fixed.value,
            how=f"the order statistic of {fixed.benign} benign {per}s that keeps the rate with a confidence of 95 %",
            rate=false_positive_rate,
            upper=fixed.upper,
            benign=fixed.benign,
            alarms=fixed.alarms,
            per=per,
        )
        return self._changed(threshold=threshold)

    def _by_base_rate(self, inputs: Inputs, rate: float, per: str, base_rate: float) -> Threshold:
        check_rate(rate)
        check_base_rate(base_rate)
        if per != "row":
            raise DataError(
                f"a base rate is the share of rows that should be alarms, got per={per}; leave one of them out"
            )
        known = self.record.calibration
        own = Scored(np.array(known.scores), np.array(known.labels), np.array(known.groups))
        at = own.negative_threshold(rate)
        recall = None if at is None else own.recall(at)
        if recall is None:
            raise DataError(
                f"the detector was made with {len(np.unique(own.groups))} groups that calibrate, too few to know its recall at a rate of {rate:g} "
                f"(at least {needed(rate)} with negatives); give benign inputs without a base rate"
            )
        value = unlabelled_threshold(self.score(inputs)["score"].to_numpy(), rate, base_rate, recall)
        how = (
            f"unlabelled rows, of which {base_rate:g} should be alarms and the recall should be {recall:.2f} as on the run's own; no rate is "
            "promised"
        )
        return Threshold(value=value, how=how, rate=rate)

    def conversation_scores(self, conversations: Inputs) -> np.ndarray:
        """The highest score over all of the assistant's turns, each read with what stands before it.

        Raises:
            DataError: the detector reads no replies, or a conversation has none.
        """
        if self.record.read.what != "reply":
            raise DataError(f"{self.record.name} reads {self.record.read.what}s, and only replies have turns")
        rows = rows_of(conversations, self.record.read)
        turns, owners = [], []
        for owner, row in enumerate(rows):
            messages = list(row.get("messages") or [])
            for stop in range(1, len(messages) + 1):
                if messages[stop - 1].get("role") == "assistant" and messages[stop - 1].get("content"):
                    turns.append({"messages": messages[:stop]})
                    owners.append(owner)
        if missing := sorted(set(range(len(rows))) - set(owners)):
            raise DataError(f"conversation {missing[0]} has no turn of the assistant")
        return pd.Series(self.score(turns)["score"].to_numpy()).groupby(np.array(owners)).max().to_numpy()

    def save(self, folder: str | Path) -> Path:
        """Write the bundle, with what was changed since (its threshold), into a new folder.

        Raises:
            OutputError: the folder holds something, or cannot be written.
        """
        out = free_folder(folder)
        with whole_folder(out) as part:
            shutil.copytree(self.folder, part, dirs_exist_ok=True)
            write_record(part, self.record)
        return out

    def push_to_hub(self, repo_id: str, private: bool = True, token: str | None = None) -> str:
        """Upload the bundle to a repository of the Hugging Face hub, which is made where it is not there.

        Returns:
            The address of the commit.

        Raises:
            OutputError: the hub refuses, or cannot be reached.
        """
        return push(self, repo_id, private, token)

    def encoded(self, prompts: Sequence[Prompt]) -> Encoded:
        """Prompts as the model takes them."""
        return encoded_for(self.record, self.lm, prompts)

    def finished(self, scores: np.ndarray, home: np.ndarray | None) -> pd.DataFrame:
        """What `score` gives, of scores and of states at the layer of novelty."""
        probability = np.full(len(scores), np.nan)
        said: list[str] | None = None
        if self._platt is not None:
            probability = self._platt(scores)
            said, _, _ = answers(self._calibrate, scores, self.record.coverage, ANSWERS[self.record.axis])
        value = self.threshold.value
        novelty = self._novelty
        p = np.full(len(scores), np.nan)
        if novelty is not None and home is not None:
            p = novelty.p_values(projected(home, REFERENCE))
        decision = pd.array([None] * len(scores) if value is None else list(scores > value), dtype="boolean")
        return pd.DataFrame(
            {
                "score": scores.astype(float),
                "probability": probability,
                "decision": decision,
                "answer": pd.array([None] * len(scores) if said is None else said, dtype="string"),
                "novelty_p": p,
            }
        )

    def _repr_html_(self) -> str:
        return detector_html(self.record, self.lm.name, self.golden)

    def __repr__(self) -> str:
        alarm = "no threshold" if self.threshold.value is None else f"alarm above {self.threshold.value:.3f}"
        return f"Detector({self.record.name}: {self.record.arm}, {self.record.axis}, on {self.lm.name}; {alarm})"


def _reader(
    record: DetectorRecord, model: Any, tokenizer: Any, device: str, dtype: str | None, trust_remote_code: bool
) -> StateReader:
    """The model of a detector, as it is given or named."""
    if hasattr(model, "passes"):
        return model
    return OwnEngine(_model(record, model, tokenizer, device, dtype, trust_remote_code))


def _model(
    record: DetectorRecord, model: Any, tokenizer: Any, device: str, dtype: str | None, trust_remote_code: bool
) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if model is not None and not isinstance(model, (str, Path)):
        return wrap_model(model, tokenizer)
    named = record.model
    name = str(model) if model is not None else named.hub_id or named.name
    if model is None and named.hub_id is None and named.name != DEFAULT_NAME and not Path(named.name).exists():
        raise ModelError(
            f"{record.name} is for the local model {named.name}; say where it is here: Detector.load(..., model=FOLDER), or --model FOLDER"
        )
    revision = named.revision if model is None else None
    return load_model(
        name, revision=revision, device=device, dtype=dtype or named.dtype, trust_remote_code=trust_remote_code
    )


def score_all(detectors: Sequence[Detector], inputs: Inputs) -> list[pd.DataFrame]:
    """Score inputs with several detectors of one model; those that put them in the same way share their forward passes.

    Returns:
        A table for each (see `Detector.score`).

    Raises:
        DataError: see `Detector.score`; or detectors on different models.
    """
    if not detectors:
        return []
    first = detectors[0]
    if any(d.lm is not first.lm for d in detectors):
        raise DataError("the detectors are on different models; load them on one: Detector.load(..., model=d.lm)")
    alike: dict[str, list[int]] = {}
    for place, detector in enumerate(detectors):
        how = detector.record.prompting.model_dump_json() + detector.record.read.model_dump_json()
        alike.setdefault(how, []).append(place)
    found: dict[int, pd.DataFrame] = {}
    for places in alike.values():
        mine = [detectors[place] for place in places]
        for place, table in zip(places, _scored_together(mine, inputs), strict=True):
            found[place] = table
    return [found[place] for place in range(len(detectors))]


def _scored_together(detectors: Sequence[Detector], inputs: Inputs) -> list[pd.DataFrame]:
    first = detectors[0]
    rows = rows_of(inputs, first.record.read)
    return scores_of(detectors, [first.prompter.prompt(number, row) for number, row in enumerate(rows)])


def scores_of(detectors: Sequence[Detector], prompts: Sequence[Prompt]) -> list[pd.DataFrame]:
    """What `score` gives, of prompts that are made; the detectors share their model and how they put inputs."""
    first = detectors[0]
    if not prompts:
        return [d.finished(np.empty(0), None) for d in detectors]
    homes = sorted({d.record.novelty_layer for d in detectors if d.record.novelty_layer is not None})
    encoded = first.encoded(prompts)
    scores: list[list[np.ndarray]] = [[] for _ in detectors]
    states: list[list[np.ndarray]] = [[] for _ in detectors]
    for start in range(0, len(prompts), PIECE):
        some = encoded.subset(range(start, min(start + PIECE, len(prompts))))
        passes = first.reader.passes(some, [d.needs for d in detectors], homes)
        for place, detector in enumerate(detectors):
            layer = detector.record.novelty_layer
            scores[place].append(detector.needs.scores(some, passes))
            if layer is not None and passes.off is not None:
                states[place].append(passes.off.layer(layer))
    return [
        d.finished(np.concatenate(scores[place]), np.concatenate(states[place]) if states[place] else None)
        for place, d in enumerate(detectors)
    ]
