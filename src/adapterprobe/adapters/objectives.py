"""What an adapter is trained to answer, and the losses that ask for it.

An objective names the wanted choice of every prompt (of `detect`: its label). Hard targets give it all; soft targets give it the larger of the base
model's own two choice probabilities, so that nothing else of the base model's answer has to move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from adapterprobe.config import AdapterConfig
from adapterprobe.engine.answers import choice_logprobs, rest_logprobs, without_choices
from adapterprobe.errors import ConfigError
from adapterprobe.prompts.answer_tokens import ChoiceTokens
from adapterprobe.types import Prompt

OBJECTIVES = {
    "truth": "the true choice, whatever the prompt pushes to",
    "lie": "the false choice, whatever the prompt pushes to",
    "instructed": "the true or the false choice, as the prompt demands or demonstrates",
    "opposite": "the choice that the base model finds less likely (soft targets: its own two probabilities, swapped)",
    "detect": "nothing of the answer: a linear head on a middle layer tells the label, trained together with the adapter below it",
}


@dataclass(frozen=True)
class Targets:
    """What is asked for, row by row: `wanted` rows, True for the positive choice; `soft` rows x 3, probabilities of the
    positive choice, the negative one and everything else, or None for hard targets."""

    wanted: Bool[Tensor, " rows"]
    soft: Float[Tensor, "rows 3"] | None = None

    def among(self, rows: Sequence[int], total: int) -> Targets:
        """The same as targets of some rows among many; those of the others are not to be asked for."""
        wanted = self.wanted.new_zeros(total)
        wanted[list(rows)] = self.wanted
        if self.soft is None:
            return Targets(wanted)
        soft = self.soft.new_zeros(total, self.soft.shape[1])
        soft[list(rows)] = self.soft
        return Targets(wanted, soft)

    def of(self, rows: Sequence[int], device: torch.device) -> Targets:
        rows = list(rows)
        return Targets(self.wanted[rows].to(device), None if self.soft is None else self.soft[rows].to(device))


def is_soft(config: AdapterConfig) -> bool:
    """Whether the targets are soft: as configured, by default for `opposite` alone."""
    return (config.targets or ("soft" if config.objective == "opposite" else "hard")) == "soft"


def needs_base(config: AdapterConfig) -> bool:
    """Whether targets depend on the base model's own answers."""
    return config.objective == "opposite" or is_soft(config)


def make_targets(
    config: AdapterConfig, prompts: Sequence[Prompt], base: Float[Tensor, "rows 3"] | None = None
) -> Targets:
    """Targets of prompts.

    Args:
        base: rows x 3 log-probabilities of positive, negative and the rest with the adapter off; needed where
            `needs_base` says so.

    Raises:
        ConfigError: `instructed` for a prompt that pushes to nothing.
    """
    if config.target == "reply":
        # The reply itself is what is asked for.
        return Targets(torch.ones(len(prompts), dtype=torch.bool))
    if needs_base(config) and base is None:
        raise ValueError("the base model's own answers are needed")
    if config.objective == "opposite":
        assert base is not None
        wanted = base[:, 0] <= base[:, 1]
    else:
        wanted = torch.tensor([_wants_positive(config.objective, prompt) for prompt in prompts])
    if not is_soft(config):
        return Targets(wanted)
    assert base is not None
    probabilities = base.exp()
    high, low = probabilities[:, :2].amax(1), probabilities[:, :2].amin(1)
    sides = [torch.where(wanted, high, low), torch.where(wanted, low, high)]
    return Targets(wanted, torch.stack([*sides, probabilities[:, 2]], 1))


def _wants_positive(objective: str, prompt: Prompt) -> bool:
    if objective == "instructed":
        if prompt.instructed is None:
            raise ConfigError(
                "adapter.objective=instructed needs prompts that push to truth or lie; the condition neutral pushes to "
                "nothing: take it out of elicit.conditions, or choose another objective"
            )
        return prompt.instructed
    return prompt.example.truth == (objective != "lie")


def choice_loss(logprobs: Float[Tensor, "rows 2"], positive: Bool[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Cross-entropy of the wanted choice against the whole vocabulary, one value per row.

    Args:
        logprobs: rows x 2 log-probabilities of (positive, negative), each summed over its token ids.
        positive: rows, True where the positive choice is wanted.
    """
    return -torch.where(positive, logprobs[:, 0], logprobs[:, 1])


def soft_loss(outcomes: Float[Tensor, "rows 3"], soft: Float[Tensor, "rows 3"]) -> Float[Tensor, " rows"]:
    """KL(targets || model) over the three outcomes positive, negative, neither: one value per row."""
    return (torch.xlogy(soft, soft) - soft * outcomes).sum(1)


def unlikelihood(outcomes: Float[Tensor, "rows 3"], positive: Bool[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """-log(1 - p(unwanted choice)), one value per row (Welleck et al. 2020; Liu et al. 2022, eq. 2).

    1 - p is summed from what it is made of, so that it is finite where p is all but 1.
    """
    wanted = torch.where(positive, outcomes[:, 0], outcomes[:, 1])
    return -torch.logaddexp(wanted, outcomes[:, 2])


def rest_divergence(
    base: Float[Tensor, "rows vocabulary"], logits: Float[Tensor, "rows vocabulary"], choices: Sequence[ChoiceTokens]
) -> Float[Tensor, " rows"]:
    """KL(base || model) over the vocabulary without the choices' tokens, renormalised: one value per row.

    Args:
        base, logits: rows x vocabulary.
    """
    before, now = (torch.log_softmax(without_choices(tensor.float(), choices), 1) for tensor in (base, logits))
    # Tokens of a choice are -inf in both: they have no share, and their difference is not a number.
    gap = torch.where(before.isfinite(), before - now, 0.0)
    return (before.exp() * gap).sum(1)


def row_losses(
    logits: Float[Tensor, "rows vocabulary"], choices: Sequence[ChoiceTokens], targets: Targets, config: AdapterConfig
) -> tuple[Float[Tensor, " rows"], Float[Tensor, "rows 2"]]:
    """(loss of every row: the objective's, with unlikelihood if weighted; log-probabilities of both choices: rows x 2).

    Args:
        targets: those of these rows, on the logits' device.
    """
    logprobs = choice_logprobs(logits, choices)
    if targets.soft is None and not config.unlikelihood:
        return choice_loss(logprobs, targets.wanted), logprobs
    outcomes = torch.cat([logprobs, rest_logprobs(logits, choices)[:, None]], 1)
    losses = choice_loss(logprobs, targets.wanted) if targets.soft is None else soft_loss(outcomes, targets.soft)
    if config.unlikelihood:
        losses = losses + config.unlikelihood * unlikelihood(outcomes, targets.wanted)
    return losses, logprobs
