"""Prompt formats: how turns become one text. Rendered text is tokenised exactly as it stands.

A format is a Jinja template over `messages` (role system, user or assistant, and content), like the chat templates that
come with tokenizers, rendered in a sandbox. The last message is always the user's: the text ends where the answer
begins. Ours stand beside this file; a user's own is given by its path.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.progress import say

CHAT = "chat"
"""The tokenizer's own chat template."""


def format_names() -> list[str]:
    """Formats by name; a path of a `.jinja` file is one too."""
    files = resources.files("adapterprobe.elicit.formats").iterdir()
    return [CHAT, *sorted(file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja"))]


def adds_special_tokens(format_name: str, text: str = "", bos: str | None = None) -> bool:
    """Whether the tokenizer shall add its special tokens: not where the text has them already (a chat template writes
    them itself, and so may a user's)."""
    return format_name != CHAT and not (bos and text.startswith(bos))


@cache
def _template(name: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    if name.endswith(".jinja"):
        try:
            source = Path(name).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the prompt format {name} ({error})") from error
    elif name in format_names():
        source = (resources.files("adapterprobe.elicit.formats") / f"{name}.jinja").read_text("utf-8")
    else:
        raise ConfigError(
            f"no prompt format '{name}'{nearest(name, format_names())}; there are {', '.join(format_names())}, or give "
            "the path of a .jinja file"
        )
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ConfigError(f"the prompt format {name} is not a Jinja template: {error}") from error


def check_format(name: str) -> None:
    """Whether there is such a format, before anything is rendered in it.

    Raises:
        ConfigError: no such name or file, or not a template.
    """
    if name != CHAT:
        _template(name)


def messages_of(demos: Sequence[tuple[str, str]], turn: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns as messages: system prompt, demonstrations as earlier turns, the turn to be answered."""
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answer in demos:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": turn}]


def render(
    format_name: str, demos: Sequence[tuple[str, str]], turn: str, tokenizer=None, system: str | None = None
) -> str:
    """Demonstrations as (turn, answer), then the turn to be answered; the text ends where the answer begins.

    Raises:
        ConfigError: unknown format, a template that fails or leaves something out, or `chat` with a tokenizer that has
            no chat template.
    """
    messages = messages_of(demos, turn, system)
    if format_name == CHAT:
        text = _chat(tokenizer, messages)
    else:
        try:
            text = _template(format_name).render(messages=messages, add_generation_prompt=True)
        except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError) as error:
            raise ConfigError(f"the prompt format {format_name} fails: {error}") from error
    for message in messages:
        if message["content"].strip() not in text:
            raise ConfigError(
                f"the prompt format '{format_name}' leaves out the {message['role']}'s message {message['content'][:60]!r}; "
                "place the content of every message"
            )
    return text


_told: set[str] = set()

_DAY = "26 Jul 2024"
"""Some chat templates write today's date: one day for all, or prompts would change overnight."""


def _apply(tokenizer, messages: list[dict[str, str]]) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = f"{{% macro strftime_now(layout) %}}{_DAY}{{% endmacro %}}{template}"
    options = {"tokenize": False, "add_generation_prompt": True, "date_string": _DAY}
    return tokenizer.apply_chat_template(messages, chat_template=template, **options)


def _chat(tokenizer, messages: list[dict[str, str]]) -> str:
    """The tokenizer's own template; where that refuses or drops a system message, it goes in front of the first turn."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ConfigError(
            f"this tokenizer has no chat template; use one of {', '.join(format_names()[1:])}, or a .jinja file"
        )
    try:
        text = _apply(tokenizer, messages)
        if messages[0]["role"] != "system" or messages[0]["content"].strip() in text:
            return text
        reason = "leaves out system messages"
    except Exception as error:
        if messages[0]["role"] != "system":
            raise ConfigError(f"the tokenizer's chat template fails: {error}") from error
        reason = "refuses system messages"
    if reason not in _told:
        _told.add(reason)
        say(f"the tokenizer's chat template {reason}: the system prompt stands in front of the first turn")
    system, first, *rest = messages
    joined = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
    try:
        return _apply(tokenizer, [joined, *rest])
    except Exception as error:
        raise ConfigError(f"the tokenizer's chat template fails: {error}") from error
