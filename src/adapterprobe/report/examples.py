"""Judged prompts to read: what was asked, what the model said, and what each detector made of it."""

from __future__ import annotations

import pandas as pd

from adapterprobe.evaluate.schema import has_probe
from adapterprobe.report.run_reader import RunResults

MOST = 300
"""Prompts in the page; `predictions.parquet` and `prompts.parquet` have all."""


def examples(run: RunResults) -> list[dict]:
    """Prompts of the lowest seed that a detector is wrong about at its threshold, and as many right ones as there is room for
    half of the page; those that most detectors are wrong about come first.

    Each has the prompt's fields, `scores` by arm, and `wrong`: the arms that are wrong.
    """
    rows = run.judged
    scores = rows.pivot_table(index="prompt_id", columns="arm", values="score", observed=True)
    wrong = rows.pivot_table(index="prompt_id", columns="arm", values="wrong", aggfunc="max", observed=True).astype(
        bool
    )
    arms = [arm for arm in run.arms if arm in scores.columns]
    about = run.prompts.drop_duplicates("prompt_id").set_index("prompt_id").loc[scores.index]
    order = pd.DataFrame({"wrong": wrong[arms].sum(axis=1), "id": scores.index})
    order = order.sort_values(by=["wrong", "id"], ascending=[False, True])
    failed, fine = order[order["wrong"] > 0], order[order["wrong"] == 0]
    # A page full of failures would hide how rare they may be.
    room = max(MOST // 2, MOST - len(fine))
    picked = [*failed["id"][:room], *fine["id"][: MOST - min(room, len(failed))]]
    found = []
    for prompt_id in picked:
        prompt = about.loc[prompt_id]
        found.append(
            {
                "dataset": prompt["dataset"],
                "split": prompt["split"],
                "condition": prompt["condition"],
                "template": prompt["template"],
                "turn": prompt["turn"],
                "right": prompt["positive"] if prompt["truth"] else prompt["negative"],
                "says_off": prompt["positive"] if prompt["p_positive_off"] > 0.5 else prompt["negative"],
                "says_on": prompt["positive"] if prompt["p_positive_on"] > 0.5 else prompt["negative"],
                "truth": bool(prompt["truth"]),
                "scores": {arm: float(scores[arm][prompt_id]) for arm in arms},
                "wrong": [arm for arm in arms if wrong[arm][prompt_id]],
            }
        )
    return found


def layer_data(run: RunResults, colours: dict[str, str], titles: dict[str, str]) -> dict:
    """What the page's layer explorer draws: AUROC by probe, arm, split and layer, means over seeds."""
    table = run.layer_aurocs
    means = table.groupby(["probe", "arm", "split", "layer"], as_index=False)["auroc"].mean()
    curves: dict = {}
    for (probe, arm, split), part in means.groupby(["probe", "arm", "split"], observed=True):
        if part["layer"].nunique() > 1:
            points = [
                [int(layer), None if value != value else round(float(value), 4)]
                for layer, value in zip(part["layer"], part["auroc"], strict=True)
            ]
            curves.setdefault(probe, {}).setdefault(arm, {})[split] = points
    order = [arm for arm in run.arms if has_probe(arm)]
    curves = {probe: {arm: by[arm] for arm in order if arm in by} for probe, by in curves.items()}
    chosen: dict = {}
    for entry in run.about["selected"]:
        layers = chosen.setdefault(entry["probe"], {}).setdefault(entry["arm"], [])
        if entry["layer"] not in layers:
            layers.append(entry["layer"])
    probes = list(curves)
    main = run.config.evaluate.probe
    return {
        "probes": probes,
        "main": main if main in probes else probes[0] if probes else None,
        "layers": int(table["layer"].max()) + 1,
        "splits": [{"key": key, "title": title} for key, title in titles.items() if key in set(table["split"])],
        "curves": curves,
        "chosen": chosen,
        "colours": colours,
    }
