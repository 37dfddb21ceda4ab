"""AUROC of many score columns against one label, by ranks."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def auroc_columns(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AUROC of each column of `scores` (rows x columns), ties half; NaN where a class is missing.

    The Mann-Whitney form, equal to scikit-learn's `roc_auc_score` column by column.
    """
    positive = np.asarray(labels) == 1
    n_pos, n_neg = int(positive.sum()), int((~positive).sum())
    if n_pos == 0 or n_neg == 0:
        return np.full(scores.shape[1], np.nan)
    ranks = rankdata(scores, axis=0)
    return (ranks[positive].sum(0) - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
