"""The artifact store: finds, opens, makes and forgets artifacts under a root that any fsspec URL may name."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from llm_assets.store.artifact import Artifact
from llm_assets.store.copies import copy_here
from llm_assets.store.files import DiskFullError, flush_directory, flush_file, write_atomic
from llm_assets.store.fingerprint import Recipe, digest
from llm_assets.store.journal import Journal, now
from llm_assets.store.ledger import Ledger, sha256
from llm_assets.store.manifest import MANIFEST, ArtifactError, Manifest
from llm_assets.store.verdict import VERDICT_PAGES, VERDICTS, RefusedError, Verdict, failed

REMOVED = "removed.json"  # what stays of an artifact that was removed on purpose


class Store:
    """Artifacts at ``<root>/<link>/<fingerprint>/``, journals and work in progress under a local home.

    ``root`` is an fsspec URL (``s3://bucket/prefix``, ``memory://x``); by default ``<home>/artifacts``. With a remote
    root an artifact is opened through a copy in ``<home>/cache/<digest of the root>``, so links always see local paths.

    The lock under which an artifact is made is local to one home, so two homes on one root may both make it; the first
    manifest written wins and the other home takes that artifact. On a local root a lock in the root holds this. A remote
    root has no lock: the manifest is looked for before each file is uploaded and again before it is written. What remains
    is the time of one upload: a home that commits while another, which has not seen that yet, uploads a file of the same
    name with other bytes. Such an artifact is refused when it is fetched (its hashes differ) and found by ``verify``.
    """

    def __init__(self, home: Path, root: str | None = None) -> None:
        self.home = home
        self.filesystem, self.root = fsspec.core.url_to_fs(root or str(home / "artifacts"), use_listings_cache=False)
        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self.ledger = Ledger(home)
        self.cache = home / "cache" / digest(self.filesystem.unstrip_protocol(self.root))[:12]

    # --- reading -------------------------------------------------------------------------------------------------

    def find(self, link: str, fingerprint: str, *, refetch: bool = False) -> Artifact | None:
        """The committed artifact, its file sizes verified, or None. Raises ``ArtifactError`` for a damaged one.

        What the cache holds of a remote artifact is taken by its size; ``refetch`` fetches every file again.
        """
        manifest = self.read_manifest(link, fingerprint)
        if manifest is None:
            return None
        place = self._place(link, fingerprint)
        directory = Path(place) if self.is_local else copy_here(self.filesystem, place, manifest, self._cached(link, fingerprint), refetch)
        artifact = Artifact(directory, manifest)
        artifact.check_sizes()
        return artifact

    def open(self, link: str, fingerprint: str, *, refetch: bool = False) -> Artifact:
        """Like ``find``, but raises ``ArtifactError`` when there is no such artifact."""
        artifact = self.find(link, fingerprint, refetch=refetch)
        if artifact is None:
            raise ArtifactError(f"no {link} {fingerprint} in {self.root}: materialize {link}, or restore it from a backup")
        return artifact

    def names(self, link: str = "*") -> Iterator[tuple[str, str]]:
        """Link and fingerprint of every committed artifact, of one link or of all, whether its manifest can be read or not."""
        for path in sorted(self.filesystem.glob(f"{self.root}/{link}/*/{MANIFEST}")):
            _, name, fingerprint, _ = str(path).rsplit("/", 3)
            yield name, fingerprint

    def removed(self, link: str = "*") -> Iterator[tuple[str, str]]:
        """Link and fingerprint of every artifact that was removed on purpose, whose manifest is kept in ``removed.json``."""
        for path in sorted(self.filesystem.glob(f"{self.root}/{link}/*/{REMOVED}")):
            _, name, fingerprint, _ = str(path).rsplit("/", 3)
            if not self.filesystem.exists(f"{self._place(name, fingerprint)}/{MANIFEST}"):  # else it was made again since
                yield name, fingerprint

    def manifests(self, link: str = "*") -> Iterator[Manifest]:
        """The manifest of every committed artifact, of one link or of all.

        One that cannot be read is passed over, so that it stops nothing else; ``audit.integrity`` reports it.
        """
        for name, fingerprint in self.names(link):
            try:
                manifest = self.read_manifest(name, fingerprint)
            except ArtifactError:
                continue
            if manifest is not None:
                yield manifest

    def read_manifest(self, link: str, fingerprint: str) -> Manifest | None:
        """The manifest of a committed artifact, or None. Raises ``ArtifactError`` for one that cannot be read."""
        place = f"{self._place(link, fingerprint)}/{MANIFEST}"
        try:
            return Manifest.read(self.filesystem.cat_file(place), place)
        except FileNotFoundError:
            return None

    def manifest_hash(self, link: str, fingerprint: str) -> str | None:
        """The SHA-256 of a manifest's bytes, whether it can be read or not; None where there is none."""
        return self._hash(link, fingerprint, MANIFEST)

    def verdicts_hash(self, link: str, fingerprint: str) -> str | None:
        """The SHA-256 of an artifact's verdicts as they stand."""
        return self._hash(link, fingerprint, VERDICTS)

    def _hash(self, link: str, fingerprint: str, name: str) -> str | None:
        try:
            return sha256(self.filesystem.cat_file(f"{self._place(link, fingerprint)}/{name}"))
        except FileNotFoundError:
            return None

    def newest(self, link: str) -> Manifest | None:
        """The manifest last committed for a link, whichever chain made it."""
        return max(self.manifests(link), key=lambda manifest: manifest.started, default=None)

    # --- verdicts ------------------------------------------------------------------------------------------------

    def verdicts(self, link: str, fingerprint: str) -> list[Verdict] | None:
        """What the checks said of an artifact, or None when they have not run."""
        try:
            content = self.filesystem.cat_file(f"{self._place(link, fingerprint)}/{VERDICTS}")
        except FileNotFoundError:
            return None
        return [Verdict.model_validate(value) for value in json.loads(content)]

    def judge(self, artifact: Artifact, verdicts: list[Verdict]) -> None:
        """Keep the checks' verdicts beside the manifest, and the pages that some come with."""
        for verdict in verdicts:
            if verdict.page is not None:
                self._write_beside(artifact.link, artifact.fingerprint, f"{VERDICT_PAGES}/{verdict.check}.html", verdict.page)
        self.write_sidecar(artifact.link, artifact.fingerprint, VERDICTS, [verdict.model_dump(mode="json") for verdict in verdicts])
        self.ledger.append("judged", artifact.link, artifact.fingerprint, verdicts=self.verdicts_hash(artifact.link, artifact.fingerprint) or "")

    def refuse_failed(self, artifact: Artifact) -> None:
        """Raise ``RefusedError`` unless every blocking check of the artifact ran and passed."""
        verdicts = self.verdicts(artifact.link, artifact.fingerprint)
        if verdicts is None:
            raise RefusedError(f"{artifact.link} {artifact.fingerprint} was never checked: materialize {artifact.link} again")
        if bad := failed(verdicts):
            reasons = "; ".join(f"{verdict.check}: {verdict.description}" for verdict in bad)
            raise RefusedError(
                f"{artifact.link} {artifact.fingerprint} failed a blocking check ({reasons}); mend its cause and materialize {artifact.link} again"
            )

    def write_sidecar(self, link: str, fingerprint: str, name: str, value: object) -> None:
        """Write a JSON file beside a manifest; sidecars are not part of the artifact's hash."""
        self._write_beside(link, fingerprint, name, json.dumps(value, ensure_ascii=False, indent=2, default=str))

    def _write_beside(self, link: str, fingerprint: str, name: str, content: str) -> None:
        place = f"{self._place(link, fingerprint)}/{name}"
        if self.is_local:
            write_atomic(Path(place), content)
        else:
            self.filesystem.pipe_file(place, content.encode())

    def read_sidecar(self, link: str, fingerprint: str, name: str) -> object | None:
        """A sidecar's JSON value, or None."""
        try:
            value: object = json.loads(self.filesystem.cat_file(f"{self._place(link, fingerprint)}/{name}"))
        except FileNotFoundError:
            return None
        return value

    # --- making --------------------------------------------------------------------------------------------------

    def make(self, recipe: Recipe, build: Callable[[Path, Path], Manifest]) -> tuple[Artifact, bool]:
        """The recipe's artifact and whether it stood already.

        ``build(directory, scratch)`` writes the artifact's files into ``directory`` and returns the manifest;
        ``scratch`` keeps what a killed build resumes from. A second caller of the same recipe waits, then reuses; where
        another home committed it meanwhile, its artifact stands and this one is dropped.
        Raises ``DiskFullError`` where space runs out; work in progress stays for the next attempt.
        """
        fingerprint = recipe.fingerprint
        if found := self.find(recipe.link, fingerprint):
            return found, True
        with self.lock(fingerprint):
            if found := self.find(recipe.link, fingerprint):
                return found, True
            work = self.work(fingerprint)
            directory, scratch = work / "artifact", work / "scratch"
            shutil.rmtree(directory, ignore_errors=True)
            try:
                directory.mkdir(parents=True)
                scratch.mkdir(exist_ok=True)
                write_atomic(work / "recipe.json", json.dumps(recipe.stated(), ensure_ascii=False, indent=2))
                is_first = self._commit(directory, build(directory, scratch))
                if is_first:
                    self.ledger.append("made", recipe.link, fingerprint, manifest=self.manifest_hash(recipe.link, fingerprint) or "")
            except OSError as error:
                if error.errno == errno.ENOSPC and not isinstance(error, DiskFullError):
                    raise DiskFullError(work) from error
                raise
            shutil.rmtree(work, ignore_errors=True)
            return self.open(recipe.link, fingerprint), not is_first

    def lock(self, fingerprint: str) -> FileLock:
        """The lock under which a fingerprint is made; the system releases it when its holder dies."""
        folder = self.home / "work"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{fingerprint}.lock")

    def is_being_made(self, fingerprint: str) -> bool:
        """Whether another process holds the fingerprint's lock now."""
        lock = self.lock(fingerprint)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
        return False

    def work(self, fingerprint: str) -> Path:
        """Where work in progress for a fingerprint stands, and is resumed."""
        return self.home / "work" / fingerprint

    def journal(self, chain: str, act: str) -> Journal:
        """The journal of an act of a chain."""
        return Journal(self.home / "journal" / chain / f"{act}.jsonl")

    def act_lock(self, chain: str, act: str) -> FileLock:
        """The lock under which an act reads its journal, acts and appends; another than the one each append takes."""
        return self.journal(chain, act).turn()

    def remove(self, link: str, fingerprint: str, reason: str | None = None) -> None:
        """Delete an artifact, its manifest first, so that a half-deleted one is never found.

        With a ``reason`` a record stays in its place, ``removed.json``: when, why, and the manifest (null where that cannot be read).
        """
        place = self._place(link, fingerprint)
        try:
            manifest = self.read_manifest(link, fingerprint)
        except ArtifactError:
            manifest = None
        with self._root_lock(link):
            if self.filesystem.exists(f"{place}/{MANIFEST}"):
                self.filesystem.rm_file(f"{place}/{MANIFEST}")
            if self.filesystem.exists(place):
                self.filesystem.rm(place, recursive=True)
            if reason is not None:
                kept = manifest.model_dump(mode="json") if manifest else None
                self.write_sidecar(link, fingerprint, REMOVED, {"at": now(), "reason": reason, "manifest": kept})
        self.ledger.append("removed", link, fingerprint)
        shutil.rmtree(self._cached(link, fingerprint), ignore_errors=True)

    def _place(self, link: str, fingerprint: str) -> str:
        return f"{self.root}/{link}/{fingerprint}"

    def _cached(self, link: str, fingerprint: str) -> Path:
        return self.cache / link / fingerprint

    def _root_lock(self, link: str) -> AbstractContextManager[object]:
        """Held while a link's folder in a local root changes, by whichever home; a remote root has none."""
        if not self.is_local:
            return nullcontext()
        folder = Path(self.root) / link
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / ".commit.lock")

    def _commit(self, directory: Path, manifest: Manifest) -> bool:
        """Whether these files became the artifact; False where another home was first: what it committed is left alone."""
        content = manifest.model_dump_json(indent=2)
        if not self.is_local:
            return self._upload(directory, manifest, content)
        for name in manifest.files:
            flush_file(directory / name)
        target = Path(self._place(manifest.link, manifest.fingerprint))
        with self._root_lock(manifest.link):
            if (target / MANIFEST).exists():
                return False
            shutil.rmtree(target, ignore_errors=True)  # what a crash left between move and manifest
            shutil.move(directory, target)
            flush_directory(target.parent)
            write_atomic(target / MANIFEST, content)
        return True

    def _upload(self, directory: Path, manifest: Manifest, content: str) -> bool:
        place = self._place(manifest.link, manifest.fingerprint)
        for name in manifest.files:
            if self.read_manifest(manifest.link, manifest.fingerprint):
                return False
            self.filesystem.makedirs(f"{place}/{name}".rsplit("/", 1)[0], exist_ok=True)
            self.filesystem.put_file(str(directory / name), f"{place}/{name}")
        if self.read_manifest(manifest.link, manifest.fingerprint):
            return False
        self.filesystem.pipe_file(f"{place}/{MANIFEST}", content.encode())
        return True
