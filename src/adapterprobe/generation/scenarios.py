"""What a model is asked in its own words, and by which facts its reply is graded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adapterprobe.cache import digest
from adapterprobe.config import ReadConfig
from adapterprobe.data.cells import InvalidRow, listed_cell, number_text, text_of
from adapterprobe.data.examples import ExampleSource
from adapterprobe.data.faults import RowErrors
from adapterprobe.data.items import ItemDataset
from adapterprobe.data.pairing import pair_with_wrong_objects
from adapterprobe.data.readers import open_file
from adapterprobe.data.references import data_path
from adapterprobe.data.relations import Relation
from adapterprobe.data.source import load_data
from adapterprobe.data.splits import shuffled
from adapterprobe.data.transcripts import ROLES
from adapterprobe.errors import DataError
from adapterprobe.generation.asked import Asked
from adapterprobe.prompts.templates import templates_for
from adapterprobe.types import INSTRUCTING, Example, Message

CONDITIONS = ("truth", "lie", "neutral")


@dataclass(frozen=True)
class Scenario:
    """One question to a model, whatever it is told beside it."""

    dataset: str
    group: str
    turns: tuple[Message, ...]
    """User and assistant by turns, the user's question last."""
    asked: Asked | None = None
    """Its answers; None where nothing is known of what is true."""
    yes: bool | None = None
    """Of a question that is answered with Yes or No: whether Yes is right (then `asked` is None)."""
    system: str | None = None
    """Its own instructions, where it comes with some: then nobody else instructs it."""
    condition: str = "neutral"
    """What its own instructions push to."""
    wrong: str = ""
    """A wrong answer that others may claim; each answer is claimed as often as it is right, where data allow."""
    claim: str = ""
    """The same as a sentence."""
    truth: str = ""
    """What is true, in words, where no answers are listed: for a judge."""

    @property
    def question(self) -> str:
        return self.turns[-1].content

    @property
    def fact(self) -> str:
        """Which fact it asks for: scenarios that differ in their instructions alone share it."""
        return digest(self.dataset, self.group, [[turn.role, turn.content] for turn in self.turns])


def read_scenarios(ref: str, read: ReadConfig | None = None, seed: int = 0) -> list[Scenario]:
    """Scenarios of built-in facts, of a question or statement data set, or of a file of scenarios, in a seeded order of groups.

    A file of scenarios (.jsonl) has `messages` that end with the user's turn, or `question`; `right` (answers) and perhaps `wrong`, or
    `yes` (true or false), or `truth` (what is true, in words, for a judge); and perhaps `group` and `condition` (truth, lie or neutral; what its own system message pushes to).

    Raises:
        DataError: unknown or unreadable data, or rows that are no scenarios (each by its line).
    """
    if (path := _scenario_file(ref)) is not None:
        found = _of_file(path)
    else:
        data = load_data(ref, read, seed)
        found = _of_facts(data, seed) if isinstance(data, Relation) else _of_items(data, seed)
    place = {group: i for i, group in enumerate(shuffled([s.group for s in found], [seed, 19]))}
    return sorted(found, key=lambda scenario: place[scenario.group])


def scenarios_name(ref: str, read: ReadConfig | None = None, seed: int = 0) -> str:
    """What the data set of a reference is called in its scenarios: a file of them goes by its name.

    Raises:
        DataError: see `read_scenarios`.
    """
    path = _scenario_file(ref)
    return load_data(ref, read, seed).name if path is None else path.name


def _scenario_file(ref: str) -> Path | None:
    path = data_path(ref)
    return path if path is not None and path.suffix == ".jsonl" and _is_scenarios(path) else None


def _of_facts(data: Relation, seed: int) -> list[Scenario]:
    """A question for each fact, in the relation's own words."""
    objects = {answer for fact in data.facts for answer in (fact.object, *fact.also, *fact.wrong)}
    rng = np.random.default_rng([seed, *data.name.encode(), *b"claims"])
    paired = dict(
        (fact.subject, wrong)
        for fact, wrong in pair_with_wrong_objects(list(data.facts), rng, "near", data.listed_only)
    )
    found = []
    for fact in data.facts:
        right = (fact.object, *fact.also)
        wrong = paired.get(fact.subject) or next((w for w in fact.wrong if not fact.right(w)), "")
        others = tuple(sorted(objects - set(right)))
        query = data.texts(fact, fact.object)["query"]
        found.append(
            Scenario(
                data.name,
                fact.group,
                (Message("user", query),),
                Asked(query, fact.subject, right, fact.wrong if data.listed_only else others),
                wrong=wrong,
                claim=data.texts(fact, wrong)["statement"] if wrong else "",
            )
        )
    return found


def _of_items(data: ExampleSource, seed: int) -> list[Scenario]:
    """Questions with answers as they stand; statements are asked for: is it true?"""
    if isinstance(data, ItemDataset) and data.items[0].conversation is not None:
        raise DataError(
            f"'{data.name}' holds replies already; `generate` asks built-in facts, questions, statements, or scenarios "
            "(messages that end with the user's turn)"
        )
    form = "recall" if "recall" in data.forms else "question"
    template = templates_for(data, form, role="train" if form == "recall" else None)[0]
    rivals: dict[str, set[str]] = {}
    examples = data.examples(data.groups, form, seed)
    found = []
    for example in examples:
        if form == "recall" and not example.truth:
            continue
        turns = (Message("user", template.turn(example)),)
        if form == "question":
            # "Is it so? Yes or no" has its answer by its label.
            found.append(Scenario(data.name, example.group, turns, yes=example.truth, claim=_denied(example)))
            continue
        rivals.setdefault(turns[0].content, set()).add(example.negative)
        asked = Asked(example.texts.get("query", turns[0].content), "", (example.positive,), (example.negative,))
        found.append(Scenario(data.name, example.group, turns, asked, wrong=example.negative, claim=example.negative))
    return [s if s.asked is None else replace(s, asked=_with_all(data, s)) for s in found]


def _with_all(data: ExampleSource, scenario: Scenario) -> Asked:
    """The question with all the wrong answers that its row names."""
    assert scenario.asked is not None
    right = scenario.asked.right[0]
    for item in getattr(data, "by_group", {}).get(scenario.group, ()):
        if item.answers and item.answers[0] == right and item.texts.get("query", "") == scenario.asked.question:
            return replace(scenario.asked, wrong=tuple(item.answers[1:]))
    return scenario.asked


def _denied(example: Example) -> str:
    return ("this is not so" if example.truth else "this is so") if "statement" in example.texts else ""


def _is_scenarios(path: Path) -> bool:
    """Whether a file's first row is a scenario: a question without its reply, and without choices to pick from."""
    for _, row in open_file(path).rows:
        if isinstance(row, InvalidRow):
            return False
        if "messages" in row and row.get("reply") is None:
            given = row["messages"] if isinstance(row["messages"], list) else []
            last = given[-1] if given else None
            return isinstance(last, Mapping) and last.get("role") != "assistant"
        return "question" in row and any(column in row for column in ("right", "yes", "truth"))
    return False


def _of_file(path: Path) -> list[Scenario]:
    faults, found = RowErrors(), []
    for line, row in open_file(path).rows:
        try:
            if isinstance(row, InvalidRow):
                raise row
            found.append(_of_row(path.name, line, row))
        except InvalidRow as reason:
            faults.add(line, reason)
    if faults.count:
        raise DataError(
            f"{path.name}: {faults.count} of its rows are no scenarios ({faults}); mend them or take them out"
        )
    return found


def _of_row(name: str, line: int, row: Mapping[str, object]) -> Scenario:
    messages = _turns(row)
    system = "\n\n".join(m.content for m in messages if m.role in INSTRUCTING) or None
    turns = tuple(m for m in messages if m.role not in INSTRUCTING)
    if not turns or turns[-1].role != "user":
        raise InvalidRow("'messages' does not end with the user's turn")
    condition = row.get("condition") or "neutral"
    if condition not in CONDITIONS:
        raise InvalidRow(f"'condition' is {str(condition)[:40]!r}, expected {', '.join(CONDITIONS)}")
    yes = row.get("yes")
    if yes is not None and not isinstance(yes, bool):
        raise InvalidRow(f"'yes' is {str(yes)[:40]!r}, expected true or false")
    right = _answers(row, "right")
    if right and yes is not None:
        raise InvalidRow("has both 'right' and 'yes'; a question is answered in words, or with Yes or No")
    wrong = _answers(row, "wrong")
    if set(right) & set(wrong):
        raise InvalidRow(f"{sorted(set(right) & set(wrong))[0]!r} is right and wrong")
    asked = Asked(turns[-1].content, str(row.get("subject") or ""), right, wrong) if right else None
    group = str(row.get("group") if row.get("group") is not None else f"line {line}")
    claim = wrong[0] if wrong else ""
    truth = text_of(row, "truth") if row.get("truth") is not None else ""
    if truth and (asked is not None or yes is not None):
        raise InvalidRow("has 'truth' beside 'right' or 'yes', by which replies are graded; leave one of them out")
    return Scenario(name, group, turns, asked, yes, system, str(condition), claim, claim, truth)


def _turns(row: Mapping[str, object]) -> list[Message]:
    if "messages" not in row:
        return [Message("user", text_of(row, "question"))]
    given = listed_cell(row["messages"], "messages")
    found = []
    for message in given if isinstance(given, Sequence) else []:
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise InvalidRow("'messages' has one without a known role")
        found.append(Message(str(message["role"]), text_of(message, "content")))
    return found


def _answers(row: Mapping[str, object], column: str) -> tuple[str, ...]:
    """A text, a number, or a list of such."""
    value = row.get(column)
    if value is None:
        return ()
    single = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    given = [value] if single else listed_cell(value, column)
    return tuple(
        number_text(v, column)
        if isinstance(v, (int, float)) and not isinstance(v, bool)
        else text_of({column: v}, column)
        for v in given
    )
