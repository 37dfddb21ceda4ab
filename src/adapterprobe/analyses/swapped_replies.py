"""Replies swapped: every context with the reply of another one. Does a detector then go with the reply, or with where it stands?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.analyses.rescored import rescored
from adapterprobe.evaluate import statistics
from adapterprobe.evaluate.controls import SWAPPED
from adapterprobe.evaluate.intervals import auroc_interval
from adapterprobe.evaluate.schema import WITHHELD, WITHHELD_ON
from adapterprobe.evaluate.scores import Detector
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.run_prompts import prepare_prompts
from adapterprobe.types import Example

FEWEST = 8
"""Rows of a data set below which nothing is swapped."""


def swapped(examples: Sequence[Example], seed: int) -> list[tuple[Example, Example]]:
    """Each example with the reply of another group of its data set, and the example that the reply is from. The label stays the
    context's. None of a data set in which one group has more than half of the rows.

    Replies are dealt out at random, so that where contexts have replies of both labels the two labels say nothing of each other.
    """
    found = []
    for dataset in dict.fromkeys(example.dataset for example in examples):
        rng = np.random.default_rng([seed, 8, *dataset.encode()])
        mine = [example for example in examples if example.dataset == dataset and example.conversation]
        groups = sorted({example.group for example in mine})
        largest = max((sum(e.group == group for e in mine) for group in groups), default=0)
        if len(mine) < FEWEST or 2 * largest > len(mine):
            continue
        order = {group: place for place, group in enumerate(rng.permutation(groups).tolist())}
        shuffled = [mine[place] for place in rng.permutation(len(mine))]
        ranked = sorted(shuffled, key=lambda example: order[example.group])
        # Groups stand together, so nobody gets a reply of its own group back.
        donors = [*ranked[largest:], *ranked[:largest]]
        found += [(_with_reply(own, donor), donor) for own, donor in zip(ranked, donors, strict=True)]
    return found


def _with_reply(example: Example, donor: Example) -> Example:
    assert example.conversation is not None and donor.conversation is not None
    talk = replace(example.conversation, reply=donor.conversation.reply, author=donor.conversation.author, spans=())
    return replace(example, conversation=talk)


def swapped_replies(run: FittedRun) -> Findings:
    """Of test: the AUROC of every arm (lowest seed) for the label of the context and for that of the reply that was put there. A
    control record of each: the context's label must not be told any more. Nothing where no reply is read."""
    config, lm = run.config, run.lm
    pairs = swapped(run.questions.examples["test"], config.data.data_seed) if config.read.what == "reply" else []
    if not pairs:
        return {}
    donors = {own.example_id: donor for own, donor in pairs}
    asked = replace(run.questions, examples={"test": [own for own, _ in pairs]})
    prompts, _ = prepare_prompts(config, asked, lm.tokenizer, lm.context_length)
    encoded = with_reads(encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary), config.read, lm.tokenizer)
    given = [donors[prompt.example.example_id] for prompt in encoded.prompts]
    context = np.array([float(p.example.truth) for p in encoded.prompts])
    reply = np.array([float(donor.truth) for donor in given])
    sides = {
        "context": (context, [p.example.group for p in encoded.prompts]),
        "reply": (reply, [donor.group for donor in given]),
    }
    if any(len(np.unique(labels)) < 2 for labels, _ in sides.values()):
        return {}
    detectors = rescored(run, {SWAPPED: encoded})[SWAPPED]
    records = [_record(run, d, sides) for d in detectors if d.arm not in (WITHHELD, WITHHELD_ON)]
    return {"challenge.json": {"swapped": records}, "controls.json": [_control(record) for record in records]}


def _record(run: FittedRun, detector: Detector, sides: dict[str, tuple[np.ndarray, list[str]]]) -> dict:
    found: dict = {"arm": detector.arm, "probe": detector.probe, "as_sent": _as_sent(run, detector)}
    for side, (labels, groups) in sides.items():
        interval, count = auroc_interval(labels, detector.truth_score, groups, run.config.evaluate.resamples)
        found[side] = {"auroc": interval.estimate, "low": interval.low, "high": interval.high, "n_groups": count}
    return found | {"n": len(detector.truth_score)}


def _as_sent(run: FittedRun, detector: Detector) -> float:
    """The detector's AUROC on test as its rows were, lowest seed."""
    frame = run.predictions
    mine = frame[(frame["arm"] == detector.arm) & (frame["seed"] == run.lowest_seed) & (frame["split"] == "test")]
    mine = mine[(mine["axis"] == run.config.axes[0]) & (mine["probe"].fillna("") == (detector.probe or ""))]
    labels, scores = mine["label"].to_numpy(float), mine["score"].to_numpy(float)
    return float(statistics.auroc_columns(labels, scores[:, None])[0])


def _control(record: dict) -> dict:
    context, reply = record["context"], record["reply"]
    return {
        "control": SWAPPED,
        "arm": record["arm"],
        "probe": record["probe"],
        "split": "test",
        "auroc": context["auroc"],
        "low": context["low"],
        "high": context["high"],
        "draws": 1,
        "detector": record["as_sent"],
        "expectation": "the context's label is not told by the reply of another context (the label of that reply is, with "
        f"{reply['auroc']:.3f} [{reply['low']:.3f}, {reply['high']:.3f}])",
        "met": not (context["low"] is not None and context["low"] > 0.5),
    }
