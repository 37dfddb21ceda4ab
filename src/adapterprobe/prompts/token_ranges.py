"""Which tokens of a text stand for some of its characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from adapterprobe.errors import DataError
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.terminal import shortened


def token_range(tokenizer, text: str, ids: Sequence[int], special: bool, start: int, stop: int) -> tuple[int, int]:
    """Tokens (from, to; the second exclusive) that stand for `text[start:stop]`, checked by decoding them.

    A token that holds characters of both sides of an edge counts if those outside are blanks (`.` and a line end in one token), and
    else does not: it says something of its own.

    Args:
        ids: the tokens of `text` (more may follow).
        special: whether the tokenizer added its special tokens.

    Raises:
        DataError: no such tokens: they decode to something else.
    """
    wanted = _bare(text[start:stop])
    first, last = overlapping_tokens(tokenizer, text, ids, special, start, stop)
    for low, high in ((first, last), (first, last - 1), (first + 1, last), (first + 1, last - 1)):
        found = _bare(tokenizer.decode(list(ids[low:high]))) if low < high else ""
        # The whole span, or without what an edge token shares with its neighbours.
        if found and (found == wanted or ((low, high) != (first, last) and found in wanted)):
            return low, high
    raise DataError(
        f"its tokens decode to {shortened(tokenizer.decode(list(ids[first:last])))}, expected {shortened(text[start:stop])}"
    )


def _bare(text: str) -> str:
    # Some tokenizers bring texts into a normal form of Unicode.
    return "".join(unicodedata.normalize("NFKC", text).split())


def overlapping_tokens(
    tokenizer, text: str, ids: Sequence[int], special: bool, start: int, stop: int
) -> tuple[int, int]:
    """Tokens (from, to; the second exclusive) that share a character with `text[start:stop]`; see `token_range`."""
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
        if list(encoded.input_ids[: len(ids)]) == list(ids[: len(encoded.input_ids)]):
            inside = [
                place
                for place, (low, high) in enumerate(encoded.offset_mapping[: len(ids)])
                if low < stop and high > start and low < high
            ]
            return (inside[0], inside[-1] + 1) if inside else (0, 0)
    # Tokenizers without offsets: where the tokens of the text before, and up to the end, leave those of the whole.
    return tuple(_common(ids, tokenise(tokenizer, text[:end], special)) for end in (start, stop))  # type: ignore[return-value]


def _common(ids: Sequence[int], others: Sequence[int]) -> int:
    same = 0
    while same < min(len(ids), len(others)) and ids[same] == others[same]:
        same += 1
    return same
