"""Follow-up turns: how a model is asked about a reply, or a statement, that stands before the question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest

POSITIVE = {"reply": "deceptive", "statement": "true"}
"""What label 1 is."""


@dataclass(frozen=True, slots=True)
class FollowUp:
    """One wording, of one role (see `Template`)."""

    name: str
    ask: str
    role: str
    yes: bool
    """Whether Yes means label 1."""

    @property
    def choices(self) -> tuple[str, str]:
        """The answers that mean label 1 and label 0."""
        return ("Yes", "No") if self.yes else ("No", "Yes")


@cache
def _catalogue() -> dict[str, tuple[FollowUp, ...]]:
    content = yaml.safe_load((resources.files("adapterprobe.prompts") / "followups.yaml").read_text("utf-8"))
    return {
        what: tuple(
            FollowUp(name, wording["ask"], role, wording["means"] == POSITIVE[what])
            for role, wordings in roles.items()
            for name, wording in wordings.items()
        )
        for what, roles in content.items()
    }


def follow_ups(what: str, names: Sequence[str] | None = None, role: str | None = None) -> list[FollowUp]:
    """Follow-ups about a `reply` or a `statement`.

    Args:
        names: only these.
        role: those of one role; where the names leave none of it, all that they name.

    Raises:
        ConfigError: no such name.
    """
    known = {follow_up.name: follow_up for follow_up in _catalogue()[what]}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"no follow-up '{name}'{nearest(name, known)}; there are {', '.join(known)}")
    chosen = [known[name] for name in names] if names else list(known.values())
    return [follow_up for follow_up in chosen if role in (None, follow_up.role)] or chosen
