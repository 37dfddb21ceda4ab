"""Detectors that see the prompt alone: its identity, its length, its words, the answers it may have. They must be near chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from adapterprobe.data.contexts import echoed
from adapterprobe.evaluate.controls import split_auroc, splits_with_rows
from adapterprobe.types import Prompt


def _identity(frame: pd.DataFrame):
    columns = frame[["condition", "template", "demo_set", "format", "system_prompt"]]
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(columns).transform(columns)


def _length(frame: pd.DataFrame):
    length = frame["text"].str.len().to_numpy(float)
    words = frame["text"].str.count(" ").to_numpy(float)
    return np.column_stack([length, words]) / [max(length.max(), 1), max(words.max(), 1)]


def chance_reach(n_groups: int) -> float:
    """How far from 0.5 the AUROC of a worthless detector goes in 95 of 100 cases, with one row of each label a
    group (Mann-Whitney under the null; conditions are not counted as independent)."""
    return float(1.96 * np.sqrt((2 * n_groups + 1) / (12 * n_groups**2)))


def _words(name: str, texts: pd.Series, fit_rows: np.ndarray) -> dict:
    """Words and pairs of words by how rare they are; nothing where there are none (replies of one sign)."""
    try:
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts.iloc[fit_rows])
    except ValueError:
        return {}
    return {name: vectorizer.transform(texts)}


def _setting(frame: pd.DataFrame, fit_rows: np.ndarray) -> dict[str, np.ndarray]:
    """Of replies: whether each repeats its own instruction, and who wrote it; nothing where rows do not differ in it."""
    found = {}
    if "echo" in frame and frame["echo"].iloc[fit_rows].nunique() > 1:
        found["echo of the instruction"] = frame[["echo"]].to_numpy(float)
    if "author" in frame and frame["author"].iloc[fit_rows].nunique() > 1:
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(frame[["author"]].iloc[fit_rows])
        found["author of the reply"] = encoder.transform(frame[["author"]])
    return found


def prompt_only(frame: pd.DataFrame, fit_rows: np.ndarray) -> list[dict]:
    """Detectors that see only the prompt: its identity (condition, template, demonstrations), its length, its
    words (of a reply or statement, those of it alone; the words of a reply's context by themselves), whether a reply repeats its
    instruction and who wrote it, the two answers it may have.
    Within a condition they must be near chance; pooled figures stand beside them."""
    truth = frame["truth"].to_numpy()
    features = {"prompt identity": _identity(frame), "length only": _length(frame)}
    features |= _words("words only (TF-IDF)", frame["turn"], fit_rows)
    if "context" in frame and frame["context"].str.len().any():
        features |= _words("words of the context (TF-IDF)", frame["context"], fit_rows)
    features |= _setting(frame, fit_rows)
    answers = TfidfVectorizer(analyzer=str.split, lowercase=False)  # pyright: ignore[reportArgumentType]
    answers = answers.fit(frame["answers"].iloc[fit_rows])
    features["answer choices only"] = answers.transform(frame["answers"])
    records = []
    for name, X in features.items():
        model = LogisticRegression(max_iter=1000).fit(X[fit_rows], truth[fit_rows])
        scores = model.decision_function(X)[:, None]
        for split in splits_with_rows(frame):
            value = float(split_auroc(frame, scores, split)[0])
            tolerance = chance_reach(frame.loc[frame["split"] == split, "group"].nunique())
            records.append(
                {
                    "control": name,
                    "arm": None,
                    "probe": "logistic",
                    "split": split,
                    "auroc": value,
                    "pooled_auroc": float(split_auroc(frame, scores, split, pooled=True)[0]),
                    "draws": 1,
                    "expectation": f"within {tolerance:.2f} of 0.50 inside a condition",
                    "met": bool(abs(value - 0.5) <= tolerance),
                }
            )
    return records


def control_frame(prompts: Sequence[Prompt]) -> pd.DataFrame:
    """What controls may see of prompts; `turn` is the question without its demonstrations."""
    return pd.DataFrame(
        {
            "dataset": [p.example.dataset for p in prompts],
            "split": [p.split for p in prompts],
            "group": [p.example.group for p in prompts],
            "condition": [p.condition for p in prompts],
            "template": [p.template for p in prompts],
            "demo_set": [p.demo_set for p in prompts],
            "format": [p.format for p in prompts],
            "system_prompt": [p.system_prompt or "none" for p in prompts],
            # Of a reply or a statement, its own length: what stands around it is the same for both labels, or is a control by itself.
            "text": [p.text if p.read is None else p.turn for p in prompts],
            "context": [p.example.conversation.script if p.example.conversation else "" for p in prompts],
            "echo": [bool(p.example.conversation and echoed(p.example.conversation)) for p in prompts],
            "author": [(p.example.conversation and p.example.conversation.author) or "not said" for p in prompts],
            "turn": [p.turn for p in prompts],
            "answers": [
                " ".join([*("+" + w for w in p.positive.split()), *("-" + w for w in p.negative.split())])
                for p in prompts
            ],
            "truth": [int(p.example.truth) for p in prompts],
        }
    )
