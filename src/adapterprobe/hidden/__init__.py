"""Hidden states: recorded once, stored by content, read a layer at a time."""

from adapterprobe.hidden.record import record
from adapterprobe.hidden.store import HiddenStates
from adapterprobe.hidden.store import open_states as open
from adapterprobe.hidden.tokens import TokenStates, record_tokens

__all__ = ["HiddenStates", "TokenStates", "open", "record", "record_tokens"]
