"""Controls: detectors that must not work. A real detector is believed only beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from adapterprobe.evaluate.intervals import difference, share_interval
from adapterprobe.evaluate.ranks import auroc_columns
from adapterprobe.evaluate.tables import Evaluation
from adapterprobe.evaluate.verdict import limits
from adapterprobe.types import Prompt

REPORTED = ("test", "ood")


def split_auroc(frame: pd.DataFrame, scores: np.ndarray, split: str, pooled: bool = False) -> np.ndarray:
    """AUROC for truth within data set and condition, averaged (or pooled over conditions), of every column.

    Args:
        scores: rows x detectors, one row per row of `frame`.
    """
    keys = ["dataset"] if pooled else ["dataset", "condition"]
    truth = frame["truth"].to_numpy()
    here = np.flatnonzero((frame["split"] == split).to_numpy())
    cells = frame.iloc[here].groupby(keys, sort=True).indices.values()
    return np.nanmean([auroc_columns(truth[here[cell]], scores[here[cell]]) for cell in cells], axis=0)


def _splits(frame: pd.DataFrame) -> list[str]:
    return [split for split in REPORTED if (frame["split"] == split).any()]


def shuffled_labels(
    frame: pd.DataFrame, X: np.ndarray, fit_rows: np.ndarray, make: Callable, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of the same probe fitted on labels shuffled within data set and condition, by split."""
    rng = np.random.default_rng([seed, 1])
    truth = frame["truth"].to_numpy()
    cells = frame.iloc[fit_rows].groupby(["dataset", "condition"]).indices.values()
    scores = np.empty((len(frame), draws))
    for draw in range(draws):
        labels = truth[fit_rows].copy()
        for cell in cells:
            labels[cell] = labels[rng.permutation(cell)]
        scores[:, draw] = make().fit(X[fit_rows], labels).decision_function(X)
    return {split: split_auroc(frame, scores, split) for split in _splits(frame)}


def random_directions(
    frame: pd.DataFrame, X: np.ndarray, fit_rows: np.ndarray, sign_rows: np.ndarray, draws: int, seed: int
) -> dict[str, np.ndarray]:
    """AUROCs of random directions through the standardised states, their sign set on `sign_rows`."""
    rng = np.random.default_rng([seed, 2])
    spread = X[fit_rows].std(0)
    Z = (X - X[fit_rows].mean(0)) / np.where(spread > 0, spread, 1.0)
    projected = Z @ rng.standard_normal((X.shape[1], draws))
    sides = auroc_columns(frame["truth"].to_numpy()[sign_rows], projected[sign_rows])
    projected = np.where(sides < 0.5, -projected, projected)
    return {split: split_auroc(frame, projected, split) for split in _splits(frame)}


def chance_records(
    name: str, arm: str, probe: str, draws: dict[str, np.ndarray], detector: dict[str, float]
) -> list[dict]:
    """A detector against a control's draws: it must exceed their 95th percentile."""
    records = []
    for split, values in draws.items():
        limit = float(np.quantile(values, 0.95))
        records.append(
            {
                "control": name,
                "arm": arm,
                "probe": probe,
                "split": split,
                "auroc": float(values.mean()),
                "low": float(np.quantile(values, 0.025)),
                "high": float(np.quantile(values, 0.975)),
                "draws": len(values),
                "detector": detector[split],
                "expectation": f"the detector exceeds the draws' 95th percentile ({limit:.3f})",
                "met": bool(detector[split] > limit),
            }
        )
    return records


def beaten_records(frame: pd.DataFrame, pairs: Sequence[tuple[str, str]], probe: str, resamples: int) -> list[dict]:
    """Detectors, means over their seeds, against others that must not be as good: each must surely exceed its own.

    Args:
        frame: predictions of both for truth; a control has the lowest seed alone.
        pairs: (detector, control), arms of the frame; those with a `+probe` are of `probe`.
    """
    records = []
    for split in _splits(frame):
        evaluation = Evaluation(frame, split, resamples)
        for arm, control in pairs:
            names = [probe if name.endswith("+probe") else None for name in (arm, control)]
            seeds = (None, evaluation.seeds[:1])
            statistics = [evaluation.arm_auroc(a, own, seeds=s) for a, own, s in zip((arm, control), names, seeds)]
            if None in statistics:
                continue
            interval = share_interval(statistics[1], evaluation.weights)
            value, error = difference(*statistics, evaluation.weights)
            low, high = limits(value, error, len(evaluation.group_names), 0.05)
            records.append(
                {
                    "control": control.removesuffix("+probe"),
                    "arm": arm,
                    "probe": names[0],
                    "split": split,
                    "auroc": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                    "draws": 1,
                    "detector": interval.estimate + value,
                    "difference": value,
                    "difference_low": low,
                    "difference_high": high,
                    "expectation": f"the detector surely exceeds it (difference {value:+.3f} [{low:+.3f}, {high:+.3f}])",
                    "met": bool(low > 0),
                }
            )
    return records


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


def prompt_only(frame: pd.DataFrame, fit_rows: np.ndarray) -> list[dict]:
    """Detectors that see only the prompt: its identity (condition, template, demonstrations), its length, its
    words, the two answers it may have. Within a condition they must be near chance; pooled figures stand beside them."""
    truth = frame["truth"].to_numpy()
    features = {"prompt identity": _identity(frame), "length only": _length(frame)}
    text = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(frame["turn"].iloc[fit_rows])
    features["words only (TF-IDF)"] = text.transform(frame["turn"])
    answers = TfidfVectorizer(analyzer=str.split, lowercase=False).fit(frame["answers"].iloc[fit_rows])
    features["answer choices only"] = answers.transform(frame["answers"])
    records = []
    for name, X in features.items():
        model = LogisticRegression(max_iter=1000).fit(X[fit_rows], truth[fit_rows])
        scores = model.decision_function(X)[:, None]
        for split in _splits(frame):
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
            "text": [p.text for p in prompts],
            "turn": [p.turn for p in prompts],
            "answers": [
                " ".join([*("+" + w for w in p.positive.split()), *("-" + w for w in p.negative.split())])
                for p in prompts
            ],
            "truth": [int(p.example.truth) for p in prompts],
        }
    )


def condition_alone(predictions: pd.DataFrame, probe: str) -> list[dict]:
    """How well lies are told apart by what the prompt pushes to, and nothing else, over all conditions together: what each
    probe arm's pooled figure has to exceed. Nothing where there are no lies to speak of.

    Args:
        predictions: see `predictions`; lies are the same for all arms.
        probe: the probe whose arms are held against it.
    """
    rows = predictions[(predictions["axis"] == "lie") & predictions["label"].notna() & (predictions["probe"] == probe)]
    if rows["condition"].nunique() < 2:
        return []
    records = []
    for (arm, split), mine in rows.groupby(["arm", "split"]):
        cells = [c for _, c in mine.groupby(["dataset", "seed"]) if c["label"].nunique() == 2]
        if split not in REPORTED or not cells:
            continue
        columns = [np.column_stack([c["condition"] == "lie", c["score"]]).astype(float) for c in cells]
        found = [auroc_columns(c["label"].to_numpy(int), scores) for c, scores in zip(cells, columns)]
        alone, detector = (float(v) for v in np.mean(found, axis=0))
        records.append(
            {
                "control": "condition alone, for lies over all conditions",
                "arm": arm,
                "probe": probe,
                "split": split,
                "auroc": alone,
                "draws": 1,
                "detector": detector,
                "expectation": f"the detector's pooled AUROC for lies exceeds {alone:.3f}",
                "met": bool(detector > alone),
            }
        )
    return records
