"""What probes are given, checked once."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import validate_data


def validated(*args, **kwargs) -> Any:
    """scikit-learn's check; what it gives depends on what it is given, which its types do not say."""
    return validate_data(*args, **kwargs)


def refuse_non_finite(X: np.ndarray) -> None:
    """Raises ValueError where X has NaN or infinite entries, with the rows."""
    bad = np.flatnonzero(~np.isfinite(X).all(axis=1))
    if len(bad):
        first = ", ".join(map(str, bad[:5]))
        raise ValueError(
            f"Input X contains NaN or infinity (inf) in {len(bad)} rows: {first}{' ...' if len(bad) > 5 else ''}"
        )
