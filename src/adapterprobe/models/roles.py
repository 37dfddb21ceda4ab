"""What the linear maps of a block are for, found by where their outputs go, not by their names.

A few tokens are run through the model. A map is in the role `q`, `k` or `v` where what it puts out reaches the query, key or
value of its block's attention (by the gradient: one fused map has all three, and so has what lies below it inside the block's
attention); `o` comes after attention in the same module. Of the others, the last one that gives the block's width is
`mlp_out`, the rest are `mlp_in`.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import nn

from adapterprobe.errors import ModelError
from adapterprobe.models.attention import attention_configs, attention_replaced, register_attention
from adapterprobe.models.blocks import Structure
from adapterprobe.models.placement import input_device

ROLES = ("q", "k", "v", "o", "attention", "mlp_in", "mlp_out", "mlp")
"""`attention` is q, k, v and o; `mlp` is both of its sides."""
NAME = "adapterprobe_roles"


_found: WeakKeyDictionary[nn.Module, dict[str, frozenset[str]]] = WeakKeyDictionary()


def find_roles(model: nn.Module, structure: Structure) -> dict[str, frozenset[str]]:
    """Roles of every linear map inside the blocks, by its full name; found once for a model, while its weights are whole.

    Raises:
        ModelError: attention cannot be reached in this architecture.
    """
    if model not in _found:
        _found[model] = _by_gradients(model, structure)
    return _found[model]


def _by_gradients(model: nn.Module, structure: Structure) -> dict[str, frozenset[str]]:

    names = {module: name for name, module in structure.linear_names().items()}
    paths = {module: name for name, module in model.named_modules()}
    outputs: dict[str, torch.Tensor] = {}
    order: list[str] = []
    """Linear maps and attentions, as they are called."""
    seen: dict[str, tuple[torch.Tensor, ...]] = {}

    def attend(module, query, key, value, attention_mask, **kwargs):
        seen[paths[module]] = (query, key, value)
        order.append(paths[module])
        share = query.shape[1] // value.shape[1]
        # Any mixture will do: all that counts is what depends on what.
        return value.repeat_interleave(share, 1).transpose(1, 2).contiguous(), None

    def leave(module, args, output):
        if not isinstance(output, torch.Tensor):
            return None
        name = names[module]
        order.append(name)
        outputs[name] = torch.zeros_like(output, requires_grad=True)
        return output + outputs[name]

    register_attention(NAME, attend, lambda *args, **kwargs: None)
    handles = [module.register_forward_hook(leave) for module in names]
    try:
        with attention_replaced(attention_configs(model), NAME), torch.enable_grad():
            device = input_device(model)
            model(input_ids=torch.tensor([[1, 2, 3]], device=device), use_cache=False)
            found = _roles(structure, order, seen, outputs)
    finally:
        for handle in handles:
            handle.remove()
    if not seen:
        raise ModelError(
            f"the roles of {type(model).__name__}'s modules cannot be found, because its attention is not transformers' own; "
            "name the modules in adapter.modules"
        )
    return found


def _roles(structure: Structure, order, seen, outputs) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for index in range(structure.n_layers):
        block = f"{structure.blocks_path}.{index}."
        mine = [name for name in order if name.startswith(block) and name in outputs]
        attentions = [name for name in order if name.startswith(block) and name in seen]
        roles: dict[str, set[str]] = {name: set() for name in mine}
        for attention in attentions:
            inside = [name for name in mine if name.startswith(f"{attention}.")]
            early = [name for name in inside if order.index(name) < order.index(attention)]
            for role, tensor in zip("qkv", seen[attention], strict=True):
                if early:
                    leaves = [outputs[name] for name in early]
                    grads = torch.autograd.grad(tensor.float().sum(), leaves, retain_graph=True, allow_unused=True)
                    for name, grad in zip(early, grads, strict=True):
                        if grad is not None:
                            roles[name] |= {role, "attention"}
            for name in inside:
                if name not in early:
                    roles[name] |= {"o", "attention"}
        rest = [name for name in mine if not roles[name]]
        last = max((n for n in rest if outputs[n].shape[-1] == structure.width), key=order.index, default=None)
        for name in rest:
            roles[name] |= {"mlp", "mlp_out" if name == last else "mlp_in"}
        found |= {name: frozenset(kinds) for name, kinds in roles.items()}
    return found
