"""How a run was made, in words, for a reader who has only the report."""

from __future__ import annotations

from adapterprobe.cache import digest
from adapterprobe.report.run_reader import RunResults


def as_registered(run: RunResults) -> bool:
    """Whether the hypotheses are those whose hash was written before the test split was looked at."""
    return digest(run.config.evaluate.hypotheses) == run.provenance["hashes"]["hypotheses"]


def registered(run: RunResults) -> str:
    """One sentence on when the hypotheses were fixed."""
    found = run.provenance["hashes"]["hypotheses"]
    if as_registered(run):
        return f"Hypotheses were fixed in the configuration, and their hash ({found}) written, before anything was computed."
    return (
        f"POST HOC: these hypotheses are not those whose hash ({found}) was written before the test split was looked at. Take them as "
        "ideas for another run."
    )


def method(run: RunResults) -> list[str]:
    """Paragraphs."""
    config = run.config
    data, elicit, adapter, evaluate = config.data, config.elicit, config.adapter, config.evaluate
    counts: dict[str, tuple[int, int]] = {}
    for entry in run.about["splits"]:
        prompts, groups = counts.get(entry["split"], (0, 0))
        counts[entry["split"]] = (prompts + entry["prompts"], groups + entry["groups"])
    sizes = ", ".join(f"{name} {groups} ({prompts} prompts)" for name, (prompts, groups) in counts.items())
    pushed = " and ".join(elicit.conditions)
    read = config.read
    told = {
        "reply": f"Of each conversation, in the format {elicit.format}, the tokens of the reply were read ({read.pooling}); behind it stood a "
        "follow-up turn, which the reply does not see, and whose answer is the model's own. Each follow-up has a role: those of what is "
        "judged are used nowhere else.",
        "statement": f"Each statement stood by itself, as the whole text, and was read at its own tokens ({read.pooling}); behind it stood a "
        "follow-up, which it does not see, and whose answer is the model's own.",
    }
    means = [f"{elicit.shots} demonstrations"] if elicit.shots else []
    means += ["system prompts"] if elicit.system else []
    return [
        f"Questions of {', '.join(data.train)} were split by what they are about, never by row, so that both claims on a thing and all "
        f"its prompts stand in one split. Groups: {sizes}. Data sets that nothing is trained on have lost the groups that any training "
        "split has. The same seed decides data and prompts for all arms; training seeds vary the adapter alone.",
        told.get(
            read.what,
            f"Each question was put under {pushed}"
            + (f", by {' and '.join(means)}" if means else "")
            + f", in the format {elicit.format}. Wordings, demonstrations and system prompts of what is judged are used nowhere else; "
            "selection and calibration have wordings of their own.",
        ),
        f"Adapters ({adapter.kind}, blocks {adapter.layers}, objective {adapter.objective}) were trained on adapter-train and stopped on "
        "select. With the adapter off, the model was checked to be the untouched one to the bit. Probes were fitted on probe-train "
        f"(base+probe@matched also on adapter-train) on the hidden state {'at the answer position' if read.what == 'answer' else 'of what was read'}; "
        "layer and strength were chosen on select"
        + (" in folds" if config.select.folds else "")
        + "; thresholds on calibrate; conformal sets and calibration maps on disjoint halves of calibrate. Nothing was fitted, chosen or "
        "calibrated on what it is judged by.",
        f"AUROC is computed within data set and condition and then averaged, since pooling prompts that push to the truth with prompts "
        f"that push to lies rewards telling those apart. Intervals come from {evaluate.resamples:,} resamples of groups, paired between "
        "arms, on the logit scale with Student's t. A difference is supported where its p, adjusted by Holm's method over the family "
        f"of {len(evaluate.hypotheses)} hypotheses, is below 0.05; refuted where its adjusted upper bound is below +{evaluate.margin:g}.",
    ]
