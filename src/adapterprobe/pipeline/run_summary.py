"""What a report says of a run beside its scores."""

from __future__ import annotations

import resource
import sys
from collections import Counter

import pandas as pd
import torch

from adapterprobe.adapters.detect_head import adapted_blocks
from adapterprobe.analyses.fitted_run import FittedRun
from adapterprobe.data.contexts import echoed, matched_contexts
from adapterprobe.evaluate.scores import wrote
from adapterprobe.knowledge import Knowledge
from adapterprobe.models.load import describe
from adapterprobe.probes import Probe
from adapterprobe.progress import Timings
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.types import Prompt


def peak_memory_gib() -> float:
    """The most memory that this process has held; of a GPU, if there is one, what was allocated there."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 2**20 if sys.platform != "darwin" else 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def about_run(run: FittedRun, knowledge: Knowledge, left_out: list[dict], timings: Timings) -> dict:
    """Content of `about.json`: model, splits, prompts as sent, training curves, selections, costs."""
    config, lm, encoded = run.config, run.lm, run.encoded
    return {
        "model": describe(lm),
        "splits": _splits(encoded),
        "dropped": run.questions.dropped,
        "replies": replies_judged(encoded, lm.name) if config.read.what == "reply" else [],
        "prompts": _shown(encoded),
        "belief": {
            name: {"passed": len(part.groups), "asked": len(part.asked), "chance": part.chance}
            for name, part in (("known", knowledge.known), ("recalled", knowledge.recalled))
        },
        "adapters": [a.to_json() for a in run.adapters.values()],
        "selected": [
            {
                "arm": f.arm,
                "probe": f.probe,
                "seed": f.seed,
                "layer": f.selection.best.layer,
                "params": f.selection.best.probe.get_params(),
                "select_auroc": f.selection.best.select_auroc,
                "tried": f.selection.tried,
                "unsupervised": unsupervised(f.selection.best.probe),
                "fitted_on": len(f.rows.fit),
                "seconds": f.seconds,
            }
            for f in run.fits
        ],
        "left_out": left_out,
        "lowest_adapted_layer": min(adapted_blocks(config.adapter, lm.structure.n_layers)),
        "under_test": config.under_test,
        "by_construction": [config.under_test],
        "timings": timings.seconds,
        "peak_memory_gib": peak_memory_gib(),
    }


def replies_judged(encoded: Encoded, model: str) -> list[dict]:
    """Of each judged split and data set: how many replies, contexts with both labels, who wrote them, and how many repeat their
    instruction."""
    found: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in encoded.prompts:
        if prompt.split in ("test", "ood"):
            found.setdefault((prompt.split, prompt.example.dataset), []).append(prompt)
    return [_replies_of(split, dataset, prompts, model) for (split, dataset), prompts in found.items()]


def _replies_of(split: str, dataset: str, prompts: list[Prompt], model: str) -> dict:
    authors: Counter[str] = Counter()
    echoes: dict[bool, list[bool]] = {True: [], False: []}
    for prompt in prompts:
        talk, deceptive = prompt.example.conversation, prompt.example.truth
        assert talk is not None
        authors.update([talk.author] if talk.author else [])
        echoes[deceptive].append(echoed(talk))
    matched = matched_contexts((prompt.example.conversation, prompt.example.truth) for prompt in prompts)
    return {
        "split": split,
        "dataset": dataset,
        "replies": len(prompts),
        "deceptive": len(echoes[True]),
        "contexts": matched.contexts,
        "matched": matched.both,
        "authors": dict(authors),
        "on_policy": sum(wrote(prompt, model) is True for prompt in prompts),
        "echo_deceptive": sum(echoes[True]) / max(1, len(echoes[True])),
        "echo_honest": sum(echoes[False]) / max(1, len(echoes[False])),
    }


def unsupervised(probe: Probe) -> dict[str, float]:
    """What contrast-consistent search says of its fit without labels; empty for other probes."""
    names = ("consistency_", "confidence_", "loss_")
    return {name.rstrip("_"): getattr(probe, name) for name in names if hasattr(probe, name)}


def _splits(encoded: Encoded) -> list[dict]:
    rows = pd.DataFrame(
        {
            "split": [p.split for p in encoded.prompts],
            "dataset": [p.example.dataset for p in encoded.prompts],
            "group": [p.example.group for p in encoded.prompts],
        }
    )
    counts = rows.groupby(["split", "dataset"], sort=False).agg(prompts=("group", "size"), groups=("group", "nunique"))
    return counts.reset_index().to_dict("records")


def _shown(encoded: Encoded) -> list[dict]:
    """One judged prompt of every data set, condition and truth, as it was sent."""
    found: dict[tuple, dict] = {}
    for prompt in encoded.prompts:
        if prompt.split not in ("test", "ood"):
            continue
        content = {
            "dataset": prompt.example.dataset,
            "condition": prompt.condition,
            "text": prompt.text,
            "truth": prompt.example.truth,
            "positive": prompt.positive,
            "negative": prompt.negative,
        }
        found.setdefault((prompt.example.dataset, prompt.condition, prompt.example.truth), content)
    return list(found.values())
