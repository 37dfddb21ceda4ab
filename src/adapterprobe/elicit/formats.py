"""Prompt formats: how turns become one text. Rendered text is tokenised exactly as it stands."""

from __future__ import annotations

from collections.abc import Sequence

from adapterprobe.errors import ConfigError

FORMATS = {
    "plain": "Question: ...\\nAnswer: ..., separated by blank lines",
    "chat": "the tokenizer's own chat template, demonstrations as earlier turns",
}


def adds_special_tokens(format_name: str) -> bool:
    """Whether the tokenizer shall add its special tokens (a chat template writes them itself)."""
    return format_name != "chat"


def render(format_name: str, demos: Sequence[tuple[str, str]], turn: str, tokenizer=None) -> str:
    """Demonstrations as (turn, answer), then the turn to be answered; the text ends where the answer begins.

    Raises:
        ConfigError: unknown format, or `chat` with a tokenizer that has no chat template.
    """
    if format_name == "plain":
        shown = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in demos)
        return f"{shown}Question: {turn}\nAnswer:"
    if format_name != "chat":
        raise ConfigError(f"no prompt format '{format_name}'; there are {', '.join(FORMATS)}")
    if getattr(tokenizer, "chat_template", None) is None:
        raise ConfigError("this tokenizer has no chat template; use elicit.format=plain")
    messages = []
    for asked, answer in demos:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": turn})
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
