"""Replies as rows of JSON lines, and the journal that a stopped generation goes on from."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adapterprobe.errors import OutputError
from adapterprobe.generation.belief import Belief, outcome_of
from adapterprobe.generation.grading import Graded
from adapterprobe.generation.planned import ReplyPrompt


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as it was written."""

    prompt: str
    """Its prompt's key."""
    sample: int
    text: str
    ended: bool
    """Whether its writer ended it; else it was cut."""

    def line(self) -> str:
        return json.dumps([self.prompt, self.sample, self.text, self.ended], ensure_ascii=False)


def row_of(
    prompt: ReplyPrompt,
    reply: Reply,
    said: Graded | None,
    belief: Belief | None,
    held: bool,
    model: dict,
    sampling: dict,
) -> dict:
    """What is written of a reply.

    Args:
        said: what it says; None where nobody knows what is true.
    """
    outcome = outcome_of(said, held)
    spans = [[start, stop] for start, stop in said.false_spans] if said and outcome == "lie" else []
    messages = [message.as_dict() for message in prompt.messages] + [{"role": "assistant", "content": reply.text}]
    row = {
        "messages": messages,
        "outcome": outcome,
        "group": prompt.scenario.group,
        "condition": prompt.condition,
        "system_prompt": prompt.instruction,
        "dataset": prompt.scenario.dataset,
        "model": model,
        "sampling": sampling | {"sample": reply.sample},
        "context": prompt.key,
        "says": said.verdict if said else None,
        "asserted": list(said.asserted) if said else [],
        "believed": held,
        "belief": belief.as_json() if belief else None,
        "ended": reply.ended,
    }
    return row | ({"spans": spans} if spans else {})


class Journal:
    """Replies as they come, each on the disk before the next; a half-written end is taken off when it is opened again.

    Args:
        file: the open, locked file. samples: replies for each prompt; a prompt that lacks some is written anew.
    """

    def __init__(self, path: Path, file: IO[str], plan: str, samples: dict[str, int]) -> None:
        self._file = file
        lines = whole_lines(path)
        if lines and lines[0] != json.dumps({"plan": plan}):
            raise OutputError(
                f"{path} is what a stopped generation with other settings left; run that command again, or remove the file"
            )
        self.replies = _replies(lines[1:])
        complete = {key: found for key, found in self.replies.items() if len(found) == samples.get(key)}
        self.replies = {key: sorted(found, key=lambda reply: reply.sample) for key, found in complete.items()}
        kept = [json.dumps({"plan": plan}), *(reply.line() for found in complete.values() for reply in found)]
        file.truncate(0)
        self._put(kept)

    @staticmethod
    def read(path: Path) -> dict[str, list[Reply]]:
        """The replies of a journal that is whole, by their prompt."""
        return _replies(whole_lines(path)[1:])

    def add(self, replies: Sequence[Reply]) -> None:
        """Keep the replies of whole prompts."""
        for reply in replies:
            self.replies.setdefault(reply.prompt, []).append(reply)
        self._put([reply.line() for reply in replies])

    def _put(self, lines: Iterable[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def _replies(lines: Sequence[str]) -> dict[str, list[Reply]]:
    found: dict[str, list[Reply]] = {}
    for line in lines:
        reply = Reply(*json.loads(line))
        found.setdefault(reply.prompt, []).append(reply)
    return found


def whole_lines(path: Path) -> list[str]:
    """Lines of a file without a last one that was cut off."""
    text = path.read_text("utf-8", errors="replace")
    # Not splitlines: replies may hold other characters that end lines.
    return text.split("\n")[:-1]


def both_kinds(rows: Sequence[dict]) -> set[str]:
    """Contexts with an honest and a lying reply."""
    sides: dict[str, set[str]] = {}
    for row in rows:
        if row["outcome"] in ("lie", "honest"):
            sides.setdefault(row["context"], set()).add(row["outcome"])
    return {context for context, found in sides.items() if len(found) == 2}


def repeating(text: str) -> bool:
    """Whether a reply does little but repeat itself: more than half of its four-word runs stand there before.

    >>> repeating("the lions, the les, " * 8), repeating("The capital of Peru is Lima, a city of ten million people.")
    (True, False)
    """
    words = text.split()
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= 8 and sum(count - 1 for count in Counter(runs).values()) > len(runs) / 2
