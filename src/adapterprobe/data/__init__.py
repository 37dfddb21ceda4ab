"""Where examples come from: built-in relations, data sets of the hub, your files; splits by group."""

from adapterprobe.data.examples import ExampleSource
from adapterprobe.data.hub import hub_table
from adapterprobe.data.in_memory import Dataset
from adapterprobe.data.registered import register_dataset
from adapterprobe.data.relations import Fact, Relation, load_relation, relation_names
from adapterprobe.data.source import load_data
from adapterprobe.data.splits import split_groups

__all__ = [
    "Dataset",
    "ExampleSource",
    "Fact",
    "Relation",
    "hub_table",
    "load_data",
    "load_relation",
    "register_dataset",
    "relation_names",
    "split_groups",
]
