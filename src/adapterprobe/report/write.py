"""Write `report.html`, `report.md` and `figures/` of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from markupsafe import Markup

from adapterprobe.cache import write_atomic
from adapterprobe.report import probe_tables, replies, summary
from adapterprobe.report import robustness_tables as challenge_tables
from adapterprobe.report.baselines import baseline_sentences
from adapterprobe.report.examples import examples, layer_data
from adapterprobe.report.figure_style import COLOURS, SPLIT_TITLES, splits_of
from adapterprobe.report.figures import FIGURES
from adapterprobe.report.headline import headline
from adapterprobe.report.markdown import fenced, harmless, to_markdown
from adapterprobe.report.method import method, registered
from adapterprobe.report.notes import notes as reading_notes
from adapterprobe.report.page import draw_all, in_script, render_page
from adapterprobe.report.reply_tokens import coloured_replies, spans_table, token_data
from adapterprobe.report.run_reader import RunResults, read_run
from adapterprobe.report.topic_tables import topics_table
from adapterprobe.terminal import printable


def write_report(folder: Path) -> None:
    """Render the reports from the files in the folder.

    Raises:
        OutputError: the folder is not a finished run.
    """
    run = read_run(Path(folder))
    inline = draw_all(FIGURES, run, run.folder)
    write_atomic(run.folder / "report.html", _page(run, inline))
    write_atomic(run.folder / "report.md", printable(_markdown(run, set(inline))))


def _page(run: RunResults, figures: dict[str, Markup]) -> str:
    titles = [(SPLIT_TITLES[split], split) for split in splits_of(run)]
    coloured = coloured_replies(run)
    return render_page(
        "page.html.j2",
        run=run,
        model=run.about["model"],
        layer_data=in_script(layer_data(run, COLOURS, SPLIT_TITLES)),
        examples=examples(run),
        method=method(run),
        registered=registered(run),
        split_titles=[(split, SPLIT_TITLES[split]) for split in splits_of(run)],
        replies=replies.replies_table(run),
        pools=replies.pools_table(run),
        swapped=challenge_tables.swapped_table(run),
        coloured=coloured,
        token_data=in_script(token_data(coloured)),
        false_spans=spans_table(run),
        topics=topics_table(run),
        topics_accuracy=topics_table(run, "accuracy"),
        gaps=challenge_tables.gaps_table(run),
        shifts=challenge_tables.shifts_table(run),
        polarity=challenge_tables.polarity_table(run),
        answers=challenge_tables.answers_table(run),
        figures=figures,
        headline=headline(run),
        notes=[*challenge_tables.notes(run), *reading_notes(run)],
        verdicts=summary.verdict_table(run),
        arms=summary.arms_table(run),
        data_sets=summary.data_sets_table(run),
        metric_tables=[(title, summary.metrics_table(run, split)) for title, split in titles],
        conditions=summary.conditions_table(run),
        known=summary.known_table(run),
        probes=probe_tables.probes_table(run),
        probe_tables=probe_tables.sections(run),
        probe_notes=probe_tables.notes(run),
        axes_tables=[(title, summary.axes_table(run, split)) for title, split in titles],
        axes_note=summary.axes_note(run),
        controls=summary.controls_table(run),
        adapters=adapters_table(run),
        adapter_sentence=summary.adapter_sentence(run),
        adapter_score=summary.adapter_score(run),
        baselines=baseline_sentences(run),
        prompts=run.about["prompts"],
        splits=pd.DataFrame(run.about["splits"]),
        timings=timings_table(run),
    )


def adapters_table(run: RunResults) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "seed": str(a["seed"]),
                "parameters": f"{a['parameters']:,}",
                "epochs": len(a["epochs"]),
                "kept": a["best_epoch"],
                "loss before": f"{a['loss_first']:.3f}",
                "loss after": f"{a['loss_last']:.3f}",
                "accuracy on select": f"{a['met']['accuracy']:.2f}",
                "coverage": f"{a['met']['coverage']:.2f}",
                "off equals untouched": "yes" if a["off_equal"] else "NO",
                "largest logit change": f"{a['on_difference']:.2f}",
                "neutral text: KL (nats a token)": f"{a['drift']['kl']:.4f}",
                "its perplexity, off to on": f"{a['drift']['perplexity_off']:.1f} to {a['drift']['perplexity_on']:.1f}",
            }
            for a in run.about["adapters"]
        ]
    )


def timings_table(run: RunResults) -> pd.DataFrame:
    seconds = run.about["timings"]
    rows = [{"stage": name, "seconds": f"{value:.1f}"} for name, value in seconds.items()]
    return pd.DataFrame([*rows, {"stage": "all of these", "seconds": f"{sum(seconds.values()):.1f}"}])


def _probe_sections(run: RunResults, drawn: set[str]) -> list[str]:
    parts = []
    for section in probe_tables.sections(run):
        parts.append(f"### {section.title}")
        parts += [f"![{section.title}](figures/{section.figure}.png)"] if section.figure in drawn else []
        parts += [to_markdown(section.table)] if section.table is not None else []
        parts.append(section.text)
    return parts


def _section(title: str, table: pd.DataFrame, figure: str | None, drawn: set[str]) -> list[str]:
    if table.empty:
        return []
    return [title, *([f"![{title.strip('# ')}](figures/{figure}.png)"] if figure in drawn else []), to_markdown(table)]


def _axes(run: RunResults) -> list[str]:
    return [
        "## What is really detected",
        "![AUROC against each label axis](figures/axes.png)",
        *[f"{SPLIT_TITLES[s]}:\n\n{to_markdown(summary.axes_table(run, s))}" for s in splits_of(run)],
        *filter(None, [summary.axes_note(run)]),
    ]


def _markdown(run: RunResults, drawn: set[str]) -> str:
    parts = [
        f"# {harmless(run.config.name)}",
        headline(run),
        "![AUROC of every arm](figures/arms.png)",
        "## Verdicts",
        to_markdown(summary.verdict_table(run)),
        *[f"- {harmless(note)}" for note in (*challenge_tables.notes(run), *reading_notes(run))],
        "## Arms",
        to_markdown(summary.arms_table(run)),
        *_section("## By data set", summary.data_sets_table(run), None, drawn),
        *baseline_sentences(run),
        "## By condition",
        to_markdown(summary.conditions_table(run)),
        *(
            ["## With and without what the model knows", to_markdown(summary.known_table(run))]
            if run.about["belief"]["known"]["asked"]
            else []
        ),
        *_section("## Replies", replies.replies_table(run), None, drawn),
        *_section("### Replies swapped", challenge_tables.swapped_table(run), None, drawn),
        *_section("### How the tokens of the reply become one state", replies.pools_table(run), None, drawn),
        *_section("### Tokens inside of false ranges", spans_table(run), None, drawn),
        "## Layers",
        "![AUROC by layer](figures/layers.png)",
        "## ROC curves",
        "![ROC curves](figures/roc.png)",
        "## Probes",
        to_markdown(probe_tables.probes_table(run)),
        *[f"- {note}" for note in probe_tables.notes(run)],
        *_probe_sections(run, drawn),
        *_section("## Answers, not claims", challenge_tables.polarity_table(run), None, drawn),
        *(_axes(run) if "instructed" in run.config.axes else []),
        "## Controls",
        to_markdown(summary.controls_table(run)),
        *_section("## Asked otherwise", challenge_tables.shifts_table(run), "shifts", drawn),
        *_section("## A topic left out: AUROC", topics_table(run), None, drawn),
        *_section("## A topic left out: accuracy", topics_table(run, "accuracy"), None, drawn),
        *_section("## Carried over", challenge_tables.gaps_table(run), None, drawn),
        "## Adapter",
        summary.adapter_sentence(run),
        "![Training](figures/training.png)",
        to_markdown(adapters_table(run)),
        *_section("## What the adapter changes", challenge_tables.answers_table(run), "integrity", drawn),
        "## Prompts as sent",
        *[
            f"{harmless(p['dataset'])}, condition {p['condition']}:\n\n{fenced(p['text'])}"
            for p in run.about["prompts"][:4]
        ],
        "## Cost",
        to_markdown(timings_table(run)),
    ]
    return "\n\n".join(parts) + "\n"
