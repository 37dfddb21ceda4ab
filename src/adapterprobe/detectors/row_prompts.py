"""New rows as prompts: texts that are sent as they are, or statements and answers put in a run's own way."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np

from adapterprobe.config import RunConfig
from adapterprobe.data.cells import NOTHING, InvalidRow
from adapterprobe.data.shapes import as_clause
from adapterprobe.data.transcripts import conversation_of
from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts import draw_demo_sets, make_prompts, system_prompts, systems_for, templates_for
from adapterprobe.prompts.followups import follow_ups
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.read_prompts import read_prompts
from adapterprobe.types import Example, Prompt

READ = {"statement": ("statement",), "query": ("question", "query"), "answer": ("answer",)}
"""What a template may place, and the columns that it is read from."""


LONGEST_ANSWER = 60


def is_answer(value: object) -> bool:
    """Whether a cell can be an answer in words: not a number, a share, a count or what stands for a missing value.

    >>> [is_answer(v) for v in ("Yes", "the leg", "3", "1e-05", "12k", "nan", "", None, 5)]
    [True, True, False, False, False, False, False, False, False]
    """
    if not isinstance(value, str) or not any(c.isalpha() for c in value) or len(value) > LONGEST_ANSWER:
        return False
    text = value.strip().casefold()
    if (
        text in NOTHING
        or text in ("inf", "infinity", "none", "na")
        or re.fullmatch(r"[-+]?[\d.,]+\s*[a-z%]{1,3}", text)
    ):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def asked_columns(columns: Sequence[str], reading: str = "answer") -> list[str]:
    """Columns of a file that every row must have a text in: `prompt` if it is there, else whatever a wording may place.

    Args:
        reading: what the run reads (see `ReadoutConfig`).

    Raises:
        DataError: there is no column to read a statement or a reply from.
    """
    if reading != "answer":
        wanted = {"statement": "statement", "reply": "messages"}[reading]
        if wanted not in columns:
            raise DataError(
                f"the run reads the {reading} of a row: expected a column '{wanted}', got {', '.join(columns)}"
            )
        # What messages must be `conversation_of` says.
        return [wanted] if reading == "statement" else []
    if "prompt" in columns:
        return ["prompt"]
    return [next(name for name in names if name in columns) for names in READ.values() if set(names) & set(columns)]


class RowPrompter:
    """Makes prompts of rows in the way a run was judged: its first judged wording that the columns serve, and its first
    held-out demonstrations.

    Args:
        choices: the positive and the negative answer of the run.
        columns: of the file.
        condition: what prompts push to where a row does not say.
        own_answers: whether the columns `positive` and `negative` are the two answers.
        context_length: most tokens of a conversation, where `read.drop_turns` may shorten it.

    Raises:
        DataError: the columns serve nothing.
        ConfigError: the run has no such condition.
    """

    def __init__(
        self,
        config: RunConfig,
        choices: tuple[str, str],
        columns: list[str],
        condition: str,
        tokenizer,
        own_answers: bool = False,
        context_length: int | None = None,
    ) -> None:
        self.context_length = context_length
        self.config, self.choices, self.condition, self.tokenizer = config, choices, condition, tokenizer
        self.columns = set(columns)
        self.exact = config.reading(config.data.train[0]).exact
        self.sent_as_is = "prompt" in columns
        self.own_answers = own_answers
        if condition not in config.elicit.conditions:
            raise ConfigError(
                f"the run knows the conditions {', '.join(config.elicit.conditions)}, got '{condition}'; choose one of them"
            )
        if config.read.what != "answer":
            self._follow_up = follow_ups(config.read.what, config.elicit.templates, "judge")[:1]
            self.sent_as_is = False
        elif not self.sent_as_is:
            self._prepare(columns)

    def _prepare(self, columns: list[str]) -> None:
        config, elicit = self.config, self.config.elicit
        if config.data.form == "choice":
            raise DataError(
                "the run asks which of two shown answers is right; give prompts as they are to be sent, in a column 'prompt'"
            )
        able = {field for field, names in READ.items() if set(names) & set(columns)}
        questions = prepare_questions(config)
        owner = questions.trained[0]
        dataset = questions.datasets[owner]
        every = templates_for(dataset, config.data.form, elicit.templates, role="judge")
        fit = [template for template in every if template.fields <= able]
        if not fit:
            wanted = sorted({" with ".join(sorted(READ.get(f, (f,))[0] for f in t.fields)) for t in every})
            raise DataError(
                f"the file has the columns {', '.join(columns)}; expected 'prompt' (sent as it is), or what the run's wordings place: "
                f"{' or '.join(wanted)}"
            )
        self.template = fit[0]
        pool = "demos-held-out"
        rng = np.random.default_rng([config.data.data_seed, *owner.encode(), *pool.encode()])
        shown = [example for example in questions.pools[owner, pool] if example.form == config.form]
        self.demos = draw_demo_sets(shown, elicit.shots, elicit.demo_sets, pool, rng)[:1]
        chosen = system_prompts(elicit.system)
        self.systems = {
            c: systems_for(chosen, c, judged=True)[:1] for c in elicit.conditions if chosen and c != "neutral"
        }

    def _answers(self, row: Mapping[str, object]) -> tuple[str, str]:
        """The two answers of a row: its own where the file's columns hold them, else the run's."""
        given = [row.get(name) for name in ("positive", "negative")]
        if self.own_answers and all(map(is_answer, given)):
            return str(given[0]).strip(), str(given[1]).strip()
        return self.choices

    def prompt(self, number: int, row: Mapping[str, object]) -> Prompt:
        """One row's prompt.

        Raises:
            DataError: an empty text, or a condition that the run does not know.
        """
        if self.config.read.what != "answer":
            return self._read(number, row)
        condition = str(row.get("condition") or self.condition)
        if condition not in self.config.elicit.conditions:
            raise DataError(
                f"row {number}: condition '{condition}', expected one of {', '.join(self.config.elicit.conditions)}"
            )
        positive, negative = self._answers(row)
        if self.sent_as_is:
            text = _text(row, "prompt", number)
            example = Example(f"row {number}", "scored", f"row {number}", "question", positive, negative, True, {})
            return Prompt(
                prompt_id=hashlib.sha256(text.encode()).hexdigest()[:16], example=example, split="score", condition=condition,
                template="as it is", format=self.config.elicit.format, system_prompt=None, demo_set="as it is", demo_groups=(),
                shots=0, turn=text, text=text, positive=positive, negative=negative,
            )  # fmt: skip
        texts = {}
        for field in self.template.fields:
            name = next(name for name in READ[field] if name in self.columns)
            text = _text(row, name, number)
            texts[field] = as_clause(text) if field == "statement" and not self.exact else text
        example = Example(
            f"row {number}", "scored", f"row {number}", self.config.data.form, positive, negative, True, texts
        )
        (made,) = make_prompts(
            [example], "score", [condition], [self.template], self.demos, self.config.elicit.format, 0, self.tokenizer, 1,
            self.systems,
        )  # fmt: skip
        return made

    def _read(self, number: int, row: Mapping[str, object]) -> Prompt:
        """A row that is read at its reply or its statement."""
        talk, texts = None, {}
        if self.config.read.what == "reply":
            try:
                talk = conversation_of(row)
            except InvalidRow as error:
                raise DataError(f"row {number}: {error}; mend the row or leave it out") from error
        else:
            texts = {"statement": _text(row, "statement", number)}
        example = Example(
            f"row {number}", "scored", f"row {number}", self.config.form, "Yes", "No", True, texts, number, talk
        )
        (made,) = read_prompts(
            [example],
            "score",
            self.config.read,
            self.config.elicit.format,
            self.tokenizer,
            self._follow_up,
            0,
            self.context_length,
        )
        return made


def _text(row: Mapping[str, object], column: str, number: int) -> str:
    text = row.get(column)
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"row {number}: '{column}' is {text!r}, expected a text; mend the row or leave it out")
    return text
