"""Control tokens of a tokenizer: what must not stand in a message."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from adapterprobe.errors import DataError
from adapterprobe.terminal import shortened

_patterns: WeakKeyDictionary[Any, re.Pattern[str] | None] = WeakKeyDictionary()


def control_tokens(tokenizer) -> re.Pattern[str] | None:
    """What finds a tokenizer's control tokens in a text: there they would end a turn or a document. None where it has none."""
    if tokenizer is None:
        return None
    if tokenizer not in _patterns:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        template = str(getattr(tokenizer, "chat_template", None) or "")
        # Added tokens that the chat template writes part its turns, whether or not they are called special.
        parting = {t.content for t in added if t.special or (t.content.strip() and t.content in template)}
        words = {*getattr(tokenizer, "all_special_tokens", ()), *parting}
        words = sorted((word for word in words if len(word.strip()) > 1), key=len, reverse=True)
        _patterns[tokenizer] = re.compile("|".join(map(re.escape, words))) if words else None
    return _patterns[tokenizer]


def refuse_control_tokens(messages: Sequence[dict[str, str]], tokenizer) -> None:
    """Raises `DataError` where a message holds what the tokenizer would take for a control token."""
    pattern = control_tokens(tokenizer)
    if pattern is None:
        return
    for message in messages:
        content = message["content"]
        # Some tokenizers bring texts into compatibility form before they look.
        if found := pattern.search(content) or pattern.search(unicodedata.normalize("NFKC", content)):
            raise DataError(
                f"a {message['role']}'s message holds {found.group()!r}, which this tokenizer takes for a control token: "
                f"{shortened(message['content'])}; take it out of the data (`adapterprobe data check` names every such row)"
            )
