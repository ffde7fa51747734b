"""Files as streams of bytes, unpacked on the way: gzip, and the members of zip archives, each bounded against bombs."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

EXPANSION = 200  # a packed file may unpack to so many times its size; DEFLATE, which packs no better than 1,032 to 1, packs no honest text so well
FREE = 64 << 20  # bytes that may always be unpacked, however well they were packed

Opener = Callable[[], IO[bytes]]


def opener(path: Path) -> Opener:
    """Opens a file's bytes, unpacked where its name ends in ``.gz``."""
    if path.name.lower().endswith(".gz"):
        return lambda: io.BufferedReader(_Bounded(gzip.open(path), path.name, path.stat().st_size))
    return lambda: path.open("rb")


def zip_members(path: Path, wanted: Callable[[str], object]) -> Iterator[tuple[str, Opener]]:
    """Name and opener of every member of a zip archive whose name is wanted, by name. Raises ``ValueError`` for a damaged archive."""
    try:
        with zipfile.ZipFile(path) as box:
            entries = sorted((entry for entry in box.infolist() if wanted(entry.filename)), key=lambda entry: entry.filename)
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is no whole zip archive ({error})") from error
    for entry in entries:
        yield entry.filename, _member_opener(path, entry)


def _member_opener(path: Path, entry: zipfile.ZipInfo) -> Opener:
    def open_member() -> IO[bytes]:
        box = zipfile.ZipFile(path)
        return io.BufferedReader(_Bounded(box.open(entry), entry.filename, entry.compress_size, box))

    return open_member


class _Bounded(io.RawIOBase):
    """An unpacking stream that stops where no honest text would have been packed so small."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, name: str, packed: int, owner: zipfile.ZipFile | None = None) -> None:
        self._stream, self._name, self._owner = stream, name, owner
        self._left = max(FREE, packed * EXPANSION)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._stream.read(len(buffer))
        except (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{self._name} is damaged or cut off ({error})") from error
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"{self._name} unpacks to more than {EXPANSION} times its size: taken for a decompression bomb, nothing is read")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        if self._owner:
            self._owner.close()
        super().close()
