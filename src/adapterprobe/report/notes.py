"""What a reader must know to read the tables rightly."""

from __future__ import annotations

from adapterprobe.report.run_reader import RunResults


def notes(run: RunResults) -> list[str]:
    """What a reader must know to read the tables rightly; each note is there only where it applies."""
    config, about = run.config, run.about
    found = []
    known, recalled = about["belief"]["known"], about["belief"]["recalled"]
    if known["asked"]:
        found.append(
            f"Known to the model: {known['passed']} of {known['asked']} (data set, group) pairs were answered rightly in both "
            f"polarities under {config.elicit.belief_draws} separate truthful prompts; without knowing, {known['chance']:.1%} would pass. "
            + (
                "The known filter speaks of these alone."
                if known["passed"] >= 8
                else "That is too few for results on known questions (and for lies, where they go by it): they are left out."
            )
        )
    if recalled["asked"]:
        found.append(
            f"Recalled by the model: in {recalled['passed']} of {recalled['asked']} pairs that could be asked without showing "
            f"choices, the right answer came before every wrong one; without knowing, {recalled['chance']:.1%} would pass."
        )
    if about["under_test"] == "adapter":
        found.append("The model under test is the one with the adapter on: behaviour and lies are its own.")
    if config.evaluate.belief == "recalled":
        found.append(
            "A lie is an answer against what the model recalls (not against what it knows in the tested form)."
        )
    for adapter in about["adapters"]:
        if adapter["non_finite"]:
            first = adapter["non_finite"][0]
            found.append(
                f"Seed {adapter['seed']}: {len(adapter['non_finite'])} training steps were skipped because a loss or gradient was "
                f"not finite; the first, step {first['step']}, began at {first.get('module', 'an unknown place')}."
            )
        if adapter["micro_batch"] < config.adapter.micro_batch:
            found.append(
                f"Seed {adapter['seed']}: memory ran out in training, which went on with {adapter['micro_batch']} prompts a pass."
            )
    low = about["lowest_adapted_layer"]
    equal = sorted({s["arm"] for s in about["selected"] if s["arm"] == "adapter+probe" and s["layer"] <= low})
    if equal:
        found.append(
            f"The adapter begins at block {low}: where the chosen layer is {low} or below, adapter+probe sees the very states "
            "that base+probe sees."
        )
    seeds = len(config.seeds)
    if seeds < 5:
        found.append(
            f"{seeds} training seed{'s are' if seeds > 1 else ' is'} shown. Verdicts are about these trained adapters on new "
            "questions; nothing is claimed of the recipe below 5 seeds."
        )
    failed = [c for c in run.controls if not c["met"] and c["draws"] == 1 and "difference" not in c]
    for control in failed:
        found.append(
            f"Control not met: {control['control']} reaches AUROC {control['auroc']:.3f} on {control['split']} "
            + (f"and {control['arm']} {control['detector']:.3f} " if control["arm"] else "")
            + f"({control['expectation']}); a detector that does not clearly exceed it may read the prompt."
        )
    if about["dropped"]:
        listed = "; ".join(
            f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            for name, reasons in about["dropped"].items()
        )
        found.append(f"Left out of {listed}.")
    return found
