"""Forward passes that compute a shared prefix once, keep the answer position only, and never pad on the left."""

from adapterprobe.engine.batches import Batch, plan_batches, useful_tokens
from adapterprobe.engine.forward import Engine
from adapterprobe.engine.trunk import Trunk

__all__ = ["Batch", "Engine", "Trunk", "plan_batches", "useful_tokens"]
