"""What all parts of the configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Stage(BaseModel):
    """A frozen part of the configuration that knows its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


LayerSpec = Annotated[str, BeforeValidator(lambda spec: str(spec) if isinstance(spec, int) else spec)]
"""Layers as people write them (see `parse_layers`); YAML reads a single one as a number."""
