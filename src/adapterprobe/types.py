"""The records that pass between stages, and the vocabulary of their fields (docs/concepts.md)."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field

from adapterprobe.errors import ConfigError

REPORTED_SPLITS = ("calibrate", "test", "ood")
"""Splits that predictions are written for; adapters, probes and layers never see them."""

AXES = ("truth", "instructed", "behaviour", "lie")
CLAIM = "claim"
"""The axis of what is claimed, where both polarities are asked: label 1 is a true claim, whichever answer to the question is true."""
DECEPTION = "deception"
"""The axis of replies: label 1 is a deceptive one, and a higher score means more deceptive."""
TEMPLATE_ROLES = ("train", "tune", "judge", "belief")
FORMS = ("question", "negated", "statement", "choice", "recall")
"""What a prompt asks. `question`: is it so (Yes, No). `negated`: is it not so. `statement`: True or False. `choice`: which of
two shown answers (A, B). `recall`: the answers are not shown."""

READ_FORMS = {"reply": "reply", "statement": "bare"}
"""What is read at its own tokens, and the form of such examples. `reply`: a conversation, then whether its last reply deceives.
`bare`: a statement by itself, then whether it is true (`bare_negated`: one that says that something is not so)."""
NEGATED = ("negated", "bare_negated")
"""Forms of examples that say or ask that something is not so."""


OUTCOMES = ("lie", "mistake", "honest", "honest_mistake", "refusal", "unclear")
"""What a reply turned out to be. `lie`: it asserts what is false, and the model that wrote it is known to hold the truth; `honest`: what
is true, and is held true; `mistake`, `honest_mistake`: the same where that is not known; `refusal`, `unclear`: neither is asserted."""

INSTRUCTING = ("system", "developer")
"""Roles whose turns are instructions, not part of the talk."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)
    """`tool_calls`, `tool_call_id` and `name`, as chat templates take them."""

    def as_dict(self) -> dict:
        return {"role": self.role, "content": self.content, **self.extra}


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the assistant's reply to them that is judged."""

    context: tuple[Message, ...]
    reply: str
    author: str | None = None
    """Which model wrote the reply, where the data say so."""
    outcome: str | None = None
    """One of `OUTCOMES`, where the data say so."""
    spans: tuple[tuple[int, int], ...] = ()
    """Characters of a deceptive reply that are false (from, to; the second exclusive), where the data say so."""

    def texts(self, *roles: str) -> list[str]:
        """Contents of the context's turns of these roles."""
        return [message.content for message in self.context if message.role in roles]

    @property
    def instructions(self) -> list[str]:
        """What the system and the developer say."""
        return self.texts(*INSTRUCTING)

    @property
    def script(self) -> str:
        """The context as people write dialogues."""
        return "\n".join(f"{message.role.capitalize()}: {message.content}" for message in self.context)


@dataclass(frozen=True, slots=True)
class Example:
    """One question with two answer choices.

    `truth` says whether the *positive* choice is the true one. `group` is the subject entity across
    relations; everything that is split, resampled or filtered goes by it, never by row.
    """

    example_id: str
    dataset: str
    group: str
    form: str
    positive: str
    negative: str
    truth: bool
    texts: Mapping[str, str] = field(hash=False)
    """What a template can place: `statement`, `query`, `answer` ..., whatever the data set has."""
    line: int | None = None
    """Where its row stands in the file it was read from, counted from 1; None for built-in facts."""
    conversation: Conversation | None = field(default=None, hash=False)
    """Of an example that is a reply."""
    weight: float = 1.0
    """How much it counts where probes and heads are fitted."""

    @property
    def named(self) -> str:
        """How an error names it."""
        line = "" if self.line is None else f", line {self.line}"
        return f"example {self.example_id} ({self.dataset}{line})"


@dataclass(frozen=True, slots=True)
class Template:
    """A way to put a question. `pattern` places fields of `Example.texts`; a field with a capital letter is capitalised.

    Each has one role, so that nothing can win by recognising its wording: `train` for what adapters and probes are fitted
    on, `tune` for what is selected and calibrated on, `judge` for what is tested on, and `belief` for the separate truthful
    prompts by which we ask what the model knows.
    """

    name: str
    form: str
    pattern: str
    role: str = "train"

    @property
    def fields(self) -> frozenset[str]:
        """The texts that the pattern places.

        Raises:
            ConfigError: braces that do not match, or something other than a plain name between them.
        """
        try:
            parsed = list(string.Formatter().parse(self.pattern))
        except ValueError as error:
            raise ConfigError(f"template '{self.name}' cannot be read ({error}): {self.pattern!r}") from error
        names = []
        for _, name, spec, conversion in parsed:
            if name is None:
                continue
            if not name.isidentifier() or spec or conversion:
                raise ConfigError(
                    f"template '{self.name}' places {{{name}}}; expected plain names, as in {{statement}}"
                )
            names.append(name[:1].lower() + name[1:])
        return frozenset(names)

    def turn(self, example: Example) -> str:
        """The user's turn for this example.

        Raises:
            ConfigError: the example is of another form than the template, or lacks a text that it places.
        """
        if example.form != self.form:
            raise ConfigError(
                f"template '{self.name}' is for the form '{self.form}', got an example of '{example.form}'"
            )
        missing = sorted(self.fields - set(example.texts))
        if missing:
            raise ConfigError(
                f"template '{self.name}' places {missing}, which {example.dataset} does not have; it has "
                f"{sorted(example.texts)}"
            )
        # "iPhones" stays as it is.
        capital = {
            key[:1].upper() + key[1:]: text if text[1:2].isupper() else text[:1].upper() + text[1:]
            for key, text in example.texts.items()
        }
        return self.pattern.format(**{**example.texts, **capital})


def parse_templates(content: Mapping[str, Mapping[str, Mapping[str, str]]]) -> tuple[Template, ...]:
    """Templates from form to role to name to pattern, as they stand in our tables."""
    return tuple(
        Template(name, form, pattern, role)
        for form, roles in content.items()
        for role, patterns in roles.items()
        for name, pattern in patterns.items()
    )


@dataclass(frozen=True, slots=True)
class Prompt:
    """An example rendered under one condition, template, format and demonstration set."""

    prompt_id: str
    example: Example
    split: str
    condition: str
    template: str
    format: str
    system_prompt: str | None
    demo_set: str
    demo_groups: tuple[str, ...]
    shots: int
    turn: str
    """The question without its demonstrations."""
    text: str
    """Exactly what is tokenised (special tokens included where the format writes them)."""
    positive: str
    negative: str
    read: tuple[int, int] | None = None
    """Characters of the text whose tokens are read (a reply, a statement); None: the answer position is."""

    @property
    def instructed(self) -> bool | None:
        """Whether the positive choice is what the prompt pushes to; None where it pushes to nothing."""
        if self.condition == "neutral":
            return None
        return self.example.truth if self.condition == "truth" else not self.example.truth


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided confidence limits (95 % unless said otherwise)."""

    estimate: float
    low: float
    high: float
