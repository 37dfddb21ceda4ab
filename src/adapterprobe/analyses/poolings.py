"""Of replies: how much does it matter how their tokens become one state? Each pooling searched like the run's own, adapter off."""

from __future__ import annotations

from dataclasses import replace

from adapterprobe.activations import record
from adapterprobe.analyses.fitted_run import Findings, FittedRun
from adapterprobe.detectors.features import ActivationPair
from adapterprobe.detectors.fit import probe_detectors, refitted
from adapterprobe.evaluate.evaluation import Evaluation
from adapterprobe.evaluate.intervals import share_interval
from adapterprobe.evaluate.scores import predictions
from adapterprobe.readout import TokenReads

COMPARED = ("mean", "last", "first", "max", "rolling:8")


def poolings(run: FittedRun) -> Findings:
    """AUROC of base+probe (the main probe) by pooling, with a 95 % interval over groups; nothing where no reply is read, or a probe
    over tokens is the main one."""
    if run.config.read.what != "reply" or run.feature_specs[run.main_probe].kind == "tokens":
        return {}
    spans = run.encoded.reads[0].spans
    reads = tuple(TokenReads(spans, pool) for pool in COMPARED)
    states = record(
        run.engine,
        replace(run.encoded, reads=reads),
        run.lm.fingerprint,
        list(run.base.layers),
        "poolings, adapter off",
    )
    records = []
    axis = run.config.axes[0]
    for which, pool in enumerate(COMPARED):
        seen = ActivationPair(states.read(which), {})
        fit = refitted(run.config, run.encoded, seen, None, "base+probe", None)
        (detector,) = probe_detectors([fit], axis=axis)
        frame = predictions(run.prompt_frame, run.labels, [detector], [axis])
        for split in ("test", "ood"):
            if not (frame["split"] == split).any():
                continue
            evaluation = Evaluation(frame, split, run.config.evaluate.resamples)
            statistic = evaluation.arm_auroc("base+probe", run.main_probe)
            if statistic is None:
                continue
            interval = share_interval(statistic, evaluation.weights, len(evaluation.group_names))
            records.append(
                {
                    "pool": pool,
                    "split": split,
                    "layer": fit.selection.best.layer,
                    "auroc": interval.estimate,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return {"challenge.json": {"pools": records}}
