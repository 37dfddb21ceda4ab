"""Ways to put a question. Templates marked `belief` never stand in tested prompts: they serve the separate
truthful prompts by which we ask what the model knows, so that knowing is not one lucky wording."""

from __future__ import annotations

from dataclasses import dataclass

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.types import Example


@dataclass(frozen=True, slots=True)
class Template:
    """`pattern` places fields of `Example.texts`; a field with a capital letter is capitalised."""

    name: str
    form: str
    pattern: str
    belief: bool = False

    def turn(self, example: Example) -> str:
        """The user's turn for this example.

        Raises:
            ConfigError: the example is of another form than the template.
        """
        if example.form != self.form:
            raise ConfigError(
                f"template '{self.name}' is for the form '{self.form}', got an example of '{example.form}'"
            )
        capital = {key.capitalize(): text[:1].upper() + text[1:] for key, text in example.texts.items()}
        return self.pattern.format(**example.texts, **capital)


TEMPLATES = {
    t.name: t
    for t in (
        Template("ask", "question", "{question}"),
        Template("true_that", "question", "Is it true that {statement}?"),
        Template("claim", "question", "Claim: {Statement}. Is this claim correct?"),
        Template("right_to_say", "question", "Would it be right to say that {statement}?", belief=True),
        Template("someone_says", "question", "Someone says that {statement}. Are they right?", belief=True),
        Template("false_that", "negated", "Is it false that {statement}?"),
        Template("true_that_not", "negated", "Is it true that {negation}?"),
        Template("wrong_claim", "negated", "Claim: {Statement}. Is this claim wrong?"),
        Template("wrong_to_say", "negated", "Would it be wrong to say that {statement}?", belief=True),
        Template("someone_denies", "negated", "Someone says that {negation}. Are they right?", belief=True),
        Template("true_or_false", "statement", "{Statement}. True or false?"),
        Template("judge", "statement", "True or false: {statement}."),
        Template("statement_is", "statement", "Statement: {Statement}. Is the statement true or false?"),
        Template("decide", "statement", "Decide whether this is true or false: {statement}.", belief=True),
        Template("that_is", "statement", "{Statement}. Is that true or false?", belief=True),
        Template("recall", "recall", "{recall}"),
        Template("quiz", "recall", "Here is a quiz question. {recall}"),
        Template("name_it", "recall", "Name the right answer. {recall}"),
        Template("tell_me", "recall", "Can you tell me this? {recall}", belief=True),
        Template("wonder", "recall", "I was wondering. {recall}", belief=True),
    )
}


def templates_for(form: str, names: list[str] | None = None, belief: bool = False) -> list[Template]:
    """The templates of a form: all of them, or those named.

    Raises:
        ConfigError: a name is unknown or of another form.
    """
    known = {t.name: t for t in TEMPLATES.values() if t.form == form and t.belief == belief}
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise ConfigError(
                f"no template '{name}' for the form '{form}'{nearest(name, known)}; there are {', '.join(known)}"
            )
    return [known[name] for name in names]
