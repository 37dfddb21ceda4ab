"""Hidden states at the answer position: recorded once, stored by content, read a layer at a time."""

from adapterprobe.hidden.record import record
from adapterprobe.hidden.store import HiddenStates
from adapterprobe.hidden.store import open_states as open

__all__ = ["HiddenStates", "open", "record"]
