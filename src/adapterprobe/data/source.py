"""Read a data set that a reference names; group and balance it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from adapterprobe.cache import digest
from adapterprobe.config import ReadConfig
from adapterprobe.data.cells import InvalidRow, LeftOut, text_of
from adapterprobe.data.duplicates import normalised
from adapterprobe.data.examples import ExampleSource
from adapterprobe.data.faults import RowErrors
from adapterprobe.data.folders import open_folder, open_repository
from adapterprobe.data.grouping import group_key, grouped_by_context, grouped_by_words
from adapterprobe.data.hub import HubEntry, hub_table, open_entry
from adapterprobe.data.items import Item, ItemDataset
from adapterprobe.data.readers import FILES, open_file
from adapterprobe.data.references import all_names, data_files, data_path, is_registered
from adapterprobe.data.registered import registered_dataset, registered_source
from adapterprobe.data.relations import is_relation, load_relation
from adapterprobe.data.row_source import Rows, Source
from adapterprobe.data.sampling import Sampler, balanced, matched
from adapterprobe.data.shapes import as_clause, find_shape
from adapterprobe.errors import DataError
from adapterprobe.hints import nearest
from adapterprobe.progress import bar, say
from adapterprobe.small_files import as_path
from adapterprobe.types import Template


@dataclass(frozen=True)
class Opened:
    """Rows on their way to items."""

    source: Source
    title: str
    forms: tuple[str, ...]
    read: Callable[[Mapping[str, object]], Item | list[Item]]
    """An item of a row, or several of a row that holds several."""
    group: str | None
    templates: tuple[Template, ...] = ()
    transcript: bool = False


_loaded: dict[str, ExampleSource] = {}


def load_data(ref: str, read: ReadConfig | None = None, seed: int = 0, every_row: bool = False) -> ExampleSource:
    """A data set by name (built in, or of our table of the hub), by path (.jsonl, .csv, .tsv, .parquet, a saved `datasets`
    folder), or as `hub:NAME` (of our table, or any OWNER/NAME whose columns make one of the shapes).

    Args:
        read: columns, groups, split, what to do with bad rows.
        seed: decides which rows are kept where there are too many, or more of one class.
        every_row: keep repeats, contradictions, contexts of one label and whatever one class has more than the other (for whoever wants the rows as they
            are, not a fair comparison of classes).

    Raises:
        DataError: unknown, unreadable, or with rows that cannot be used (each by its line).
    """
    read = read or ReadConfig()
    if is_relation(ref):
        if read.matched:
            raise DataError(
                f"{ref} holds facts, not replies to contexts, which data.read.matched is about; set it for your file alone "
                "(--set 'data.read_by_name={FILE: {matched: true}}')"
            )
        return load_relation(ref)
    state: list = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in data_files(ref, read)]
    if is_registered(ref):
        state.append(registered_dataset(ref).content_digest)
    key = digest(ref, read.model_dump(mode="json"), seed, state, every_row)
    if key not in _loaded:
        faults = RowErrors()
        dataset = read_data(ref, read, seed, faults)
        if not every_row:
            dataset = _without_repeats(dataset, faults, read, seed)
        if faults.count > read.skip_bad:
            skipped = f", --skip-bad allows {read.skip_bad}" if read.skip_bad else ""
            raise DataError(
                f"{dataset.name}: {faults.count} of its rows cannot be used{skipped} ({faults}); mend them, or leave out up "
                f"to N with --skip-bad N"
            )
        if faults.count:
            say(f"{dataset.name}: {faults.count} rows are left out ({faults})")
        _loaded[key] = dataset
    return _loaded[key]


def holds_transcripts(ref: str, read: ReadConfig) -> bool:
    """Whether rows are conversations of which a reply is judged; False too where nothing can be opened (reading says why)."""
    # Those of our tables are known to be none, and are not fetched for the question.
    if is_relation(ref) or ref.removeprefix("hub:") in hub_table():
        return False
    try:
        return _open(ref, read).transcript
    except DataError:
        return False


def read_data(ref: str, read: ReadConfig, seed: int, faults: RowErrors) -> ItemDataset:
    """The data set of a file, folder or hub name; rows that cannot be used are told to `faults`.

    Raises:
        DataError: see `load_data`; also where no row can be used.
    """
    opened = _open(ref, read)
    name = opened.source.name
    grouped = opened.group is not None
    # Near-duplicates are found among more rows than are kept, so that twins stand or fall together.
    sampler = Sampler(read.max_rows * (1 if grouped else 3), seed)
    dropped = {"unlabelled": 0, "too long": 0}
    with bar(opened.source.total, f"reading {name}", unit="row") as progress:
        for line, row in _rows(opened.source, name):
            progress.update()
            try:
                if isinstance(row, InvalidRow):
                    raise row
                made = opened.read(row)
                found = [replace(item, line=line) for item in (made if isinstance(made, list) else [made])]
                if any(item.answers and len(item.answers) < 2 for item in found):
                    raise InvalidRow("no wrong answer differs from the right one")
                if opened.group is not None:
                    group = group_key(name, _cell(row, opened.group))
                    found = [replace(item, group=group) for item in found]
            except LeftOut as what:
                dropped[str(what)] = dropped.get(str(what), 0) + 1
            except InvalidRow as reason:
                faults.add(line, reason)
            else:
                for item in found:
                    if read.max_chars is not None and sum(map(len, item.texts.values())) > read.max_chars:
                        dropped["too long"] += 1
                    else:
                        sampler.add(item.group or item.words, item)
    items = sampler.items()
    if not items:
        why = [f"{count} are {reason}" for reason, count in dropped.items() if count] + (
            [str(faults)] if faults.count else []
        )
        raise DataError(f"{name} has no row that can be used ({'; '.join(why) or 'there are none'})")
    if not grouped:
        items = grouped_by_context(name, items) if items[0].conversation else grouped_by_words(items)
        again = Sampler(read.max_rows, seed)
        for item in items:
            again.add(item.group, item)
        items = again.items()
    dropped["beyond data.read.max_rows"] = sampler.seen - len(items)
    return ItemDataset(
        name=name,
        title=opened.title,
        items=tuple(items),
        forms=opened.forms,
        templates=opened.templates,
        dropped={reason: count for reason, count in dropped.items() if count},
        auto_groups=not grouped,
        seen=sampler.classes(),
    )


def _without_repeats(dataset: ItemDataset, faults: RowErrors, read: ReadConfig, seed: int) -> ItemDataset:
    """The data set without rows that repeat another word for word, and without claims that are said to be true and false
    (told to `faults`), balanced by class.

    Raises:
        DataError: one class only.
    """
    same: dict[str, list[Item]] = {}
    for item in dataset.items:
        same.setdefault(normalised(item.words), []).append(item)
    kept, repeats, contradictions = [], 0, 0
    for mine in same.values():
        if len({item.label for item in mine}) > 1:
            if read.contradictions == "drop":
                contradictions += len(mine)
                continue
            for item in mine:
                faults.add(
                    item.line,
                    InvalidRow(
                        "says what another row says, with the other label (--drop-contradictions leaves both out)"
                    ),
                )
            continue
        kept.append(mine[0])
        repeats += len(mine) - 1
    dropped = {**dataset.dropped, "repeats of another row": repeats, "contradictions": contradictions}
    items = sorted(kept, key=lambda item: item.line)
    if read.matched:
        items = _of_matched_contexts(dataset.name, items, dropped, seed)
    if read.balance:
        items, dropped["surplus of one class"] = balanced(items, seed)
    one_class = not items or {item.label for item in items} in ({True}, {False})
    # Rows that cannot be used are told first: they may be the other class.
    if one_class and faults.count <= read.skip_bad:
        raise DataError(f"{dataset.name} has one class only; a detector needs true and false rows")
    return replace(dataset, items=tuple(items), dropped={reason: count for reason, count in dropped.items() if count})


def _of_matched_contexts(name: str, items: list[Item], dropped: dict[str, int], seed: int) -> list[Item]:
    """Raises `DataError` where there is none."""
    if not any(item.conversation for item in items):
        raise DataError(
            f"{name} has no replies to contexts, which data.read.matched is about; it is read as claims or questions, leave it out"
        )
    kept, alone, surplus = matched(items, seed)
    if not kept:
        raise DataError(
            f"{name}: none of its contexts has an honest and a deceptive reply, which data.read.matched asks for; bring "
            "several replies to each context (`adapterprobe generate --samples`), or leave it out"
        )
    dropped["replies of contexts with one label"], dropped["surplus of one label in a context"] = alone, surplus
    return kept


@dataclass(frozen=True)
class FileRows:
    """Rows as they stand in a file or folder: all their columns, by line."""

    columns: list[str]
    rows: dict[int, tuple[int, Mapping[str, object]]]
    """Line to (place among all rows, counted from 0; cells by column)."""


def rows_by_line(ref: str, read: ReadConfig, lines: Collection[int]) -> FileRows | None:
    """The rows of a data set at some lines, with all their columns; None for built-in facts, which have none."""
    if is_relation(ref):
        return None
    source = _open(ref, read).source
    wanted = set(lines)
    rows = enumerate(_rows(source, source.name))
    return FileRows(
        source.columns,
        {line: (place, row) for place, (line, row) in rows if line in wanted and not isinstance(row, InvalidRow)},
    )


def _rows(source: Source, name: str) -> Rows:
    try:
        yield from source.rows
    except DataError:
        raise
    except Exception as error:
        # Readers of other people raise whatever they like in the middle of a damaged file.
        raise DataError(f"{name} cannot be read to its end ({type(error).__name__}: {str(error)[:160]})") from error


def _open(ref: str, read: ReadConfig) -> Opened:
    name = ref.removeprefix("hub:")
    path = data_path(ref)
    if path is None and name in hub_table():
        return _open_entry(hub_table()[name], read)
    if is_registered(ref):
        source, read = registered_source(ref), read.model_copy(update={"group": registered_dataset(ref).reading.group})
        return _opened(source, read)
    if path is not None:
        data_files(ref, read)
        source = open_folder(path, read.config, read.split) if path.is_dir() else open_file(path)
    elif ref.startswith("hub:"):
        if name.count("/") != 1:
            known = ", ".join(hub_table())
            raise DataError(
                f"'{ref}': expected hub:OWNER/NAME, or a name of our table ({known}){nearest(name, hub_table())}"
            )
        where = str(as_path(read.hub_folder, DataError) / name) if read.hub_folder else name
        source = open_repository(name, where, read.config, read.split, None)
    else:
        raise DataError(
            f"no data set '{ref}'{nearest(ref, all_names())}; `adapterprobe data list` shows all, a file needs its ending "
            f"({', '.join(FILES)}), other data sets of the hub go by hub:OWNER/NAME"
        )
    return _opened(source, read)


def _opened(source: Source, read: ReadConfig) -> Opened:
    """Rows whose columns make one of the shapes."""
    shape, columns = find_shape(source.name, source.columns, read.columns)
    if read.group is not None and read.group not in source.columns:
        raise DataError(
            f"{source.name} has no column '{read.group}' for groups{nearest(read.group, source.columns)}; it has "
            f"{', '.join(source.columns[:30])} (a run reads single data sets otherwise with "
            f"--set 'data.read_by_name={{{source.name}: {{group: null}}}}')"
        )

    classes = {ours: source.classes.get(theirs) for ours, theirs in columns.items()}

    group = read.group or ("group" if shape.transcript and "group" in source.columns else None)

    def canonical(row: Mapping[str, object]) -> Item | list[Item]:
        values = {ours: row.get(theirs) for ours, theirs in columns.items()}
        for ours, names in classes.items():
            # What a class is called says what it means; its number does not.
            value = values[ours]
            if names and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
                values[ours] = names[value]
        item = shape.read(values)
        if isinstance(item, Item) and "statement" in item.texts and not read.exact:
            item = replace(item, texts={**item.texts, "statement": as_clause(item.texts["statement"])})
        return item

    return Opened(
        source, f"{shape.name} rows of {source.name}", shape.forms, canonical, group, transcript=shape.transcript
    )


def _open_entry(entry: HubEntry, read: ReadConfig) -> Opened:
    source = open_entry(entry, read.split, read.hub_folder)
    return Opened(source, entry.title, entry.forms, entry.read, entry.group, entry.templates)


def _cell(row: Mapping[str, object], column: str) -> str:
    value = row.get(column)
    if isinstance(value, (bool, int)) or (isinstance(value, float) and value.is_integer()):
        if abs(value) >= 10**100:
            raise InvalidRow(f"'{column}' holds a number of more than 100 digits")
        return str(int(value))
    return text_of(row, column)
