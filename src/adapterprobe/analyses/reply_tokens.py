"""Of replies: what the main probe says at every token, for replies to look at and along the reply on average."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd

from adapterprobe.activations.in_memory import states_in_memory
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.fit import ArmFit
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import TokenReads

ARMS = ("base+probe", "adapter+probe")
MOST_REPLIES = 60
"""Replies of test that are read token by token: the most and the least deceptive by base+probe, the others by chance."""
MOST_TOKENS = 256
"""Tokens of a reply, from its beginning."""
PARTS = 10
"""Equal parts of a reply, for the score along it."""


def reply_tokens(run: FittedRun) -> Findings:
    """Scores of the main probe, fitted on pooled states, at single tokens of replies: `tokens.parquet` has a row per token, and
    `challenge.json` the mean by arm, label and tenth of the reply. Nothing where no reply is read, or the probe sees several
    layers or tokens at once."""
    if run.config.read.what != "reply" or run.feature_specs[run.main_probe].kind != "layer":
        return {}
    rows = _chosen(run)
    some = run.encoded.subset(rows)
    tables = []
    for arm in ARMS:
        fit = run.main_fit(arm)
        if arm == "base+probe":
            scores = token_scores(run, some, fit)
        else:
            with run.adapter_on(run.lowest_seed):
                scores = token_scores(run, some, fit)
        tables.append(_table(run, some, arm, fit.selection.best.layer, scores))
    table = pd.concat(tables, ignore_index=True)
    return {"tokens.parquet": table, "challenge.json": {"along": _along(table)}}


def _chosen(run: FittedRun) -> list[int]:
    """Rows of test, a third each: highest scores, lowest scores, and any."""
    test = np.array(run.encoded.where("test"))
    scores = run.main_fit(ARMS[0]).selection.best.scores[test]
    order = test[np.argsort(-scores, kind="stable")]
    third = MOST_REPLIES // 3
    ends = [*order[:third], *order[-third:]]
    others = np.random.default_rng(run.config.data.data_seed).permutation(np.setdiff1d(test, ends))
    return sorted({int(row) for row in (*ends, *others[:third])})


def token_scores(run: FittedRun, encoded: Encoded, fit: ArmFit) -> list[np.ndarray]:
    """For each prompt, a probe's probability of label 1 at each token that is read of it (at most `MOST_TOKENS`)."""
    spans = encoded.reads[0].spans
    longest = min(MOST_TOKENS, max(stop - start for start, stop in spans))
    reads = tuple(
        TokenReads(
            tuple((min(start + place, stop - 1), min(start + place, stop - 1) + 1) for start, stop in spans), "last"
        )
        for place in range(longest)
    )
    best = fit.selection.best
    states = states_in_memory(run.engine, replace(encoded, reads=reads), [best.layer], f"{fit.arm}, token by token")
    found = np.stack(
        [best.probe.predict_proba(states.read(place).layer(best.layer))[:, 1] for place in range(longest)], axis=1
    )
    return [found[row, : min(longest, stop - start)] for row, (start, stop) in enumerate(spans)]


def _table(run: FittedRun, encoded: Encoded, arm: str, layer: int, scores: list[np.ndarray]) -> pd.DataFrame:
    parts = []
    for prompt, ids, (start, stop), values in zip(
        encoded.prompts, encoded.ids, encoded.reads[0].spans, scores, strict=True
    ):
        parts.append(
            pd.DataFrame(
                {
                    "prompt_id": prompt.prompt_id,
                    "label": int(prompt.example.truth),
                    "arm": arm,
                    "layer": layer,
                    "token": np.arange(len(values)),
                    "of": stop - start,
                    "text": _pieces(run.lm.tokenizer, ids[start : start + len(values)]),
                    "score": values,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _pieces(tokenizer, ids: tuple[int, ...]) -> list[str]:
    """The text of each token, as it stands behind those before it."""
    whole = [tokenizer.decode(list(ids[:count])) for count in range(len(ids) + 1)]
    return [after[len(before) :] for before, after in itertools.pairwise(whole)]


def _along(table: pd.DataFrame) -> list[dict]:
    part = np.minimum((table["token"] + 0.5) / table["of"] * PARTS, PARTS - 1).astype(int)
    means = table.assign(part=part).groupby(["arm", "label", "part"], sort=True)["score"].agg(["mean", "size"])
    return [
        {"arm": arm, "label": int(label), "part": int(part), "score": float(row["mean"]), "tokens": int(row["size"])}
        for (arm, label, part), row in means.iterrows()
    ]
