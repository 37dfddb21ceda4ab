"""Words of a text with their places, put so that spellings of one name are equal."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"[^\W_]+(?:[.'’](?=[^\W_])[^\W_]+)*|[+\-−×/=%]|(?<=[\d\s])\*(?=[\d\s])")
_UNITS = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: value for value, word in enumerate(_UNITS.split())} | {
    word: 10 * (place + 2) for place, word in enumerate(_TENS.split())
}
ABBREVIATED = {"st": "saint", "mt": "mount", "n't": "not"}
_CONTRACTED = {"can't": "cannot", "won't": "will not", "ain't": "is not"}


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it compares (`key`), and where it stands: `text[start:stop]`."""

    key: str
    start: int
    stop: int


def fold(text: str) -> str:
    """Without case, accents and typographic quotes; as long as it was is not promised.

    >>> fold("Brasília"), fold("Nuku’alofa")
    ('brasilia', "nuku'alofa")
    """
    plain = unicodedata.normalize("NFKD", text.replace("’", "'").replace("ʻ", "'"))
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold()


def words_of(text: str) -> list[Word]:
    """All words of a text: numbers in words become figures, n't becomes a word `not`.

    >>> [word.key for word in words_of("It isn't St. John’s, it's twenty-six.")]
    ['it', 'is', 'not', 'saint', "john's", 'it', 'is', '26']
    """
    found: list[Word] = []
    for match in _WORD.finditer(text):
        key = fold(match.group())
        where = match.start(), match.end()
        key = _CONTRACTED.get(key, key)
        if key.endswith("n't"):
            found += [Word(key[:-3], *where), Word("not", *where)]
        elif key in ("it's", "that's", "he's", "she's", "there's", "what's", "i'm", "they're", "you're"):
            found += [Word(key.split("'")[0], *where), Word("are" if key.endswith("re") else "is", *where)]
        elif " " in key:
            found += [Word(part, *where) for part in key.split()]
        else:
            found.append(Word(ABBREVIATED.get(key, key), *where))
    return _numbers(found)


def _numbers(words: Sequence[Word]) -> list[Word]:
    """With numbers below 1,000 that stand there in words as figures; hyphens inside names go."""
    found: list[Word] = []
    place = 0
    while place < len(words):
        value, used = _number(words, place)
        if used:
            found.append(Word(str(value), words[place].start, words[place + used - 1].stop))
            place += used
            continue
        # A hyphen without blanks around it joins (Porto-Novo): it says nothing.
        word = words[place]
        joined = word.key in "-−" and found and place + 1 < len(words)
        if not (joined and found[-1].stop == word.start and words[place + 1].start == word.stop):
            found.append(word)
        place += 1
    return found


def _number(words: Sequence[Word], place: int) -> tuple[int, int]:
    """(value, how many words) of a number in words that begins here; (0, 0) where none does."""
    value, used, best = 0, 0, (0, 0)
    while place + used < len(words):
        key = words[place + used].key
        if key in NUMBERS and (used == 0 or _may_follow(value, NUMBERS[key])):
            value += NUMBERS[key]
        elif key == "hundred" and 0 < value < 10:
            value *= 100
        elif used and key in ("and", "-", "−"):
            used += 1
            continue
        else:
            break
        used += 1
        best = value, used
    return best


def _may_follow(value: int, more: int) -> bool:
    return (value % 100 == 0 and value > 0) or (value % 100 >= 20 and value % 10 == 0 and more < 10)


def find(words: Sequence[Word], name: Sequence[str]) -> list[int]:
    """Where a name (keys in a row) begins among words."""
    size = len(name)
    keys = [word.key for word in words]
    return [place for place in range(len(keys) - size + 1) if size and keys[place : place + size] == list(name)]


def sentences(reply: str, words: Sequence[Word]) -> list[tuple[int, int]]:
    """Ranges of words between stops."""
    edges = [0]
    for place in range(1, len(words)):
        before, gap = words[place - 1], reply[words[place - 1].stop : words[place].start]
        initial = before.stop - before.start == 1 and reply[before.start].isupper() and gap == ". "
        if re.search(r"[.!?\n;]", gap) and not (before.key in ("saint", "mount", "dr", "mr") or initial):
            edges.append(place)
    edges.append(len(words))
    return [(low, high) for low, high in itertools.pairwise(edges) if low < high]
