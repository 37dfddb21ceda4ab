"""A reply in OpenAI's form, with what detectors say of its tokens."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from adapterprobe.detectors.detector import Detector, score_all
from adapterprobe.detectors.live import WatchedToken, prompt_ids, watch_all, watchable
from adapterprobe.detectors.score_rows import rows_of_table
from adapterprobe.errors import DataError
from adapterprobe.serving.requests import ChatRequest


@dataclass
class Reply:
    """A reply while it is written and when it is whole.

    Attributes:
        prompt_tokens: tokens of the conversation.
        final: by detector, what `Detector.score` says of the whole reply; empty where it has no text, or cannot be read (`unread` says why).
        finish_reason: OpenAI's: `stop` (the model ended it) or `length`.
    """

    prompt_tokens: int
    written: list[dict[str, WatchedToken]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    final: dict[str, dict[str, Any]] = field(default_factory=dict)
    unread: str | None = None
    finish_reason: str = "stop"

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def usage(self) -> dict[str, int]:
        written = len(self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": written,
            "total_tokens": self.prompt_tokens + written,
        }


@dataclass(frozen=True)
class Part:
    """One token: its text and, by detector, its scores."""

    text: str
    scores: dict[str, WatchedToken]


def written(detectors: dict[str, Detector], asked: ChatRequest, most: int) -> Iterator[Part | Reply]:
    """Tokens as the model writes them, and last the whole reply.

    Detectors that cannot read single tokens (see `live.watchable`) say their word on the whole reply alone.

    Args:
        most: tokens that a reply may have.

    Raises:
        DataError: a conversation that does not end where the model is to write, or that is too long.
    """
    talk = [message.plain() for message in asked.messages]
    first = next(iter(detectors.values()))
    ids = prompt_ids(first, talk)
    left = most if first.lm.context_length is None else min(most, first.lm.context_length - len(ids))
    wanted = asked.most_tokens
    if left < 1 or (wanted is not None and wanted > left):
        raise DataError(
            f"the conversation has {len(ids)} tokens, and {wanted or 1} more are asked for; this server writes at most {most}, and the model "
            f"takes {first.lm.context_length or 'any number'} in all"
        )
    reply, new = Reply(len(ids)), wanted or left
    live = {name: d for name, d in detectors.items() if watchable(d) is None}
    if not live:
        raise DataError(
            f"no detector here reads tokens while they are written ({watchable(first)}); conversations that are whole go to /v1/score"
        )
    if asked.seed is not None:
        torch.manual_seed(asked.seed)
    for tokens in watch_all(list(live.values()), talk, **asked.generate_options(new)):
        part = Part(tokens[0].text, dict(zip(live, tokens, strict=True)))
        reply.texts.append(part.text)
        reply.written.append(part.scores)
        yield part
    if len(reply.texts) >= new:
        reply.finish_reason = "length"
    if reply.text.strip():
        whole = [*talk, {"role": "assistant", "content": reply.text}]
        readers = {name: d for name, d in detectors.items() if d.record.read.what == "reply"}
        try:
            tables = score_all(list(readers.values()), [whole])
        except DataError as error:
            # What was written is not lost for it.
            reply.unread = str(error)
        else:
            reply.final = {name: rows_of_table(table)[0] for name, table in zip(readers, tables, strict=True)}
    yield reply


def _token(token: WatchedToken) -> dict[str, Any]:
    return {"score": token.score, "so_far": token.so_far, "alarm": token.alarm}


def _whole(reply: Reply) -> dict[str, Any]:
    return {"detectors": reply.final} | ({} if reply.unread is None else {"unread": reply.unread})


class Completion:
    """OpenAI's objects of one reply."""

    def __init__(self, model: str) -> None:
        self.shared = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, reply: Reply) -> dict[str, Any]:
        """`chat.completion`; `adapterprobe` has by detector the reply's score, and `tokens` with the score of each."""
        tokens = [
            {"token": text, **{name: _token(token) for name, token in scores.items()}}
            for text, scores in zip(reply.texts, reply.written, strict=True)
        ]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": reply.text, "refusal": None},
            "logprobs": None,
            "finish_reason": reply.finish_reason,
        }
        extra = _whole(reply) | {"tokens": tokens}
        return self.shared | {
            "object": "chat.completion",
            "choices": [choice],
            "usage": reply.usage,
            "adapterprobe": extra,
        }

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
        """`chat.completion.chunk` as an event of the stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        made = self.shared | {"object": "chat.completion.chunk", "choices": [choice]} | more
        return f"data: {json.dumps(made)}\n\n"

    async def events(self, parts: AsyncIterator[Part | Reply], usage: bool) -> AsyncIterator[str]:
        """The stream: a chunk for each token with its scores in `adapterprobe`, one with the reply's scores, and the end."""
        role: dict[str, Any] = {"role": "assistant"}
        async for part in parts:
            if isinstance(part, Part):
                scores = {name: _token(token) for name, token in part.scores.items()}
                yield self.chunk(role | {"content": part.text}, adapterprobe=scores)
                role = {}
            else:
                yield self.chunk(role, part.finish_reason, adapterprobe=_whole(part))
                if usage:
                    made = self.shared | {"object": "chat.completion.chunk", "choices": [], "usage": part.usage}
                    yield f"data: {json.dumps(made)}\n\n"
        yield "data: [DONE]\n\n"
