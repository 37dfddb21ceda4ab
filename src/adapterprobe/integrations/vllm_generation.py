"""Replies by vLLM (extra `adapterprobe[vllm]`): its offline engine with prefix caching, adapters by its own LoRA support."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adapterprobe.engine import Engine
from adapterprobe.engine.sampling import Sampling
from adapterprobe.errors import ModelError
from adapterprobe.generation.planned import PromptWriter, ReplyPrompt, end_tokens
from adapterprobe.generation.rows import Reply
from adapterprobe.generation.writers import MakeWriters, ReplyWriter, cut
from adapterprobe.integrations.vllm_engine import (
    check_installed,
    check_lora,
    end_engine,
    engine_rank,
    lora_rank,
    start_engine,
)
from adapterprobe.models import LanguageModel

ROWS = 1024
"""Replies that are asked for together: those of one call are kept when it has ended."""


def vllm_writers(**options: Any) -> MakeWriters:
    """Makes vLLM the engine of `generate`.

    Args:
        options: settings of vLLM's class `LLM`, such as `gpu_memory_utilization` or `tensor_parallel_size`.

    Raises:
        ConfigError: vLLM is not installed.
    """
    check_installed("use --engine transformers")

    def make(lm: LanguageModel, engine: Engine, prompts: PromptWriter, longest: int) -> VllmWriters:
        return VllmWriters(lm, prompts, longest, options)

    return make


class VllmWriters:
    """One vLLM engine for the model, started at its first reply.

    Args:
        longest: most tokens that a prompt with its reply has.

    Raises:
        ModelError: the model is in memory alone, so vLLM cannot load it.
    """

    def __init__(self, lm: LanguageModel, prompts: PromptWriter, longest: int, options: dict[str, Any]) -> None:
        if lm.source is None:
            raise ModelError(
                f"vLLM loads models by itself, and {lm.name} is in memory alone; save it, and name its folder"
            )
        self.lm, self.prompts, self.longest, self.options = lm, prompts, longest, options
        self._engine: Any = None
        self._rank = 0
        self._requests = 0
        self._scaled = contextlib.ExitStack()

    @contextlib.contextmanager
    def writing(self, adapter: Path | None, strength: float) -> Iterator[ReplyWriter]:
        request = None
        if adapter is not None:
            config = check_lora(adapter)
            self._start(engine_rank(lora_rank(config)))
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]: an extra

            folder = adapter if strength == 1.0 else self._scaled.enter_context(scaled_copy(adapter, strength))
            # vLLM keeps adapters by their number: the same one at another strength is another.
            self._requests += 1
            request = LoRARequest(f"adapter-{self._requests}", self._requests, str(folder))
        else:
            self._start(self._rank)
        yield VllmWriter(self._engine, self.lm, self.prompts, request)

    def _start(self, rank: int) -> None:
        if self._engine is not None and rank <= self._rank:
            return
        self.close()
        # Our own copy of the model stays loaded beside it: what is recalled is asked there.
        share = {} if self.lm.device.type == "cpu" else {"gpu_memory_utilization": 0.7}
        otherwise = "--engine-option sets what it takes, --engine transformers does without it"
        self._engine = start_engine(self.lm, self.longest, rank, share | self.options, otherwise)
        self._rank = rank

    def close(self) -> None:
        """End vLLM's processes."""
        engine, self._engine, self._rank = self._engine, None, 0
        if engine is not None:
            end_engine(engine)
        self._scaled.close()


class VllmWriter:
    """Writes replies by a running vLLM engine."""

    def __init__(self, engine: Any, lm: LanguageModel, prompts: PromptWriter, request: Any) -> None:
        self.engine, self.lm, self.stop, self.request = engine, lm, prompts.stop, request
        self.ends = end_tokens(lm)

    def write(self, prompts: Sequence[ReplyPrompt], sampling: Sampling) -> Iterator[list[Reply]]:
        """See `ReplyWriter`."""
        size = max(1, ROWS // sampling.samples)
        # Neighbours share what they begin with.
        order = sorted(prompts, key=lambda prompt: (prompt.ids, prompt.key))
        for start in range(0, len(order), size):
            some = order[start : start + size]
            outputs = self.engine.generate(
                [{"prompt_token_ids": list(prompt.ids)} for prompt in some],
                [self._params(prompt, sampling) for prompt in some],
                use_tqdm=False,
                lora_request=self.request,
            )
            yield [
                self._reply(prompt, sample, output)
                for prompt, answered in zip(some, outputs, strict=True)
                for sample, output in enumerate(answered.outputs)
            ]

    def _params(self, prompt: ReplyPrompt, sampling: Sampling) -> Any:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]: an extra

        key = hashlib.sha256(f"{sampling.seed}\x1f{prompt.key}".encode()).digest()
        greedy = sampling.temperature == 0
        return SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            max_tokens=sampling.max_tokens,
            # A reply has a token at least, as in our own engine.
            min_tokens=1,
            seed=None if greedy else int.from_bytes(key[:6], "big"),
            stop_token_ids=self.ends,
            stop=[self.stop] if self.stop else None,
        )

    def _reply(self, prompt: ReplyPrompt, sample: int, output: Any) -> Reply:
        tokens = [int(token) for token in output.token_ids]
        ended = output.finish_reason == "stop"
        if ended and tokens and tokens[-1] in self.ends:
            tokens = tokens[:-1]
        text = self.lm.tokenizer.decode(tokens, skip_special_tokens=True)
        return Reply(prompt.key, sample, cut(text, self.stop), ended)


@contextlib.contextmanager
def scaled_copy(adapter: Path, strength: float) -> Iterator[Path]:
    """A copy of a LoRA whose change is multiplied."""
    with tempfile.TemporaryDirectory(prefix="adapterprobe-lora-") as name:
        folder = Path(name) / "adapter"
        shutil.copytree(adapter, folder)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text("utf-8"))
        config["lora_alpha"] = config["lora_alpha"] * strength
        config["alpha_pattern"] = {key: value * strength for key, value in (config.get("alpha_pattern") or {}).items()}
        path.write_text(json.dumps(config), "utf-8")
        yield folder
