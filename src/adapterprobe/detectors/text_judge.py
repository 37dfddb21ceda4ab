"""A judge of the words alone: of the reply or statement, and of what stands in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from adapterprobe.errors import DataError
from adapterprobe.probes.rows import Rows, auroc_within
from adapterprobe.prompts.encoded import Encoded

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse L2 penalties that are tried; rows have norm 1, so they are larger than those of probes."""


@dataclass(frozen=True)
class TextJudge:
    """A fitted judge: its scores for every prompt, in their order, and what was selected."""

    scores: np.ndarray
    strength: float
    words: int
    """Words and pairs of words that it knows."""
    select_auroc: float


def text_judge(encoded: Encoded, rows: Rows) -> TextJudge:
    """Logistic regression on words and pairs of words by how rare they are, fitted and selected on the rows that probes are.

    Raises:
        DataError: there are no words in what is fitted on.
    """
    said = encoded.column(lambda p: p.turn, object)
    context = encoded.column(lambda p: p.example.conversation.script if p.example.conversation else "", object)
    parts = [part for texts in (said, context) if (part := _weighted(texts, rows.fit)) is not None]
    if not parts:
        raise DataError("evaluate.baselines=[tfidf]: there are no words in the rows that it would be fitted on")
    X: Any = csr_matrix(hstack(parts))
    labels, best = rows.labels, None
    weights = None if rows.weights is None else rows.weights[rows.fit]
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(X[rows.fit], labels[rows.fit], sample_weight=weights)
        scores = model.predict_proba(X)[:, 1]
        value = auroc_within(labels[rows.select], scores[rows.select], rows.conditions[rows.select])
        # Ties go to the stronger penalty, which comes first.
        if best is None or value > best.select_auroc:
            best = TextJudge(scores, strength, X.shape[1], value)
    assert best is not None
    return best


def _weighted(texts: np.ndarray, fit: np.ndarray):
    """None where no text has a word."""
    try:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts[fit])
    except ValueError:
        return None
    return vectorizer.transform(texts)
