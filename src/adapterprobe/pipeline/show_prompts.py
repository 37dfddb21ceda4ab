"""Print prompts as they are sent, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Iterator

from adapterprobe.errors import DataError
from adapterprobe.prompts.dataset_prompts import DatasetSpec, check_spec, dataset_prompts, prompts_and_belief
from adapterprobe.prompts.formats import is_chat
from adapterprobe.types import Prompt

BELIEF_DRAWS = 3


def show(spec: DatasetSpec, model: dict | None) -> Iterator[str]:
    """Lines about the prompts of a specification.

    Args:
        model: arguments of `load_model`; with one, choice tokens, special tokens, the model's own answer and whether it
            is a lie (against what the model knows) are shown.

    Raises:
        DataError: unknown data set, or more shots than it can give.
    """
    if is_chat(spec.format) and model is None:
        raise DataError("the chat format is the tokenizer's own: leave out --no-model")
    check_spec(spec)
    if model is None:
        prompts = dataset_prompts(spec, None)
        answers: list[tuple[str, str]] = [("", "")] * len(prompts)
    else:
        prompts, answers = _asked(spec, model)
    for prompt, (tokens, answer) in zip(prompts, answers, strict=True):
        instructed = "null" if prompt.instructed is None else int(prompt.instructed)
        yield f"=== {prompt.example.dataset} · group {prompt.example.group} · condition {prompt.condition} · template {prompt.template}"
        yield prompt.text
        yield f"--- truth {int(prompt.example.truth)} · instructed {instructed} · {answer or 'behaviour, lie: no model'}"
        yield f"--- choices: positive {prompt.positive!r}, negative {prompt.negative!r}{tokens}"
        yield ""


def _asked(spec: DatasetSpec, model: dict) -> tuple[list[Prompt], list[tuple[str, str]]]:
    """(prompts, per prompt the tokens of the choices and what the model answers)."""
    from adapterprobe.engine import Engine
    from adapterprobe.knowledge import measure_knowledge
    from adapterprobe.models import load_model

    lm = load_model(**model)
    engine = Engine(lm.model, lm.structure)
    prompts, belief = prompts_and_belief(spec, lm.tokenizer, BELIEF_DRAWS)
    known = measure_knowledge(lm, engine, belief).of(prompts)
    return prompts, list(_answers(lm, engine, prompts, known))


def _answers(lm, engine, prompts, known) -> Iterator[tuple[str, str]]:
    """(tokens of the choices, what the model answers) per prompt."""
    from adapterprobe.engine.outcomes import answer_logprobs
    from adapterprobe.prompts.encoded import PromptReader, encode

    reader = PromptReader(lm.tokenizer)
    encoded = encode(lm.tokenizer, prompts, lm.context_length, lm.vocabulary)
    found = answer_logprobs(engine, encoded).exp().tolist()
    for row, prompt in enumerate(encoded.prompts):
        special = reader.special(prompt)
        choice = encoded.choices[row]
        positive, negative, _ = found[row]
        behaviour = int(positive > negative)
        first = lm.tokenizer.convert_ids_to_tokens(list(encoded.ids[row][:3]))
        words = [lm.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (choice.positive, choice.negative)]
        tokens = f", tokens {dict(zip(choice.positive, words[0], strict=True))} / {dict(zip(choice.negative, words[1], strict=True))}, text begins {first}"
        tokens += "" if special else " (special tokens are part of the text)"
        lie = int(behaviour != prompt.example.truth) if known[row] else "null (the model does not know this group)"
        yield (
            tokens,
            f"behaviour {behaviour} (p_positive {positive / (positive + negative):.3f}, coverage {positive + negative:.3f}) · lie {lie}",
        )
