"""The former name of `adapterprobe.activations`, which goes on working."""

from adapterprobe.activations import HiddenStates, TokenStates, open, record, record_tokens

__all__ = ["HiddenStates", "TokenStates", "open", "record", "record_tokens"]
