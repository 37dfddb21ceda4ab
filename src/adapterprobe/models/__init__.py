"""Language models: found, loaded, and their parts located by structure."""

from adapterprobe.models.blocks import Structure, find_structure
from adapterprobe.models.load import LanguageModel, load_model
from adapterprobe.models.transformers_model import wrap_model

__all__ = ["LanguageModel", "Structure", "find_structure", "load_model", "wrap_model"]
