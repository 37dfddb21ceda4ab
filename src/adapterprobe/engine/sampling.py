"""Write replies: many rows at a time, each with random numbers of its own.

Prompts that share a beginning are read once (in the engine's packed pass), and every step writes a token of all rows (see `decoding`).
A row's tokens depend on its prompt, its number and the seed, not on what is written beside it. Models whose attention cannot be
reached write one prompt at a time, by transformers' own `generate`, with the same random numbers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from adapterprobe.engine.batches import Batch, Group
from adapterprobe.engine.decoding import RowCache, decodable_configs, decoding
from adapterprobe.engine.forward import Engine
from adapterprobe.engine.packed import keys_values_kept
from adapterprobe.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How replies are drawn."""

    samples: int = 1
    """Replies for each prompt."""
    temperature: float = 1.0
    """0: the likeliest token, always."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that have this share of the probability (Holtzman et al. 2020)."""
    max_tokens: int = 64
    """Most tokens of a reply; one that is longer is cut."""
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            f"{name} {value} (expected {expected})"
            for name, value, good, expected in (
                ("samples", self.samples, self.samples >= 1, "at least 1"),
                ("temperature", self.temperature, 0 <= self.temperature < float("inf"), "0 or more"),
                ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
                ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
                ("seed", self.seed, self.seed >= 0, "0 or more"),
            )
            if not good
        ]
        if wrong:
            raise ConfigError(f"sampling: got {', '.join(wrong)}")


@dataclass(frozen=True, slots=True)
class Written:
    """One reply of a prompt: `tokens` without the one that ends it, and whether there was one."""

    prompt: int
    sample: int
    tokens: tuple[int, ...]
    ended: bool


def uniforms(sampling: Sampling, key: str, sample: int) -> np.ndarray:
    """The random numbers of a row, one for each of its tokens."""
    rng = np.random.default_rng([sampling.seed, *key.encode(), sample])
    return rng.random(sampling.max_tokens)


def plan_writing(prompts: Sequence[Sequence[int]], sampling: Sampling, rows: int = 64) -> list[list[int]]:
    """Prompts that are written on together: neighbours in order of their tokens, so that they share much.

    Args:
        rows: most rows (prompts times samples) of a batch.
    """
    order = sorted(range(len(prompts)), key=lambda i: (tuple(prompts[i]), i))
    size = max(1, rows // sampling.samples)
    return [order[start : start + size] for start in range(0, len(order), size)]


@torch.no_grad()
def write_replies(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    sampling: Sampling,
    ends: Sequence[int],
    stopped: Callable[[Sequence[int]], bool] | None = None,
) -> Iterator[list[Written]]:
    """Replies of a batch (see `plan_writing`), one after each token step has ended; the last has all of them.

    Args:
        prompts: token ids, at least one each. keys: what their random numbers hang on.
        ends: token ids that end a reply; none of them is its first token.
        stopped: whether the tokens of a reply hold a text that ends it.

    Yields:
        How it stands after each step: the replies that are finished by then, ordered by prompt and sample at the end.
    """
    if not engine.share:
        yield _one_by_one(engine, prompts, keys, sampling, ends, stopped)
        return
    yield from _together(engine, prompts, keys, sampling, set(ends), stopped)


def _together(engine: Engine, prompts, keys, sampling: Sampling, ends: set[int], stopped) -> Iterator[list[Written]]:
    prefix = _shared(prompts)
    suffixes = [tuple(prompt[prefix:]) for prompt in prompts]
    batch = Batch((Group(tuple(prompts[0][:prefix]), tuple(range(len(prompts))), tuple(suffixes)),))
    with keys_values_kept() as kept:
        logits = engine.run(batch, states=False).logits
    stops = np.cumsum([prefix, *map(len, suffixes)])
    places = [(int(start), int(stop)) for start, stop in itertools.pairwise(stops)]
    owner = [prompt for prompt in range(len(prompts)) for _ in range(sampling.samples)]
    numbers = [sample for _ in prompts for sample in range(sampling.samples)]
    cache = RowCache.of(kept, prefix, places, owner, sampling.max_tokens, engine.device)
    kept.clear()
    draws = torch.tensor(
        np.stack([uniforms(sampling, keys[p], n) for p, n in zip(owner, numbers, strict=True)]), device=engine.device
    )
    logits = logits[owner]
    texts: list[list[int]] = [[] for _ in owner]
    active, done = list(range(len(owner))), []
    configs = decodable_configs(engine.model)
    for step in range(sampling.max_tokens):
        if step == 0:
            logits = _without(logits, ends)
        chosen = next_tokens(logits, draws[active, step], sampling)
        staying = []
        for place, (row, token) in enumerate(zip(active, chosen.tolist(), strict=True)):
            if token in ends:
                done.append(Written(owner[row], numbers[row], tuple(texts[row]), True))
                continue
            texts[row].append(token)
            if stopped is not None and stopped(texts[row]):
                done.append(Written(owner[row], numbers[row], tuple(texts[row]), True))
            elif step + 1 == sampling.max_tokens:
                done.append(Written(owner[row], numbers[row], tuple(texts[row]), False))
            else:
                staying.append(place)
        if not staying:
            break
        if len(staying) < len(active):
            kept_rows = torch.tensor(staying, device=engine.device)
            cache.keep(kept_rows)
            chosen, active = chosen[kept_rows], [active[place] for place in staying]
        yield done
        with decoding(configs, cache):
            ones = torch.ones_like(chosen[:, None])
            positions = cache.positions[:, None]
            inputs = {"input_ids": chosen[:, None], "position_ids": positions, "attention_mask": ones}
            logits = engine.model(**inputs, use_cache=False).logits[:, -1]
        cache.advance()
    yield sorted(done, key=lambda reply: (reply.prompt, reply.sample))


def _without(logits: torch.Tensor, tokens: Collection[int]) -> torch.Tensor:
    """Logits under which none of these tokens is drawn."""
    if not tokens:
        return logits
    return logits.index_fill(-1, torch.tensor(sorted(tokens), device=logits.device), float("-inf"))


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Length of what all prompts begin with; the last token is each prompt's own."""
    low, high = min(map(tuple, prompts)), max(map(tuple, prompts))
    most = min(map(len, prompts)) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def next_tokens(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The next token of each row: where its random number falls in the distribution (by inverse transform).

    Args:
        logits: rows x vocabulary; uniform: rows, in [0, 1).
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    scaled = logits.double() / sampling.temperature
    if sampling.top_p < 1:
        ranked, order = torch.softmax(scaled, -1).sort(stable=True, dim=-1, descending=True)
        # The token that crosses the share is kept.
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= sampling.top_p, 0.0)
        return order.gather(1, _fall(ranked, uniform)[:, None])[:, 0]
    return _fall(torch.softmax(scaled, -1), uniform)


def _fall(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Index in which each number falls, in rows x outcomes that need not add up to 1."""
    edges = weights.cumsum(-1)
    target = uniform.to(edges.dtype) * edges[:, -1]
    return torch.searchsorted(edges, target[:, None], right=True)[:, 0].clamp_max(edges.shape[1] - 1)


class _Drawing:
    """transformers' `LogitsProcessor`: leaves each row the token that its random number falls on."""

    def __init__(self, start: int, draws: torch.Tensor, sampling: Sampling, ends: Sequence[int]) -> None:
        self.start, self.draws, self.sampling, self.ends = start, draws, sampling, ends

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.start
        chosen = next_tokens(_without(scores, self.ends) if step == 0 else scores, self.draws[:, step], self.sampling)
        return torch.full_like(scores, float("-inf")).scatter(1, chosen[:, None], 0.0)


def _one_by_one(engine: Engine, prompts, keys, sampling: Sampling, ends: Sequence[int], stopped=None) -> list[Written]:
    from transformers import GenerationConfig, LogitsProcessorList

    done = []
    plain = GenerationConfig(
        max_new_tokens=sampling.max_tokens, do_sample=False, eos_token_id=list(ends), pad_token_id=next(iter(ends))
    )
    for prompt, (ids, key) in enumerate(zip(prompts, keys, strict=True)):
        rows = torch.tensor([list(ids)] * sampling.samples, device=engine.device)
        draws = torch.tensor(
            np.stack([uniforms(sampling, key, n) for n in range(sampling.samples)]), device=engine.device
        )
        drawing = LogitsProcessorList([_Drawing(rows.shape[1], draws, sampling, ends)])
        whole = torch.ones_like(rows)
        model: Any = engine.model
        written = model.generate(rows, attention_mask=whole, generation_config=plain, logits_processor=drawing)
        for sample, row in enumerate(written[:, rows.shape[1] :].tolist()):
            stop = next((place for place, token in enumerate(row) if token in set(ends)), None)
            tokens = tuple(row if stop is None else row[:stop])
            if stopped is not None and stopped(tokens):
                stop = next(n for n in range(1, len(tokens) + 1) if stopped(tokens[:n]))
                tokens = tokens[:stop]
            done.append(Written(prompt, sample, tokens, stop is not None))
    return done
