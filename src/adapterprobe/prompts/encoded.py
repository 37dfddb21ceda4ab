"""Prompts as a model takes them: token ids, and the ids that may begin each choice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adapterprobe.errors import DataError
from adapterprobe.prompts.answer_tokens import ChoiceFinder, ChoiceTokens, tokenise
from adapterprobe.prompts.formats import adds_special_tokens
from adapterprobe.prompts.token_ranges import overlapping_tokens, token_range
from adapterprobe.readout import Span, TokenReads
from adapterprobe.types import Prompt

BARE_FORMS = ("bare", "bare_negated")

TOO_LONG = (
    "leave the row out (--max-chars), or leave out earliest turns of conversations (--drop-turns, read.drop_turns)"
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Prompts with their token ids, in one order."""

    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    choices: tuple[ChoiceTokens, ...]
    ranges: tuple[tuple[int, int], ...] = ()
    """Of prompts that are read at their own tokens: which (from, to; the second exclusive)."""
    reads: tuple[TokenReads, ...] = ()
    """What states are read at, and how they are pooled (see `with_reads`); none: the answer position."""
    false: tuple[tuple[Span, ...], ...] = ()
    """Of prompts that are read at a reply: its false tokens, where the data mark them (else none), as ranges like `ranges`."""

    def __len__(self) -> int:
        return len(self.prompts)

    def subset(self, rows: Sequence[int]) -> Encoded:
        return Encoded(
            tuple(self.prompts[i] for i in rows),
            tuple(self.ids[i] for i in rows),
            tuple(self.choices[i] for i in rows),
            tuple(self.ranges[i] for i in rows) if self.ranges else (),
            tuple(read.subset(rows) for read in self.reads),
            tuple(self.false[i] for i in rows) if self.false else (),
        )

    def column(self, of: Callable[[Prompt], Any], dtype: Any = None) -> np.ndarray:
        """Something of every prompt, as an array in their order."""
        return np.array([of(prompt) for prompt in self.prompts], dtype)

    def where(self, split: str) -> list[int]:
        return [row for row, prompt in enumerate(self.prompts) if prompt.split == split]


class PromptReader:
    """Prompts under one tokenizer. What was found out about how choices begin is remembered, so one reader serves many."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self._finders = {special: ChoiceFinder(tokenizer, special) for special in (False, True)}

    def special(self, prompt: Prompt) -> bool:
        """Whether the tokenizer adds its special tokens (see `adds_special_tokens`)."""
        return adds_special_tokens(prompt.format, prompt.text, getattr(self.tokenizer, "bos_token", None))

    def _blank(self, prompt: Prompt) -> int | None:
        if not prompt.positive:
            return None
        return self._finders[self.special(prompt)].blank(prompt.text, prompt.positive, prompt.negative)

    def ids(self, prompt: Prompt) -> tuple[int, ...]:
        """Tokens up to the answer position; the last one is the blank in front of the answer where that is a token of its own."""
        blank = self._blank(prompt)
        text, special = prompt.text, self.special(prompt)
        if prompt.read is not None and prompt.example.form in BARE_FORMS:
            # The statement's tokens are those that it has by itself, whatever is asked behind it.
            ids = tokenise(self.tokenizer, text[: prompt.read[1]], special)
            ids += tokenise(self.tokenizer, text[prompt.read[1] :], False)
        else:
            ids = tokenise(self.tokenizer, text, special)
        return tuple(ids if blank is None else [*ids, blank])

    def sent(self, prompt: Prompt) -> Prompt:
        """The prompt with the text that its tokens stand for."""
        return prompt if self._blank(prompt) is None else replace(prompt, text=f"{prompt.text} ")

    def range(self, prompt: Prompt, ids: Sequence[int]) -> tuple[int, int]:
        """The tokens of what a prompt is read at.

        Raises:
            DataError: there are none (the example is named).
        """
        assert prompt.read is not None
        start, stop = prompt.read
        text = prompt.text[:stop] if prompt.example.form in BARE_FORMS else prompt.text
        try:
            return token_range(self.tokenizer, text, ids, self.special(prompt), start, stop)
        except DataError as error:
            raise DataError(f"{prompt.example.named} cannot be read at its own tokens: {error}") from error

    def false(self, prompt: Prompt, ids: Sequence[int]) -> tuple[Span, ...]:
        """The tokens that share a character with what a reply's data mark as false."""
        talk = prompt.example.conversation
        if prompt.read is None or talk is None:
            return ()
        start, special = prompt.read[0], self.special(prompt)
        found = [
            overlapping_tokens(self.tokenizer, prompt.text, ids, special, start + low, start + high)
            for low, high in talk.spans
        ]
        return tuple((low, high) for low, high in found if low < high)

    def choices(self, prompt: Prompt) -> ChoiceTokens:
        """The ids that may begin each choice; none where nothing is asked.

        Raises:
            DataError: they cannot be told apart; the example is named.
        """
        if not prompt.positive:
            return ChoiceTokens((), ())
        name = f"example {prompt.example.example_id} ({prompt.example.dataset})"
        return self._finders[self.special(prompt)](name, prompt.text, prompt.positive, prompt.negative)

    def tells_apart(self, prompt: Prompt) -> bool:
        """Whether the choices can be told apart by how they begin."""
        try:
            self.choices(prompt)
        except DataError:
            return False
        return True


def encode(tokenizer, prompts: Sequence[Prompt], context_length: int | None, vocabulary: int | None = None) -> Encoded:
    """Tokenise each prompt as a whole text.

    Args:
        context_length, vocabulary: how many tokens, and which (0 to this, exclusive), the model takes; None: any.

    Raises:
        DataError: a prompt is longer than the model's context, its choices cannot be told apart by their first tokens (named), or
            it has a token that the model has no embedding for.
    """
    reader = PromptReader(tokenizer)
    sent, ids, choices, ranges, false = [], [], [], [], []
    for prompt in prompts:
        tokens = reader.ids(prompt)
        if context_length is not None and len(tokens) > context_length:
            raise DataError(
                f"example {prompt.example.example_id} ({prompt.example.dataset}) makes a prompt of {len(tokens)} tokens, the "
                f"model's context has {context_length}; "
                + ("lower elicit.shots or leave the example out" if prompt.read is None else TOO_LONG)
            )
        starts = reader.choices(prompt)
        if beyond := unembedded((*tokens, *starts.positive, *starts.negative), vocabulary):
            raise DataError(
                f"example {prompt.example.example_id} ({prompt.example.dataset}) has the token {tokenizer.decode([beyond])!r} ({beyond}), "
                f"and the model has embeddings for {vocabulary} tokens alone: the tokenizer has more than the model was trained "
                "with; use the model's own tokenizer, or another prompt format"
            )
        sent.append(reader.sent(prompt))
        ids.append(tokens)
        choices.append(starts)
        if prompt.read is not None:
            ranges.append(reader.range(prompt, tokens))
            false.append(reader.false(prompt, tokens))
    return Encoded(tuple(sent), tuple(ids), tuple(choices), tuple(ranges), false=tuple(false))


def unembedded(ids: Iterable[int], vocabulary: int | None) -> int | None:
    """A token that a model has no embedding for, if there is one."""
    return next((token for token in ids if vocabulary is not None and token >= vocabulary), None)
