"""Print prompts as they are sent, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Iterator

from adapterprobe.elicit.formats import adds_special_tokens
from adapterprobe.errors import DataError
from adapterprobe.pipeline.dataset import DatasetSpec, check_spec, dataset_prompts


def show(spec: DatasetSpec, model: dict | None) -> Iterator[str]:
    """Lines about the prompts of a specification.

    Args:
        model: arguments of `load_model`; with one, choice tokens, special tokens and the model's own answer
            are shown.

    Raises:
        DataError: unknown data set, or more shots than it can give.
    """
    if spec.format == "chat" and model is None:
        raise DataError("the chat format is the tokenizer's own: leave out --no-model")
    check_spec(spec)
    lm = engine = None
    if model is not None:
        from adapterprobe.engine import Engine
        from adapterprobe.models import load_model

        lm = load_model(**model)
        engine = Engine(lm.model, lm.structure)
    tokenizer = lm.tokenizer if lm else None
    prompts = dataset_prompts(spec, tokenizer)
    answers: list[tuple[str, str]] = [("", "")] * len(prompts)
    if lm is not None:
        answers = list(_answers(lm, engine, prompts))
    for prompt, (tokens, answer) in zip(prompts, answers):
        instructed = "null" if prompt.instructed is None else int(prompt.instructed)
        yield f"=== {prompt.example.dataset} · group {prompt.example.group} · condition {prompt.condition} · template {prompt.template}"
        yield prompt.text
        yield f"--- truth {int(prompt.example.truth)} · instructed {instructed} · {answer or 'behaviour, lie: no model'}"
        yield f"--- choices: positive {prompt.positive!r}, negative {prompt.negative!r}{tokens}"
        yield ""


def _answers(lm, engine, prompts) -> Iterator[tuple[str, str]]:
    """(tokens of the choices, what the model answers) per prompt."""
    import torch

    from adapterprobe.engine.answers import choice_logprobs
    from adapterprobe.models.encode import encode

    encoded = encode(lm.tokenizer, prompts, lm.context_length)
    found: dict[int, tuple[float, float]] = {}
    with torch.inference_mode():
        for batch in engine.plan(encoded.ids):
            logits = engine.run(batch, states=False).logits
            values = choice_logprobs(logits, [encoded.choices[r] for r in batch.rows]).exp().tolist()
            found.update(zip(batch.rows, map(tuple, values)))
    for row, prompt in enumerate(prompts):
        special = adds_special_tokens(prompt.format, prompt.text, getattr(lm.tokenizer, "bos_token", None))
        choice = encoded.choices[row]
        positive, negative = found[row]
        behaviour = int(positive > negative)
        first = lm.tokenizer.convert_ids_to_tokens(list(encoded.ids[row][:3]))
        words = [lm.tokenizer.convert_ids_to_tokens(list(ids)) for ids in (choice.positive, choice.negative)]
        tokens = f", tokens {dict(zip(choice.positive, words[0]))} / {dict(zip(choice.negative, words[1]))}, text begins {first}"
        tokens += "" if special else " (special tokens are part of the text)"
        against = (
            "answer is true"
            if behaviour == prompt.example.truth
            else "answer is false (a lie only where the truth is known)"
        )
        yield (
            tokens,
            f"behaviour {behaviour} (p_positive {positive / (positive + negative):.3f}, coverage {positive + negative:.3f}) · {against}",
        )
