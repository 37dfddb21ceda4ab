"""Detectors on vLLM (extra `adapterprobe[vllm]`): states read by its engine, replies scored while it writes them.

model = VllmModel("owner/model", gpu_memory_utilization=0.8)
d = ap.Detector.load("detectors/mine", model)      # its golden rows are replayed on vLLM
d.score(conversations)
model.generate([d], conversations, max_tokens=200)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapterprobe.activations.in_memory import MemoryStates
from adapterprobe.detectors.detector import Detector
from adapterprobe.detectors.live import AddedText, check_together, prompt_ids, watcher_of
from adapterprobe.detectors.notebook import TokenTable
from adapterprobe.detectors.passes import Needs, Passes, off_layers, on_layers
from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.generation.planned import end_tokens
from adapterprobe.integrations.vllm_engine import (
    check_installed,
    check_lora,
    end_engine,
    engine_rank,
    lora_rank,
    start_engine,
)
from adapterprobe.integrations.vllm_hooks import ASKED
from adapterprobe.models.load import load_skeleton
from adapterprobe.prompts.encoded import Encoded
from adapterprobe.readout import TokenReads

ROWS = 256
"""Requests whose states are kept together."""


@dataclass(frozen=True)
class VllmReply:
    """A reply that vLLM wrote.

    Attributes:
        text: the reply.
        tokens: by detector, in the order given: a table with a row for each token, `token` (its text), `score` (of its own state), `so_far`
            (of the reply up to it, pooled as the detector pools) and `alarm`.
        ended: whether the model ended it, and not its longest length.
    """

    text: str
    tokens: tuple[TokenTable, ...]
    ended: bool


class VllmModel:
    """A model in vLLM's engine, as detectors read it (`Detector.load(..., model)`).

    Args:
        name: hub id, folder, GGUF file, or None for the default model.
        dtype: `auto`, `bf16`, `fp16` or `fp32`.
        max_rank: largest rank of adapters that are put on; 0: none is.
        max_length: most tokens of a prompt with its reply; None: what the model takes.
        options: settings of vLLM's class `LLM`.

    Raises:
        ConfigError: vLLM is not installed, or an option that hooks cannot live with.
        ModelError: the model cannot be loaded.
    """

    has_weights = False

    def __init__(
        self,
        name: str | None = None,
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_rank: int = 0,
        max_length: int | None = None,
        **options: Any,
    ) -> None:
        check_installed("load the detector on a model of transformers")
        if (
            options.get("enforce_eager") is False
            or options.get("pipeline_parallel_size", 1) != 1
            or options.get("speculative_config")
        ):
            raise ConfigError(
                "states are read by hooks, which compiled passes leave out, which see the blocks of one process alone, and which take a token "
                "for written when it is fed: leave enforce_eager, pipeline_parallel_size and speculative_config as they are"
            )
        self.lm = load_skeleton(name, dtype, revision, trust_remote_code)
        self._ranks = engine_rank(max_rank) if max_rank else 0
        self._adapters: dict[Path, Any] = {}
        self._hooked: tuple[int, ...] = ()
        self._longest = max_length or self.lm.context_length
        self._engine: Any = self._start(self._longest, options)

    def _start(self, longest: int | None, options: dict[str, Any]) -> Any:
        # Hooks find the tokens of requests by the first runner's books.
        os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
        hooked = {"enforce_eager": True, "worker_extension_cls": "adapterprobe.integrations.vllm_hooks.StateHooks"}
        return start_engine(
            self.lm, longest, self._ranks, hooked | options, "load the detector on a model of transformers"
        )

    def passes(
        self, encoded: Encoded, needs: Sequence[Needs], also: Sequence[int] = (), also_on: Sequence[int] = ()
    ) -> Passes:
        """States for detectors (see `adapterprobe.detectors.passes.forward`).

        Raises:
            ModelError: a detector sees what vLLM does not give.
        """
        for need in needs:
            if need.token_layers or (need.probe is None and need.head is None):
                raise ModelError(
                    f"{need.record.name} sees {'every token of a prompt' if need.token_layers else 'the probabilities of answers'}, and vLLM is "
                    "read for states that are pooled; load it on a model of transformers"
                )
        passes = Passes()
        if off := off_layers(needs, also):
            passes.off = self._states(encoded, off, None)
        for adapter, on in on_layers(needs, also_on).items():
            passes.on[adapter] = self._states(encoded, on, adapter)
        return passes

    def generate(
        self,
        detectors: Sequence[Detector],
        conversations: Sequence[list[dict[str, str]]],
        max_tokens: int = 200,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> list[VllmReply]:
        """Write the next turn of every conversation, and score each token by the state that it had while it was written.

        Args:
            detectors: of replies, loaded on this model, without adapter (see `Detector.watch`).
            conversations: messages that end where the model is to write.
            max_tokens: most tokens of a reply.
            seed: of a sampled reply; the second conversation's is one more, and so on.

        Raises:
            DataError: a detector that cannot read tokens while they are written, or that is on another model; a conversation that does not
                end where the model is to write.
        """
        if not detectors or max_tokens < 1:
            raise DataError(f"expected detectors and a positive max_tokens, got {len(detectors)} and {max_tokens}")
        for detector in detectors:
            if detector.reader is not self:
                raise DataError(
                    f"{detector.record.name} is on another model; load it on this one: Detector.load(..., model)"
                )
        check_together(detectors)
        layers = sorted({watcher_of(detector).layer for detector in detectors})
        ends = end_tokens(self.lm)
        found: list[VllmReply] = []
        ids = [prompt_ids(detectors[0], talk) for talk in conversations]
        # The last token of a reply that is cut is never fed, so that one more is asked for and dropped; vLLM's own end is kept off.
        room = [
            max_tokens if self._longest is None else min(max_tokens, self._longest - len(prompt) - 1) for prompt in ids
        ]
        if room and min(room) < 1:
            raise DataError(
                f"conversation {room.index(min(room))} has {len(ids[room.index(min(room))])} tokens, and a reply has no room in {self._longest}"
            )
        for start in range(0, len(ids), ROWS):
            some = ids[start : start + ROWS]
            params = [
                {
                    "max_tokens": room[start + number] + 1,
                    "temperature": temperature,
                    "top_p": 1.0 if temperature == 0 else top_p,
                    "seed": None if temperature == 0 else seed + start + number,
                    "stop_token_ids": ends,
                    "extra_args": {ASKED: [len(prompt), -1, ""]},
                }
                for number, prompt in enumerate(some)
            ]
            for number, (prompt, output, states) in enumerate(self._asked(some, params, layers, None)):
                written, most = [int(token) for token in output.outputs[0].token_ids], room[start + number]
                if output.outputs[0].finish_reason == "stop":
                    written = written[:-1]  # the token that ends it
                ended = output.outputs[0].finish_reason == "stop" and len(written) < most
                written = written[:most]
                added, tables = AddedText(self.lm.tokenizer), []
                texts = [added.add(token) for token in written]
                for watcher in map(watcher_of, detectors):
                    kept = states.get(watcher.layer, np.empty((0, self.lm.structure.width), np.float32))[: len(written)]
                    if len(kept) != len(written):
                        raise ModelError(
                            f"vLLM gave states of {len(kept)} of {len(written)} tokens behind {len(prompt)}"
                        )
                    tables.append(watcher.table(texts, kept))
                found.append(VllmReply("".join(texts), tuple(tables), ended))
        return found

    def close(self) -> None:
        """End vLLM's processes."""
        engine, self._engine = self._engine, None
        end_engine(engine)

    def _states(self, encoded: Encoded, layers: Sequence[int], adapter: Path | None) -> MemoryStates:
        if 0 in layers:
            raise ModelError(
                "state 0 enters the first block, and vLLM is read behind blocks; load the detector on a model of transformers"
            )
        reads = encoded.reads or (TokenReads(tuple((len(ids) - 1, len(ids)) for ids in encoded.ids), "last"),)
        found = np.zeros((len(layers), len(reads) * len(encoded), self.lm.structure.width), np.float32)
        for which, read in enumerate(reads):
            for start in range(0, len(encoded), ROWS):
                rows = range(start, min(start + ROWS, len(encoded)))
                params = [
                    {
                        "max_tokens": 1,
                        "temperature": 0.0,
                        "skip_reading_prefix_cache": True,
                        "extra_args": {ASKED: [*read.spans[row], read.pool]},
                    }
                    for row in rows
                ]
                given = [list(encoded.ids[row]) for row in rows]
                asked = self._asked(given, params, layers, adapter)
                for row, (_, _, states) in zip(rows, asked, strict=True):
                    for place, layer in enumerate(layers):
                        found[place, which * len(encoded) + row] = states[layer][0]
        unknown = np.full((len(encoded), 2), np.nan, np.float32)
        return MemoryStates(dict(zip(layers, found, strict=True)), unknown, len(reads))

    def _asked(
        self,
        prompts: Sequence[Sequence[int]],
        params: Sequence[dict[str, Any]],
        layers: Sequence[int],
        adapter: Path | None,
    ) -> Iterator[tuple[Sequence[int], Any, dict[int, np.ndarray]]]:
        """For each prompt vLLM's output and its states by layer."""
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]: an extra

        self._hook(layers)
        outputs = self._engine.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts],
            [SamplingParams(**param) for param in params],
            use_tqdm=False,
            lora_request=self._request(adapter),
        )
        pools = {
            output.request_id: param["extra_args"][ASKED][2] for output, param in zip(outputs, params, strict=True)
        }
        states: dict[str, dict[int, np.ndarray]] = {}
        for request, layer, rows, data in self._collected(pools):
            states.setdefault(request, {})[layer] = np.frombuffer(data, np.float32).reshape(rows, -1)
        for prompt, output in zip(prompts, outputs, strict=True):
            yield prompt, output, states.get(output.request_id, {})

    def _collected(self, pools: dict[str, str]) -> list[tuple[str, int, int, bytes]]:
        return [
            part for worker in self._engine.collective_rpc("adapterprobe_collect", args=(pools,)) for part in worker
        ]

    def _hook(self, layers: Sequence[int]) -> None:
        if self._hooked == tuple(layers):
            return
        wrong = next(
            filter(
                None, self._engine.collective_rpc("adapterprobe_hook", args=(list(layers), self.lm.structure.n_layers))
            ),
            None,
        )
        if wrong:
            raise ModelError(f"vLLM's {self.lm.name} cannot be read: {wrong}")
        self._hooked = tuple(layers)

    def _request(self, adapter: Path | None) -> Any:
        """vLLM's request for an adapter of a detector.

        Raises:
            ModelError: it is none that vLLM puts on, or larger than the engine was started for.
        """
        if adapter is None:
            return None
        if adapter not in self._adapters:
            config = check_lora(adapter)
            rank = lora_rank(config)
            if rank > self._ranks:
                raise ModelError(
                    f"the adapter in {adapter} has rank {rank}, and this engine takes {self._ranks}: VllmModel(..., max_rank={rank})"
                )
            from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]: an extra

            number = len(self._adapters) + 1
            self._adapters[adapter] = LoRARequest(f"adapter-{number}", number, str(adapter))
        return self._adapters[adapter]
