"""Within vLLM's workers: hooks that keep the residual stream of the tokens that requests ask for (`worker_extension_cls`).

vLLM's own `extract_hidden_states` hands states over through a connector that copies on a CUDA stream; hooks serve CPUs and GPUs alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from adapterprobe.engine.pooling import pooled

ASKED = "adapterprobe"
"""What of a request's `extra_args` is for us: from which token, to which (exclusive; -1: as many as there will be), and how they are
pooled ("" keeps each)."""


class StateHooks:
    """Methods that every worker gains. Only one needs to keep states: the residual stream is whole on each of them."""

    model_runner: Any
    rank: int
    _adapterprobe_states: dict[str, dict[int, list[tuple[int, torch.Tensor]]]]

    def adapterprobe_hook(self, layers: list[int], blocks: int) -> str:
        """Hook the blocks whose outputs are states `layers`; takes the place of earlier hooks. Gives what is wrong, or nothing."""
        for handle in getattr(self, "_adapterprobe_handles", ()):
            handle.remove()
        self._adapterprobe_handles, self._adapterprobe_states = [], {}
        if self.rank != 0:
            return ""
        runner = self.model_runner
        if missing := [n for n in ("input_batch", "query_start_loc", "requests") if not hasattr(runner, n)]:
            return f"its model runner ({type(runner).__module__}) has no {', '.join(missing)}; set VLLM_USE_V2_MODEL_RUNNER=0"
        found = [m for m in runner.get_model().modules() if isinstance(m, torch.nn.ModuleList) and len(m) == blocks]
        if not found:
            return f"no list of {blocks} blocks in {type(runner.get_model()).__name__}"
        for layer in layers:
            self._adapterprobe_handles.append(found[0][layer - 1].register_forward_hook(self._adapterprobe_keep(layer)))
        return ""

    def _adapterprobe_keep(self, layer: int):
        def keep(_module: Any, _inputs: Any, output: Any) -> None:
            runner = self.model_runner
            batch = runner.input_batch
            starts = runner.query_start_loc.np
            for number, name in enumerate(batch.req_ids):
                request = runner.requests.get(name)
                if request is None or request.sampling_params is None:
                    continue
                asked = (request.sampling_params.extra_args or {}).get(ASKED)
                if asked is None:
                    continue
                start, stop, _ = asked
                begin, end = int(starts[number]), int(starts[number + 1])
                first = int(batch.num_computed_tokens_cpu[number])
                low, high = max(first, start), first + end - begin
                high = high if stop < 0 else min(high, stop)
                if low < high:
                    rows = slice(begin + low - first, begin + high - first)
                    states = self._adapterprobe_states.setdefault(name, {}).setdefault(layer, [])
                    states.append((low, residual(output, rows)))

        return keep

    def adapterprobe_collect(self, pools: dict[str, str]) -> list[tuple[str, int, int, bytes]]:
        """What was kept, and forgets it: (request, layer, rows, bytes of rows x width in fp32).

        Args:
            pools: by request as its output names it, how tokens are pooled ("" keeps each).
        """
        found = []
        for name, layers in self._adapterprobe_states.items():
            # vLLM makes names unique by an ending of its own.
            request = name if name in pools else name.rpartition("-")[0]
            if request not in pools:
                continue
            for layer, parts in layers.items():
                # What was computed twice (a request that had to make room) stands there twice.
                tokens = {low + i: state for low, states in parts for i, state in enumerate(states)}
                if max(tokens) - min(tokens) >= len(tokens):
                    raise RuntimeError(
                        f"request {request} has states of {len(tokens)} tokens between {min(tokens)} and {max(tokens)}"
                    )
                kept = torch.stack([tokens[at] for at in sorted(tokens)])
                if pools[request]:
                    kept = pooled(kept, pools[request])[None]
                found.append((request, layer, len(kept), np.ascontiguousarray(kept.numpy()).tobytes()))
        self._adapterprobe_states = {}
        return found


def residual(output: Any, rows: slice) -> torch.Tensor:
    """The residual stream behind a block, fp32: vLLM's blocks give (what is to be added, residual), or the stream itself."""
    if not isinstance(output, tuple):
        return output[rows].detach().float().cpu()
    added, before = output[0], output[1] if len(output) > 1 else None
    if before is None:
        return added[rows].detach().float().cpu()
    # Added in the model's own number format, as its next norm does.
    return (added[rows] + before[rows]).detach().float().cpu()
