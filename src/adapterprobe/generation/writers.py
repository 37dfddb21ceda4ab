"""Who writes replies: one interface, an engine behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

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
