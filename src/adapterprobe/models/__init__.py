"""Language models: found, loaded, and their parts located by structure."""

from adapterprobe.models.blocks import Structure, find_structure
from adapterprobe.models.choices import ChoiceTokens, choice_tokens
from adapterprobe.models.load import LanguageModel, load_model

__all__ = ["ChoiceTokens", "LanguageModel", "Structure", "choice_tokens", "find_structure", "load_model"]
