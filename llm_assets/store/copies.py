"""Copies of a remote root's artifacts on the local disk, each file taken only when it has the hash that its manifest records."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fsspec import AbstractFileSystem

from llm_assets.store.files import sha256_file
from llm_assets.store.manifest import ArtifactError, FileEntry, Manifest


def copy_here(filesystem: AbstractFileSystem, place: str, manifest: Manifest, directory: Path, refetch: bool) -> Path:
    """The files of the artifact at ``place``, in ``directory``; what is there already and whole is not fetched again unless asked to.

    Raises ``ArtifactError`` for a file that is missing or has another hash.
    """
    for name, entry in manifest.files.items():
        target = directory / name
        if refetch or not target.is_file() or target.stat().st_size != entry.size:
            _fetch(filesystem, f"{place}/{name}", manifest.link, entry, target)
    return directory


def _fetch(filesystem: AbstractFileSystem, remote: str, link: str, entry: FileEntry, target: Path) -> None:
    """Download one file beside ``target``, compare its hash, then rename it into place."""
    remedy = f"run `llm-assets verify --discard` and materialize {link} again"
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(descriptor)
    try:
        filesystem.get_file(remote, temporary)
        if sha256_file(Path(temporary)) != entry.sha256:
            raise ArtifactError(f"{remote} does not have the hash its manifest records; {remedy}")
        Path(temporary).replace(target)
    except FileNotFoundError as error:
        raise ArtifactError(f"{remote} is missing; {remedy}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
