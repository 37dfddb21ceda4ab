"""Bundles on the Hugging Face hub: by id and revision, plain files alone."""

from __future__ import annotations

import re
from pathlib import Path

from adapterprobe.detectors.bundle_record import ADAPTER, CARD, FORMAT_FILE, GOLDEN, NOVELTY, PROBE, RECORD
from adapterprobe.detectors.loaded import LoadedDetector
from adapterprobe.errors import CacheError, OutputError
from adapterprobe.terminal import reason_of

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
FILES = [
    RECORD, GOLDEN, NOVELTY, CARD, FORMAT_FILE, "checksums.json", f"{PROBE}.json", f"{PROBE}.safetensors", f"{ADAPTER}/*.json",
    f"{ADAPTER}/*.safetensors",
]  # fmt: skip
"""What a bundle is made of; nothing else is fetched."""


def fetched(repo_id: str, revision: str | None = None, token: str | None = None) -> Path:
    """The folder of a bundle of the hub, in the hub's own cache.

    Raises:
        CacheError: there is no such repository, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        folder = Path(snapshot_download(repo_id, revision=revision, allow_patterns=FILES, token=token))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        reason = reason_of(error)
        raise CacheError(
            f"cannot fetch the detector '{repo_id}' from the hub ({reason}); check its name and the connection, or give a local folder"
        ) from error
    return _plain(folder)


def _plain(folder: Path) -> Path:
    """The hub's cache has links into its own store; a bundle is read from plain files, so they are written out beside it."""
    import os
    import shutil

    from adapterprobe.cache import cache_root

    if not any(path.is_symlink() for path in folder.rglob("*")):
        return folder
    store = folder.parents[1].resolve()
    out = cache_root() / "detectors" / f"{folder.parents[1].name}-{folder.name}"
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    if out.is_dir():
        return out
    for path in folder.rglob("*"):
        if path.is_dir():
            continue
        real = path.resolve()
        if not real.is_relative_to(store):
            raise CacheError(f"{path} leads out of the hub's cache; remove that cache and fetch it again")
        target = part / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(real, target)
    part.replace(out)
    return out


def push(detector: LoadedDetector, repo_id: str, private: bool, token: str | None) -> str:
    """See `Detector.push_to_hub`."""
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not HUB_ID.fullmatch(repo_id):
        raise OutputError(f"'{repo_id}' is no name of a repository; expected OWNER/NAME")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory(prefix="adapterprobe-push-") as name:
        folder = detector.save(Path(name) / "bundle")
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=str(folder), commit_message=f"{detector.record.name}", allow_patterns=FILES
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            reason = reason_of(error)
            raise OutputError(
                f"cannot push to {repo_id} ({reason}); log in with `hf auth login`, or give a token that may write there"
            ) from error
    return str(done.commit_url)
