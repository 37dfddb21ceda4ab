"""Adapters that PEFT does not have: a small module on the residual stream after chosen blocks, h + f(h), with f nought at the
start. The kind `linear` is one; `register_adapter` makes others. Speaks as much of PEFT's language as the rest of `adapters`
needs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn

from adapterprobe.adapters.kinds import AdapterSpec, kind_of
from adapterprobe.adapters.untrusted import CONFIG, WEIGHTS
from adapterprobe.config import AdapterConfig
from adapterprobe.errors import ConfigError
from adapterprobe.models.placement import execution_device

LINEAR = "ADAPTERPROBE_LINEAR"
RESIDUAL = "ADAPTERPROBE_RESIDUAL"
SETTINGS = ("rank", "alpha", "dropout")
"""Settings that a module is made by, kept beside its weights."""


class ResidualBlock(nn.Module, BaseTunerLayer):
    """A decoder block with an update of its output behind it; everything else of the block shows through."""

    adapter_layer_names = ("residual_update",)

    def __init__(self, base_layer: nn.Module, update: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.residual_update = nn.ModuleDict({"default": update})
        self._active_adapter = "default"
        self.merged_adapters = []

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)

    def forward(self, *args, **kwargs):
        output = self.base_layer(*args, **kwargs)
        if self.disable_adapters:
            return output
        states = output[0] if isinstance(output, tuple) else output
        states = states + self.residual_update["default"](states)
        return (states, *output[1:]) if isinstance(output, tuple) else states


def make_update(kind: AdapterSpec, width: int, config: AdapterConfig, dtype: torch.dtype) -> nn.Module:
    """One block's update, on the CPU.

    Raises:
        ConfigError: what the kind makes is no module, has nothing to train, changes the shape, or is not nought at the start.
    """
    assert kind.module is not None
    update = kind.module(width, config)
    if not isinstance(update, nn.Module) or not any(p.requires_grad for p in update.parameters()):
        raise ConfigError(
            f"adapter.kind={kind.name} makes {type(update).__name__}; expected a torch module with parameters to train"
        )
    update.eval()
    with torch.no_grad():
        states = torch.randn(1, 3, width, generator=torch.Generator().manual_seed(0))
        got = update(states)
    if not isinstance(got, torch.Tensor) or got.shape != states.shape:
        shape = tuple(got.shape) if isinstance(got, torch.Tensor) else type(got).__name__
        raise ConfigError(
            f"adapter.kind={kind.name} gives {shape} for states of {tuple(states.shape)}; expected the same shape"
        )
    if got.abs().max() > 0:
        raise ConfigError(
            f"adapter.kind={kind.name} changes the states before it is trained; its update must be nought at the start"
        )
    return update.to(dtype)


class ResidualAdapter(nn.Module):
    """The updates of one model, put in place when made."""

    def __init__(
        self,
        model: nn.Module,
        blocks: nn.ModuleList,
        layers: list[int],
        width: int,
        kind: AdapterSpec,
        config: AdapterConfig,
        model_name: str = "",
    ) -> None:
        super().__init__()
        self.layers, self.width, self.kind, self.config, self.model_name = layers, width, kind, config, model_name
        dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        updates = [make_update(kind, width, config, dtype).to(execution_device(blocks[layer])) for layer in layers]
        for layer, update in zip(layers, updates, strict=True):
            blocks[layer] = ResidualBlock(blocks[layer], update)
        # Known to this module as a whole model, so that train(), eval() and parameters reach all of it.
        self.model, self._blocks = model, [blocks]

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    def unload(self) -> None:
        (blocks,) = self._blocks
        for layer in self.layers:
            block = blocks[layer]
            if isinstance(block, ResidualBlock):
                blocks[layer] = block.base_layer

    def updates(self) -> dict[str, nn.Module]:
        """By block."""
        (blocks,) = self._blocks
        return {str(layer): blocks[layer].get_submodule("residual_update.default") for layer in self.layers}

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{n}.{key}": t.contiguous() for n, m in self.updates().items() for key, t in m.state_dict().items()}
        save_file(tensors, folder / WEIGHTS[0])
        content: dict[str, Any] = {
            "peft_type": LINEAR if self.kind.name == "linear" else RESIDUAL,
            "base_model_name_or_path": self.model_name,
            "layers": self.layers,
            "width": self.width,
        }
        if self.kind.name != "linear":
            content |= {"kind": self.kind.name} | {name: getattr(self.config, name) for name in SETTINGS}
        (folder / CONFIG).write_text(json.dumps(content, indent=1))


def is_residual(config: Mapping[str, object]) -> bool:
    """Whether an adapter's settings are of one of these kinds."""
    return config.get("peft_type") in (LINEAR, RESIDUAL)


def load_residual(model: nn.Module, blocks: nn.ModuleList, width: int, folder: Path) -> ResidualAdapter:
    """Put a saved adapter in place.

    Raises:
        ValueError: made for a model of another shape, of a kind that is not registered here, or with other tensors.
    """
    content = json.loads((folder / CONFIG).read_text("utf-8"))
    if content["width"] != width or max(content["layers"]) >= len(blocks):
        raise ValueError(
            f"it was made for width {content['width']} and at least {max(content['layers']) + 1} blocks, the model has width "
            f"{width} and {len(blocks)} blocks"
        )
    settings = {name: content[name] for name in SETTINGS if name in content}
    config = AdapterConfig(kind=str(content.get("kind", "linear")), **settings)
    try:
        kind = kind_of(config.kind)
    except ConfigError as error:
        raise ValueError(
            f"nothing here registers its kind '{config.kind}'; import what does first (--import FILE.py)"
        ) from error
    if kind.module is None:
        raise ValueError(f"its kind '{kind.name}' is PEFT's here")
    adapter = ResidualAdapter(model, blocks, content["layers"], width, kind, config, content["base_model_name_or_path"])
    try:
        tensors = load_file(folder / WEIGHTS[0])
        for name, module in adapter.updates().items():
            module.load_state_dict({key: tensors.pop(f"{name}.{key}") for key in module.state_dict()})
        if tensors:
            raise ValueError(f"{len(tensors)} of its tensors have no place in it, the first is {min(tensors)}")
    except BaseException:
        adapter.unload()
        raise
    return adapter.eval()
