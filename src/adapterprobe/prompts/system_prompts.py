"""System prompts that push to lie or to tell the truth: ours, or a user's own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.safe_yaml import YamlError, parse_yaml
from adapterprobe.small_files import read_text
from adapterprobe.terminal import shortened


@dataclass(frozen=True, slots=True)
class SystemPrompt:
    """One system prompt."""

    name: str
    pushes: str
    """`truth` or `lie`: the condition that it conveys."""
    kind: str
    text: str
    held_out: bool = False
    """Only in judged splits (where there are others for the training splits)."""


@cache
def catalogue() -> dict[str, SystemPrompt]:
    """The system prompts that come with the package, by name."""
    text = (resources.files("adapterprobe.prompts") / "system_prompts.yaml").read_text("utf-8")
    return _parse(text, "the catalogue")


def _parse(text: str, source: str) -> dict[str, SystemPrompt]:
    try:
        content = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            f"{source}: expected names with pushes and text, like 'polite_liar: {{pushes: lie, text: ...}}'"
        )
    found = {}
    for name, entry in content.items():
        entry = entry if isinstance(entry, dict) else {}
        unknown = set(entry) - {"pushes", "kind", "text", "held_out"}
        if entry.get("pushes") not in ("truth", "lie") or not str(entry.get("text") or "").strip() or unknown:
            raise ConfigError(
                f"{source}: '{name}' needs pushes (truth or lie) and text, and may have kind and held_out; got {shortened(entry)}"
            )
        found[str(name)] = SystemPrompt(
            str(name),
            entry["pushes"],
            str(entry.get("kind", "own")),
            str(entry["text"]).strip(),
            bool(entry.get("held_out")),
        )
    return found


def system_prompts(chosen: Sequence[str] | str | None) -> list[SystemPrompt]:
    """System prompts: none, or by `all`, by a YAML file of one's own, or by names out of the catalogue.

    Raises:
        ConfigError: unknown name, or a file that is not as it should be.
    """
    if not chosen:
        return []
    known = catalogue()
    if isinstance(chosen, str):
        if chosen == "all":
            return list(known.values())
        if not chosen.endswith((".yaml", ".yml")):
            raise ConfigError(f"system prompts: expected all, a list of names, or a .yaml file, got '{chosen}'")
        return list(_parse(read_text(chosen, "the system prompts"), chosen).values())
    for name in chosen:
        if name not in known:
            raise ConfigError(f"no system prompt '{name}'{nearest(name, known)}; there are {', '.join(known)}")
    return [known[name] for name in chosen]


def one_or_several(given: Sequence[str] | None) -> tuple[str, ...] | str | None:
    """What people list, as `system_prompts` takes it: `all` or a file alone, or names."""
    if not given or (len(given) == 1 and (given[0] == "all" or given[0].endswith((".yaml", ".yml")))):
        return given[0] if given else None
    return tuple(given)


def systems_for(prompts: Sequence[SystemPrompt], condition: str, judged: bool) -> list[SystemPrompt]:
    """Those of a condition that a split may use: held-out ones for judged splits, the others for training. Where
    only one sort is there, every split uses it.

    Raises:
        ConfigError: none of them conveys the condition.
    """
    mine = [prompt for prompt in prompts if prompt.pushes == condition]
    if not mine:
        raise ConfigError(f"no system prompt pushes to '{condition}'; add one, or leave the condition out")
    return [prompt for prompt in mine if prompt.held_out == judged] or mine
