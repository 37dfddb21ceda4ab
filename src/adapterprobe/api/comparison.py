"""`run` and `compare`: the whole comparison, and finished runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapterprobe.api.arguments import Data, DataArguments, Model, model_of
from adapterprobe.config import RunConfig
from adapterprobe.pipeline.compare import compare as write_comparison
from adapterprobe.pipeline.finished_run import ReportPage, Run
from adapterprobe.pipeline.run import run as run_pipeline


def run(
    config: RunConfig | str | Path | None = None,
    out: str | Path = "runs/demo",
    *,
    model: Model | Mapping[str, Any] = None,
    tokenizer: Any = None,
    train: Data | Sequence[Data] | None = None,
    ood: Data | Sequence[Data] | None = None,
    trust_remote_code: bool = False,
    **changes: Any,
) -> Run:
    """Compare a model's own answer, an adapter's, and probes with the adapter off and on; write a report.

    Args:
        config: a configuration, a YAML file, the name of a preset, or None for the demo.
        out: folder of the outputs; a finished run there with the same configuration is returned at once, an unfinished one
            goes on where it was.
        model: hub id, folder or GGUF file, a transformers model that is loaded already, what `load_model` gave, or the keys of
            the configuration's section (`{"name": ..., "dtype": "fp32"}`).
        tokenizer: that of a transformers model.
        train: data sets that splits are made of: names, files, `hub:NAME`, or `Dataset`s in memory.
        ood: data sets that are only judged on; `[]` for none.
        trust_remote_code: run code that comes with the model; a file cannot ask for it.
        changes: changes by top-level keys, merged into the configuration at any depth (`adapter={"kind": "ia3"}`,
            `probes=["logistic", "ccs"]`, `seeds=[0]`); `adapterprobe run --keys` lists all.

    Returns:
        The finished run: `auroc()`, `verdicts`, `results`, `predictions` and `report`.

    Raises:
        AdapterProbeError: whatever the input or the environment makes impossible, before long work starts where that can
            be known.
    """
    section = isinstance(model, Mapping)
    name, loaded = model_of(None if section else model, tokenizer)  # type: ignore[arg-type]
    if model is not None:
        changes["model"] = dict(model) if section else {"name": name}  # type: ignore[arg-type]
    given = DataArguments(Path(out))
    if data := given.section(changes.pop("data", None), train=train, ood=ood):
        changes["data"] = data
    given.save()
    return run_pipeline(config, out, trust_remote_code, loaded, **changes)


def compare(runs: Sequence[str | Path | Run], out: str | Path = "runs/compare") -> ReportPage:
    """Write a report on finished runs side by side; the first is what the others are held against. Where runs share prompts, the
    differences are paired.

    Args:
        runs: at least two finished runs, or their folders.
        out: folder of the report.

    Raises:
        OutputError: fewer than two runs, a folder that is not a finished run or not as the run left it, or one that cannot be
            written to.
    """
    return ReportPage(write_comparison([entry.folder if isinstance(entry, Run) else entry for entry in runs], out))
