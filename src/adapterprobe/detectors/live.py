"""A detector on a model while it writes: every token's score, by a hook on transformers' own generation."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adapterprobe.data.transcripts import ROLES
from adapterprobe.detectors.token_scores import token_probability
from adapterprobe.errors import DataError
from adapterprobe.generation.planned import end_tokens
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.formats import adds_special_tokens, render_messages
from adapterprobe.terminal import shortened

if TYPE_CHECKING:
    from adapterprobe.detectors.detector import Detector

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


class _Pooled:
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


class _Stopped(Exception):
    """Whoever watched has gone."""


class _Feed:
    """What generation hands over: states from the hook, tokens from the streamer."""

    def __init__(self) -> None:
        self.queue: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.prompt_seen = False
        self.stop = False

    def hook(self, _module, _inputs, output) -> None:
        """Of the block whose output is read: the state of the last token that was fed."""
        hidden = output[0] if isinstance(output, tuple) else output
        self.queue.put(("state", hidden[0, -1].detach().float().cpu().numpy()))
        if self.stop:
            raise _Stopped

    def put(self, value: torch.Tensor) -> None:
        """Transformers' streamer: the prompt first, then each token."""
        if not self.prompt_seen:
            self.prompt_seen = True
            return
        self.queue.put(("token", int(value.flatten()[-1])))

    def end(self) -> None:
        """Transformers' streamer: all is written."""


def watch(detector: Detector, conversation: list[dict[str, str]], **options: Any) -> Iterator[WatchedToken]:
    """See `Detector.watch`."""
    record, lm = detector.record, detector.lm
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
    ids = _prompt(detector, conversation)
    return _watched(detector, ids, layer, probability, options, set(end_tokens(lm)))


def _prompt(detector: Detector, conversation: Any) -> list[int]:
    messages = list(conversation)
    if not messages or any(not isinstance(m, dict) or m.get("role") not in ROLES for m in messages):
        raise DataError(
            f"expected a conversation, [{{'role': 'user', 'content': ...}}, ...], got {shortened(conversation)}"
        )
    if messages[-1]["role"] == "assistant":
        raise DataError(
            "the conversation ends with the assistant's turn; to be watched it ends where the model is to write"
        )
    form, tokenizer = detector.prompter.form, detector.lm.tokenizer
    text = render_messages(form, messages, tokenizer, True)
    special = adds_special_tokens(form, text, getattr(tokenizer, "bos_token", None))
    return tokenise(tokenizer, text, special)


def _watched(detector: Detector, ids, layer: int, probability, options, ends: set[int]) -> Iterator[WatchedToken]:
    lm, feed = detector.lm, _Feed()
    handle = lm.structure.blocks[layer - 1].register_forward_hook(feed.hook)
    given = torch.tensor([ids], device=lm.device)
    failed: list[BaseException] = []

    def write() -> None:
        try:
            with torch.inference_mode():
                settings = {"attention_mask": torch.ones_like(given), "pad_token_id": min(ends)} | options
                lm.model.generate(given, streamer=feed, **settings)  # pyright: ignore[reportCallIssue]
        except _Stopped:
            pass
        except BaseException as error:
            failed.append(error)
        finally:
            feed.queue.put(("done", None))

    thread = threading.Thread(target=write, daemon=True)
    pooled, written, shown = _Pooled(detector.record.read.pooling, detector.record.read.skip), [], 0
    value = detector.threshold.value
    waiting: int | None = None

    def told(token: int, state: np.ndarray) -> WatchedToken:
        nonlocal shown
        written.append(token)
        text = lm.tokenizer.decode(written, skip_special_tokens=True)
        part, shown = text[shown:], len(text)
        so_far = float(probability(pooled.add(state)[None].astype(np.float32))[0])
        return WatchedToken(part, float(probability(state[None])[0]), so_far, value is not None and so_far > value)

    thread.start()
    try:
        first = True
        while True:
            kind, what = feed.queue.get()
            if kind == "done":
                break
            if kind == "token":
                waiting = what
            elif first:
                first = False  # the prompt's last token
            elif waiting is not None and waiting not in ends:
                yield told(waiting, what)
                waiting = None
        if failed:
            raise failed[0]
        if waiting is not None and waiting not in ends:
            # The last token of a reply that was cut was never fed.
            handle.remove()
            yield told(waiting, _last_state(detector, [*ids, *written, waiting], layer))
    finally:
        feed.stop = True
        handle.remove()
        thread.join(timeout=60)


@torch.inference_mode()
def _last_state(detector: Detector, ids: list[int], layer: int) -> np.ndarray:
    kept: list[np.ndarray] = []

    def keep(_module, _inputs, output) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        kept.append(hidden[0, -1].float().cpu().numpy())

    handle = detector.lm.structure.blocks[layer - 1].register_forward_hook(keep)
    try:
        detector.lm.model(torch.tensor([ids], device=detector.lm.device))
    finally:
        handle.remove()
    return kept[0]
