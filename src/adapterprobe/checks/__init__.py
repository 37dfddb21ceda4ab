"""`adapterprobe data check`: what ruins lie-detection results, found before a model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adapterprobe.checks import prompts, rows, shortcuts, transcripts
from adapterprobe.checks.entries import Entry, entries_of
from adapterprobe.checks.findings import SEVERITIES, Finding, blocks
from adapterprobe.data import ExampleSource, load_data
from adapterprobe.data.faults import RowErrors
from adapterprobe.data.relations import is_relation
from adapterprobe.data.source import read_data
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.models.load import Reader
from adapterprobe.prompts import templates_for
from adapterprobe.prompts.dataset_prompts import DatasetSpec
from adapterprobe.prompts.read_prompts import reads_replies

__all__ = ["Checked", "Finding", "blocks", "check"]


@dataclass(frozen=True)
class Checked:
    """The findings about one data set, the worst first."""

    name: str
    entries: int
    groups: int
    findings: list[Finding]

    @property
    def blocked(self) -> bool:
        return blocks(self.findings)

    def __str__(self) -> str:
        head = f"{self.name}: {self.entries} rows in {self.groups} groups"
        if not self.findings:
            return f"{head}: nothing found"
        return "\n".join([head, *map(str, self.findings)])


def check(spec: DatasetSpec, against: Sequence[str] = (), reader: Reader | None = None) -> Checked:
    """Look for everything that the module's parts know of.

    Args:
        against: other data sets, that this one is judged beside.
        reader: tokenizer and context length of a model; without it token checks are left out.

    Raises:
        DataError: the data set is unknown, or has no row at all that can be read.
    """
    lenient = replace(spec, read=spec.read.model_copy(update={"skip_bad": 10**9, "balance": False}))
    faults = RowErrors()
    dataset = _read(lenient, faults)
    entries = entries_of(dataset)
    found = [
        *rows.unreadable(faults),
        *rows.left_out(dataset),
        *rows.repeated(entries),
        *rows.leaks(dataset, entries),
        *rows.sizes(entries),
        *shortcuts.balance(dataset),
    ]
    for other in against:
        theirs = load_data(other, spec.read if not is_relation(other) else None, spec.seed)
        found += rows.against(entries, theirs.name, entries_of(theirs))
    templates_for(dataset, spec.form, spec.templates)
    found += shortcuts.answer_tokens(dataset.examples(dataset.groups, spec.form, spec.seed))
    found += shortcuts.shortcuts(dataset, spec.form, spec.seed)
    found += transcripts.transcripts(getattr(dataset, "items", ()))
    found += _on_prompts(lenient, dataset, entries, reader)
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Checked(dataset.name, len(entries), len({entry.group for entry in entries}), found)


def _read(spec: DatasetSpec, faults: RowErrors) -> ExampleSource:
    if is_relation(spec.name):
        return load_data(spec.name)
    return read_data(spec.name, spec.read, spec.seed, faults)


def _on_prompts(
    spec: DatasetSpec, dataset: ExampleSource, entries: list[Entry], reader: Reader | None
) -> list[Finding]:
    if reads_replies(dataset):
        # What a run reads of them is the reply: nothing is demonstrated.
        controls = list(prompts.controls(entries, reader)) if reader is not None else []
        return controls or list(prompts.conversations(dataset, spec.format, reader))
    try:
        found = list(prompts.demonstrations(spec, entries))
        if reader is not None:
            controls = list(prompts.controls(entries, reader))
            # Prompts with such texts cannot be made.
            found += controls or prompts.tokens(spec, dataset, reader)
    except (ConfigError, DataError) as error:
        # Too few groups for demonstrations has been said already; other reasons are findings of their own.
        few = len({entry.group for entry in entries}) < rows.ENOUGH_GROUPS
        severity = rows.NOTES if few and isinstance(error, DataError) else rows.BLOCKS
        return [Finding("prompts cannot be made", severity, str(error), "mend that, or choose other options")]
    return found
