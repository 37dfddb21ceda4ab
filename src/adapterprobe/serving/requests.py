"""The bodies of requests, as pydantic checks them; a field that is not there is refused, never passed over."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, field_validator

MOST = 100_000
"""Entries of a list, whatever a server's own limit is."""
PARTS = 1_000
"""Parts of one message."""
LEAST_TEMPERATURE = 1e-4
"""Below that nothing but the likeliest token is drawn, and quotients of logits leave the range of numbers."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreRequest(_Body):
    """`POST /v1/score`."""

    # Checking ends at the first fault: a body of a mebibyte can have half a million.
    inputs: Annotated[list[str | list[dict[str, Any]] | dict[str, Any]], FailFast()] = Field(
        min_length=1,
        max_length=MOST,
        description="Texts (statements), conversations (lists of messages), or rows with the columns that are asked for.",
    )
    detectors: list[Name] | None = Field(None, min_length=1, description="Names; default: all that are served.")


class TextPart(_Body):
    type: Literal["text"]
    text: str


class Message(_Body):
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    @field_validator("content", mode="before")
    @classmethod
    def _few(cls, content: Any) -> Any:
        # Before each is checked: a body of a mebibyte can have half a million faults.
        if isinstance(content, list) and len(content) > PARTS:
            raise ValueError(f"expected at most {PARTS} parts, got {len(content)}")
        return content

    def plain(self) -> dict[str, str]:
        """The message as detectors take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": self.role, "content": text}


class StreamOptions(_Body):
    include_usage: bool = False


class ChatRequest(_Body):
    """`POST /v1/chat/completions`, of OpenAI's fields those that this server does."""

    model: Name = Field(description="The served model, or one of its detectors, which alone then scores.")
    messages: Annotated[list[Message], FailFast()] = Field(min_length=1, max_length=MOST)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=2, strict=False)
    top_p: float = Field(1.0, gt=0, le=1, strict=False)
    seed: int | None = Field(None, ge=0, lt=2**63)
    n: Literal[1] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def most_tokens(self) -> int | None:
        """How long the reply may be; None: as long as this server lets it."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def generate_options(self, new_tokens: int) -> dict[str, Any]:
        """As transformers' `generate` takes it."""
        sampled = self.temperature >= LEAST_TEMPERATURE
        options: dict[str, Any] = {"max_new_tokens": new_tokens, "do_sample": sampled}
        if sampled:
            # The model's own defaults for sampling (`generation_config.json`) are not what was asked for.
            options |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return options
