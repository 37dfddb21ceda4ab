"""Forward passes without waste: rows packed end to end, shared prefixes once, logits of answer positions only."""

from adapterprobe.engine.batches import Batch, Group, plan_batches, useful_tokens
from adapterprobe.engine.forward import Engine
from adapterprobe.engine.trunk import LowerBlockCache

__all__ = ["Batch", "Engine", "Group", "LowerBlockCache", "plan_batches", "useful_tokens"]
