"""A detector on a model while it writes: every token's score, by a hook on transformers' own generation."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adapterprobe.data.transcripts import ROLES
from adapterprobe.detectors.inputs import encodable
from adapterprobe.detectors.loaded import LoadedDetector
from adapterprobe.detectors.notebook import TokenTable
from adapterprobe.detectors.token_scores import Probability, token_probability
from adapterprobe.errors import DataError
from adapterprobe.generation.planned import end_tokens
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


def _last_token(output) -> np.ndarray:
    """Of what a block gives: the state of the last token, fp32."""
    hidden = output[0] if isinstance(output, tuple) else output
    return hidden[0, -1].detach().float().cpu().numpy()


class _Stopped(Exception):
    """Whoever watched has gone."""


class _Feed:
    """What generation hands over, by hooks: the token that a pass is fed, and the states that blocks make of it.

    Not by transformers' streamer: on some devices it runs a token behind. Tokens are scored in the thread that writes: a second busy
    thread would take the processor from the model's own.
    """

    def __init__(self, layers: Sequence[int], told: Callable[[int, dict[int, np.ndarray]], Any]) -> None:
        self.layers, self.told = layers, told
        self.queue: queue.Queue[Any] = queue.Queue()
        self.states: dict[int, np.ndarray] = {}
        self.token: int | None = None
        """The token that is being fed; None while it is the prompt."""
        self.passes = 0
        self.stop = False

    def entering(self, _module, inputs) -> None:
        """A hook in front of the embeddings."""
        ids = inputs[0]
        if self.stop:
            raise _Stopped
        self.passes += 1
        if ids.shape[0] != 1 or (self.passes > 1 and ids.shape[1] != 1):
            raise DataError(
                f"a pass is fed {ids.shape[0]} rows of {ids.shape[1]} tokens; what is watched is written as one reply, token by token: leave out "
                "beams, several replies, assistants and use_cache=False"
            )
        self.token = None if self.passes == 1 else int(ids[0, 0])

    def hook(self, layer: int) -> Callable[..., None]:
        """A hook of the block whose output is read: the state of the last token that was fed."""

        def read(_module, _inputs, output) -> None:
            self.states[layer] = _last_token(output)
            if len(self.states) == len(self.layers):
                states, self.states = self.states, {}
                if self.token is not None:
                    self.queue.put(self.told(self.token, states))

        return read


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
    lm, ends = detector.lm, set(end_tokens(detector.lm))
    added = AddedText(lm.tokenizer)

    def told(token: int, states: dict[int, np.ndarray]) -> list[WatchedToken]:
        if token in ends:
            return []
        text = added.add(token)
        return [watcher.token(text, states) for watcher in watchers]

    layers = sorted({watcher.layer for watcher in watchers})
    feed = _Feed(layers, told)
    given = torch.tensor([ids], device=lm.device)
    failed: list[BaseException] = []
    whole: list[int] = []

    def write() -> None:
        try:
            with torch.inference_mode():
                settings = {
                    "attention_mask": torch.ones_like(given), "pad_token_id": min(ends), "eos_token_id": sorted(ends)
                }  # fmt: skip
                made = lm.model.generate(given, **(settings | options))  # pyright: ignore[reportCallIssue]
                whole.extend(getattr(made, "sequences", made)[0].tolist())
        except _Stopped:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            feed.queue.put(None)

    thread = threading.Thread(target=write, daemon=True)
    with _hooked(detector, feed):
        thread.start()
        try:
            while (tokens := feed.queue.get()) is not None:
                if tokens:
                    yield tokens
            if failed:
                raise failed[0]
        finally:
            feed.stop = True
            thread.join(timeout=60)
    if len(whole) - len(ids) > len(added.tokens) and whole[-1] not in ends:
        # The last token of a reply that was cut was never fed.
        yield told(whole[-1], _last_states(detector, whole, layers))


@contextlib.contextmanager
def _hooked(detector: LoadedDetector, feed: _Feed) -> Iterator[None]:
    blocks, embeddings = detector.lm.structure.blocks, detector.lm.model.get_input_embeddings()
    handles = [blocks[layer - 1].register_forward_hook(feed.hook(layer)) for layer in feed.layers]
    handles.append(embeddings.register_forward_pre_hook(feed.entering))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def _last_states(detector: LoadedDetector, ids: list[int], layers: Sequence[int]) -> dict[int, np.ndarray]:
    kept: dict[int, np.ndarray] = {}

    def keep(layer: int) -> Callable[..., None]:
        def read(_module, _inputs, output) -> None:
            kept[layer] = _last_token(output)
            if len(kept) == len(layers):
                raise _Stopped  # the head over a long conversation is large, and nobody asks for it

        return read

    handles = [detector.lm.structure.blocks[layer - 1].register_forward_hook(keep(layer)) for layer in layers]
    try:
        with contextlib.suppress(_Stopped):
            detector.lm.model(torch.tensor([ids], device=detector.lm.device))
    finally:
        for handle in handles:
            handle.remove()
    return kept
