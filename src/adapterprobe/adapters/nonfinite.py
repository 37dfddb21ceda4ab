"""Where a value first stopped being finite, and what usually helps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import nn

from adapterprobe.prompts.encoded import Encoded


@dataclass(frozen=True)
class NonFinite:
    """What is known of a step whose loss or gradient was not finite."""

    step: int
    what: str
    """`loss` or `gradient`."""
    prompts: list[str]
    """Ids of the prompts whose losses are not finite, or of the pass whose gradient is not."""
    dataset: str
    module: str
    """Where it began."""
    dtype: str
    remedy: str

    def to_json(self) -> dict:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"step {self.step}: the {self.what} of {len(self.prompts)} prompts is not finite (first: prompt "
            f"{self.prompts[0]} of {self.dataset}); it began at {self.module} in {self.dtype}; the adapter was left as it "
            f"was: {self.remedy}"
        )


def _tensors(value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _bad(value) -> torch.Tensor | None:
    return next((tensor for tensor in _tensors(value) if not bool(tensor.isfinite().all())), None)


def bad_weight(model: nn.Module) -> str | None:
    """The first weight that is not finite, if any (of those that are here: some may be kept elsewhere between passes)."""
    here = ((n, p) for n, p in model.named_parameters() if p.is_floating_point() and p.device.type != "meta")
    return next((n for n, p in here if not p.isfinite().all()), None)


@contextlib.contextmanager
def watched(model: nn.Module, backward: bool = False) -> Iterator[list[tuple[str, torch.dtype]]]:
    """Within, the first place where a pass stops being finite is noted: (a sentence part, its dtype).

    A module whose inputs are finite and whose output is not is that place. Where a module is handed what is not finite
    although nothing before it was, the place is in the code of the module around it (attention weights, masks).
    """
    found: list[tuple[str, torch.dtype]] = []
    names = {module: name for name, module in model.named_modules()}
    handles = []

    def entering(module, args, kwargs):
        # Only what flows through: a mask is -inf on purpose.
        tensor = None if found else _bad(args[0] if args else kwargs.get("hidden_states"))
        if tensor is not None:
            around = names[module].rpartition(".")[0] or "the model"
            found.append(
                (f"the input of {names[module]}, worked out in {around} (attention, mask or a sum)", tensor.dtype)
            )

    def leaving(module, args, output):
        tensor = None if found else _bad(output)
        if tensor is not None:
            found.append((f"the output of {names[module] or 'the model'} ({type(module).__name__})", tensor.dtype))

    def going_back(module, inputs, outputs):
        if found:
            return
        if (tensor := _bad(outputs)) is not None:
            found.append((f"the gradient that enters {names[module] or 'the model'} from above", tensor.dtype))
        elif (tensor := _bad(inputs)) is not None:
            found.append(
                (f"the gradient through {names[module] or 'the model'} ({type(module).__name__})", tensor.dtype)
            )

    try:
        for module in names:
            if backward:
                if not list(module.children()):
                    handles.append(module.register_full_backward_hook(going_back))
            else:
                handles.append(module.register_forward_pre_hook(entering, with_kwargs=True))
                handles.append(module.register_forward_hook(leaving))
        yield found
    finally:
        for handle in handles:
            handle.remove()


def explain(
    model: nn.Module, encoded: Encoded, rows: list[int], step: int, what: str, again: Callable[[], object]
) -> NonFinite:
    """Find out where it began.

    Args:
        rows: the prompts concerned.
        again: repeats the pass (with its backward pass, if `what` is the gradient).
    """
    place, dtype = "a place that a second pass did not show", next(model.parameters()).dtype
    weight = bad_weight(model)
    if weight is not None:
        place = f"the weight {weight}, which is not finite itself"
        dtype = dict(model.named_parameters())[weight].dtype
    else:
        with watched(model, backward=what == "gradient") as found:
            again()
        if found:
            place, dtype = found[0]
    if weight is not None and "lora" not in weight:
        remedy = "load the model again, its file may be damaged, or was saved in a dtype that cannot hold it"
    elif dtype == torch.float16:
        remedy = "fp16 ends at 65,504; use model.dtype=bf16 or fp32"
    else:
        remedy = "lower adapter.lr, use model.dtype=fp32, or leave out these prompts (adapter.on_nonfinite=skip)"
    prompts = [encoded.prompts[row] for row in rows]
    name = str(dtype).removeprefix("torch.")
    return NonFinite(step, what, [p.prompt_id for p in prompts], prompts[0].example.dataset, place, name, remedy)
