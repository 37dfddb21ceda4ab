"""The report of a run that is not whole yet: its first verdicts and arms, and what is still to come."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from adapterprobe.cache import write_atomic
from adapterprobe.config import RunConfig
from adapterprobe.report.figures import arms_figure
from adapterprobe.report.headline import headline
from adapterprobe.report.markdown import harmless, to_markdown
from adapterprobe.report.page import draw_all, render_page
from adapterprobe.report.run_reader import RunResults
from adapterprobe.report.summary import arms_table, data_sets_table, gap, verdict_table
from adapterprobe.terminal import printable


def write_preliminary(
    config: RunConfig,
    predictions: pd.DataFrame,
    results: Sequence[dict],
    verdicts: list[dict],
    out: Path,
    to_come: Sequence[str],
    about: dict,
    seconds: float,
) -> str:
    """Write `report.html` and `report.md`, which the finished run's take the place of.

    Args:
        config: of the seeds and the probe that there are. about: the model, and the replies that are judged, if any.
        seconds: that the trainings of the other seeds will take.

    Returns:
        Verdicts in a line each, and where the page is.
    """
    nothing = pd.DataFrame()
    run = RunResults(
        folder=out,
        config=config,
        provenance={},
        results=pd.DataFrame(list(results)),
        verdicts=verdicts,
        controls=[],
        about=about | {"by_construction": [config.under_test], "under_test": config.under_test},
        predictions=predictions,
        layers=nothing,
        probes={},
        challenge={"shifts": [], "not_asked": []},
        prompts=nothing,
        uncertainty=None,
        projections=None,
        tokens=None,
    )
    seeds = ", ".join(map(str, config.seeds))
    note = (
        f"Preliminary: training seed {seeds} and the probe {config.evaluate.probe} alone. Still to come: {'; '.join(to_come)}"
        f"{f' (the trainings take about {_minutes(seconds)})' if seconds else ''}. Verdicts are registered for the whole run: do not stop it for "
        "what these say."
    )
    tables = {"Verdicts": verdict_table(run), "Arms": arms_table(run), "By data set": data_sets_table(run)}
    tables = {title: table for title, table in tables.items() if not table.empty}
    said = headline(run)
    html = render_page(
        "preliminary.html.j2",
        name=config.name,
        model=about["model"]["name"],
        note=note,
        headline=said,
        figure=draw_all({"arms": arms_figure}, run, out)["arms"],
        tables=tables,
    )
    write_atomic(out / "report.html", html)
    parts = [f"# {harmless(config.name)}", f"**{harmless(note)}**", harmless(said)]
    for title, table in tables.items():
        parts += [f"## {title}", to_markdown(table)]
    write_atomic(out / "report.md", printable("\n\n".join(parts) + "\n"))
    lines = [f"    {v['verdict']:<10} {v['hypothesis']}  ({gap(v)})" for v in verdicts]
    return "\n".join([f"seed {seeds}, preliminary ({out / 'report.html'}):", *lines])


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
