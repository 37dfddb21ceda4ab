"""What a model says of questions by itself, asked once for all adapters that learn to say it otherwise: the replies stay in the cache."""

from __future__ import annotations

from collections.abc import Sequence

from adapterprobe.cache import digest
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt
from adapterprobe.generation.rows import Journal
from adapterprobe.generation.writers import TransformersWriter
from adapterprobe.models import LanguageModel
from adapterprobe.pipeline.beliefs import kept_replies
from adapterprobe.progress import bar

OWN_WORDS_VERSION = 1
"""Raise when the same model would be asked otherwise."""


def own_words(
    lm: LanguageModel, engine: Engine, writer: PromptWriter, prompts: Sequence[ReplyPrompt], seed: int
) -> dict[str, str]:
    """By the prompts' keys, the likeliest reply of the model as it is loaded. What was written is kept when it is stopped."""
    likeliest = Sampling(1, 0.0, max_tokens=32, seed=seed)
    distinct = {prompt.key: prompt for prompt in prompts}
    key = digest(
        "own words", lm.fingerprint, engine.share, str(engine.device), likeliest, sorted(distinct), OWN_WORDS_VERSION
    )

    def write(journal: Journal) -> None:
        missing = [prompt for name, prompt in distinct.items() if name not in journal.replies]
        done = len(distinct) - len(missing)
        with bar(len(distinct), "its own words", unit="reply", done=done) as progress:
            for replies in TransformersWriter(lm, engine, writer).write(missing, likeliest):
                journal.add(replies)
                progress.update(len(replies))

    kept = kept_replies(key, dict.fromkeys(distinct, 1), write)
    return {name: found[0].text for name, found in kept.items()}
