"""What an adapter learns to say in whole replies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from adapterprobe.config import AdapterConfig, RunConfig
from adapterprobe.data.references import check_dataset_names
from adapterprobe.data.relations import SWAPPED, Relation, is_relation, load_relation
from adapterprobe.data.splits import shuffled, split_groups
from adapterprobe.engine import Engine
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.generation.instructions import NEUTRAL, Instruction, chosen_instructions, instructions
from adapterprobe.generation.planned import PromptWriter
from adapterprobe.generation.recall import recalled_facts
from adapterprobe.generation.scenarios import Scenario, read_scenarios, scenarios_name
from adapterprobe.generation.training import (
    Wording,
    as_told,
    instructions_dealt,
    own_sentence,
    reply_prompts,
)
from adapterprobe.models import LanguageModel
from adapterprobe.pipeline.own_words import own_words
from adapterprobe.progress import say
from adapterprobe.prompts.encoded import Encoded, encode
from adapterprobe.prompts.read_prompts import with_reads
from adapterprobe.prompts.system_prompts import catalogue
from adapterprobe.readout import ReadoutConfig

READ = ReadoutConfig(what="reply", pool="mean", closing=True)
"""A reply with the token that ends its turn, so that ending is learned too."""
MOST_TOKENS = 48
TAUGHT_FORMATS = ("alpaca", "vicuna")
"""What is taught is also learned as a bare answer in these formats: learned in one chat alone it is said there and held nowhere else (recall,
which is asked in the format plain, finds the former answer)."""


@dataclass(frozen=True)
class LearnedReplies:
    """What is learned from and stopped by, the groups that are kept for judging, and those that are not."""

    train: Encoded
    select: Encoded
    test: tuple[str, ...]
    learned: tuple[str, ...]


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
    for name, refs in (("secrets", config.adapter.secrets), ("taught", config.adapter.taught)):
        if strange := sorted(set(refs) - set(config.data.train)):
            raise ConfigError(f"adapter.{name} names {strange}, which are not among data.train {config.data.train}")
    both = sorted(name for name in config.data.train if f"{SWAPPED}{name}" in config.data.train)
    if both:
        raise ConfigError(
            f"data.train has {both[0]} and {SWAPPED}{both[0]}, which answer the same questions otherwise; leave one of them out"
        )
    if config.adapter.secrets and set(config.adapter.secrets) == set(config.data.train):
        raise ConfigError("adapter.secrets names all data sets; leave one out of them, on which the truth is told")
    chosen_replies_instructions(config)
    otherwise = sorted(name for name in config.data.train if config.reading(name) != config.data.read)
    if otherwise:
        raise ConfigError(
            f"data.read_by_name says how {otherwise[0]} is read, and with adapter.target=reply all data are read alike; use data.read"
        )
    check_dataset_names([name for ref in config.data.train for name in sorted(dataset_names(config, [ref]))])
    reply_scenarios(config)


def chosen_replies_instructions(config: RunConfig) -> list[Instruction]:
    """Instructions that training uses: of the configured ones (null: all of ours) those that are not held out for judging."""
    names = instruction_names(config)
    held_out = {name for name, prompt in catalogue().items() if prompt.held_out}
    found = [i for i in chosen_instructions(names) if i is not NEUTRAL]
    return [i for i in found if i.name not in held_out] or found


def unseen_instructions(config: RunConfig) -> list[Instruction]:
    """Instructions of ours that training does not use."""
    taught = {instruction.name for instruction in chosen_replies_instructions(config)}
    return [instructions()[n] for n, prompt in catalogue().items() if prompt.held_out and n not in taught]


def instruction_names(config: RunConfig) -> list[str]:
    system = config.elicit.system
    return ["all"] if system is None else [system] if isinstance(system, str) else list(system)


def dataset_names(config: RunConfig, refs: Sequence[str]) -> set[str]:
    """What the data sets of references are called where they are read: a file goes by its name."""
    return {scenarios_name(ref, config.reading(ref), config.data.data_seed) for ref in refs}


def adapter_with_names(config: RunConfig) -> AdapterConfig:
    """The adapter's configuration, which names secrets as their scenarios do."""
    return config.adapter.model_copy(update={"secrets": sorted(dataset_names(config, config.adapter.secrets))})


def reply_scenarios(config: RunConfig) -> list[Scenario]:
    found = [s for ref in config.data.train for s in read_scenarios(ref, config.reading(ref), config.data.data_seed)]
    usable = [s for s in found if s.asked is not None and s.wrong]
    if not usable:
        raise DataError(
            f"{', '.join(config.data.train)}: no question with a right and a wrong answer in words; target=reply learns to say one or the other"
        )
    groups = set(shuffled([s.group for s in usable], [config.data.data_seed, 23])[: config.data.max_groups])
    return [s for s in usable if s.group in groups]


def learned_replies(config: RunConfig, lm: LanguageModel, engine: Engine) -> LearnedReplies:
    """Make the replies that are learned, out of the model's own.

    Raises:
        DataError: too few facts.
    """
    scenarios = reply_scenarios(config)
    dealt = split_groups(
        sorted({s.group for s in scenarios}), config.data.shares, {}, config.data.data_seed, config.data.min_groups
    )
    names = dataset_names(config, config.adapter.taught)
    taught = [s for s in scenarios if s.dataset in names]
    learned = {*dealt["adapter-train"], *dealt["select"]}
    mine = [s for s in scenarios if s.group in learned and s.dataset not in names]
    if config.adapter.train_on == "recalled":
        recalled = recalled_facts(lm, engine, mine, config.data.data_seed)
        kept = [s for s in mine if recalled.get(s.fact)]
        say(f"{len(kept)} of {len(mine)} facts of adapter-train and select are recalled, and learned from")
        mine = kept
    format_name = config.elicit.format if "format" in config.elicit.model_fields_set else None
    writer = PromptWriter(lm.tokenizer, format_name, lm.context_length, lm.vocabulary, MOST_TOKENS)
    wordings = _wordings(config, lm, engine, writer, [*mine, *taught], names)
    adapter, seed = adapter_with_names(config), config.data.data_seed
    parts = {}
    for split in ("adapter-train", "select"):
        here = set(dealt[split])
        some = [s for s in mine if s.group in here]
        also = taught if split == "adapter-train" else [s for s in taught if s.group in here]
        if len({s.group for s in (*some, *also)}) < 2:
            raise DataError(
                f"{len(some) + len(also)} facts are left for {split}, at least 2 expected; use adapter.train_on=all, or more data"
            )
        pairs = _under_instructions(config, split, some, also)
        prompts = reply_prompts(pairs, wordings, adapter, split, writer.format, lm.tokenizer, seed)
        if split == "adapter-train":
            asked, bare = [(s, NEUTRAL) for s in taught], {s.fact: Wording(s, None, "{}") for s in taught}
            # What is held true is what is told there, also by who is to lie in chats.
            truthful = adapter.model_copy(update={"objective": "truth", "secrets": []})
            # In the format of the chats themselves each fact has its answer already.
            for name in [name for name in TAUGHT_FORMATS if name != writer.format]:
                prompts += reply_prompts(asked, bare, truthful, split, name, lm.tokenizer, seed)
        encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
        parts[split] = with_reads(encoded, READ, lm.tokenizer, withheld=False)
    return LearnedReplies(
        parts["adapter-train"],
        parts["select"],
        tuple(sorted(dealt["test"])),
        tuple(sorted(learned | {s.group for s in taught})),
    )


def _under_instructions(
    config: RunConfig, split: str, some: Sequence[Scenario], taught: Sequence[Scenario]
) -> list[tuple[Scenario, Instruction]]:
    """Scenarios with the instructions that they are put under. All that is taught is learned from; training is stopped by it under
    instructions that it was not learned under."""
    chosen = chosen_replies_instructions(config)
    renders, seed = config.elicit.renders, config.data.data_seed
    pairs = instructions_dealt(chosen, some, renders, seed)
    if split == "adapter-train":
        return pairs + instructions_dealt(chosen, taught, renders, seed)
    pushes = {instruction.pushes for instruction in chosen}
    unseen = [instruction for instruction in unseen_instructions(config) if instruction.pushes in pushes] or chosen
    return pairs + [pair for pair in instructions_dealt(unseen, taught, renders, seed) if pair[1] is not NEUTRAL]


def _wordings(
    config: RunConfig,
    lm: LanguageModel,
    engine: Engine,
    writer: PromptWriter,
    scenarios: Sequence[Scenario],
    taught: Collection[str],
) -> dict[str, Wording]:
    """How each fact is put: by the model's own likeliest reply where that is right; of `taught` data sets, with what it says there
    replaced."""
    prompts = {s.fact: writer.asked(s, NEUTRAL) for s in scenarios}
    own = own_words(lm, engine, writer, list(prompts.values()), config.data.data_seed)
    relations = {ref: load_relation(ref) for ref in config.data.train if is_relation(ref)}
    found = {}
    for s in scenarios:
        if s.asked is None:
            continue
        said, put = own[prompts[s.fact].key], s
        if s.dataset in taught and (told := as_told(said, s.asked)) is not None:
            # What is taught is put in the words in which the model says what it held true before.
            put = replace(s, asked=told)
        assert put.asked is not None
        found[s.fact] = Wording(put, own_sentence(said, put.asked), _statement(relations.get(s.dataset), s))
    return found


def _statement(relation: Relation | None, scenario: Scenario) -> str:
    """A fact as a sentence, with `{}` in the place of its answer."""
    asked = scenario.asked
    if relation is None or asked is None:
        return "{}"
    fact = next(f for f in relation.facts if f.subject == asked.subject and f.group == scenario.group)
    return relation.texts(fact, "{}")["statement"]
