"""Lines on their way from one process to another in memory that outlives both: what is appended here no end of a process loses.

A folder of files in the machine's memory (tmpfs), readable to its owner alone, for each process that appends: ``<place>/<owner>/``
holds ``lock`` and segments named by the number of bytes before them, zeros where nothing stands yet. Its owner and the reader hold the
lock together; what nobody holds was left by processes that died, and is to be read by the next (``abandoned``). Nothing here is
flushed: a machine that stops loses what it had not handed on.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from llm_assets.serving.memory import own_folder

SEGMENT = 1 << 20  # bytes of a segment, more where a line is longer; what has been read is removed by whole segments
LOCK = "lock"


class SpoolError(OSError):
    """Lines cannot be kept in memory."""


def place(folder: Path) -> Path:
    """Where the spools for a folder of logs stand, each in a folder of its owner's. Raises like ``own_folder``."""
    return own_folder() / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


class End:
    """One end of a spool, which holds its lock."""

    folder: Path
    _lock: BinaryIO

    def close(self) -> None:
        """Let the spool go; what is left in it stays for whoever reads."""
        self._lock.close()

    def remove(self) -> None:
        """Remove the spool, and let it go."""
        _remove(self.folder)
        self.close()


class Spool(End):
    """Appends lines. For one thread.

    A line is stored as memory, not by a call of the system: each of those lets go of the interpreter's lock, which an engine then has
    for up to half a millisecond (``server.SWITCH``).
    """

    def __init__(self, parent: Path) -> None:
        self.folder = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
        self.position = 0  # bytes appended so far
        self._begun = 0  # the position at the beginning of the segment
        self._memory: mmap.mmap | None = None  # of the segment
        self._size = 0
        made = parent / f"new-{self.folder.name}"
        made.mkdir(mode=0o700, parents=True)
        self._lock = locked(made)
        (made / _name(0)).touch()  # without memory: where none is left a new gateway must still come to write what filled it
        made.rename(self.folder)  # nobody takes it for abandoned before it is locked

    def append(self, data: bytes) -> None:
        """Append whole lines without zeros, all or none of them. Raises ``SpoolError`` where the memory does not take them."""
        start = self.position - self._begun
        if self._memory is None or start + len(data) > self._size:
            self._go_on(max(SEGMENT, len(data)))
            start = 0
        assert self._memory is not None
        end = start + len(data)
        self._memory[start : end - 1] = data[:-1]
        self._memory[end - 1 : end] = data[-1:]  # now whoever reads sees a line
        self.position += len(data)

    def close(self) -> None:
        """Let the spool go; what is left in it stays for whoever reads."""
        if self._memory is not None:
            self._memory.close()
        super().close()

    def _go_on(self, size: int) -> None:
        """Begin another segment, named otherwise than one in which nothing stands."""
        begun = max(self.position, self._begun + 1)
        memory = self._begin(self.folder / _name(begun), size)
        if self._memory is not None:
            self._memory.close()
        self._memory, self._size, self._begun, self.position = memory, size, begun, begun

    def _begin(self, path: Path, size: int) -> mmap.mmap:
        """A segment whose memory is there before anything is stored in it: memory that turns out to be full would end the process."""
        made = path.with_suffix(".new")
        try:
            with made.open("w+b") as file:
                file.write(bytes(size))
                file.flush()
                memory = mmap.mmap(file.fileno(), size)
            made.rename(path)
        except OSError as error:
            made.unlink(missing_ok=True)
            raise SpoolError(f"{self.folder} takes no more ({error}): free memory") from error
        return memory


class Backlog(End):
    """Reads the lines of a spool, also while they are appended. For one thread."""

    def __init__(self, folder: Path, lock: BinaryIO | None = None) -> None:
        """``lock`` is the spool's, where the caller has it alone."""
        self.folder = folder
        self.position = min(self._segments(), default=0)  # bytes before what is read next
        self._begun = self.position  # the position at the beginning of the segment that is read
        self._blank = self.position  # the position up to which it was let go of
        self._lock, self._segment = lock or locked(folder), self._open()

    def close(self) -> None:
        """Let the spool go; what is left in it stays for whoever reads."""
        self._segment.close()
        super().close()

    def read(self, most: int) -> list[bytes]:
        """The next whole lines, of ``most`` bytes together or one that is longer; none where there is none yet.

        A piece that was cut off, since its writer died, is passed over.
        """
        while True:
            following = [begun for begun in self._segments() if begun > self._begun]  # asked first: to a segment before these nothing is appended
            while whole := self._whole_lines(most):
                self.position += len(whole)
                if lines := [line for line in whole.split(b"\n") if line]:
                    return lines
            if not following:
                return []
            self._segment.close()
            self.position = self._begun = min(following)
            self._segment = self._open()

    def end(self) -> int:
        """The position behind all that there is now."""
        return max(begun + len(_stored(self._path(begun))) for begun in self._segments())

    def forget(self) -> None:
        """Let go of what has been read: remove the segments before this one, and blank its beginning."""
        for begun in self._segments():
            if begun < self._begun:
                self._path(begun).unlink()
        self._blank = max(self._blank, self._begun)
        self._segment.seek(self._blank - self._begun)
        self._segment.write(b"\n" * (self.position - self._blank))
        self._blank = self.position

    def _whole_lines(self, most: int) -> bytes:
        self._segment.seek(self.position - self._begun)
        data = self._segment.read(most)
        while data and not data.endswith(b"\0") and b"\n" not in data and (more := self._segment.read(most)):
            data += more
        stored = data.partition(b"\0")[0]
        return stored[: stored.rfind(b"\n") + 1]

    def _segments(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.jsonl")]

    def _path(self, begun: int) -> Path:
        return self.folder / _name(begun)

    def _open(self) -> BinaryIO:
        return self._path(self._begun).open("r+b", buffering=0)


def locked(folder: Path) -> BinaryIO:
    """The lock of a spool, held with whoever else writes or reads it until it is closed."""
    lock = (folder / LOCK).open("ab")
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def pending(parent: Path) -> dict[Path, int]:
    """The segments that hold what was not let go of yet, and their bytes."""
    found: dict[Path, int] = {}
    for path in sorted(parent.glob("*/*.jsonl")):
        with suppress(FileNotFoundError):  # let go of meanwhile
            if _holds_lines(path):
                found[path] = len(_stored(path))
    return found


def gone(segment: Path, size: int) -> bool:
    """Whether the first bytes of a segment were let go of."""
    return not _holds_lines(segment, size)


def abandoned(parent: Path) -> Iterator[Backlog]:
    """What is left in spools that nobody writes or reads any more; each is the caller's alone."""
    for path in sorted(parent.glob(f"[0-9]*/{LOCK}")):
        try:
            lock = path.open("r+b")
        except FileNotFoundError:  # another one has just removed it
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield Backlog(path.parent, lock)
        except BlockingIOError:
            lock.close()
        except FileNotFoundError:  # it was removed, or whoever removed it died over that
            _remove(path.parent)
            lock.close()


def _holds_lines(segment: Path, size: int | None = None) -> bool:
    with suppress(FileNotFoundError):
        return bool(_stored(segment)[:size].strip(b"\n"))
    return False


def _stored(segment: Path) -> bytes:
    """What stands in a segment, read or not."""
    return segment.read_bytes().partition(b"\0")[0]


def _remove(folder: Path) -> None:
    for path in [*folder.glob("*.jsonl"), *folder.glob("*.new"), folder / LOCK]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # another one did so, or others stand in the parent
        folder.rmdir()
        folder.parent.rmdir()


def _name(begun: int) -> str:
    return f"{begun:016d}.jsonl"
