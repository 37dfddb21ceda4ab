"""One reply by transformers' own generation, a token at a time, in the thread of whoever asks for the next.

`generate` prepares what there is to prepare (options, processors of logits, stopping criteria, cache) and hands it to a loop of ours, which is
a generator. A thread beside it would be simpler, and cost a third more a token on CPUs: with a second team of OpenMP's threads, both go to
sleep after every product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from adapterprobe.errors import DataError
from adapterprobe.models import LanguageModel

REFUSED = ("streamer", "assistant_model", "custom_generate", "synced_gpus")
"""Options of `generate` that its loop would have to heed."""
ONE_REPLY = "what is watched is written as one reply, token by token: leave out beams, several replies, assistants, prompt lookup and use_cache=False"


def token_by_token(
    lm: LanguageModel,
    ids: Sequence[int],
    ends: Sequence[int],
    reading: Callable[[int], AbstractContextManager[Any]],
    **options: Any,
) -> Iterator[int]:
    """The tokens of a reply, without the one that ends it.

    Args:
        ends: tokens that end a reply.
        reading: entered around the pass that a token is fed to; the token is given when that pass is over, and the next is chosen only when it
            is asked for.
        options: of `generate`.

    Raises:
        DataError: they make something else than one reply by one token after the other.
        ValueError: no such option.
    """
    if refused := [name for name in REFUSED if options.get(name) is not None]:
        raise DataError(f"{', '.join(refused)}: {ONE_REPLY}")
    given = torch.tensor([list(ids)], device=lm.device)
    settings = {"attention_mask": torch.ones_like(given), "pad_token_id": min(ends), "eos_token_id": sorted(ends)}

    def loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **carried):
        mode = generation_config.get_generation_mode().value
        rows, cached = input_ids.shape[0], carried.get("use_cache")
        if rows != 1 or mode not in ("greedy_search", "sample") or not cached:
            raise DataError(f"{rows} rows by {mode}, use_cache={cached}: {ONE_REPLY}")
        kept = {name: carried[name] for name in ("past_key_values", "logits_to_keep") if name in carried}
        writer = _Writer(model, input_ids, logits_processor, stopping_criteria, generation_config.do_sample, kept)
        return _written(writer, set(ends), reading)

    model: Any = lm.model
    return model.generate(given, custom_generate=loop, **(settings | options))


def _written(writer: _Writer, ends: set[int], reading: Callable[[int], AbstractContextManager[Any]]) -> Iterator[int]:
    writer.feed(writer.ids)
    while True:
        token, last = writer.choose()
        if token in ends:
            return
        # The last token is fed, too: its state is asked for.
        with reading(token):
            writer.feed(writer.ids[:, -1:])
        yield token
        if last:
            return


class _Writer:
    """A model in the middle of a reply."""

    def __init__(self, model: Any, ids: torch.Tensor, processor: Any, criteria: Any, sample: bool, kept: dict) -> None:
        self.model, self.ids, self.processor, self.criteria, self.sample = model, ids, processor, criteria, sample
        self.kept = kept
        self.logits = torch.empty(0)

    @torch.inference_mode()
    def feed(self, ids: torch.Tensor) -> None:
        """Run the model on the next tokens."""
        outputs = self.model(input_ids=ids, use_cache=True, return_dict=True, **self.kept)
        if getattr(outputs, "past_key_values", None) is None:
            raise DataError(
                f"{type(self.model).__name__} keeps no keys and values of what it has read (past_key_values), by which a reply is written token by "
                "token"
            )
        self.kept["past_key_values"] = outputs.past_key_values
        self.logits = outputs.logits[:, -1].float()

    @torch.inference_mode()
    def choose(self) -> tuple[int, bool]:
        """(the next token, whether it is the last), as transformers' own loop does it."""
        scores = self.processor(self.ids, self.logits)
        if self.sample:
            chosen = torch.multinomial(scores.softmax(dim=-1), num_samples=1)
        else:
            chosen = scores.argmax(dim=-1, keepdim=True)
        self.ids = torch.cat([self.ids, chosen], dim=-1)
        return int(chosen), bool(self.criteria(self.ids, None).all())
