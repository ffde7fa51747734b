"""Files of JSON lines, one a chain and UTC day: appended to so that a crash costs no whole line, and read without parsing all."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO

from llm_assets.store.files import flush_directory


class DatedFiles:
    """``<folder>/<chain>/<date>.jsonl``. A line cut off by a crash stays alone on its line.

    The date is the caller's clock: one that jumps back goes on in the file of the earlier date. One thread appends; another one may flush.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, tuple[Path, BinaryIO]] = {}  # chain -> the file of its newest line
        self._unflushed: set[str] = set()  # chains
        self._lock = threading.Lock()  # of both

    def path(self, chain: str, day: date) -> Path:
        """Where the lines of a day stand."""
        return self._folder / chain / f"{day.isoformat()}.jsonl"

    def since(self, chain: str, day: date) -> list[Path]:
        """A chain's files of a day and those after it, oldest first."""
        return [path for path in dated_files(self._folder, chain) if path.stem >= day.isoformat()]

    def all_of(self, day: date) -> list[Path]:
        """Every chain's file of a day."""
        return sorted(self._folder.glob(f"*/{day.isoformat()}.jsonl"))

    def append(self, lines: Mapping[str, bytes], day: date, flush: bool = True) -> dict[str, OSError]:
        """Append each chain's whole lines and flush them to the disk; the chains where that failed, with the error.

        Without ``flush`` the operating system has them then, so that no end of a process loses them; see ``flush``.
        """
        failed: dict[str, OSError] = {}
        for chain, data in lines.items():
            try:
                with self._held(chain, self.path(chain, day)) as file:
                    _append(file, data, flush)
                    if not flush:
                        with self._lock:
                            self._unflushed.add(chain)
            except OSError as error:
                with suppress(OSError):
                    self._close(chain)  # reopening mends a line cut off
                failed[chain] = error
        return failed

    def flush(self) -> dict[str, OSError]:
        """Flush to the disk what was appended without; the chains where that failed, with the error: some of their lines may be lost."""
        failed: dict[str, OSError] = {}
        with self._lock:
            copies = {chain: os.dup(self._files[chain][1].fileno()) for chain in self._unflushed if chain in self._files}
            self._unflushed.clear()
        for chain, descriptor in copies.items():  # copies: whoever appends may close a file meanwhile
            try:
                os.fsync(descriptor)
            except OSError as error:
                failed[chain] = error
            finally:
                os.close(descriptor)
        return failed

    def close(self) -> None:
        """Flush and close every file."""
        for chain in list(self._files):
            self._close(chain)

    def _file(self, chain: str, path: Path) -> BinaryIO:
        known = self._files.get(chain)
        if known and known[0] == path and os.fstat(known[1].fileno()).st_nlink:  # somebody may have deleted it
            return known[1]
        self._close(chain)
        path.parent.mkdir(parents=True, exist_ok=True)
        file: BinaryIO = path.open("ab+", buffering=0)  # unbuffered: each write is one system call
        with self._lock:
            self._files[chain] = (path, file)
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        else:
            flush_directory(path.parent)  # a new name must survive a power cut as its lines do
        return file

    @contextmanager
    def _held(self, chain: str, path: Path) -> Iterator[BinaryIO]:
        """The file to append to, under its lock; where ``rewrite`` replaced it while this waited, the new one."""
        while True:
            file = self._file(chain, path)
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if os.fstat(file.fileno()).st_nlink:
                    yield file
                    return
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)

    def _close(self, chain: str) -> None:
        with self._lock:
            known, unflushed = self._files.pop(chain, None), chain in self._unflushed
            self._unflushed.discard(chain)
        if known:
            with known[1] as file:
                if unflushed:
                    os.fsync(file.fileno())


def _append(file: BinaryIO, data: bytes, flush: bool) -> None:
    """Write all of it, and flush it if asked to, or take back what was written: nobody is told of it, so nothing may read it.

    What is longer holds lines of another process too, such as the recorder of a gateway that was just killed; nothing is taken then.
    """
    size = file.seek(0, os.SEEK_END)
    try:
        if file.write(data) != len(data):
            raise OSError("the disk took a part of it only")
        if flush:
            os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            if file.seek(0, os.SEEK_END) <= size + len(data):
                file.truncate(size)
        raise


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> bool:
    """Replace a file's content by what ``change`` makes of it, whole or not at all; returns whether it made anything else of it.

    Whoever appends through ``DatedFiles`` waits meanwhile, and goes on in the new file: no line is lost. Owner and mode stay.
    """
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, content = os.fstat(file.fileno()), file.read()
        changed = change(content)
        if changed == content:
            return False
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as replacement:
                os.fchmod(descriptor, status.st_mode & 0o7777)
                os.fchown(descriptor, status.st_uid, status.st_gid)
                replacement.write(changed)
                replacement.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    flush_directory(path.parent)
    return True


def dated_files(folder: Path, chain: str) -> Iterator[Path]:
    """A chain's files, oldest first."""
    yield from sorted((folder / chain).glob("????-??-??.jsonl"))


def lines_with(path: Path, text: str) -> Iterator[dict[str, Any]]:
    """The whole JSON lines of a file that hold a text, oldest first; the others are not parsed."""
    with _mapped(path) as content:
        end = 0
        while (place := content.find(text.encode(), end)) >= 0:
            start, end = content.rfind(b"\n", 0, place) + 1, content.find(b"\n", place)
            end = len(content) if end < 0 else end
            yield from _parsed(content[start:end])


def last_lines(path: Path, count: int) -> Iterator[dict[str, Any]]:
    """The last ``count`` lines of a file, newest first; those that are no JSON object are passed over."""
    with _mapped(path) as content:
        end = len(content)
        if end and content[end - 1 : end] == b"\n":
            end -= 1  # nothing stands after the last line's end
        while end > 0 and count > 0:
            start = content.rfind(b"\n", 0, end) + 1
            yield from _parsed(content[start:end])
            end, count = start - 1, count - 1


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap | bytes]:
    """A file's bytes, which are not read before they are looked at; none where there is no file."""
    try:
        with path.open("rb") as file:
            if not file.seek(0, os.SEEK_END):
                yield b""
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield content
    except FileNotFoundError:
        yield b""


def _parsed(line: bytes) -> Iterator[dict[str, Any]]:
    try:
        value = json.loads(line)
    except ValueError:  # cut off, or empty
        return
    if isinstance(value, dict):
        yield value
