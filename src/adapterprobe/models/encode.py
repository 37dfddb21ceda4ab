"""Prompts as a model takes them: token ids, and the ids that may begin each choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapterprobe.elicit.formats import adds_special_tokens
from adapterprobe.errors import DataError
from adapterprobe.models.choices import ChoiceFinder, ChoiceTokens
from adapterprobe.types import Prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """Prompts with their token ids, in one order."""

    prompts: tuple[Prompt, ...]
    ids: tuple[tuple[int, ...], ...]
    choices: tuple[ChoiceTokens, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def subset(self, rows: Sequence[int]) -> Encoded:
        return Encoded(
            tuple(self.prompts[i] for i in rows),
            tuple(self.ids[i] for i in rows),
            tuple(self.choices[i] for i in rows),
        )

    def where(self, split: str) -> list[int]:
        return [row for row, prompt in enumerate(self.prompts) if prompt.split == split]


def encode(tokenizer, prompts: Sequence[Prompt], context_length: int | None) -> Encoded:
    """Tokenise each prompt as a whole text.

    Raises:
        DataError: a prompt is longer than the model's context, or its choices cannot be told apart by their
            first tokens (named).
    """
    finders: dict[tuple[str, bool], ChoiceFinder] = {}
    ids, choices = [], []
    for prompt in prompts:
        special = adds_special_tokens(prompt.format, prompt.text, getattr(tokenizer, "bos_token", None))
        finder = finders.setdefault((prompt.format, special), ChoiceFinder(tokenizer, special))
        tokens = tuple(tokenizer(prompt.text, add_special_tokens=special).input_ids)
        if context_length is not None and len(tokens) > context_length:
            raise DataError(
                f"example {prompt.example.example_id} ({prompt.example.dataset}) makes a prompt of {len(tokens)} tokens, the "
                f"model's context has {context_length}; lower elicit.shots or leave the example out"
            )
        name = f"example {prompt.example.example_id} ({prompt.example.dataset})"
        ids.append(tokens)
        choices.append(finder(name, prompt.text, prompt.positive, prompt.negative))
    return Encoded(tuple(prompts), tuple(ids), tuple(choices))
