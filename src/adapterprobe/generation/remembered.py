"""What a judge answered, kept beside the replies: a generation that goes on, or is made again, asks nothing twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adapterprobe.cache import digest, write_atomic
from adapterprobe.generation.judging import LETTERS, TOGETHER, Judge
from adapterprobe.generation.rows import whole_lines


def judged_path(out: Path) -> Path:
    """Where a judge's answers to the replies of `out` are kept."""
    return out.with_name(f"{out.stem}.judged.jsonl")


@dataclass
class RememberedJudge:
    """A judge whose answers are written down as they come: at most the few in hand are lost when it is stopped.

    Args:
        path: JSON lines, each the digest of who was asked what, and the letter (null: something else was answered).
    """

    judge: Judge
    path: Path
    _known: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        # What was cut off by a kill is asked again.
        lines = whole_lines(self.path)
        write_atomic(self.path, "".join(f"{line}\n" for line in lines))
        for line in lines:
            try:
                entry = json.loads(line)
                key, letter = entry["key"], entry["letter"]
            except (ValueError, KeyError, TypeError):
                continue
            if letter is None or letter in LETTERS:
                self._known[str(key)] = letter

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def key(self) -> str:
        return self.judge.key

    def letters(self, texts: Sequence[str]) -> list[str | None]:
        """See `Judge`."""
        keys = [digest(self.judge.key, text) for text in texts]
        missing = list({key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}.items())
        for start in range(0, len(missing), TOGETHER):
            some = missing[start : start + TOGETHER]
            found = self.judge.letters([text for _, text in some])
            with self.path.open("a", encoding="utf-8") as file:
                for (key, _), letter in zip(some, found, strict=True):
                    self._known[key] = letter
                    file.write(json.dumps({"key": key, "letter": letter}) + "\n")
        return [self._known[key] for key in keys]
