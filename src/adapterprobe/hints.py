"""Short remedies that errors end with."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable


def nearest(got: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing where no known word is near.

    >>> nearest("capitols", ["capitals", "units"])
    " (did you mean 'capitals'?)"
    >>> nearest("zzz", ["capitals"])
    ''
    """
    # Of very many or very long names the comparison itself would take minutes.
    names = list(itertools.islice((name for name in known if len(name) <= 100), 500))
    close = difflib.get_close_matches(got[:100], names, n=2, cutoff=0.6)
    return f" (did you mean {' or '.join(repr(c) for c in close)}?)" if close else ""
