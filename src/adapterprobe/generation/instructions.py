"""What a model is told beside the question: system prompts, and what the user says around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Formatter

from adapterprobe.errors import ConfigError
from adapterprobe.generation.scenarios import Scenario
from adapterprobe.hints import nearest
from adapterprobe.prompts.system_prompts import catalogue
from adapterprobe.safe_yaml import YamlError, parse_yaml
from adapterprobe.small_files import read_text
from adapterprobe.terminal import shortened

PLACES = ("question", "claim", "wrong")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One way to instruct: a system prompt, a pattern around the question, or both."""

    name: str
    pushes: str
    """`truth`, `lie` or `neutral`."""
    kind: str
    system: str | None = None
    turn: str = "{question}"

    @property
    def places(self) -> set[str]:
        """What the turn places (see `PLACES`)."""
        return {name for _, name, _, _ in Formatter().parse(self.turn) if name}

    @property
    def names_lie(self) -> bool:
        """Whether the user puts a wrong answer forward."""
        return bool(self.places & {"claim", "wrong"})

    def fits(self, scenario: Scenario) -> bool:
        """Whether the scenario has what the pattern places, and no instructions of its own."""
        return scenario.system is None and all(getattr(scenario, name) for name in self.places)

    def question(self, scenario: Scenario) -> str:
        """The user's turn."""
        return self.turn.format(**{name: getattr(scenario, name) for name in PLACES})


NEUTRAL = Instruction("none", "neutral", "nothing is said")
OWN = "own"
"""What a scenario's own instructions are called."""


@cache
def instructions() -> dict[str, Instruction]:
    """All of ours by name: nothing, the catalogue of system prompts, and ways for the user to put it."""
    text = (resources.files("adapterprobe.generation") / "instructions.yaml").read_text("utf-8")
    systems = {name: Instruction(name, p.pushes, p.kind, p.text) for name, p in catalogue().items()}
    return {NEUTRAL.name: NEUTRAL, **systems, **_parse(text, "the catalogue")}


def _parse(text: str, source: str) -> dict[str, Instruction]:
    try:
        content = parse_yaml(text)
    except YamlError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{source}: expected names, like 'polite_liar: {{pushes: lie, text: ...}}'")
    found = {}
    for name, entry in content.items():
        entry = entry if isinstance(entry, dict) else {}
        unknown = set(entry) - {"pushes", "kind", "text", "turn", "held_out"}
        system, turn = entry.get("text"), str(entry.get("turn") or "{question}")
        if entry.get("pushes") not in ("truth", "lie", "neutral") or unknown or not (system or "turn" in entry):
            raise ConfigError(
                f"{source}: '{name}' needs pushes (truth, lie or neutral) and text or turn, and may have kind; got {shortened(entry)}"
            )
        _check_turn(source, str(name), turn)
        found[str(name)] = Instruction(
            str(name), entry["pushes"], str(entry.get("kind", "own")), str(system).strip() if system else None, turn
        )
    return found


def _check_turn(source: str, name: str, turn: str) -> None:
    try:
        placed = [field for _, field, _, _ in Formatter().parse(turn) if field is not None]
    except ValueError as error:
        raise ConfigError(f"{source}: the turn of '{name}' cannot be read ({error})") from error
    if "question" not in placed or set(placed) - set(PLACES):
        raise ConfigError(
            f"{source}: the turn of '{name}' must place {{question}}, and may place {{claim}} and {{wrong}}; got {turn!r}"
        )


def chosen_instructions(names: Sequence[str]) -> list[Instruction]:
    """By name, by kind of push (`lie`, `truth`, `neutral`), `all`, or a YAML file of one's own.

    Raises:
        ConfigError: an unknown name, or a file that is not as it should be.
    """
    known = instructions()
    found: dict[str, Instruction] = {}
    for name in names:
        if name.endswith((".yaml", ".yml")):
            found |= _parse(read_text(name, "the instructions"), name)
        elif name in ("all", "lie", "truth", "neutral"):
            found |= {i.name: i for i in known.values() if name in ("all", i.pushes)}
        elif name in known:
            found[name] = known[name]
        else:
            raise ConfigError(
                f"no instruction '{name}'{nearest(name, known)}; there are all, lie, truth, {', '.join(known)}"
            )
    return list(found.values())
