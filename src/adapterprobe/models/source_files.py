"""What of a model's folder or repository can run: remembered with a run, and compared before any of it is imported."""

from __future__ import annotations

from pathlib import Path

from adapterprobe.cache import file_digest

READ = (".py", ".json", ".jinja", ".model", ".txt")
"""Files of a model folder beside its weights."""


def source_record(source: str | None, commit: str | None = None) -> dict[str, str]:
    """Content hashes of a local folder's files beside its weights, or the commit of a repository of the hub.

    Args:
        source: folder or hub id, as a `LanguageModel` has it.
        commit: which commit a hub id was loaded at, where that is known.
    """
    folder = Path(source) if source else None
    if folder is None or not folder.is_dir():
        return {"commit": commit} if commit else {}
    files = sorted(path for path in folder.rglob("*") if path.suffix in READ and path.is_file())
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def differing(recorded: dict[str, str], now: dict[str, str]) -> list[str]:
    """Files of code and settings that are not as they were recorded, new ones among them."""
    return sorted(
        name
        for name in {*recorded, *now}
        if (name.endswith(".py") or name in ("config.json", "tokenizer_config.json", "commit"))
        and recorded.get(name) != now.get(name)
    )
