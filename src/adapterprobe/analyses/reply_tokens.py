"""Of replies: what probes say at every token, for replies to look at and along the reply on average."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from adapterprobe.adapters.detect_head import load_head
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.token_scores import Probability, per_token, states_by_row
from adapterprobe.evaluate.intervals import auroc_interval
from adapterprobe.evaluate.schema import HEAD, shown_probe
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.token_labels import token_labels
from adapterprobe.readout import Span

ARMS = ("base+probe", "adapter+probe")
MOST_REPLIES = 60
"""Replies of test that are read token by token: the most and the least deceptive by base+probe, the others by chance."""
MOST_TOKENS = 256
"""Tokens of a reply, from its beginning."""
PARTS = 10
"""Equal parts of a reply, for the score along it."""
OTHER_LAYERS = 3
"""Layers beside the chosen ones, evenly spaced over those that were searched."""


@dataclass(frozen=True)
class TokenScorer:
    """A detector that can be held against single tokens."""

    arm: str
    probe: str | None
    layer: int
    chosen: bool
    """Whether it is the arm's own layer."""
    probability: Probability

    @property
    def sees_adapter(self) -> bool:
        return self.arm != "base+probe"


def reply_tokens(run: FittedRun) -> Findings:
    """Scores of probes at single tokens of replies: `tokens.parquet` has a row per token, arm, probe and layer, and `challenge.json` the
    mean by arm, label and tenth of the reply, and how well tokens inside of false ranges are told from others, where there are any.
    Nothing where no reply is read, or no probe has a score for a single token."""
    scorers = token_scorers(run) if run.config.read.what == "reply" else []
    if not scorers:
        return {}
    rows = _chosen(run)
    some = run.encoded.subset(rows)
    spans = tuple((start, min(stop, start + MOST_TOKENS)) for start, stop in some.reads[0].spans)
    tables = []
    for on in (False, True):
        mine = [scorer for scorer in scorers if scorer.sees_adapter == on]
        with run.adapter_on(run.lowest_seed) if on else contextlib.nullcontext():
            tables += _tables(run, some, spans, mine)
    table = pd.concat(tables, ignore_index=True)
    shown = shown_probe(run.main_probe, [scorer.probe or "" for scorer in scorers])
    main = table[table["chosen"] & table["probe"].isin(["", shown])]
    found: dict = {"along": _along(main)}
    if table["false"].notna().any():
        groups = dict(zip((p.prompt_id for p in some.prompts), (p.example.group for p in some.prompts), strict=True))
        found["false_spans"] = _inside(main, groups, run.config.evaluate.resamples)
    return {"tokens.parquet": table, "challenge.json": found}


def token_scorers(run: FittedRun) -> list[TokenScorer]:
    """Detectors of the lowest seed that have a score for a single token: probes of one state at their own layer and some others, those
    over tokens that add up what each says, and the head that was trained with the adapter."""
    found = []
    for arm, label in itertools.product(ARMS, run.config.probe_by_label):
        fits = run.fits_of(arm, label, run.lowest_seed)
        kind = run.feature_specs[label].kind
        if not fits or per_token(fits[0].selection.best.probe, kind) is None:
            continue
        by_layer = {fit.layer: fit.probe for fit in fits[0].selection.fits if not fit.constant}
        best = fits[0].selection.best.layer
        for layer in sorted({best, *_spread(sorted(by_layer))} & set(by_layer)):
            scores = per_token(by_layer[layer], kind)
            assert scores is not None
            found.append(TokenScorer(arm, label, layer, layer == best, scores))
    head = load_head(run.adapters[run.lowest_seed].folder)
    if head is not None:
        found.append(TokenScorer(HEAD, None, head.layer, True, head.probability))
    return found


def _spread(layers: list[int]) -> list[int]:
    places = np.linspace(0, len(layers) - 1, OTHER_LAYERS + 2)[1:-1]
    return sorted({layers[round(place)] for place in places})


def _chosen(run: FittedRun) -> list[int]:
    """Rows of test, a third each: highest scores, lowest scores, and any."""
    test = np.array(run.encoded.where("test"))
    scores = run.main_fit(ARMS[0]).selection.best.scores[test]
    order = test[np.argsort(-scores, kind="stable")]
    third = MOST_REPLIES // 3
    ends = [*order[:third], *order[-third:]]
    others = np.random.default_rng(run.config.data.data_seed).permutation(np.setdiff1d(test, ends))
    return sorted({int(row) for row in (*ends, *others[:third])})


def _tables(
    run: FittedRun, encoded: Encoded, spans: tuple[Span, ...], scorers: list[TokenScorer]
) -> list[pd.DataFrame]:
    """A row per token, prompt and scorer; the model is as it now is."""
    if not scorers:
        return []
    scores = [[np.empty(0)] * len(encoded) for _ in scorers]
    layers = sorted({scorer.layer for scorer in scorers})
    for row, states in states_by_row(run.engine, encoded, layers, spans):
        for which, scorer in enumerate(scorers):
            scores[which][row] = scorer.probability(states[scorer.layer])
    return [_table(run, encoded, spans, scorer, found) for scorer, found in zip(scorers, scores, strict=True)]


def _table(
    run: FittedRun, encoded: Encoded, spans: tuple[Span, ...], scorer: TokenScorer, scores: list[np.ndarray]
) -> pd.DataFrame:
    lengths = [stop - start for start, stop in spans]
    whole = [stop - start for start, stop in encoded.reads[0].spans]
    marked = [bool(false) for false in encoded.false] if encoded.false else [False] * len(encoded)
    labels = token_labels(encoded, spans)
    false = [
        part.astype(object) if there else np.full(len(part), None, object)
        for part, there in zip(labels, marked, strict=True)
    ]
    texts = [
        text
        for ids, (start, stop) in zip(encoded.ids, spans, strict=True)
        for text in _pieces(run.lm.tokenizer, ids[start:stop])
    ]
    return pd.DataFrame(
        {
            "prompt_id": np.repeat([p.prompt_id for p in encoded.prompts], lengths),
            "label": np.repeat([int(p.example.truth) for p in encoded.prompts], lengths),
            "arm": scorer.arm,
            "probe": scorer.probe or "",
            "layer": scorer.layer,
            "chosen": scorer.chosen,
            "token": np.concatenate([np.arange(length) for length in lengths]),
            "of": np.repeat(whole, lengths),
            "text": texts,
            "false": pd.array(np.concatenate(false), dtype="Int8"),
            "score": np.concatenate(scores),
        }
    )


def _pieces(tokenizer, ids: tuple[int, ...]) -> list[str]:
    """The text of each token, as it stands behind those before it."""
    whole = [tokenizer.decode(list(ids[:count])) for count in range(len(ids) + 1)]
    return [after[len(before) :] for before, after in itertools.pairwise(whole)]


def _along(table: pd.DataFrame) -> list[dict]:
    part = np.minimum((table["token"] + 0.5) / table["of"] * PARTS, PARTS - 1).astype(int)
    cells = table.assign(part=part).groupby(["arm", "label", "part"], sort=True)["score"]
    means = cells.agg(["mean", "size"]).reset_index().to_dict("records")
    return [
        {
            "arm": r["arm"],
            "label": int(r["label"]),
            "part": int(r["part"]),
            "score": float(r["mean"]),
            "tokens": int(r["size"]),
        }
        for r in means
    ]


def _inside(table: pd.DataFrame, groups: dict[str, str], resamples: int) -> list[dict]:
    """AUROC of tokens inside of false ranges against the other tokens of the same replies, with a 95 % interval over groups."""
    found = []
    for arm, mine in table[table["false"].notna()].groupby("arm", sort=False):
        labels = mine["false"].to_numpy(float)
        if len(np.unique(labels)) < 2:
            continue
        subjects = mine["prompt_id"].map(groups).to_numpy(str)
        interval, count = auroc_interval(labels, mine["score"].to_numpy(float), subjects, resamples)
        found.append(
            {
                "arm": arm,
                "probe": mine["probe"].iloc[0] or None,
                "layer": int(mine["layer"].iloc[0]),
                "auroc": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "tokens": len(mine),
                "inside": int(labels.sum()),
                "replies": int(mine["prompt_id"].nunique()),
                "n_groups": count,
            }
        )
    return found
