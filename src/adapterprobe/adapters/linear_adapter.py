"""The kind `linear`: a learned linear map on the residual stream after chosen blocks, h + A h + b with A and b nought at
the start. PEFT has no such kind; this speaks as much of PEFT's language as the rest of `adapters` needs."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import nn

PEFT_TYPE = "ADAPTERPROBE_LINEAR"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class ResidualMap(nn.Module, BaseTunerLayer):
    """A decoder block with the map behind it; everything else of the block shows through."""

    adapter_layer_names = ("residual_map",)

    def __init__(self, base_layer: nn.Module, width: int, like: torch.Tensor) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.residual_map = nn.ModuleDict({"default": nn.Linear(width, width, device=like.device, dtype=like.dtype)})
        for parameter in self.residual_map.parameters():
            nn.init.zeros_(parameter)
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
        states = states + self.residual_map["default"](states)
        return (states, *output[1:]) if isinstance(output, tuple) else states


class LinearAdapter(nn.Module):
    """The maps of one model, put in place when made."""

    def __init__(
        self, model: nn.Module, blocks: nn.ModuleList, layers: list[int], width: int, model_name: str = ""
    ) -> None:
        super().__init__()
        self.layers, self.width, self.model_name = layers, width, model_name
        like = next(model.parameters())
        for layer in layers:
            blocks[layer] = ResidualMap(blocks[layer], width, like)
        # Known to this module as a whole model, so that train(), eval() and parameters reach all of it.
        self.model, self._blocks = model, [blocks]

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    def unload(self) -> None:
        (blocks,) = self._blocks
        for layer in self.layers:
            if isinstance(blocks[layer], ResidualMap):
                blocks[layer] = blocks[layer].base_layer

    def _maps(self) -> dict[str, nn.Linear]:
        (blocks,) = self._blocks
        return {str(layer): blocks[layer].residual_map["default"] for layer in self.layers}

    def save_pretrained(self, folder: str | Path, **kwargs) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{n}.{key}": t.contiguous() for n, m in self._maps().items() for key, t in m.state_dict().items()}
        save_file(tensors, folder / WEIGHTS)
        content = {
            "peft_type": PEFT_TYPE,
            "base_model_name_or_path": self.model_name,
            "layers": self.layers,
            "width": self.width,
        }
        (folder / CONFIG).write_text(json.dumps(content, indent=1))


def is_linear(folder: Path) -> bool:
    """Whether a folder holds an adapter of this kind."""
    return json.loads((folder / CONFIG).read_text("utf-8")).get("peft_type") == PEFT_TYPE


def load_linear(model: nn.Module, blocks: nn.ModuleList, width: int, folder: Path) -> LinearAdapter:
    """Put a saved adapter in place.

    Raises:
        ValueError: made for a model of another shape.
    """
    content = json.loads((folder / CONFIG).read_text("utf-8"))
    if content["width"] != width or max(content["layers"]) >= len(blocks):
        raise ValueError(
            f"it was made for width {content['width']} and at least {max(content['layers']) + 1} blocks, the model has width "
            f"{width} and {len(blocks)} blocks"
        )
    adapter = LinearAdapter(model, blocks, content["layers"], width, content["base_model_name_or_path"])
    tensors = load_file(folder / WEIGHTS)
    for name, module in adapter._maps().items():
        module.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")})
    return adapter.eval()
