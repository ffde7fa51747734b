"""The artifact store: finds, opens, makes and forgets artifacts under a root that any fsspec URL may name."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from llm_assets.store.artifact import Artifact
from llm_assets.store.files import DiskFullError, flush_directory, flush_file, write_atomic
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.journal import Journal
from llm_assets.store.manifest import MANIFEST, ArtifactError, Manifest
from llm_assets.store.verdict import VERDICTS, RefusedError, Verdict, failed


class Store:
    """Artifacts at ``<root>/<link>/<fingerprint>/``, journals and work in progress under a local home.

    ``root`` is an fsspec URL (``s3://bucket/prefix``, ``memory://x``); by default ``<home>/artifacts``. With a remote
    root an artifact is opened through a copy in ``<home>/cache``, so links always see local paths. The lock is local
    to one home: two machines on one remote root may both make an artifact, and the first manifest written wins.
    """

    def __init__(self, home: Path, root: str | None = None) -> None:
        self.home = home
        self.filesystem, self.root = fsspec.core.url_to_fs(root or str(home / "artifacts"))
        self.is_local = isinstance(self.filesystem, LocalFileSystem)

    # --- reading -------------------------------------------------------------------------------------------------

    def find(self, link: str, fingerprint: str) -> Artifact | None:
        """The committed artifact, its file sizes verified, or None. Raises ``ArtifactError`` for a damaged one."""
        place = self._place(link, fingerprint)
        try:
            manifest = Manifest.read(self.filesystem.cat_file(f"{place}/{MANIFEST}"), f"{place}/{MANIFEST}")
        except FileNotFoundError:
            return None
        directory = Path(place) if self.is_local else self._copy_to_cache(manifest)
        artifact = Artifact(directory, manifest)
        artifact.check_sizes()
        return artifact

    def open(self, link: str, fingerprint: str) -> Artifact:
        """Like ``find``, but raises ``ArtifactError`` when there is no such artifact."""
        artifact = self.find(link, fingerprint)
        if artifact is None:
            raise ArtifactError(f"no {link} {fingerprint} in {self.root}: materialize {link}, or restore it from a backup")
        return artifact

    def manifests(self) -> Iterator[Manifest]:
        """The manifest of every committed artifact."""
        for path in sorted(self.filesystem.glob(f"{self.root}/*/*/{MANIFEST}")):
            yield Manifest.read(self.filesystem.cat_file(path), path)

    def newest(self, link: str) -> Manifest | None:
        """The manifest last committed for a link, whichever chain made it."""
        found = [manifest for manifest in self.manifests() if manifest.link == link]
        return max(found, key=lambda manifest: manifest.started, default=None)

    # --- verdicts ------------------------------------------------------------------------------------------------

    def verdicts(self, link: str, fingerprint: str) -> list[Verdict] | None:
        """What the checks said of an artifact, or None when they have not run."""
        try:
            content = self.filesystem.cat_file(f"{self._place(link, fingerprint)}/{VERDICTS}")
        except FileNotFoundError:
            return None
        return [Verdict.model_validate(value) for value in json.loads(content)]

    def judge(self, artifact: Artifact, verdicts: list[Verdict]) -> None:
        """Keep the checks' verdicts beside the manifest."""
        self.write_sidecar(artifact.link, artifact.fingerprint, VERDICTS, [verdict.model_dump(mode="json") for verdict in verdicts])

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
        place = f"{self._place(link, fingerprint)}/{name}"
        content = json.dumps(value, ensure_ascii=False, indent=2, default=str)
        if self.is_local:
            write_atomic(Path(place), content)
        else:
            self.filesystem.pipe_file(place, content.encode())

    def read_sidecar(self, link: str, fingerprint: str, name: str) -> object | None:
        """A sidecar's JSON value, or None."""
        try:
            return json.loads(self.filesystem.cat_file(f"{self._place(link, fingerprint)}/{name}"))
        except FileNotFoundError:
            return None

    # --- making --------------------------------------------------------------------------------------------------

    def make(self, recipe: Recipe, build: Callable[[Path, Path], Manifest]) -> tuple[Artifact, bool]:
        """The recipe's artifact and whether it stood already.

        ``build(directory, scratch)`` writes the artifact's files into ``directory`` and returns the manifest;
        ``scratch`` keeps what a killed build resumes from. A second caller of the same recipe waits, then reuses.
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
                write_atomic(work / "recipe.json", json.dumps(asdict(recipe), ensure_ascii=False, indent=2))
                manifest = build(directory, scratch)
                self._commit(directory, manifest)
            except OSError as error:
                if error.errno == errno.ENOSPC and not isinstance(error, DiskFullError):
                    raise DiskFullError(work) from error
                raise
            shutil.rmtree(work, ignore_errors=True)
            return self.open(recipe.link, fingerprint), False

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

    def remove(self, link: str, fingerprint: str) -> None:
        """Delete an artifact, its manifest first, so that a half-deleted one is never found."""
        place = self._place(link, fingerprint)
        if self.filesystem.exists(f"{place}/{MANIFEST}"):
            self.filesystem.rm_file(f"{place}/{MANIFEST}")
        if self.filesystem.exists(place):
            self.filesystem.rm(place, recursive=True)
        shutil.rmtree(self._cached(link, fingerprint), ignore_errors=True)

    def _place(self, link: str, fingerprint: str) -> str:
        return f"{self.root}/{link}/{fingerprint}"

    def _cached(self, link: str, fingerprint: str) -> Path:
        return self.home / "cache" / link / fingerprint

    def _commit(self, directory: Path, manifest: Manifest) -> None:
        place = self._place(manifest.link, manifest.fingerprint)
        content = manifest.model_dump_json(indent=2)
        if not self.is_local:
            for name in manifest.files:
                self.filesystem.makedirs(f"{place}/{name}".rsplit("/", 1)[0], exist_ok=True)
                self.filesystem.put_file(str(directory / name), f"{place}/{name}")
            self.filesystem.pipe_file(f"{place}/{MANIFEST}", content.encode())
            return
        for name in manifest.files:
            flush_file(directory / name)
        target = Path(place)
        shutil.rmtree(target, ignore_errors=True)  # what a crash left between rename and manifest
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(directory, target)
        flush_directory(target.parent)
        write_atomic(target / MANIFEST, content)

    def _copy_to_cache(self, manifest: Manifest) -> Path:
        """A remote artifact's files on the local disk; what is there already and whole is not fetched again."""
        directory = self._cached(manifest.link, manifest.fingerprint)
        place = self._place(manifest.link, manifest.fingerprint)
        for name, entry in manifest.files.items():
            target = directory / name
            if target.is_file() and target.stat().st_size == entry.size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.part")
            self.filesystem.get_file(f"{place}/{name}", str(partial))
            partial.replace(target)
        return directory
