"""Scores as JSON has them."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def rows_of_table(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of `Detector.score`, row by row: numbers, words, and null where there is nothing to say."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    return bool(value) if isinstance(value, bool) or type(value).__name__ == "bool_" else float(value)
