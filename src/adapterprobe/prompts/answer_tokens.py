"""The token ids that may begin an answer choice in its context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from adapterprobe.errors import DataError


@dataclass(frozen=True, slots=True)
class ChoiceTokens:
    """Disjoint sets of token ids that may begin the positive and the negative choice."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]


_endings: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()


def _ending(tokenizer) -> list[int]:
    """Special tokens that a tokenizer appends to every text."""
    if tokenizer not in _endings:
        bare, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
        starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
        _endings[tokenizer] = list(whole[starts[0] + len(bare) :]) if starts else []
    return _endings[tokenizer]


def tokenise(tokenizer, text: str, special: bool) -> list[int]:
    """Token ids of a text that is to be continued.

    Args:
        special: whether the tokenizer adds its special tokens; those that it puts behind a text, which would end it, are taken off.
    """
    ids = list(tokenizer(text, add_special_tokens=special).input_ids)
    ending = _ending(tokenizer) if special else []
    return ids[: -len(ending)] if ending and ids[-len(ending) :] == ending else ids


@dataclass(frozen=True, slots=True)
class _Beginnings:
    """How one choice may go on."""

    at_once: tuple[int, ...]
    """Its first tokens, right after the context: bare, or with a blank or line end inside the token."""
    blank: int | None = None
    """The token that a blank is by itself, where this tokenizer parts it from the word."""
    after_blank: tuple[int, ...] = ()


def _beginnings(tokenizer, context: str, choice: str, special: bool) -> _Beginnings:
    """A spelling counts where the context's own tokens stay as they are and the next token is a beginning of the choice itself (a
    lone newline or blank could begin anything)."""
    base = tokenise(tokenizer, context, special)
    found: list[int] = []
    blank, after = None, ()
    for lead in (" ", "", "\n"):
        ids = tokenise(tokenizer, context + lead + choice, special)
        if len(ids) <= len(base) or ids[: len(base)] != base:
            continue
        first = ids[len(base)]
        if _begins(tokenizer, first, choice) and first not in found:
            found.append(first)
        elif lead == " " and len(ids) > len(base) + 1 and not tokenizer.decode([first]).strip():
            second = ids[len(base) + 1]
            if _begins(tokenizer, second, choice):
                blank, after = first, (second,)
    return _Beginnings(tuple(found), blank, after)


def _begins(tokenizer, token: int, choice: str) -> bool:
    text = tokenizer.decode([token]).strip()
    return bool(text) and choice.startswith(text)


class ChoiceFinder:
    """Choice tokens per prompt, remembered by the end of the prompt (the only part that matters)."""

    def __init__(self, tokenizer, special: bool, tail: int = 24) -> None:
        self.tokenizer, self.special, self.tail = tokenizer, special, tail
        self._known: dict[tuple[str, str], _Beginnings] = {}

    def _of(self, text: str, choice: str) -> _Beginnings:
        cut = text[-self.tail :]
        key = (cut, choice)
        if key not in self._known:
            self._known[key] = _beginnings(self.tokenizer, cut, choice, self.special)
        return self._known[key]

    def starters(self, text: str, choice: str) -> tuple[int, ...]:
        """Tokens with which one choice may begin after a text."""
        found = self._of(text, choice)
        return found.at_once or found.after_blank

    def blank(self, text: str, positive: str, negative: str) -> int | None:
        """The token of the blank in front of both choices, where this tokenizer makes it a token of its own: then it belongs to the
        prompt, and the answer begins behind it. Else None."""
        if text[-1:].isspace():
            return None
        blanks = {self._of(text, choice).blank for choice in (positive, negative)}
        return blanks.pop() if len(blanks) == 1 else None

    def __call__(self, name: str, text: str, positive: str, negative: str) -> ChoiceTokens:
        """Both sets for one prompt; behind the blank, where that is a token of its own (see `blank`).

        Raises:
            DataError: a choice cannot begin with a token of its own, or both may begin with the same one;
                `name` says which example.
        """
        parted = self.blank(text, positive, negative) is not None
        sides = [self._of(text, choice) for choice in (positive, negative)]
        tokens = ChoiceTokens(*(side.after_blank if parted else side.at_once for side in sides))
        for choice, ids in ((positive, tokens.positive), (negative, tokens.negative)):
            if not ids:
                raise DataError(f"{name}: this tokenizer has no token that begins the choice '{choice}' here")
        shared = set(tokens.positive) & set(tokens.negative)
        if shared:
            word = self.tokenizer.decode([min(shared)])
            raise DataError(
                f"{name}: the choices '{positive}' and '{negative}' both may begin with the token {word!r} under this "
                "tokenizer, so they cannot be told apart; reword one of them"
            )
        return tokens


def choice_tokens(tokenizer, text: str, positive: str, negative: str, special: bool = True) -> ChoiceTokens:
    """Choice tokens after one text; see `ChoiceFinder`."""
    return ChoiceFinder(tokenizer, special)(repr(text[-60:]), text, positive, negative)
