"""Hidden states: recorded once, stored by content, read a layer at a time."""

from adapterprobe.activations.record import record
from adapterprobe.activations.store import HiddenStates
from adapterprobe.activations.store import open_states as open
from adapterprobe.activations.token_states import TokenStates, record_tokens

__all__ = ["HiddenStates", "TokenStates", "open", "record", "record_tokens"]
