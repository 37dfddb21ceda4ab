"""Transcripts: what could tell a deceptive reply from an honest one beside what it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from adapterprobe.checks.findings import BLOCKS, NOTES, WARNS, Finding
from adapterprobe.checks.shortcuts import told_by, told_finding
from adapterprobe.data.contexts import echoed, matched_contexts
from adapterprobe.data.duplicates import normalised
from adapterprobe.data.items import Item

UNLIKE = 0.1
"""A difference between shares of both labels that needs care."""


def transcripts(items: Sequence[Item]) -> Iterator[Finding]:
    """Findings about rows of messages; nothing for other rows."""
    if not items or items[0].conversation is None:
        return
    yield from _contexts(items)
    yield from _told_by_setting(items)
    yield from _replies(items)
    yield from _echo(items)
    yield from _authors(items)


def _where(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(f"line {item.line}" for item in items)


def _contexts(items: Sequence[Item]) -> Iterator[Finding]:
    matched = matched_contexts((item.conversation, item.label) for item in items)
    if not matched.both:
        yield Finding(
            "the context is the label",
            BLOCKS,
            f"none of {matched.contexts} contexts has an honest and a deceptive reply, so no detector can be shown to read the reply",
            "bring replies of both kinds to the same context (system prompt, question, earlier turns); without them a run can tell "
            "settings apart and no more",
        )
    elif matched.share < 0.5:
        yield Finding(
            "contexts with one label",
            WARNS,
            f"{matched.both} of {matched.contexts} contexts have honest and deceptive replies ({matched.rows} of {len(items)} rows)",
            "believe what is found on these; hold every detector against the withheld reply",
        )
    prompts: dict[str, set[bool]] = {}
    for item in items:
        text = normalised("\n".join(item.conversation.instructions))  # type: ignore[union-attr]
        if text:
            prompts.setdefault(text, set()).add(bool(item.label))
    alone = sum(len(labels) == 1 for labels in prompts.values())
    if prompts and alone > 0.5 * len(prompts):
        yield Finding(
            "system prompts with one label",
            WARNS,
            f"{alone} of {len(prompts)} system prompts stand before replies of one label alone",
            "bring honest and deceptive replies under each, or leave system prompts out",
        )


def _told_by_setting(items: Sequence[Item]) -> Iterator[Finding]:
    truth = np.array([item.label is False for item in items], int)
    codes = np.unique([item.group for item in items], return_inverse=True)[1]
    if len(set(truth.tolist())) < 2 or codes.max() < 9:
        return
    contexts = [item.conversation.script for item in items if item.conversation is not None]
    yield from told_finding(
        "deception",
        "the context's words",
        told_by(contexts, truth, codes),
        "let each context have replies of both kinds",
        len(items),
        codes,
    )


def _replies(items: Sequence[Item]) -> Iterator[Finding]:
    said: dict[str, list[Item]] = {}
    for item in items:
        said.setdefault(normalised(item.texts["reply"]), []).append(item)
    torn = [mine for mine in said.values() if len({item.label for item in mine}) > 1]
    if torn:
        rows = [item for mine in torn for item in mine]
        yield Finding(
            "one reply under both labels",
            WARNS if len(rows) > UNLIKE * len(items) else NOTES,
            f"{len(torn)} replies, in {len(rows)} of {len(items)} rows, are honest in one context and deceptive in another",
            "nothing, if the context decides (a reply of Yes); a detector can tell these apart by the context alone",
            _where(rows),
        )


def _echo(items: Sequence[Item]) -> Iterator[Finding]:
    echoes = [item for item in items if item.conversation is not None and echoed(item.conversation)]
    if not echoes:
        return
    shares = [
        sum(item.label is side for item in echoes) / max(1, sum(item.label is side for item in items))
        for side in (False, True)
    ]
    yield Finding(
        "replies that repeat their instruction",
        WARNS if abs(shares[0] - shares[1]) > UNLIKE else NOTES,
        f"{len(echoes)} of {len(items)} replies: {shares[0]:.0%} of the deceptive ones, {shares[1]:.0%} of the honest ones",
        "take them out: a reply that says what it was told to do gives its label away",
        _where(echoes),
    )


def _authors(items: Sequence[Item]) -> Iterator[Finding]:
    counts: dict[str, Counter[bool]] = {}
    for item in items:
        author = item.conversation.author if item.conversation else None
        if author:
            counts.setdefault(author, Counter())[bool(item.label)] += 1
    if not counts:
        return
    named = ", ".join(f"{author} ({sum(count.values())})" for author, count in list(counts.items())[:5])
    lone = [author for author, count in counts.items() if len(count) == 1]
    yield Finding(
        "who wrote the replies",
        BLOCKS if lone and len(lone) == len(counts) and len(counts) > 1 else WARNS if lone else NOTES,
        f"{len(counts)} models: {named}" + (f"; of {len(lone)} there are replies of one label alone" if lone else ""),
        "bring honest and deceptive replies of each model; for any other model that reads them these replies are off-policy"
        if lone
        else "for any other model that reads them these replies are off-policy",
    )
