"""A conversation as one text, and where in it the reply stands.

The reply's place is found by writing the conversation twice, once with a marker in the place of the reply: whatever a template does
around the reply (trims, moves the system text, adds a block of thinking, repeats a turn), what stands before and behind the marker
is what stands before and behind the reply. A template that changes the reply itself is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adapterprobe.errors import ConfigError, DataError
from adapterprobe.prompts.formats import CHAT, ends_in_thought, is_chat, render_messages
from adapterprobe.prompts.formats.control_tokens import refuse_control_tokens
from adapterprobe.prompts.formats.sandbox import TemplateFailed
from adapterprobe.terminal import shortened
from adapterprobe.types import Conversation

MARKER = "ReplyStandsHereQ7Z"
AS_GIVEN = "as given"


@dataclass(frozen=True, slots=True)
class RenderedReply:
    """A conversation as it is sent."""

    text: str
    start: int
    stop: int
    """Characters of the reply in the text: `text[start:stop]`."""
    fallback: str
    """How it was put otherwise than it was given, because the template would not have it; empty where it was not."""


def conversation_format(format_name: str | None, tokenizer) -> str:
    """The format of conversations: as given; where that is None or `auto`, the tokenizer's chat template, else `plain`."""
    if format_name not in (None, "auto"):
        return format_name
    return CHAT if getattr(tokenizer, "chat_template", None) else "plain"


def render_conversation(
    format_name: str, conversation: Conversation, tokenizer=None, follow_up: str | None = None
) -> RenderedReply:
    """The conversation in a format, its reply as the assistant's own turn.

    Args:
        follow_up: what the user says after the reply; then the text ends where the assistant's answer begins.

    Raises:
        ConfigError: no such format, the tokenizer has no chat template, or the text ends inside a block of thinking.
        DataError: a message holds a control token, or the format fails, leaves a message out, or changes the reply.
    """
    messages = [message.as_dict() for message in conversation.context]
    after = [] if follow_up is None else [{"role": "user", "content": follow_up}]
    reply = conversation.reply.strip()
    refuse_control_tokens([*messages, {"role": "assistant", "content": reply}, *after], tokenizer)
    reason = ""
    for said, change in _ladder(format_name):
        if said == AS_GIVEN and _unknown_roles(format_name, messages, tokenizer):
            continue
        changed = change(messages)
        try:
            written = [
                render_messages(
                    format_name, [*changed, {"role": "assistant", "content": content}, *after], tokenizer, bool(after)
                )
                for content in (reply, MARKER)
            ]
        except TemplateFailed as error:
            reason = reason or f"fails: {error}"
            continue
        text, marked = written
        if marked.count(MARKER) != 1:
            reason = reason or ("writes the reply twice" if MARKER in marked else "leaves the reply out")
            continue
        lost = [m for m in [*changed, *after] if m["content"].strip() not in text]
        if lost or any(_calls(m) for m in changed if _calls(m) not in text):
            role = lost[0]["role"] if lost else "assistant"
            reason = reason or f"leaves out the {role}'s message"
            continue
        before, behind = marked.split(MARKER)
        stop = len(text) - len(behind)
        if not (text.startswith(before) and text.endswith(behind) and text[len(before) : stop] == reply):
            reason = reason or "changes the reply"
            continue
        if not after and not is_chat(format_name):
            # These formats go on with the place for another answer.
            text = text[:stop]
        if after and ends_in_thought(behind):
            raise ConfigError(
                f"the format '{format_name}' ends inside a block of thinking, where nobody answers Yes or No; set its switch "
                "(chat:enable_thinking=false), or use another format"
            )
        return RenderedReply(text, len(before), stop, "" if changed == messages else said)
    raise DataError(
        f"the format '{format_name}' {reason or 'cannot write this conversation'} ({shortened(reply)}); use another format, or leave "
        "the row out"
    )


Change = Callable[[list[dict]], list[dict]]


def _ladder(format_name: str) -> list[tuple[str, Change]]:
    """Ways to put messages, from as they are to what every template takes."""
    changes: list[tuple[str, Change]] = [
        (AS_GIVEN, list),
        ("developer turns as the system's, tools in words", _plain_roles),
        ("system text in front of the first turn", lambda messages: _system_first(_plain_roles(messages))),
        ("turns of one role joined", lambda messages: _joined(_system_first(_plain_roles(messages)))),
    ]
    return changes if is_chat(format_name) or format_name.endswith(".jinja") else changes[1:]


def _unknown_roles(format_name: str, messages: Sequence[dict], tokenizer) -> bool:
    """Whether a chat template would write roles that it does not know of as if they were its own."""
    template = str(getattr(tokenizer, "chat_template", "")) if is_chat(format_name) else ""
    return any(m["role"] in ("developer", "tool") and m["role"] not in template for m in messages) and bool(template)


def _calls(message: dict) -> str:
    """What must be seen of a message that calls a tool: the first tool's name."""
    calls = message.get("tool_calls") or []
    first = calls[0] if isinstance(calls, Sequence) and calls else {}
    function = first.get("function", first) if isinstance(first, dict) else {}
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def _plain_roles(messages: list[dict]) -> list[dict]:
    found: list[dict] = []
    for message in messages:
        content, role = message["content"], message["role"]
        if message.get("tool_calls"):
            content = "\n".join(filter(str.strip, [content, *map(_call_in_words, message["tool_calls"])]))
        if role == "tool":
            name = message.get("name")
            role, content = "user", f"Result of the tool{f' {name}' if name else ''}: {content}"
        found.append({"role": "system" if role == "developer" else role, "content": content})
    system = [message["content"] for message in found if message["role"] == "system"]
    rest = [message for message in found if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(system)}, *rest] if system else rest


def _call_in_words(call: object) -> str:
    function = call.get("function", call) if isinstance(call, dict) else {}
    function = function if isinstance(function, dict) else {}
    return f"[calls the tool {function.get('name', '?')} with {function.get('arguments', '{}')}]"


def _system_first(messages: list[dict]) -> list[dict]:
    if len(messages) < 2 or messages[0]["role"] != "system":
        return messages
    system, first, *rest = messages
    if first["role"] != "user":
        return [{"role": "user", "content": system["content"]}, first, *rest]
    return [{"role": "user", "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def _joined(messages: list[dict]) -> list[dict]:
    found: list[dict] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {**message, "content": f"{found[-1]['content']}\n\n{message['content']}"}
        else:
            found.append(dict(message))
    return found
