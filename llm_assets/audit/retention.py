"""What may be deleted: artifacts that no release, no chain's present settings and no run of late stands on, and old traces of runs."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from llm_assets.audit.lineage import Name, ancestors, manifests_by_name
from llm_assets.serving.releases import standing
from llm_assets.serving.state import proven
from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store

DAY = 86400.0  # seconds
RETENTION = "llm-assets gc: no release, no chain's settings and no recent run stood on it"
WATCHED = 3600.0  # seconds; a run under way writes its progress more often, and someone may be following it


@dataclass(frozen=True)
class Garbage:
    """What `llm-assets gc` would delete, and what it keeps for which reason."""

    artifacts: list[Manifest]
    work: list[Path]  # files and folders below the data root: abandoned work, old acts' files, progress, locks
    kept: dict[Name, str]

    @property
    def size(self) -> int:
        """Bytes that deleting the artifacts frees."""
        return sum(manifest.size for manifest in self.artifacts)


def find_garbage(store: Store, current: Mapping[str, Mapping[str, str]], keep_days: float) -> Garbage:
    """``current`` maps chain to what its settings would reuse now (link to fingerprint).

    Kept: what the champion, previous or waiting release of any chain with a journal, and the one served, stands on, with everything upstream; what a
    chain would reuse; what was made in the last ``keep_days`` days; the newest files of each act; work and locks that a
    process holds. Where one of these artifacts has a manifest that cannot be read, nobody knows what it stands on, and
    no artifact is garbage until `llm-assets verify --discard` has cleared it away.
    """
    manifests = manifests_by_name(store)
    unreadable = set(store.names()) - manifests.keys()
    kept: dict[Name, str] = {}
    for reason, roots in _roots(store, current):
        reached = ancestors(manifests, roots)
        kept |= dict.fromkeys(reached & manifests.keys() - kept.keys(), reason)
        for link, fingerprint in sorted(reached & unreadable):
            unknown = f"{link} {fingerprint} of the {reason} cannot be read, nor what it stands on; run `llm-assets verify --discard`"
            kept |= dict.fromkeys(manifests.keys() - kept.keys(), unknown)
    youngest = time.time() - keep_days * DAY
    for name, manifest in manifests.items():
        if _made_at(manifest) >= youngest:
            kept.setdefault(name, f"made in the last {keep_days:g} days")
    return Garbage([manifest for name, manifest in manifests.items() if name not in kept], sorted(_old_traces(store, youngest)), kept)


def collect(store: Store, garbage: Garbage) -> None:
    """Delete what ``find_garbage`` found; of each artifact a record with its manifest stays, and work that a process took up since stays."""
    for manifest in garbage.artifacts:
        with store.lock(manifest.fingerprint):
            store.remove(manifest.link, manifest.fingerprint, RETENTION)
    for path in garbage.work:
        if path.suffix == ".lock":
            _under(path, path.unlink)
        elif (path / "recipe.json").is_file():
            _under(path.with_name(f"{path.name}.lock"), partial(shutil.rmtree, path))
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _roots(store: Store, current: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, Iterable[Name]]]:
    """Why something is kept, and the artifacts for which that holds with all they stand on."""
    for path in sorted((store.home / "journal").glob("*/release.jsonl")):
        chain = path.parent.name
        known = standing(store.journal(chain, "release"))
        for title, release in (("champion", known.champion), ("previous", known.previous), ("candidate", known.candidate)):
            if release is not None:
                yield f"{title} release of {chain}", [("quantized_model", str(release["quantized_model"]))]
        if (served := proven(store.home, chain)) is not None:
            yield f"served release of {chain}", [("quantized_model", served.fingerprint)]
    for chain, fingerprints in current.items():
        yield f"settings of {chain}", fingerprints.items()


def _made_at(manifest: Manifest) -> float:
    return datetime.fromisoformat(manifest.started).timestamp() + manifest.seconds


def _old_traces(store: Store, youngest: float) -> Iterator[Path]:
    """What runs leave behind for ever unless somebody clears it: work, locks, progress, OpenLineage's events, the files of acts."""
    work = store.home / "work"
    for path in work.glob("*/recipe.json"):
        if _is_older(path.parent, youngest) and not store.is_being_made(path.parent.name):
            yield path.parent
    for path in (*work.glob("*.lock"), *work.glob("runs/*.lock")):
        if _is_older(path, youngest) and not path.with_suffix("").exists() and _under(path):
            yield path
    for path in (work / "progress").glob("*.jsonl"):
        if _is_older(path, min(youngest, time.time() - WATCHED)):
            yield path
    for path in (store.home / "openlineage").glob("*/*.jsonl"):
        if _is_older(path, youngest):
            yield path
    for act in (store.home / "acts").glob("*/*"):
        runs = sorted(act.iterdir(), key=_changed_at)
        yield from (folder for folder in runs[:-1] if _is_older(folder, youngest))


def _is_older(path: Path, youngest: float) -> bool:
    return _changed_at(path) < youngest


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # its run ended meanwhile, and took it away
        return math.inf


def _under(lock_file: Path, change: Callable[[], None] = lambda: None) -> bool:
    """Make a change while holding a lock, and say whether that was possible now.

    A lock file is deleted like this too: who waits for it sees that it is gone, and makes it anew.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    try:
        change()
    finally:
        lock.release()
    return True
