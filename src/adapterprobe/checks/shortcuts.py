"""Truth told from what is not truth: class balance, length, negation, the answer's words, all words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler

from adapterprobe.checks.findings import BLOCKS, WARNS, Finding
from adapterprobe.data import ExampleSource
from adapterprobe.data.splits import shuffled
from adapterprobe.evaluate.intervals import auroc_interval
from adapterprobe.types import Example, Interval

MOST_GROUPS, MOST_ROWS = 800, 4000
"""Shortcuts are looked for among so many."""
RESAMPLES = 1000
TELLING, RUINOUS = 0.6, 0.75
"""AUROCs from which a shortcut needs care, and from which it could be the whole result."""
NEGATIONS = re.compile(r"\b(?:not|no|never|none|nobody|nothing|nor|neither|without|cannot)\b|n['’]t\b", re.IGNORECASE)


def _lopsided(share: float) -> str | None:
    """How bad it is that one of two has this share; None where it is about half."""
    if 0.4 <= share <= 0.6:
        return None
    return BLOCKS if share < 0.1 or share > 0.9 else WARNS


def balance(dataset: ExampleSource) -> Iterator[Finding]:
    """Class balance of all claims that were read; what is asked with both answers is balanced by itself."""
    seen: Mapping[str, int] = getattr(dataset, "seen", {})
    count = sum(seen.values())
    if not count:
        return
    share = seen.get("true", 0) / count
    if severity := _lopsided(share):
        yield Finding(
            "class imbalance",
            severity,
            f"{share:.0%} of {count} claims are true, so that much is right by always answering alike",
            "runs leave out the surplus by chance (data.read.balance); bring more of the rarer class to keep all",
        )


def answer_tokens(examples: Sequence[Example]) -> Iterator[Finding]:
    """How often the right answer is the positive choice (Yes, True, A)."""
    share = float(np.mean([example.truth for example in examples]))
    if severity := _lopsided(share):
        yield Finding(
            "answer-token imbalance",
            severity,
            f"the right answer is '{examples[0].positive}' for {share:.0%} of {len(examples)} questions",
            "balance the classes; otherwise who always gives that answer looks knowing",
        )


def shortcuts(dataset: ExampleSource, form: str, seed: int) -> Iterator[Finding]:
    """Truth predicted, by group-wise cross-validation, from features that have nothing to do with it."""
    groups = shuffled(dataset.groups, seed, dataset.label_sides())[:MOST_GROUPS]
    examples = dataset.examples(groups, form, seed)
    if len(examples) > MOST_ROWS:
        examples = [examples[i] for i in sorted(np.random.default_rng(seed).permutation(len(examples))[:MOST_ROWS])]
    if len({e.truth for e in examples}) < 2 or len({e.group for e in examples}) < 10:
        return
    # What the positive choice claims: the answer token alone says nothing, it is the same for all.
    texts = [_claimed(example) for example in examples]
    truth = np.array([example.truth for example in examples], int)
    codes = np.unique([example.group for example in examples], return_inverse=True)[1]
    length = np.array([[len(text), text.count(" "), len(text) ** 2] for text in texts], float)
    features: dict[str, tuple[object, str]] = {
        "length": (StandardScaler().fit_transform(length), "make true and false texts equally long"),
        "negation": (
            np.array([[len(NEGATIONS.findall(text))] for text in texts], float),
            "ask affirmed and negated versions of both classes",
        ),
        "words": (texts, "pair each text with a twin of the other class that has the same words"),
    }
    answers = [example.texts.get("answer", "") for example in examples]
    if any(answers) and form != "choice":
        features["the answer's words"] = (answers, "let each answer be right as often as wrong")
    for name, (values, remedy) in features.items():
        yield from told_finding("truth", name, told_by(values, truth, codes), remedy, len(texts), codes)


def told_finding(
    what: str, name: str, found: Interval | None, remedy: str, rows: int, codes: np.ndarray
) -> Iterator[Finding]:
    """The finding that `what` is told by a feature, where it surely is."""
    if found is None or found.low <= 0.5 or found.estimate < TELLING:
        return
    yield Finding(
        f"{what} told by {name}",
        BLOCKS if found.estimate >= RUINOUS else WARNS,
        f"AUROC {found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}] on held-out groups, without any model "
        f"({rows} rows in {codes.max() + 1} groups)",
        f"{remedy}; or hold every detector against this",
    )


def _claimed(example: Example) -> str:
    if "reply" in example.texts:
        return example.texts["reply"]
    if "statement" in example.texts:
        return example.texts["statement"]
    if "first" in example.texts:
        return f"{example.texts['query']} {example.texts['first']}"
    return " ".join(example.texts[key] for key in sorted(example.texts, reverse=True))


def told_by(values, truth: np.ndarray, codes: np.ndarray) -> Interval | None:
    """Cross-validated AUROC with its interval over groups; None where the feature is the same everywhere."""
    scores = np.zeros(len(truth))
    folds = min(5, int(codes.max()) + 1)
    for fit, judged in GroupKFold(folds, shuffle=True, random_state=0).split(truth, truth, codes):
        if len(set(truth[fit])) < 2:
            return None
        X, Z = _features(values, fit, judged)
        if X is None:
            return None
        model = LogisticRegression(max_iter=500).fit(X, truth[fit])
        # Folds differ in their offset; ranks within a fold do not.
        here = model.decision_function(Z)
        scores[judged] = rankdata(here) / len(here)
    return auroc_interval(truth, scores, codes, RESAMPLES)[0]


def _features(values, fit: np.ndarray, judged: np.ndarray) -> tuple[object, object]:
    if isinstance(values, np.ndarray):
        if np.ptp(values, axis=0).max() == 0:
            return None, None
        return values[fit], values[judged]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+")
    try:
        X = vectorizer.fit_transform([values[i] for i in fit])
    except ValueError:
        return None, None
    return X, vectorizer.transform([values[i] for i in judged])
