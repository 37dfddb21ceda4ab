"""Find a decoder's parts by structure, not by a list of model names.

The blocks are the largest list of modules that has as many entries as the configuration has layers; the
final norm is the module after them, in the same parent, that holds only vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adapterprobe.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def is_linear_map(module: nn.Module) -> bool:
    """Whether a module multiplies what it is given by a matrix and gives that alone: torch's own linear maps and those that
    quantise or replace them, GPT-2's transposed one."""
    if isinstance(module, nn.Linear):
        return True
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or isinstance(module, nn.Embedding):
        return False
    name = type(module).__name__.lower()
    return ("linear" in name or name == "conv1d") and "router" not in name


@dataclass(frozen=True, slots=True)
class Structure:
    """Where the parts of a decoder are.

    Hidden state `l` (0 .. n_layers) is the residual stream after `l` blocks: 0 is what enters the first
    block, `n_layers` what leaves the last one, before the final norm.
    """

    blocks: nn.ModuleList
    blocks_path: str
    final_norm: nn.Module | None
    final_norm_path: str | None
    head: nn.Module | None
    width: int
    vocabulary: int

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    def linear_names(self, layers: list[int] | None = None) -> dict[str, nn.Module]:
        """Full name and module of every linear map inside the blocks (of `layers`, counted 0 .. n - 1).

        Routers of experts, which hold a matrix and give choices, are none of them.
        """
        wanted = range(self.n_layers) if layers is None else layers
        return {
            f"{self.blocks_path}.{index}.{name}": module
            for index in wanted
            for name, module in self.blocks[index].named_modules()
            if is_linear_map(module)
        }

    def norm_names(self, layers: list[int]) -> dict[str, nn.Module]:
        """Full name and module of every norm inside the blocks of `layers`: modules whose own weights are vectors."""
        return {
            f"{self.blocks_path}.{index}.{name}": module
            for index in layers
            for name, module in self.blocks[index].named_modules()
            if isinstance(getattr(module, "weight", None), torch.Tensor)
            and all(p.ndim == 1 for p in module.parameters(recurse=False))
            and not list(module.children())
        }

    def biases(self) -> dict[str, nn.Parameter]:
        """Full name and parameter of every bias inside the blocks."""
        return {
            f"{self.blocks_path}.{name}": parameter
            for name, parameter in self.blocks.named_parameters()
            if name.rsplit(".", 1)[-1] == "bias"
        }


def _only_vectors(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and all(p.ndim == 1 for p in parameters)


def _holds_embedding(model: PreTrainedModel, path: str) -> bool:
    """Whether the embedding of tokens is somewhere in the module that a list of blocks stands in."""
    parent = path.rpartition(".")[0]
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    return any(module is embedding for module in (model.get_submodule(parent) if parent else model).modules())


def find_structure(model: PreTrainedModel) -> Structure:
    """Locate blocks, final norm and output head of any decoder-only transformers model.

    Raises:
        ModelError: no list of modules has the length that the configuration gives.
    """
    config: Any = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    count = getattr(config, "num_hidden_layers", None)
    candidates = [
        (sum(p.numel() for p in module.parameters()), name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not candidates:
        lists = {n: len(m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList)}
        raise ModelError(
            f"found no list of {count} decoder blocks in {type(model).__name__} (its module lists: {lists}); "
            "adapterprobe needs a decoder-only model with one list of blocks"
        )
    # A vision tower may be as deep as the text model, and larger: the text model's blocks stand beside its embedding of tokens.
    beside = [item for item in candidates if _holds_embedding(model, item[1])]
    _, path, blocks = max(beside or candidates, key=lambda item: item[0])
    parent_path, _, own = path.rpartition(".")
    parent = model.get_submodule(parent_path) if parent_path else model
    siblings = list(parent.named_children())
    after = siblings[[name for name, _ in siblings].index(own) + 1 :]
    norm = next(((name, module) for name, module in after if _only_vectors(module)), (None, None))
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return Structure(
        blocks=blocks,
        blocks_path=path,
        final_norm=norm[1],
        final_norm_path=f"{parent_path}.{norm[0]}".lstrip(".") if norm[0] else None,
        head=head,
        width=int(config.hidden_size),
        vocabulary=int(config.vocab_size),
    )
