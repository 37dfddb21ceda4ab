"""Prompts as a tokenizer sees them: choices that begin alike, prompts beyond the context, demonstrations that are asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from adapterprobe.checks.entries import Entry
from adapterprobe.checks.findings import BLOCKS, NOTES, WARNS, Finding
from adapterprobe.data import ExampleSource
from adapterprobe.data.duplicates import near_duplicates_of
from adapterprobe.data.examples import said
from adapterprobe.errors import DataError
from adapterprobe.models.load import Reader
from adapterprobe.prompts import after_shared_words
from adapterprobe.prompts.conversations import conversation_format
from adapterprobe.prompts.dataset_prompts import DatasetSpec, dataset_prompts, shown_and_asked
from adapterprobe.prompts.encoded import PromptReader, unembedded
from adapterprobe.prompts.formats.control_tokens import control_tokens
from adapterprobe.prompts.read_prompts import reply_prompt
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import READ_FORMS, Example

MOST_GROUPS = 3000


def demonstrations(spec: DatasetSpec, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Demonstrations that say what is asked."""
    sides = [{example.group for example in examples} for examples in shown_and_asked(spec)]
    shown, asked = ([entry for entry in entries if entry.group in groups] for groups in sides)
    if not shown:
        return
    copies = near_duplicates_of([e.text for e in asked], [e.text for e in shown])
    if copies:
        pairs = tuple(f"{asked[row].where} ~ {shown[twin].where}" for row, twin in copies.items())
        share = len(copies) / len(asked)
        yield Finding(
            "demonstrations overlap tests",
            BLOCKS if share > 0.05 else WARNS,
            f"{len(copies)} of {len(asked)} questions ({share:.1%}) nearly repeat a demonstration of another group",
            "name a column with --group that they share",
            pairs,
        )


def controls(entries: Sequence[Entry], reader: Reader) -> Iterator[Finding]:
    """Texts that hold a control token of the tokenizer: sent as they are, they would end a turn or a document."""
    pattern = control_tokens(reader.tokenizer)
    bad = [(entry, found) for entry in entries if pattern and (found := pattern.search(f"{entry.text}\n{entry.right}"))]
    if bad:
        yield Finding(
            "control tokens in texts",
            BLOCKS,
            f"{len(bad)} of {len(entries)} rows hold what the tokenizer of {reader.name} takes for a control token",
            "take them out, or leave the rows out",
            tuple(f"{entry.where}: {found.group()}" for entry, found in bad),
        )


def tokens(spec: DatasetSpec, dataset: ExampleSource, reader: Reader) -> Iterator[Finding]:
    """Choices and lengths under one tokenizer; in the recall form the answers themselves are the choices."""
    read = PromptReader(reader.tokenizer)
    count = len(dataset.groups)
    if count > MOST_GROUPS:
        text = f"{MOST_GROUPS} of {count} groups, by chance, were put into prompts and looked at"
        yield Finding("token checks on a part", NOTES, text, "nothing; a run names the first prompt that does not fit")
    for form in [spec.form, *(["recall"] if "recall" in dataset.forms and spec.form != "recall" else [])]:
        mine = replace(spec, form=form, templates=spec.templates if form == spec.form else None)
        prompts = dataset_prompts(replace(mine, facts=MOST_GROUPS if count > MOST_GROUPS else None), reader.tokenizer)
        collide, long, longest = [], [], 0
        strange: dict[str, int] = {}
        for prompt in prompts if form != "recall" else map(after_shared_words, prompts):
            length = len(read.ids(prompt))
            longest = max(longest, length)
            if reader.context_length is not None and length > reader.context_length:
                long.append(prompt)
            if not read.tells_apart(prompt):
                collide.append(prompt)
            if (beyond := unembedded(read.ids(prompt), reader.vocabulary)) is not None:
                strange[reader.tokenizer.decode([beyond])] = strange.get(reader.tokenizer.decode([beyond]), 0) + 1
        if collide:
            groups = {prompt.example.group for prompt in collide}
            yield Finding(
                f"choices begin alike ({form})",
                BLOCKS if form == spec.form else NOTES,
                f"{len(collide)} of {len(prompts)} prompts in {len(groups)} groups, under the tokenizer of {reader.name}",
                "reword the answers"
                if form == spec.form
                else "nothing: recall is asked with other wrong answers, or left open; the tested form is not touched",
                tuple(dict.fromkeys(f"{p.positive} / {p.negative}" for p in collide)),
            )
        if strange:
            yield Finding(
                f"tokens without an embedding ({form})",
                BLOCKS,
                f"{sum(strange.values())} of {len(prompts)} prompts hold tokens that {reader.name}, with {reader.vocabulary} embeddings, "
                "does not know",
                "use the model's own tokenizer, or another --format",
                tuple(strange),
            )
        if long:
            yield Finding(
                f"prompts beyond the context ({form})",
                BLOCKS,
                f"{len(long)} of {len(prompts)} prompts; the longest has {longest} tokens, {reader.name} takes "
                f"{reader.context_length}",
                "lower --shots, or leave long rows out with --max-chars",
                tuple(dict.fromkeys(said(p.example)[:60] for p in long)),
            )


def conversations(dataset: ExampleSource, format_name: str | None, reader: Reader | None) -> Iterator[Finding]:
    """Conversations that a format cannot write, or that are longer than the model's context."""
    tokenizer = reader.tokenizer if reader else None
    readout = ReadoutConfig(what="reply")
    form = conversation_format(None if format_name == "plain" else format_name, tokenizer)
    failed: dict[str, list[Example]] = {}
    long, longest, fallbacks = [], 0, 0
    read = PromptReader(tokenizer) if reader else None
    for example in dataset.examples(dataset.groups, READ_FORMS["reply"], 0):
        try:
            prompt, changes = reply_prompt(example, "test", readout, form, tokenizer)
            fallbacks += bool(changes)
            if read is None or reader is None:
                continue
            ids = read.ids(prompt)
            read.range(prompt, ids)
        except DataError as error:
            # Rows that fail for one reason are told together.
            reason = str(error).removeprefix(f"{example.named} ").partition(": its tokens")[0]
            failed.setdefault(reason.partition(" (")[0], []).append(example)
            continue
        longest = max(longest, len(ids))
        if reader.context_length is not None and len(ids) > reader.context_length:
            long.append(example)
    for reason, examples in failed.items():
        yield Finding(
            "conversations that cannot be sent",
            BLOCKS,
            f"{len(examples)} rows: {reason}",
            "use another --format, or leave the rows out",
            tuple(f"line {example.line}" for example in examples),
        )
    if long and reader is not None:
        yield Finding(
            "conversations beyond the context",
            BLOCKS,
            f"{len(long)} rows; the longest has {longest} tokens, {reader.name} takes {reader.context_length}",
            "leave out their earliest turns with --drop-turns (read.drop_turns), or the rows with --max-chars",
            tuple(f"line {example.line}" for example in long),
        )
    if fallbacks:
        yield Finding(
            "conversations put otherwise",
            NOTES,
            f"{fallbacks} rows have roles, tools or an order of turns that the format does not know; they are put in words",
            "nothing, or another --format",
        )
