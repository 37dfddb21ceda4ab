"""Near-duplicates: rows that say nearly the same, weighed by how rare their words are.

"The city of Krasnodar is in Russia." and "... is in South Africa." share the rare word, so they are about one thing; two
cities in Russia share common words alone. Similarity is the cosine of binary word vectors weighted by log(rows / rows with
the word), so a frame that every row has weighs nothing.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

NEAR = 0.5
"""Cosine from which two rows of one data set are about the same thing."""
SAME = 0.8
"""Cosine from which two texts of different data sets say the same."""
BLOCK = 512
COMMON = 200
"""A word in more rows than this, and in more than one of fifty, is left out: it weighs little and costs much."""
_WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"  # Thai, Lao, Burmese, Khmer, Tai
    "\u2e80-\u2fff\u3040-\u30ff\u3100-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua980-\ua9df\uf900-\ufaff"
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff]+"  # Chinese and Japanese
)
"""Scripts whose words are written without spaces between them."""
GRAM = 2
"""Characters of which the parts of such texts are made: most of their words have one or two."""


def plain_form(text: str) -> str:
    """A text as it is compared, never as it is sent: compatibility forms of Unicode (NFKC), without case and without characters
    that nobody sees (zero-width spaces and joiners, marks of direction).

    >>> plain_form("Caf\\u00e9") == plain_form("CAFE\\u0301"), plain_form("Li\\u200bra")
    (True, 'lira')
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded if folded.isascii() else "".join(c for c in folded if unicodedata.category(c) != "Cf")


def words_of(text: str) -> list[str]:
    """Words and signs, in plain form (see `plain_form`); of scripts without spaces, overlapping pairs of characters.

    >>> words_of("Is 2 + 2 'four'?"), words_of("東京は首都")
    (['is', '2', '+', '2', "'", 'four', "'", '?'], ['東京', '京は', 'は首', '首都'])
    """
    found = []
    for word in _WORD.findall(plain_form(text)):
        if word.isascii() or not _UNSPACED.search(word):
            found.append(word)
            continue
        at = 0
        for run in _UNSPACED.finditer(word):
            found += [word[at : run.start()]] if run.start() > at else []
            part = run.group()
            found += [part[i : i + GRAM] for i in range(max(1, len(part) - GRAM + 1))]
            at = run.end()
        found += [word[at:]] if at < len(word) else []
    return found


def normalised(text: str) -> str:
    """The text by its words alone: case, spaces, forms of Unicode and closing stops do not count."""
    return " ".join(_WORD.findall(plain_form(text))).rstrip(" .!?。！？")


def _vectors(texts: Sequence[str]) -> csr_matrix:
    """rows x words, of length 1 (or 0, where a text has common words alone)."""
    vocabulary: dict[str, int] = {}
    rows, columns = [], []
    for row, text in enumerate(texts):
        for word in sorted(set(words_of(text))):
            rows.append(row)
            columns.append(vocabulary.setdefault(word, len(vocabulary)))
    shape = (len(texts), max(len(vocabulary), 1))
    counts = csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    frequency = np.asarray(counts.sum(0)).ravel()
    # A word of one row alone cannot be shared: it weighs hardly more than one of two rows.
    weight = np.log(np.maximum(len(texts) / np.maximum(frequency, 1.5), 1))
    weight[frequency > max(COMMON, len(texts) / 50)] = 0
    weighted = csr_matrix(counts.multiply(weight))
    weighted.eliminate_zeros()
    length = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
    return csr_matrix(weighted.multiply((1 / np.maximum(length, 1e-12))[:, None]))


def near_pairs(texts: Sequence[str], limit: float = NEAR) -> Iterator[tuple[int, int, float]]:
    """(row, later row, similarity) of texts that are at least `limit` alike; equal texts are 1 alike."""
    # Equal texts once: a word that many copies share is not common for that.
    first: dict[str, int] = {}
    keys = [normalised(text) for text in texts]
    for row, key in enumerate(keys):
        if key in first:
            yield first[key], row, 1.0
        else:
            first[key] = row
    rows = np.array(list(first.values()))
    vectors = _vectors([str(texts[row]) for row in first.values()])
    across = vectors.T.tocsc()
    for start in range(0, len(rows), BLOCK):
        close = (vectors[start : start + BLOCK] @ across).tocoo()
        keep = (close.data >= limit) & (close.col > close.row + start)
        for one, two, value in zip(close.row[keep] + start, close.col[keep], close.data[keep], strict=True):
            yield int(rows[one]), int(rows[two]), float(min(value, 1.0))


def near_groups(texts: Sequence[str], limit: float = NEAR) -> list[int]:
    """A group number per text: texts joined by chains of near-duplicates have the same."""
    pairs = [(one, two) for one, two, _ in near_pairs(texts, limit)]
    rows, columns = zip(*pairs, strict=True) if pairs else ((), ())
    links = csr_matrix((np.ones(len(pairs)), (rows, columns)), (len(texts), len(texts)))
    return connected_components(links, directed=False)[1].tolist()


def near_duplicates_of(texts: Sequence[str], before: Sequence[str], limit: float = SAME) -> dict[int, int]:
    """For each of `texts` that says the same as one of `before`: which one."""
    vectors = _vectors([*before, *texts])
    old, new = vectors[: len(before)], vectors[len(before) :]
    known = {normalised(text): place for place, text in enumerate(before)}
    found = {}
    across = old.T.tocsc()
    for start in range(0, len(texts), BLOCK):
        close = (new[start : start + BLOCK] @ across).tocsr()
        for row in range(close.shape[0]):
            equal = known.get(normalised(texts[start + row]))
            part = close.getrow(row)
            if equal is not None:
                found[start + row] = equal
            elif part.nnz and part.data.max() >= limit:
                found[start + row] = int(part.indices[part.data.argmax()])
    return found


def text_key(text: str) -> str:
    """A short content hash of a text by its words."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()[:12]
