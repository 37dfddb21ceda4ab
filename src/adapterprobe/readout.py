"""What is read of a prompt: at the answer, or pooled over the tokens of a statement or a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from adapterprobe.config_stage import Stage
from adapterprobe.errors import ConfigError

POOLS = ("last", "first", "mean", "max", "rolling:N")
LINEAR_POOLS = ("mean", "last", "first")
"""Poolings under which a linear head's logit of the pooled state is the pooled logit of its tokens."""
Reading = Literal["answer", "statement", "reply"]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TokenReads:
    """Tokens of every row (from, to; the second exclusive), and how their states become one.

    `pool` is `last`, `first`, `mean`, `max` (each feature by itself), or `rolling:N`: of each feature the largest of its means over N
    neighbouring tokens (over all of them where there are fewer).
    """

    spans: tuple[Span, ...]
    pool: str

    def subset(self, rows: Sequence[int]) -> TokenReads:
        return TokenReads(tuple(self.spans[row] for row in rows), self.pool)

    @property
    def exact(self) -> bool:
        """Whether pooled states are states that were computed, so that the model's own number format holds them."""
        return self.pool in ("last", "first", "max")


def read_rows(reads: Sequence[TokenReads], rows: Sequence[int], total: int) -> list[int]:
    """Where the states of some rows stand among those of all: one read after the other, `total` rows each (one where the answer is read)."""
    return [which * total + row for which in range(max(1, len(reads))) for row in rows]


def stored_dtype(reads: Sequence[TokenReads], dtype: str) -> str:
    """The number format that holds what is read of a model's states as it was worked out."""
    return dtype if all(read.exact for read in reads) else "fp32"


class ReadoutConfig(Stage):
    """Which tokens hidden states are read at, and how they become one state."""

    what: Reading = Field(
        default="answer",
        description="answer: the token in front of the answer; reply: the tokens of a transcript's reply; statement: those of a "
        "statement that stands by itself",
    )
    pool: str | None = Field(
        default=None,
        description="last, first, mean, max (of each feature), rolling:N (largest mean over N neighbouring tokens, of each feature); "
        "null: mean over a reply, last of a statement",
    )
    skip: int = Field(default=0, ge=0, description="leave out so many first tokens of what is read (one always stays)")
    closing: bool = Field(default=False, description="read the special token that closes the reply's turn too")
    drop_turns: bool = Field(
        default=False,
        description="conversations beyond the model's context: leave out their earliest turns, rather than stop",
    )

    @field_validator("pool")
    @classmethod
    def _pool(cls, pool: str | None) -> str | None:
        if pool is not None and not re.fullmatch(r"last|first|mean|max|rolling:[1-9]\d{0,5}", pool):
            raise ValueError(f"expected one of {', '.join(POOLS)} (N at least 1), got {pool!r}")
        return pool

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> ReadoutConfig:
        # Where nobody says what is read, the data may: see `reading_found`.
        if self.what == "answer" and "what" in self.model_fields_set and (unused := self._unused()):
            raise ValueError(f"{', '.join(unused)} say nothing where the answer is read; choose reply or statement")
        if self.what == "statement" and (self.closing or self.drop_turns):
            raise ValueError("closing and drop_turns are for replies; a statement has no turns")
        return self

    def _unused(self) -> list[str]:
        return [name for name in ("pool", "skip", "closing", "drop_turns") if getattr(self, name)]

    def refuse_unused(self) -> None:
        """Raises `ConfigError` where the answer is read, and settings say how tokens are pooled."""
        if self.what == "answer" and (unused := self._unused()):
            raise ConfigError(
                f"read.{', read.'.join(unused)} say nothing where the answer is read; set read.what to reply or statement"
            )

    @property
    def pooling(self) -> str:
        """How the tokens become one state."""
        return self.pool or {"answer": "last", "statement": "last", "reply": "mean"}[self.what]


def readout_of(
    what: str, pool: str | None = None, skip: int = 0, closing: bool = False, drop_turns: bool = False
) -> ReadoutConfig:
    """The same, from single values.

    Raises:
        ConfigError: an impossible one.
    """
    given = {"what": what, "pool": pool, "skip": skip, "closing": closing, "drop_turns": drop_turns}
    try:
        return ReadoutConfig.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{first['loc'][0]}: " if first["loc"] else ""
        raise ConfigError(f"{name}{first['msg'].removeprefix('Value error, ')}") from error
