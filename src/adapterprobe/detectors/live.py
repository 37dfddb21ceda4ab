"""A detector on a model while it writes: every token's score, by a hook on transformers' own generation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapterprobe.data.transcripts import ROLES
from adapterprobe.detectors.inputs import encodable
from adapterprobe.detectors.loaded import LoadedDetector
from adapterprobe.detectors.notebook import TokenTable
from adapterprobe.detectors.token_scores import Probability, token_probability
from adapterprobe.engine.forward import residual_states
from adapterprobe.errors import DataError
from adapterprobe.generation.planned import end_tokens
from adapterprobe.generation.token_by_token import token_by_token
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.formats import TemplateFailed, adds_special_tokens, refuse_control_tokens, render_messages
from adapterprobe.terminal import shortened

POOLS = ("mean", "last", "first", "max")
"""Poolings whose state so far can be told while a reply is written."""


@dataclass(frozen=True, slots=True)
class WatchedToken:
    """One token as it was written.

    `score`: of its own state; `so_far`: of the reply up to it, pooled as the detector pools; `alarm`: whether that is above the threshold
    (False where there is none).
    """

    text: str
    score: float
    so_far: float
    alarm: bool


class Pooled:
    """The state of a reply so far."""

    def __init__(self, pool: str, skip: int) -> None:
        self.pool, self.skip, self.count = pool, skip, 0
        self.state: np.ndarray | None = None

    def add(self, state: np.ndarray) -> np.ndarray:
        """With one more token."""
        if self.skip:
            # A reply shorter than what is left out is read at its last token.
            self.skip -= 1
            return state
        self.count += 1
        if self.state is None or self.pool == "last":
            self.state = state.astype(np.float64)
        elif self.pool == "mean":
            self.state = self.state + (state - self.state) / self.count
        elif self.pool == "max":
            self.state = np.maximum(self.state, state)
        return self.state


class AddedText:
    """The text that each token of a reply adds; a token that is part of a character adds it with the token that ends it."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self._shown = 0

    def add(self, token: int) -> str:
        """With one more token."""
        self.tokens.append(token)
        text = self.tokenizer.decode(self.tokens, skip_special_tokens=True)
        begin, self._shown = self._shown, max(self._shown, len(text.rstrip("\ufffd")))
        return text[begin : self._shown]


@dataclass(frozen=True, eq=False)
class Watcher:
    """A detector as it reads the single tokens of one reply."""

    layer: int
    probability: Probability
    pooled: Pooled
    threshold: float | None

    def token(self, text: str, states: dict[int, np.ndarray]) -> WatchedToken:
        state = states[self.layer]
        # Both at once: checking what a probe is given takes longer than the probe.
        own, so_far = map(float, self.probability(np.stack([state, self.pooled.add(state).astype(np.float32)])))
        return WatchedToken(text, own, so_far, self.threshold is not None and so_far > self.threshold)

    def table(self, texts: Sequence[str], states: np.ndarray) -> TokenTable:
        """The same of all tokens at once (states: tokens x width), with a row for each."""
        pooled = np.array([self.pooled.add(state) for state in states], np.float32).reshape(states.shape)
        score, so_far = (self.probability(given) if len(given) else np.empty(0) for given in (states, pooled))
        alarm = np.zeros(len(states), bool) if self.threshold is None else so_far > self.threshold
        return TokenTable({"token": texts, "score": score, "so_far": so_far, "alarm": alarm})


def watch(detector: LoadedDetector, conversation: list[dict[str, str]], **options: Any) -> Iterator[WatchedToken]:
    """See `Detector.watch`."""
    return (token for (token,) in watch_all([detector], conversation, **options))


def watch_all(
    detectors: Sequence[LoadedDetector], conversation: list[dict[str, str]], **options: Any
) -> Iterator[list[WatchedToken]]:
    """Let the model write the next turn once, and score every token with several detectors of that model: what each of them says of it.

    Raises:
        DataError: see `Detector.watch`; or detectors of different models, or with different formats.
    """
    check_together(detectors)
    watchers = [watcher_of(detector) for detector in detectors]
    return _watched(detectors[0], prompt_ids(detectors[0], conversation), watchers, options)


def check_together(detectors: Sequence[LoadedDetector]) -> None:
    """Whether detectors can watch one reply.

    Raises:
        DataError: they are on different models, or write conversations in different formats.
    """
    if any(d.lm is not detectors[0].lm for d in detectors):
        raise DataError("the detectors are on different models; load them on one: Detector.load(..., model=d.lm)")
    if len({d.prompter.form for d in detectors}) > 1:
        raise DataError("the detectors write conversations in different formats; watch with one of them at a time")


def watchable(detector: LoadedDetector) -> str | None:
    """None where a detector can score tokens as the model writes them; else why it cannot, in a sentence."""
    try:
        watcher_of(detector)
    except DataError as error:
        return str(error)
    return None


def watcher_of(detector: LoadedDetector) -> Watcher:
    """What reads the tokens of one reply, from its first on.

    Raises:
        DataError: the detector cannot score tokens as the model writes them.
    """
    record = detector.record
    if record.read.what != "reply":
        raise DataError(
            f"{record.name} reads {record.read.what}s; while a model writes, a detector of replies is needed"
        )
    if record.sees_adapter:
        raise DataError(
            f"{record.name} reads states with its adapter on, and the model writes with it off; pack base+probe, or merge the adapter and pack a "
            "run on that model"
        )
    if record.read.pooling not in POOLS or record.read.closing:
        raise DataError(
            f"{record.name} pools by {record.read.pooling}{' and reads the closing token' if record.read.closing else ''}, which is known only "
            f"when a reply is whole; poolings that can be watched: {', '.join(POOLS)}"
        )
    layer, probability = token_probability(detector)
    if layer == 0:
        raise DataError(f"{record.name} reads what enters the first block; nothing of the model is in it to watch")
    return Watcher(layer, probability, Pooled(record.read.pooling, record.read.skip), detector.threshold.value)


def prompt_ids(detector: LoadedDetector, conversation: Any) -> list[int]:
    """The tokens of a conversation that ends where the model is to write.

    Raises:
        DataError: it is none.
    """
    messages = list(conversation)
    if not messages or any(not isinstance(m, dict) or m.get("role") not in ROLES for m in messages):
        raise DataError(
            f"expected a conversation, [{{'role': 'user', 'content': ...}}, ...], got {shortened(conversation)}"
        )
    for number, message in enumerate(messages):
        if not isinstance(message.get("content"), str):
            raise DataError(f"message {number}: 'content' is {shortened(message.get('content'))}, expected a text")
        if not message["content"].strip() and message["role"] != "assistant":
            raise DataError(f"message {number} ({message['role']}) is empty")
        encodable(message["content"], f"message {number}", "content")
    if messages[-1]["role"] == "assistant":
        raise DataError(
            "the conversation ends with the assistant's turn; to be watched it ends where the model is to write"
        )
    form, tokenizer = detector.prompter.form, detector.lm.tokenizer
    refuse_control_tokens(messages, tokenizer)
    try:
        text = render_messages(form, messages, tokenizer, True)
    except TemplateFailed as error:
        raise DataError(f"the conversation does not fit the format '{form}': {error}") from error
    special = adds_special_tokens(form, text, getattr(tokenizer, "bos_token", None))
    return tokenise(tokenizer, text, special)


def _watched(
    detector: LoadedDetector, ids: list[int], watchers: Sequence[Watcher], options: dict[str, Any]
) -> Iterator[list[WatchedToken]]:
    lm = detector.lm
    added = AddedText(lm.tokenizer)
    layers = sorted({watcher.layer for watcher in watchers})
    states: dict[int, np.ndarray] = {}

    @contextlib.contextmanager
    def reading(_token: int) -> Iterator[None]:
        # Hooks are there for this pass alone: whoever watches may use the model for something else between two tokens.
        with residual_states(lm.structure, lambda found: found[0, -1].detach().float().cpu(), layers) as kept:
            yield
        states.update({layer: state.numpy() for layer, state in kept.items()})

    tokens = token_by_token(lm, ids, end_tokens(lm), reading, **options)
    return ([watcher.token(text, states) for watcher in watchers] for text in map(added.add, tokens))
