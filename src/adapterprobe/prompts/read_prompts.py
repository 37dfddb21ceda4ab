"""Prompts that are read at tokens of their own: conversations at their reply, statements that stand by themselves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adapterprobe.data.examples import ExampleSource
from adapterprobe.errors import DataError
from adapterprobe.progress import say
from adapterprobe.prompts.answer_tokens import tokenise
from adapterprobe.prompts.conversations import RenderedReply, conversation_format, render_conversation
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.prompts.followups import FollowUp
from adapterprobe.prompts.formats import adds_special_tokens
from adapterprobe.readout import ReadoutConfig, TokenReads
from adapterprobe.types import INSTRUCTING, Conversation, Example, Prompt

BARE = "bare"
"""The format of statements that stand by themselves."""
ASKED = "{statement}\n\nQuestion: {ask}\nAnswer:"


def reads_replies(dataset: ExampleSource) -> bool:
    """Whether all rows of a data set are conversations with a reply."""
    items = getattr(dataset, "items", ())
    return bool(items) and all(item.conversation is not None for item in items)


def check_readable(dataset: ExampleSource, what: str) -> None:
    """Whether a data set has what shall be read.

    Raises:
        DataError: replies of rows that are no transcripts, or statements of rows that have none.
    """
    if what == "reply" and not reads_replies(dataset):
        raise DataError(
            f"'{dataset.name}' has no replies to read; read.what=reply is for rows of messages (docs/data.md); use statement or answer"
        )
    if what == "statement" and "statement" not in dataset.fields:
        raise DataError(
            f"'{dataset.name}' has no statements to read; read.what=statement is for built-in facts and rows with a column "
            "'statement'"
        )


def read_prompts(
    examples: Sequence[Example],
    split: str,
    readout: ReadoutConfig,
    format_name: str | None,
    tokenizer,
    follow_ups: Sequence[FollowUp] = (),
    seed: int = 0,
    context_length: int | None = None,
) -> list[Prompt]:
    """A prompt for each example.

    Args:
        examples: in the form of `readout.what` (see `READ_FORMS`).
        format_name: of conversations; None: the tokenizer's chat template, else `plain`.
        follow_ups: what is asked behind what is read, dealt out by group in a shuffled round; none: nothing is asked.
        context_length: most tokens of a conversation, where `readout.drop_turns` may shorten it.

    Raises:
        DataError: a conversation that cannot be written (by its line).
        ConfigError: no such format.
    """
    groups = sorted({example.group for example in examples})
    rng = np.random.default_rng([seed, *split.encode(), *b"follow-ups"])
    turn = {group: int(place) for group, place in zip(groups, rng.permutation(len(groups)), strict=True)}
    order = rng.permutation(len(follow_ups))
    form = conversation_format(format_name, tokenizer)
    told: Counter[str] = Counter()
    prompts = []
    for example in examples:
        follow_up = follow_ups[order[turn[example.group] % len(follow_ups)]] if follow_ups else None
        if readout.what == "statement":
            prompts.append(statement_prompt(example, split, follow_up))
            continue
        try:
            prompt, changes = reply_prompt(example, split, readout, form, tokenizer, follow_up, context_length)
        except DataError as error:
            raise DataError(f"{example.named}: {error}") from error
        prompts.append(prompt)
        told.update(changes)
    # One row at a time (`score`) it would be told again and again.
    for change, count in told.items() if len(examples) > 1 else ():
        say(f"{count} of {len(prompts)} conversations of {split} were put otherwise for the format '{form}': {change}")
    return prompts


def sentence(example: Example) -> str:
    """The statement of an example as it stands by itself; built-in facts get a capital letter and a stop."""
    text = example.texts["statement"].strip()
    if example.line is not None:
        return text
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _prompt(
    example: Example, split: str, form: str, text: str, read: tuple[int, int], turn: str, follow_up: FollowUp | None
) -> Prompt:
    name = follow_up.name if follow_up else "none"
    key = "\x1f".join([example.example_id, name, form, text, repr(read)])
    positive, negative = follow_up.choices if follow_up else ("", "")
    return Prompt(
        prompt_id=hashlib.sha256(key.encode()).hexdigest()[:16],
        example=example,
        split=split,
        condition="neutral",
        template=name,
        format=form,
        system_prompt=None,
        demo_set="none",
        demo_groups=(),
        shots=0,
        turn=turn,
        text=text,
        positive=positive,
        negative=negative,
        read=read,
    )


def statement_prompt(example: Example, split: str, follow_up: FollowUp | None) -> Prompt:
    """The prompt of one statement by itself, with or without a question behind it."""
    statement = sentence(example)
    text = ASKED.format(statement=statement, ask=follow_up.ask) if follow_up else statement
    return _prompt(example, split, BARE, text, (0, len(statement)), statement, follow_up)


def reply_prompt(
    example: Example,
    split: str,
    readout: ReadoutConfig,
    form: str,
    tokenizer,
    follow_up: FollowUp | None = None,
    context_length: int | None = None,
) -> tuple[Prompt, list[str]]:
    """The prompt of one conversation (see `read_prompts`), and how it was put otherwise than it was given.

    Raises:
        DataError: the format cannot write it.
        ConfigError: no such format.
    """
    conversation = example.conversation
    if conversation is None:
        raise DataError("has no conversation")
    ask = follow_up.ask if follow_up else None
    rendered = render_conversation(form, conversation, tokenizer, ask)
    changes = [rendered.fallback] if rendered.fallback else []
    if readout.drop_turns and context_length is not None:
        shortened = _shortened(conversation, rendered, form, tokenizer, ask, context_length)
        if shortened is not rendered:
            rendered, changes = shortened, [*changes, "earliest turns left out"]
    prompt = _prompt(
        example, split, form, rendered.text, (rendered.start, rendered.stop), conversation.reply, follow_up
    )
    return prompt, changes


def _shortened(
    conversation: Conversation, rendered: RenderedReply, form: str, tokenizer, ask: str | None, most: int
) -> RenderedReply:
    """The conversation without its earliest turns, so that it fits; the system's stay, and the one that is answered."""

    def length(text: str) -> int:
        special = adds_special_tokens(form, text, getattr(tokenizer, "bos_token", None))
        return len(tokenise(tokenizer, text, special))

    system = [message for message in conversation.context if message.role in INSTRUCTING]
    turns = [message for message in conversation.context if message.role not in INSTRUCTING]
    while length(rendered.text) > most and len(turns) > 1:
        turns = turns[1:]
        # A conversation begins with the user.
        while len(turns) > 1 and turns[0].role != "user":
            turns = turns[1:]
        kept = replace(conversation, context=(*system, *turns))
        rendered = render_conversation(form, kept, tokenizer, ask)
    return rendered


def with_reads(encoded: Encoded, readout: ReadoutConfig, tokenizer, withheld: bool = True) -> Encoded:
    """The same prompts, with what is read of them: the reply or statement as `readout` says. Where the answer is read nothing changes.

    Args:
        withheld: whether the token in front of a reply is read too (the reply withheld), in the same pass.
    """
    if readout.what == "answer":
        return encoded
    reads = [TokenReads(token_spans(encoded, readout, tokenizer), readout.pooling)]
    if readout.what == "reply" and withheld:
        reads.append(TokenReads(tuple((start - 1, start) for start, _ in encoded.ranges), "last"))
    return replace(encoded, reads=tuple(reads))


def token_spans(encoded: Encoded, readout: ReadoutConfig, tokenizer) -> tuple[tuple[int, int], ...]:
    """Tokens that are read of each prompt: those of the reply or statement, as `readout` says."""
    special = set(getattr(tokenizer, "all_special_ids", ()))
    spans = []
    for ids, (start, stop) in zip(encoded.ids, encoded.ranges, strict=True):
        if readout.closing and stop < len(ids) and ids[stop] in special:
            stop += 1
        spans.append((min(start + readout.skip, stop - 1), stop))
    return tuple(spans)
