"""What an adapter learns to say in whole replies, and what it then says of facts that it was not trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapterprobe.adapters.adapter_folder import adapter_loaded
from adapterprobe.config import RunConfig
from adapterprobe.data.relations import Relation
from adapterprobe.data.source import load_data
from adapterprobe.data.splits import shuffled, split_groups
from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.generation.fluency import median, perplexities
from adapterprobe.generation.instructions import NEUTRAL, Instruction, chosen_instructions
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.recall import recalled_facts
from adapterprobe.generation.scenarios import Scenario, read_scenarios
from adapterprobe.generation.training import Wording, instructions_dealt, own_sentence, reply_prompts, wants_truth
from adapterprobe.generation.writers import TransformersWriter
from adapterprobe.models import LanguageModel
from adapterprobe.pipeline.generate import NothingBelieved, generate
from adapterprobe.pipeline.generate_config import GenerateConfig
from adapterprobe.progress import bar, say
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.system_prompts import catalogue
from adapterprobe.readout import ReadoutConfig
from adapterprobe.types import Conversation, Example, Message, Prompt

READ = ReadoutConfig(what="reply", pool="mean", closing=True)
"""A reply with the token that ends its turn, so that ending is learned too."""
RULER = 64
"""Replies of each kind whose perplexity is measured."""
MOST_TOKENS = 48


@dataclass(frozen=True)
class LearnedReplies:
    """What is learned from and stopped by, and the groups that are kept for judging."""

    train: Encoded
    select: Encoded
    test: tuple[str, ...]


def check_replies(config: RunConfig) -> None:
    """What can be known before a model is loaded.

    Raises:
        ConfigError: secrets that are no data sets of the training, or a number of labels.
        DataError: data without answers in words.
    """
    if config.data.labels:
        raise ConfigError(
            "data.labels counts labels of questions; with adapter.target=reply use data.max_groups and data.shares"
        )
    strange = sorted(set(config.adapter.secrets) - set(config.data.train))
    if strange:
        raise ConfigError(f"adapter.secrets names {strange}, which are not among data.train {config.data.train}")
    if config.adapter.secrets and set(config.adapter.secrets) == set(config.data.train):
        raise ConfigError("adapter.secrets names all data sets; leave one out of them, on which the truth is told")
    chosen_replies_instructions(config)
    _scenarios(config)


def chosen_replies_instructions(config: RunConfig) -> list[Instruction]:
    """Instructions that training uses: of the configured ones (null: all of ours) those that are not held out for judging."""
    names = _names(config)
    held_out = {name for name, prompt in catalogue().items() if prompt.held_out}
    found = [i for i in chosen_instructions(names) if i is not NEUTRAL]
    return [i for i in found if i.name not in held_out] or found


def _names(config: RunConfig) -> list[str]:
    system = config.elicit.system
    return ["all"] if system is None else [system] if isinstance(system, str) else list(system)


def _scenarios(config: RunConfig) -> list[Scenario]:
    found = [s for ref in config.data.train for s in read_scenarios(ref, config.reading(ref), config.data.data_seed)]
    usable = [s for s in found if s.asked is not None and s.wrong]
    if not usable:
        raise DataError(
            f"{', '.join(config.data.train)}: no question with a right and a wrong answer in words; target=reply learns to say one or the other"
        )
    groups = shuffled([s.group for s in usable], [config.data.data_seed, 23])[: config.data.max_groups]
    return [s for s in usable if s.group in set(groups)]


def learned_replies(config: RunConfig, lm: LanguageModel, engine: Engine) -> LearnedReplies:
    """Make the replies that are learned, out of the model's own.

    Raises:
        DataError: too few facts.
    """
    scenarios = _scenarios(config)
    dealt = split_groups(
        sorted({s.group for s in scenarios}), config.data.shares, {}, config.data.data_seed, config.data.min_groups
    )
    learned = {*dealt["adapter-train"], *dealt["select"]}
    mine = [s for s in scenarios if s.group in learned]
    if config.adapter.train_on == "recalled":
        recalled = recalled_facts(lm, engine, mine, config.data.data_seed)
        kept = [s for s in mine if recalled.get(s.fact)]
        say(f"{len(kept)} of {len(mine)} facts of adapter-train and select are recalled, and learned from")
        mine = kept
    format_name = config.elicit.format if "format" in config.elicit.model_fields_set else None
    writer = PromptWriter(lm.tokenizer, format_name, lm.context_length, lm.vocabulary, MOST_TOKENS)
    wordings = _wordings(config, lm, engine, writer, mine)
    chosen = chosen_replies_instructions(config)
    parts = {}
    for split in ("adapter-train", "select"):
        some = [s for s in mine if s.group in set(dealt[split])]
        if len({s.group for s in some}) < 2:
            raise DataError(
                f"{len(some)} facts are left for {split}, at least 2 expected; use adapter.train_on=all, or more data"
            )
        pairs = instructions_dealt(chosen, some, config.elicit.renders, config.data.data_seed)
        prompts = reply_prompts(
            pairs, wordings, config.adapter, split, writer.format, lm.tokenizer, config.data.data_seed
        )
        encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
        parts[split] = with_reads(encoded, READ, lm.tokenizer, withheld=False)
    return LearnedReplies(parts["adapter-train"], parts["select"], tuple(sorted(dealt["test"])))


def _wordings(
    config: RunConfig, lm: LanguageModel, engine: Engine, writer: PromptWriter, scenarios: Sequence[Scenario]
) -> dict[str, Wording]:
    """How each fact is put: by the model's own likeliest reply where that is right."""
    prompts = {s.fact: writer.asked(s, NEUTRAL) for s in scenarios}
    likeliest = Sampling(1, 0.0, max_tokens=32, seed=config.data.data_seed)
    own: dict[str, str] = {}
    with bar(len(prompts), "its own words", unit="reply") as progress:
        for replies in TransformersWriter(lm, engine, writer).write(list(prompts.values()), likeliest):
            own |= {reply.prompt: reply.text for reply in replies}
            progress.update(len(replies))
    data = {ref: load_data(ref, config.reading(ref), config.data.data_seed) for ref in config.data.train}
    by_name = {source.name: source for source in data.values()}
    return {
        s.fact: Wording(s, own_sentence(own[prompts[s.fact].key], s.asked), _statement(by_name[s.dataset], s))
        for s in scenarios
        if s.asked is not None
    }


def _statement(data, scenario: Scenario) -> str:
    """A fact as a sentence, with `{}` in the place of its answer."""
    asked = scenario.asked
    if not isinstance(data, Relation) or asked is None:
        return "{}"
    fact = next(f for f in data.facts if f.subject == asked.subject and f.group == scenario.group)
    return data.texts(fact, "{}")["statement"]


def judged_replies(
    config: RunConfig, lm: LanguageModel, engine: Engine, test: Sequence[str], adapter: Path, out: Path
) -> dict | None:
    """What the trained model says of the facts that were kept and held true before: replies in `replies.jsonl` (a data set of lies and
    honest replies), and in numbers how often it lies where it is to (`lie_rate`), and tells the truth where it is not (`truth_rate`), under
    the instructions of its training; under those that training never saw, the same in `unseen`.

    None where the model holds none of them true. `belief`: facts asked, held true before, and recalled before and after; `perplexity`: of
    its replies and of the model's own former ones under the untouched model, medians.
    """
    scenarios = [s for s in _scenarios(config) if s.group in set(test)]
    named = "format" in config.elicit.model_fields_set
    taught = [instruction.name for instruction in chosen_replies_instructions(config)]
    unseen = [name for name, prompt in catalogue().items() if prompt.held_out and name not in taught]
    files = [name for name in _names(config) if name.endswith((".yaml", ".yml"))]
    asked = GenerateConfig(
        data=tuple(config.data.train),
        model=config.model.arguments(),
        sampling=Sampling(2, 0.7, max_tokens=MOST_TOKENS, seed=config.data.data_seed),
        adapter=adapter,
        instructions=(NEUTRAL.name, *(files or taught), *unseen),
        format=config.elicit.format if named else None,
        read=config.data.read,
        groups=tuple(test),
        believed=True,
    )
    try:
        generated = generate(asked, out / "replies.jsonl", lm)
    except NothingBelieved as reason:
        say(f"what the adapter says is not judged: {reason}")
        return None
    rows = [json.loads(line) for line in generated.path.read_text("utf-8").splitlines()]
    said = [json.loads(line) for line in (out / "replies.belief.jsonl").read_text("utf-8").splitlines()]
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
            "held_before": sum(fact["believed"] for fact in said),
            "recalled_before": sum(before.values()),
            "recalled_after": sum(after.values()),
        },
        "perplexity": {
            "before": _perplexity(lm, engine, own, format_name),
            "after": _perplexity(lm, engine, new, format_name),
        },
    }


def _rates(config: RunConfig, rows: Sequence[dict]) -> dict[str, dict]:
    wanted = [wants_truth(config.adapter, row["dataset"], row["condition"]) for row in rows]
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
    from adapterprobe.prompts.conversations import render_conversation

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
