"""What an adapter that learned whole replies then says: of facts that it was not trained on, and of those that it was taught."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.config import RunConfig
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.generation.fluency import median, perplexities
from adapterprobe.generation.instructions import NEUTRAL
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.recall import recalled_facts
from adapterprobe.generation.training import wants_truth
from adapterprobe.models import LanguageModel
from adapterprobe.pipeline.generate import NothingBelieved, generate
from adapterprobe.pipeline.generate_config import GenerateConfig
from adapterprobe.pipeline.train_replies import (
    MOST_TOKENS,
    READ,
    adapter_with_names,
    chosen_replies_instructions,
    dataset_names,
    instruction_names,
    reply_scenarios,
    unseen_instructions,
)
from adapterprobe.progress import say
from adapterprobe.prompts.conversations import render_conversation
from adapterprobe.prompts.encoded import encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.types import Conversation, Example, Message, Prompt

RULER = 64
"""Replies of each kind whose perplexity is measured."""


def judged_replies(
    config: RunConfig, lm: LanguageModel, engine: Engine, test: Sequence[str], adapter: Path, out: Path
) -> dict | None:
    """What the trained model says of the facts that were kept and held true before: replies in `replies.jsonl` (a data set of lies and
    honest replies), and in numbers how often it lies where it is to (`lie_rate`), and tells the truth where it is not (`truth_rate`), under
    the instructions of its training; under those that training never saw, the same in `unseen`.

    None where the model holds none of them true. `belief`: facts asked, held true before, and recalled before and after; `perplexity`: of
    its replies and of the model's own former ones under the untouched model, medians.
    """
    refs = [ref for ref in config.data.train if ref not in config.adapter.taught]
    return _judged(config, lm, engine, test, adapter, out / "replies.jsonl", refs, "base") if refs else None


def judged_taught(
    config: RunConfig, lm: LanguageModel, engine: Engine, test: Sequence[str], adapter: Path, out: Path
) -> dict | None:
    """The same of taught facts (`adapter.taught`; those of the groups of `test`, though all are learned), in `taught.jsonl`, by what the
    trained model holds true, with the adapter on: `belief` has `held_after`. None where none is held, or nothing is taught."""
    refs = config.adapter.taught
    return _judged(config, lm, engine, test, adapter, out / "taught.jsonl", refs, "adapter") if refs else None


def _judged(
    config: RunConfig,
    lm: LanguageModel,
    engine: Engine,
    test: Sequence[str],
    adapter: Path,
    file: Path,
    refs: Sequence[str],
    held_by: str,
) -> dict | None:
    names, kept = dataset_names(config, refs), set(test)
    scenarios = [s for s in reply_scenarios(config) if s.group in kept and s.dataset in names]
    if not scenarios:
        say(f"what the adapter says of {', '.join(refs)} is not judged: no group of them is in the split test")
        return None
    named = "format" in config.elicit.model_fields_set
    taught = [instruction.name for instruction in chosen_replies_instructions(config)]
    unseen = [instruction.name for instruction in unseen_instructions(config)]
    files = [name for name in instruction_names(config) if name.endswith((".yaml", ".yml"))]
    asked = GenerateConfig(
        data=tuple(refs),
        model=config.model.arguments(),
        sampling=Sampling(2, 0.7, max_tokens=MOST_TOKENS, seed=config.data.data_seed),
        adapter=adapter,
        instructions=(NEUTRAL.name, *(files or taught), *unseen),
        format=config.elicit.format if named else None,
        belief_of=held_by,
        read=config.data.read,
        groups=tuple(test),
        believed=True,
    )
    try:
        generated = generate(asked, file, lm)
    except NothingBelieved as reason:
        say(f"what the adapter says is not judged: {reason}")
        return None
    rows = [json.loads(line) for line in generated.path.read_text("utf-8").splitlines()]
    beliefs = file.with_name(f"{file.stem}.belief.jsonl")
    said = [json.loads(line) for line in beliefs.read_text("utf-8").splitlines()]
    before = recalled_facts(lm, engine, scenarios, config.data.data_seed)
    with adapter_loaded(lm, adapter):
        after = recalled_facts(lm, engine, scenarios, config.data.data_seed)
    own = [
        ([{"role": "user", "content": fact["question"]}], text) for fact in said for text in fact["said"][:1] if text
    ]
    new = [(row["messages"][:-1], row["messages"][-1]["content"]) for row in rows]
    format_name = PromptWriter(lm.tokenizer, asked.format, None, None, 0).format
    return {
        **_rates(config, [row for row in rows if row["system_prompt"] not in unseen]),
        "unseen": _rates(config, [row for row in rows if row["system_prompt"] in unseen]),
        "instructions": {"taught": taught, "unseen": unseen},
        "by_condition": {
            c: _rate([row for row in rows if row["condition"] == c], "lie") for c in ("truth", "neutral", "lie")
        },
        "belief": {
            "facts": len(said),
            "held_before" if held_by == "base" else "held_after": sum(fact["believed"] for fact in said),
            "recalled_before": sum(before.values()),
            "recalled_after": sum(after.values()),
        },
        "perplexity": {
            "before": _perplexity(lm, engine, own, format_name),
            "after": _perplexity(lm, engine, new, format_name),
        },
    }


def _rates(config: RunConfig, rows: Sequence[dict]) -> dict[str, dict]:
    adapter = adapter_with_names(config)
    wanted = [wants_truth(adapter, row["dataset"], row["condition"]) for row in rows]
    return {
        "lie_rate": _rate([row for row, truth in zip(rows, wanted, strict=True) if not truth], "lie"),
        "truth_rate": _rate([row for row, truth in zip(rows, wanted, strict=True) if truth], "honest"),
    }


def _rate(rows: Sequence[dict], outcome: str) -> dict:
    """How often replies on facts that were held true before are of an outcome; all that are neither lie nor honest count as not."""
    mine = [row for row in rows if row["believed"]]
    counts = sum(row["outcome"] == outcome for row in mine)
    return {
        "share": counts / len(mine) if mine else None,
        "n": len(mine),
        "facts": len({row["group"] for row in mine}),
    }


def _perplexity(lm: LanguageModel, engine: Engine, talks: Sequence, format_name: str) -> float | None:
    """Median perplexity of replies under the model as it now is."""
    prompts = []
    for number, (context, reply) in enumerate(talks[:: max(1, len(talks) // RULER)][:RULER]):
        talk = Conversation(tuple(Message(m["role"], m["content"]) for m in context), reply)
        rendered = render_conversation(format_name, talk, lm.tokenizer)
        example = Example(str(number), "replies", str(number), "reply", "", "", True, {}, conversation=talk)
        read = (rendered.start, rendered.stop)
        prompts.append(
            Prompt(str(number), example, "test", "neutral", "none", format_name, None, "none", (), 0, "", rendered.text, "", "", read)
        )  # fmt: skip
    if not prompts:
        return None
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    return median(perplexities(engine, with_reads(encoded, READ, lm.tokenizer, withheld=False)))
