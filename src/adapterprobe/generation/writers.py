"""Who writes replies: one interface, an engine behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from adapterprobe.adapters.adapter_folder import loaded
from adapterprobe.adapters.on_off import adapter_merged, adapter_scaled
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling, plan_writing, write_replies
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt, end_tokens
from adapterprobe.generation.rows import Reply
from adapterprobe.models import LanguageModel


class ReplyWriter(Protocol):
    """Writes replies of one model as it now is."""

    def write(self, prompts: Sequence[ReplyPrompt], sampling: Sampling) -> Iterator[list[Reply]]:
        """`sampling.samples` replies for every prompt; each list holds those of whole prompts."""
        ...


class Writers(Protocol):
    """An engine that writes, with an adapter on or without one."""

    def writing(self, adapter: Path | None, strength: float) -> AbstractContextManager[ReplyWriter]:
        """Within, the writer of the model with that adapter on at that strength; None: without any."""
        ...

    def close(self) -> None:
        """Let go of whatever it holds."""
        ...


MakeWriters = Callable[[LanguageModel, Engine, PromptWriter, int], Writers]
"""Makes an engine for a model, its prompts, and the most tokens that a prompt with its reply has."""


@contextlib.contextmanager
def model_as_asked(lm: LanguageModel, adapter: Path | None, strength: float) -> Iterator[None]:
    """Within, the adapter is on at a strength, at the speed of the bare model."""
    if adapter is None:
        yield
        return
    with loaded(lm, adapter), adapter_scaled(lm.model, strength), adapter_merged(lm.model):
        yield


class TransformersWriters:
    """Our own engine over the model that is loaded."""

    def __init__(self, lm: LanguageModel, engine: Engine, prompts: PromptWriter, longest: int = 0) -> None:
        self.lm, self.engine, self.prompts = lm, engine, prompts

    @contextlib.contextmanager
    def writing(self, adapter: Path | None, strength: float) -> Iterator[ReplyWriter]:
        with model_as_asked(self.lm, adapter, strength):
            yield TransformersWriter(self.lm, self.engine, self.prompts)

    def close(self) -> None:
        """There is nothing to let go of."""


class TransformersWriter:
    """Our own engine over a transformers model.

    Args:
        rows: most replies that are written together (memory); None: 64, on an accelerator 512.
    """

    def __init__(self, lm: LanguageModel, engine: Engine, prompts: PromptWriter, rows: int | None = None) -> None:
        self.lm, self.engine = lm, engine
        self.rows = rows or (64 if engine.device.type == "cpu" else 512)
        self.stop, self.ends = prompts.stop, end_tokens(lm)

    def write(self, prompts: Sequence[ReplyPrompt], sampling: Sampling) -> Iterator[list[Reply]]:
        stop = self.stop
        stopped = None if stop is None else (lambda tokens: stop in self._text(tokens))
        for batch in plan_writing([prompt.ids for prompt in prompts], sampling, self.rows):
            some = [prompts[place] for place in batch]
            steps = write_replies(
                self.engine, [p.ids for p in some], [p.key for p in some], sampling, self.ends, stopped
            )
            *_, written = steps
            yield [Reply(some[w.prompt].key, w.sample, cut(self._text(w.tokens), self.stop), w.ended) for w in written]

    def _text(self, tokens: Sequence[int]) -> str:
        return self.lm.tokenizer.decode(list(tokens), skip_special_tokens=True)


def cut(text: str, stop: str | None) -> str:
    """A reply without what begins the next turn, and without blanks around it."""
    return (text.split(stop)[0] if stop else text).strip()
