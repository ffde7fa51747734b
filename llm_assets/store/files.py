"""Writing that is either whole or absent, and hashing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

HASH_BLOCK = 1 << 20  # bytes a read; 1 MiB keeps SHA-256 at the speed of the disk


class DiskFullError(OSError):
    """No space was left while something was written; nothing was committed."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            errno.ENOSPC,
            f"disk full while writing {path}: nothing was committed; free space (llm-assets gc) and run again",
        )


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write ``content`` beside ``path``, flush it to the disk, then rename it into place.

    Raises ``DiskFullError`` where no space is left; ``path`` then still holds what it held before.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise DiskFullError(path) from error
        raise
    flush_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    """``write_atomic`` for a JSON value, indented and in UTF-8."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def flush_file(path: Path) -> None:
    """Force a file's bytes to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Force a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()
