"""The token ids that may begin an answer choice in its context."""

from __future__ import annotations

from dataclasses import dataclass

from adapterprobe.errors import DataError


@dataclass(frozen=True, slots=True)
class ChoiceTokens:
    """Disjoint sets of token ids that may begin the positive and the negative choice."""

    positive: tuple[int, ...]
    negative: tuple[int, ...]


def _starters(tokenizer, context: str, choice: str, special: bool) -> tuple[int, ...]:
    """Ids with which `choice` can go on after `context`: bare, after a space, after a newline.

    A spelling counts where the context's own tokens stay as they are and the next token is a beginning of
    the choice itself (a lone newline or space could begin anything).
    """
    base = tokenizer(context, add_special_tokens=special).input_ids
    found = []
    for lead in (" ", "", "\n"):
        ids = tokenizer(context + lead + choice, add_special_tokens=special).input_ids
        if len(ids) <= len(base) or ids[: len(base)] != base:
            continue
        text = tokenizer.decode([ids[len(base)]]).strip()
        if text and choice.startswith(text) and ids[len(base)] not in found:
            found.append(ids[len(base)])
    return tuple(found)


class ChoiceFinder:
    """Choice tokens per prompt, remembered by the end of the prompt (the only part that matters)."""

    def __init__(self, tokenizer, special: bool, tail: int = 24) -> None:
        self.tokenizer, self.special, self.tail = tokenizer, special, tail
        self._known: dict[tuple[str, str], tuple[int, ...]] = {}

    def starters(self, text: str, choice: str) -> tuple[int, ...]:
        cut = text[-self.tail :]
        key = (cut, choice)
        if key not in self._known:
            self._known[key] = _starters(self.tokenizer, cut, choice, self.special)
        return self._known[key]

    def __call__(self, name: str, text: str, positive: str, negative: str) -> ChoiceTokens:
        """Both sets for one prompt.

        Raises:
            DataError: a choice cannot begin with a token of its own, or both may begin with the same one;
                `name` says which example.
        """
        tokens = ChoiceTokens(self.starters(text, positive), self.starters(text, negative))
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
