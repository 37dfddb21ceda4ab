"""Rows that are in memory: a data frame or lists, under a name, read by the same code and checks as a file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from adapterprobe.cache import digest, file_digest, write_atomic
from adapterprobe.config import ReadConfig
from adapterprobe.data.shapes import CANONICAL, find_shape
from adapterprobe.errors import DataError, OutputError
from adapterprobe.hints import nearest
from adapterprobe.terminal import shortened

GROUP = "group"


@dataclass(frozen=True)
class Dataset:
    """A named table of rows with the columns of one shape (docs/data.md), and `group` where groups are known.

    Where it is used it is written as a Parquet file (into the output folder, beside what comes of it), so a run can be resumed,
    repeated and scored without the program that made it.

    >>> claims = Dataset.from_list(["Rome is in Italy", "Rome is in Peru"], [True, False], groups=["rome", "rome"], name="cities")
    >>> claims.name, len(claims), list(claims.frame)
    ('cities', 2, ['statement', 'label', 'group'])
    """

    name: str
    frame: pd.DataFrame

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise DataError(f"a data set's name is letters, digits, - and _, got {shortened(self.name)}")
        if self.frame.empty:
            raise DataError(f"the data set '{self.name}' has no rows")
        find_shape(self.name, list(self.frame.columns), {})

    def __len__(self) -> int:
        return len(self.frame)

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        text: str | None = None,
        label: str | None = None,
        group: str | None = None,
        name: str = "frame",
        columns: Mapping[str, str] | None = None,
    ) -> Dataset:
        """A data set of the rows of a data frame.

        Args:
            frame: a row per claim, question or conversation.
            text: its column of claims (the column `statement`, where it has another name).
            label: its column of labels: true or false, 1 or 0 (of conversations: honest or deceptive).
            group: its column that names what a row is about; None: near-duplicates form groups.
            name: what results call the data set.
            columns: other columns of ours to the frame's own: `{"question": "query", "choices": "options", "answer": "gold"}`.

        Raises:
            DataError: no such column, columns that make no shape (with what is lacking), or no rows.
        """
        if not isinstance(frame, pd.DataFrame):
            raise DataError(f"expected a pandas data frame, got {type(frame).__name__}; lists go to Dataset.from_list")
        given = dict(columns or {}) | {
            ours: theirs
            for ours, theirs in (("statement", text), ("label", label), (GROUP, group))
            if theirs is not None
        }
        there = [str(column) for column in frame.columns]
        for ours, theirs in given.items():
            if ours not in (*CANONICAL, GROUP):
                raise DataError(
                    f"no column is called '{ours}' here{nearest(ours, CANONICAL)}; there are {', '.join(CANONICAL)}"
                )
            if theirs not in there:
                raise DataError(
                    f"the data frame has no column '{theirs}'{nearest(theirs, there)}; it has {', '.join(there[:30])}"
                )
        kept = {ours: given.get(ours, ours) for ours in CANONICAL if ours in given or ours in there}
        if group is not None:
            kept[GROUP] = group
        columns_by_name = dict(zip(there, frame.columns, strict=True))
        table = pd.DataFrame({ours: frame[columns_by_name[theirs]].to_numpy() for ours, theirs in kept.items()})
        return cls(name, table)

    @classmethod
    def from_list(
        cls,
        texts: Sequence[str],
        labels: Sequence[bool | int],
        groups: Sequence[object] | None = None,
        name: str = "list",
    ) -> Dataset:
        """A data set of claims.

        Args:
            texts: n claims.
            labels: whether each is true: n of True and False, or 1 and 0.
            groups: what each is about: n names; None: near-duplicates form groups.

        Raises:
            DataError: lengths that differ, or no rows.
        """
        lengths = {"texts": len(texts), "labels": len(labels)} | ({} if groups is None else {"groups": len(groups)})
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"expected lists of one length, got {', '.join(f'{n} {what}' for what, n in lengths.items())}"
            )
        table = pd.DataFrame({"statement": list(texts), "label": list(labels)})
        if groups is not None:
            table[GROUP] = [str(group) for group in groups]
        return cls(name, table)

    @cached_property
    def content_digest(self) -> str:
        """A hash of the rows, taken once: results depend on them."""
        cells = self.frame.astype(object).where(self.frame.notna(), None)
        return digest(list(self.frame.columns), cells.to_numpy().tolist())

    @property
    def reading(self) -> ReadConfig:
        """How the file that `save` writes is read."""
        return ReadConfig(group=GROUP if GROUP in self.frame else None)

    def save(self, folder: str | Path) -> Path:
        """Write `NAME.parquet` into a folder; one with the same content is left alone.

        Raises:
            OutputError: the folder holds another data set of this name, or cannot be written to.
            DataError: a column that no table can hold (values of several types).
        """
        path = self.path_in(folder)
        content = io.BytesIO()
        try:
            self.frame.to_parquet(content, index=False)
        except Exception as error:
            # Arrow raises errors of its own for what it cannot hold.
            raise DataError(
                f"the data set '{self.name}' cannot be a table ({str(error)[:200]}); expected one type a column"
            ) from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                written = path.with_name(f".{path.name}.part")
                written.write_bytes(content.getvalue())
                same = file_digest(written) == file_digest(path)
                written.unlink()
                if not same:
                    raise OutputError(
                        f"{path} holds other rows than the data set '{self.name}' has now; choose another output folder"
                    )
            else:
                write_atomic(path, content.getvalue())
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror}); choose another output folder") from error
        return path

    def path_in(self, folder: str | Path) -> Path:
        """Where `save` writes it."""
        return Path(folder) / f"{self.name}.parquet"
