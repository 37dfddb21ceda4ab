"""YAML from anywhere, bounded: no tags that make objects, no aliases that grow, no key twice, numbers as people write them."""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from adapterprobe.terminal import shortened

MOST_NODES = 50_000
"""Values that a document may hold, aliases written out."""
DEEPEST = 100


class YamlError(ValueError):
    """Why a text is not the YAML that we read."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, where `1e-3` is a number (as in YAML 1.2) and a key that stands twice is refused."""

    def construct_mapping(self, node: Node, deep: bool = False) -> dict:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value if isinstance(node, MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge" or not isinstance(key_node, ScalarNode):
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if key in seen:
                raise YamlError(f"line {line}: the key {shortened(key)} stands there twice (first in line {seen[key]})")
            seen[key] = line
        return super().construct_mapping(node, deep)  # pyright: ignore[reportArgumentType]: PyYAML refuses other nodes itself


_Loader.yaml_implicit_resolvers = {sign: list(known) for sign, known in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


def _size(node: Node, sizes: dict[int, int], open_nodes: set[int], depth: int) -> int:
    """Values that a node stands for, aliases written out."""
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in open_nodes:
        raise YamlError(f"line {node.start_mark.line + 1}: an alias that holds itself")
    if depth > DEEPEST:
        raise YamlError(f"line {node.start_mark.line + 1}: it nests more than {DEEPEST} deep")
    open_nodes.add(id(node))
    total = 1
    if isinstance(node, MappingNode):
        total += sum(_size(part, sizes, open_nodes, depth + 1) for pair in node.value for part in pair)
    elif isinstance(node, SequenceNode):
        total += sum(_size(part, sizes, open_nodes, depth + 1) for part in node.value)
    open_nodes.remove(id(node))
    if total > MOST_NODES:
        raise YamlError(f"it holds more than {MOST_NODES} values once its aliases are written out")
    sizes[id(node)] = total
    return total


def parse_yaml(text: str) -> Any:
    """The value of one YAML document; None for an empty one.

    Raises:
        YamlError: it is none, or more than a configuration can be; with the line where there is one.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {}, set(), 0)
        return loader.construct_document(node)
    except YamlError:
        raise
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())[:300]) from None
    except RecursionError:
        raise YamlError("it nests too deeply") from None
    except (ValueError, OverflowError, TypeError) as error:
        # A number too long to be one, a date that does not exist, a key that cannot be one.
        raise YamlError(f"it holds a value that cannot be read ({' '.join(str(error).split())[:120]})") from None
    finally:
        if loader is not None:
            loader.dispose()
