"""Scores as JSON has them."""

from __future__ import annotations

from typing import Any

import pandas as pd


def rows_of_table(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table of `Detector.score`, row by row: numbers, words, and null where there is nothing to say."""
    return [
        {str(name): None if pd.isna(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]
