"""What a model holds true of facts, asked once for every model, wording and seed: the replies stay in the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from adapterprobe.cache import digest, entry
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.generation.belief import Belief, belief_of
from adapterprobe.generation.grading import Graded
from adapterprobe.generation.judging import Grader
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt
from adapterprobe.generation.recall import recalled_facts
from adapterprobe.generation.rows import Journal, Reply
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.models import LanguageModel
from adapterprobe.progress import say

BELIEF_VERSION = 1
"""Raise when the same model would be asked otherwise."""
REPLIES = "replies.jsonl"

Write = Callable[[Journal, Sequence[ReplyPrompt], Sampling], None]
"""Writes the replies that a journal lacks into it."""


@dataclass(frozen=True)
class Beliefs:
    """By fact: what the model says of it by itself, and how that is counted."""

    by_fact: Mapping[str, Belief]
    said: Mapping[str, tuple[str, ...]]
    """The replies that were counted."""


def measured_beliefs(
    lm: LanguageModel,
    engine: Engine,
    writer: PromptWriter,
    facts: Mapping[str, Scenario],
    sampling: Sampling,
    samples: int,
    weights: str,
    write: Write,
    grader: Grader,
    as_asked: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Beliefs:
    """Ask a model about every fact, in its own words and by recall.

    Args:
        facts: by their name, those that can be graded.
        samples: replies for each fact, dealt out over the ways to ask.
        weights: content key of the model with what is in it, such as an adapter.
        write: see `Write`; what it wrote is kept when it is stopped.
        as_asked: within, the model that is loaded is the one whose belief is asked for.
    """
    if not facts:
        return Beliefs({}, {})
    prompts = {fact: writer.belief(scenario) for fact, scenario in facts.items()}
    counts = {prompt.key: -(-samples // len(found)) for found in prompts.values() for prompt in found}
    distinct = {prompt.key: prompt for found in prompts.values() for prompt in found}
    drawn = replace(sampling, samples=samples)
    key = digest(weights, engine.share, str(engine.device), drawn, sorted(counts.items()), BELIEF_VERSION)

    def written(journal: Journal) -> None:
        for count in sorted(set(counts.values())):
            some = [prompt for prompt in distinct.values() if counts[prompt.key] == count]
            write(journal, some, replace(sampling, samples=count))

    replies = kept_replies(key, counts, written)
    said = {fact: tuple(r.text for p in found for r in _sorted(replies[p.key])) for fact, found in prompts.items()}
    with as_asked():
        recalled = recalled_facts(lm, engine, list(facts.values()), sampling.seed)
    # All of them at once, so that a judge is asked in batches.
    owners = [fact for fact in facts for _ in said[fact]]
    grades: dict[str, list[Graded]] = {fact: [] for fact in facts}
    for fact, grade in zip(owners, grader.grades([(facts[f], t) for f in facts for t in said[f]]), strict=True):
        if grade is not None:
            grades[fact].append(grade)
    by_fact = {fact: belief_of(found, recalled.get(fact)) for fact, found in grades.items()}
    return Beliefs(by_fact, said)


def kept_replies(key: str, counts: dict[str, int], write: Callable[[Journal], None]) -> dict[str, list[Reply]]:
    """Replies by their prompt, written once and kept in the cache; what was written is kept when it is stopped.

    Args:
        key: content key of all that they depend on.
        counts: replies for each prompt.
        write: writes what a journal lacks into it.
    """

    def make(folder: Path) -> None:
        path = folder / REPLIES
        with open(path, "a", encoding="utf-8") as file:
            write(Journal(path, file, key, counts))

    return Journal.read(entry("beliefs", key, make, notice=say) / REPLIES)


def _sorted(replies: Sequence[Reply]) -> list[Reply]:
    return sorted(replies, key=lambda reply: reply.sample)
