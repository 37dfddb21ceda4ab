"""Rows against each other: what cannot be read, what is said twice, what would stand on both sides of a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from adapterprobe.checks.entries import Entry
from adapterprobe.checks.findings import BLOCKS, NOTES, WARNS, Finding
from adapterprobe.data import ExampleSource, Relation
from adapterprobe.data.duplicates import SAME, near_duplicates_of, near_pairs, normalised
from adapterprobe.data.faults import RowErrors

ENOUGH_GROUPS = 100
FEWEST_GROUPS = 20
LEAKY = 0.05
"""Share of rows with a near-duplicate in another group from which splits leak too much to be believed."""
CHAINED = 0.1


def unreadable(faults: RowErrors) -> Iterator[Finding]:
    for reason, lines in faults.lines.items():
        yield Finding(
            "unreadable rows",
            BLOCKS,
            f"{len(lines)} rows: {reason}",
            "mend them, or leave them out with --skip-bad N",
            tuple(f"line {line}" for line in lines),
        )


def left_out(dataset: ExampleSource) -> Iterator[Finding]:
    for reason, count in dataset.dropped.items():
        yield Finding("left out", NOTES, f"{count} rows: {reason}", "nothing, if that is what you want")


def repeated(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Equal texts: with one label they count twice, with two they are contradictions."""
    by_text: dict[str, list[Entry]] = {}
    for entry in entries:
        by_text.setdefault(normalised(entry.text), []).append(entry)
    same = [mine for mine in by_text.values() if len(mine) > 1]
    torn = [mine for mine in same if len({(e.label, normalised(e.right)) for e in mine}) > 1]
    if torn:
        claims = any(e.label is not None for mine in torn for e in mine)
        yield Finding(
            "contradictions",
            BLOCKS if claims else WARNS,
            f"{len(torn)} texts stand there with different {'labels' if claims else 'right answers'}",
            "find out which is right, and keep one",
            tuple(" = ".join(e.where for e in mine) for mine in torn),
        )
    copies = [mine for mine in same if mine not in torn]
    if copies:
        yield Finding(
            "duplicates",
            WARNS,
            f"{sum(len(mine) - 1 for mine in copies)} of {len(entries)} rows repeat another word for word",
            "keep one of each",
            tuple(" = ".join(e.where for e in mine) for mine in copies),
        )


def leaks(dataset: ExampleSource, entries: Sequence[Entry]) -> Iterator[Finding]:
    """The same fact in two groups: groups are what splits are made of, so it would stand on both sides."""
    across = [
        (one, two, alike)
        for one, two, alike in near_pairs([e.text for e in entries], SAME)
        if entries[one].group != entries[two].group
    ]
    touched = {row for one, two, _ in across for row in (one, two)}
    if across:
        share = len(touched) / len(entries)
        yield Finding(
            "same fact in two groups",
            BLOCKS if share > LEAKY else WARNS,
            f"{len(touched)} of {len(entries)} rows ({share:.1%}) nearly repeat a row of another group, so they may stand in "
            "two splits",
            "nothing, if they are about different things (the two Koreas)"
            if isinstance(dataset, Relation)
            else "name a column with --group that they share, or leave it out so that near-duplicates form groups",
            tuple(f"{entries[one].where} ~ {entries[two].where} ({alike:.2f})" for one, two, alike in across),
        )
    sizes = Counter(entry.group for entry in entries)
    group, count = sizes.most_common(1)[0]
    if getattr(dataset, "auto_groups", False):
        joined = sum(size for size in sizes.values() if size > 1)
        yield Finding(
            "near-duplicates",
            WARNS if count > CHAINED * len(entries) else NOTES,
            f"no --group was named, so near-duplicates form {len(sizes)} groups; {joined} of {len(entries)} rows share one, "
            f"the largest has {count}",
            "name a column with --group if one says what a row is about",
            tuple(e.where for e in entries if e.group == group) if count > CHAINED * len(entries) else (),
        )


def sizes(entries: Sequence[Entry]) -> Iterator[Finding]:
    count = len({entry.group for entry in entries})
    if count < ENOUGH_GROUPS:
        yield Finding(
            "few groups",
            BLOCKS if count < FEWEST_GROUPS else WARNS,
            f"{count} groups; splits, demonstrations and intervals live on groups",
            f"bring at least {ENOUGH_GROUPS}, or use it as an out-of-distribution set alone",
        )


def against(entries: Sequence[Entry], other: str, others: Sequence[Entry]) -> Iterator[Finding]:
    """What a training set and an out-of-distribution set have in common."""
    theirs = {entry.group for entry in others}
    shared = [entry for entry in entries if entry.group in theirs]
    if shared:
        yield Finding(
            "groups shared with another data set",
            NOTES,
            f"{len({e.group for e in shared})} groups are in {other} too",
            "nothing: where one of the two is trained on, a run leaves them out of the other",
            tuple(e.where for e in shared),
        )
    free = [entry for entry in entries if entry.group not in theirs]
    copies = near_duplicates_of([e.text for e in free], [e.text for e in others]) if free else {}
    if copies:
        share = len(copies) / len(entries)
        yield Finding(
            "same fact in another data set",
            BLOCKS if share > 0.5 else WARNS,
            f"{len(copies)} of {len(entries)} rows ({share:.1%}) say what {other} says; a run leaves them out, but then this "
            "is hardly another distribution",
            "choose an out-of-distribution set about something else",
            tuple(f"{free[row].where} ~ {others[twin].where} of {other}" for row, twin in copies.items()),
        )
