"""Where examples come from: built-in relations, pairing of right and wrong objects, splits by group."""

from adapterprobe.data.relations import Fact, Relation, load_relation, relation_names
from adapterprobe.data.splits import split_groups

__all__ = ["Fact", "Relation", "load_relation", "relation_names", "split_groups"]
