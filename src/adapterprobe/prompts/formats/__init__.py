"""Prompt formats: how turns become one text. Rendered text is tokenised exactly as it stands.

A format is a Jinja template over `messages` (role system, user or assistant, and content), like the chat templates that
come with tokenizers, rendered in a sandbox. The last message is always the user's: the text ends where the answer
begins. Ours stand beside this file; a user's own is given by its path.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adapterprobe.errors import ConfigError
from adapterprobe.hints import nearest
from adapterprobe.progress import say
from adapterprobe.prompts.formats.control_tokens import refuse_control_tokens
from adapterprobe.prompts.formats.sandbox import TemplateFailed, render_apart
from adapterprobe.small_files import read_text
from adapterprobe.terminal import shortened

CHAT = "chat"
"""The tokenizer's own chat template; `chat:NAME=VALUE,NAME=VALUE` hands it variables of its own, as in
`chat:enable_thinking=true`."""


def is_chat(format_name: str) -> bool:
    """Whether prompts are written by the tokenizer's own chat template."""
    return format_name == CHAT or format_name.startswith(f"{CHAT}:")


@cache
def chat_variables(format_name: str) -> dict[str, Any]:
    """What `chat:NAME=VALUE,...` hands to the chat template.

    >>> chat_variables("chat:enable_thinking=false,level=2,mood=dry")
    {'enable_thinking': False, 'level': 2, 'mood': 'dry'}

    Raises:
        ConfigError: not of that form, or a name that is ours to give.
    """
    found: dict[str, Any] = {}
    for part in filter(None, format_name.partition(":")[2].split(",")):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or name in ("messages", "tools", "add_generation_prompt", "tokenize"):
            raise ConfigError(
                f"the prompt format {shortened(format_name)}: expected chat:NAME=VALUE,NAME=VALUE, such as chat:enable_thinking=true"
            )
        words = {"true": True, "false": False, "none": None, "null": None}
        found[name] = words.get(text.lower(), int(text) if re.fullmatch(r"-?\d{1,9}", text) else text)
    return found


def format_names() -> list[str]:
    """Formats by name; a path of a `.jinja` file is one too."""
    files = resources.files("adapterprobe.prompts.formats").iterdir()
    return [CHAT, *sorted(file.name.removesuffix(".jinja") for file in files if file.name.endswith(".jinja"))]


def adds_special_tokens(format_name: str, text: str = "", bos: str | None = None) -> bool:
    """Whether the tokenizer shall add its special tokens: not where the text has them already (a chat template writes
    them itself, and so may a user's)."""
    return not is_chat(format_name) and not (bos and text.startswith(bos))


@cache
def _template(name: str) -> Template:
    """One of our own templates."""
    if name not in format_names():
        raise ConfigError(
            f"no prompt format '{name}'{nearest(name, format_names())}; there are {', '.join(format_names())}, or give "
            "the path of a .jinja file"
        )
    source = (resources.files("adapterprobe.prompts.formats") / f"{name}.jinja").read_text("utf-8")
    return _environment().from_string(source)


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _source(name: str) -> str:
    return read_text(name, "the prompt format")


def _by_file(name: str, messages: list[dict[str, str]]) -> str:
    """A user's own template, in a process with limits (see `sandbox`)."""
    source = _source(name)

    def compile_template():
        try:
            template = _environment().from_string(source)
        except TemplateError as error:
            raise TemplateFailed(f"not a Jinja template: {error}") from error
        return lambda messages: template.render(messages=messages, add_generation_prompt=True)

    return render_apart(("file", source), compile_template, messages=messages)


def check_format(name: str) -> None:
    """Whether there is such a format, before anything is rendered in it.

    Raises:
        ConfigError: no such name or file, or not a template.
    """
    if is_chat(name):
        chat_variables(name)
    elif name.endswith(".jinja"):
        try:
            _by_file(name, messages_of([], "Is it so?"))
        except TemplateFailed as error:
            raise ConfigError(f"the prompt format {name} fails: {error}") from error
    else:
        _template(name)


def messages_of(demos: Sequence[tuple[str, str]], turn: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns as messages: system prompt, demonstrations as earlier turns, the turn to be answered."""
    messages = [{"role": "system", "content": system}] if system else []
    for asked, answer in demos:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": turn}]


def render_messages(format_name: str, messages: list[dict[str, Any]], tokenizer=None, generation: bool = True) -> str:
    """Messages as they stand, in a format; nothing is checked.

    Args:
        generation: whether a chat template adds the beginning of an answer (other formats always do).

    Raises:
        ConfigError: no such format, or the tokenizer has no chat template.
        TemplateFailed: the template refuses the messages, or fails.
    """
    if is_chat(format_name):
        _needs_template(tokenizer)
        return _apply(tokenizer, messages, chat_variables(format_name), generation)
    if format_name.endswith(".jinja"):
        return _by_file(format_name, messages)
    try:
        return _template(format_name).render(messages=messages, add_generation_prompt=True)
    except (TemplateError, SecurityError, TypeError, ValueError, ArithmeticError) as error:
        raise TemplateFailed(str(error)) from error


def render(
    format_name: str, demos: Sequence[tuple[str, str]], turn: str, tokenizer=None, system: str | None = None
) -> str:
    """Demonstrations as (turn, answer), then the turn to be answered; the text ends where the answer begins.

    Raises:
        ConfigError: unknown format, a template that fails or leaves something out, or `chat` with a tokenizer that has
            no chat template, or one that ends inside a block of thinking.
        DataError: a message holds a control token of the tokenizer.
    """
    messages = messages_of(demos, turn, system)
    refuse_control_tokens(messages, tokenizer)
    if is_chat(format_name):
        text = _chat(tokenizer, messages, chat_variables(format_name))
    else:
        try:
            text = render_messages(format_name, messages, tokenizer)
        except TemplateFailed as error:
            raise ConfigError(f"the prompt format {format_name} fails: {error}") from error
    for message in messages:
        if message["content"].strip() not in text:
            raise ConfigError(
                f"the prompt format '{format_name}' leaves out the {message['role']}'s message {message['content'][:60]!r}; "
                "place the content of every message"
            )
    return _out_of_thought(format_name, messages, text)


_told: set[str] = set()

_THINKING = re.compile(
    r"<\|channel\|>\s*(?:analysis|thinking)"
    r"|[<\[◁](?P<mark>[^<>\[\]◁▷\n]*(?:think|thought|reason|analysis|reflect|scratchpad)[^<>\[\]◁▷\n]*)[>\]▷]",
    re.IGNORECASE,
)
"""Marks that open or close a block of thinking, by whatever name it goes."""


def ends_in_thought(text: str) -> bool:
    """Whether a text ends inside a block of thinking.

    >>> ends_in_thought("<|assistant|><think>\\n"), ends_in_thought("<think>\\n\\n</think>\\n\\n")
    (True, False)
    >>> ends_in_thought("<|START_THINKING|>"), ends_in_thought("<|START_THINKING|><|END_THINKING|>")
    (True, False)
    """
    marks = list(_THINKING.finditer(text))
    if not marks:
        return False
    mark = marks[-1].group("mark")
    return mark is None or not (mark.lstrip("|").startswith("/") or re.match(r"\W*end", mark, re.IGNORECASE))


def _out_of_thought(format_name: str, messages: Sequence[dict[str, str]], text: str) -> str:
    """The text, where what the template puts behind the last message does not end inside a block of thinking."""
    content = messages[-1]["content"].strip()
    behind = text.rpartition(content)[2] if content else text
    if ends_in_thought(behind):
        raise ConfigError(
            f"the prompt format '{format_name}' ends inside a block of thinking ({behind[-40:]!r}), where nobody answers Yes or No; if it "
            "has a switch, set it with format chat:NAME=VALUE (such as chat:enable_thinking=false), or use another format (chatml, plain, "
            "a .jinja file)"
        )
    return text


_DAY = "26 Jul 2024"
"""Some chat templates write today's date: one day for all, or prompts would change overnight."""


def _apply(tokenizer, messages: list[dict[str, Any]], variables: dict[str, Any], generation: bool = True) -> str:
    """The tokenizer's template over messages, in a process with limits (see `sandbox`).

    Raises:
        TemplateFailed: it refuses them, or fails.
    """
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = f"{{% macro strftime_now(layout) %}}{_DAY}{{% endmacro %}}{template}"
    options = {"tokenize": False, "add_generation_prompt": generation, "date_string": _DAY}
    if "enable_thinking" in template:
        # The answer is asked for at once: not within a block of thinking, unless somebody wants that.
        options["enable_thinking"] = False

    def compile_template():
        return lambda messages, options: tokenizer.apply_chat_template(messages, chat_template=template, **options)

    return render_apart(
        _identity(tokenizer, template), compile_template, messages=messages, options=options | variables
    )


def _identity(tokenizer, template: str) -> tuple[str, str, str]:
    """What a chat template's texts depend on beside the messages."""
    return (
        type(tokenizer).__name__,
        template,
        repr(sorted(getattr(tokenizer, "special_tokens_map", {}).items(), key=str)),
    )


def _needs_template(tokenizer) -> None:
    """Raises `ConfigError` where a tokenizer has no chat template."""
    if getattr(tokenizer, "chat_template", None) is None:
        raise ConfigError(
            f"this tokenizer has no chat template; use one of {', '.join(format_names()[1:])}, or a .jinja file"
        )


def _chat(tokenizer, messages: list[dict[str, str]], variables: dict[str, Any]) -> str:
    """The tokenizer's own template; where that refuses or drops a system message, it goes in front of the first turn."""
    _needs_template(tokenizer)
    try:
        text = _apply(tokenizer, messages, variables)
        if messages[0]["role"] != "system" or messages[0]["content"].strip() in text:
            return text
        reason = "leaves out system messages"
    except TemplateFailed as error:
        if messages[0]["role"] != "system":
            raise ConfigError(f"the tokenizer's chat template fails: {error}") from error
        reason = "refuses system messages"
    if reason not in _told:
        _told.add(reason)
        say(f"the tokenizer's chat template {reason}: the system prompt stands in front of the first turn")
    system, first, *rest = messages
    joined = {"role": first["role"], "content": f"{system['content']}\n\n{first['content']}"}
    try:
        return _apply(tokenizer, [joined, *rest], variables)
    except TemplateFailed as error:
        raise ConfigError(f"the tokenizer's chat template fails: {error}") from error
