"""Fills the tables of the index from a store's manifests and sidecars, and from the journals of its home.

A refresh reads what is new alone: 4,000 artifacts that stand already cost 0.03 s (two file times each).
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llm_assets.audit.lineage import Name
from llm_assets.serving.releases import CANDIDATE
from llm_assets.store.manifest import MANIFEST, ArtifactError, Manifest
from llm_assets.store.store import REMOVED, Store
from llm_assets.tracking.record import TRACKING

VERSION = 1  # of the tables; another one is built anew
BUSY = 60.0  # seconds to wait for another process that refreshes
TABLES = """
create table artifacts (
    link text, fingerprint text, seen text, state text, why text, data_version text, made text, dagster_run text, mlflow_run text, git_commit text,
    primary key (link, fingerprint)) without rowid;
create index by_fingerprint on artifacts (fingerprint);
create table inputs (
    link text, fingerprint text, name text, input_link text, input_fingerprint text, data_version text,
    primary key (link, fingerprint, name)) without rowid;
create index by_input on inputs (input_link, input_fingerprint);
create index by_content on inputs (input_link, data_version);
create table acts (
    chain text, act text, at text, run text, trial integer, passed integer, model text, entry text, primary key (chain, act, at)) without rowid;
create index by_model on acts (act, model);
create table releases (
    release text primary key, chain text, number integer, at text, run text, model text, record text) without rowid;
create index release_of on releases (model);
create table journals (path text primary key, position integer) without rowid;
"""


def open_tables(path: Path) -> sqlite3.Connection:
    """The database at ``path``, made anew where there is none, or one that is damaged or of another version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        if database.execute("pragma user_version").fetchone()[0] == VERSION:
            return database
    except sqlite3.DatabaseError:
        pass  # cut off or no database at all: everything in it can be read again
    database.close()
    path.unlink()
    database = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    database.executescript(f"begin immediate; {TABLES} pragma user_version = {VERSION}; commit;")
    return database


def read_what_is_new(database: sqlite3.Connection, store: Store) -> int:
    """Bring the tables up to date; returns how many artifacts were read."""
    with _writing(database):
        seen = {(link, fingerprint): at for link, fingerprint, at in database.execute("select link, fingerprint, seen from artifacts")}
        found = dict(_listing(store))
        for name in seen.keys() - found.keys():
            _forget(database, name)
        news = [name for name, at in found.items() if seen.get(name) != at]
        for name in news:
            _forget(database, name)
            _read(database, store, name, found[name])
        for path in sorted((store.home / "journal").glob("*/*.jsonl")):
            _read_journal(database, path)
    return len(news)


def _read(database: sqlite3.Connection, store: Store, name: Name, seen: str) -> None:
    link, fingerprint = name
    manifest, state, why = None, "present", ""
    try:
        manifest = store.read_manifest(link, fingerprint)
    except ArtifactError as error:
        state, why = "unreadable", str(error)
    if manifest is None and state == "present":
        marker = store.read_sidecar(link, fingerprint, REMOVED)
        manifest = Manifest.model_validate(marker["manifest"]) if isinstance(marker, dict) and marker.get("manifest") else None
        state, why = "removed", f"removed on {marker['at'][:10]}: {marker['reason']}" if isinstance(marker, dict) else ""
    tracking = store.read_sidecar(link, fingerprint, TRACKING) if state == "present" else None
    run = tracking.get("run_id") if isinstance(tracking, dict) else None
    values = (manifest.data_version, manifest.started, manifest.dagster_run_id) if manifest else (None, None, None)
    commit = manifest.code.get("commit") if manifest else None
    database.execute("insert into artifacts values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*name, seen, state, why, *values, run, commit))
    inputs = manifest.inputs.items() if manifest else ()
    database.executemany(
        "insert into inputs values (?, ?, ?, ?, ?, ?)",
        [(*name, key, entry.link, entry.fingerprint, entry.data_version) for key, entry in inputs],
    )


def _forget(database: sqlite3.Connection, name: Name) -> None:
    for table in ("artifacts", "inputs"):
        database.execute(f"delete from {table} where link = ? and fingerprint = ?", name)


def _read_journal(database: sqlite3.Connection, path: Path) -> None:
    """Read the whole lines past the last position; a journal that became shorter is read from its beginning."""
    chain, act = path.parent.name, path.stem
    known = database.execute("select position from journals where path = ?", (str(path),)).fetchone()
    position = known[0] if known else 0
    size = path.stat().st_size
    if size == position:
        return
    if size < position:
        database.execute("delete from acts where chain = ? and act = ?", (chain, act))
        database.execute("delete from releases where chain = ? and 'release' = ?", (chain, act))
        position = 0
    with path.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            _read_entry(database, chain, act, line)
    database.execute("insert or replace into journals values (?, ?)", (str(path), position))


def _read_entry(database: sqlite3.Connection, chain: str, act: str, line: bytes) -> None:
    try:
        entry = json.loads(line)
        record = entry["record"]
    except (ValueError, KeyError, TypeError):
        return  # cut off by a crash; `verify` reports it
    trial, at, run = bool(entry.get("trial")), entry["at"], entry.get("run_id")
    passed = all(verdict["passed"] for verdict in entry.get("verdicts") or () if verdict["blocking"])
    model = record.get("quantized_model")
    database.execute(
        "insert or replace into acts values (?, ?, ?, ?, ?, ?, ?, ?)", (chain, act, at, run, trial, passed, model, line.decode().strip())
    )
    if act == "release" and passed and not trial:
        _read_release(database, chain, at, run, record)


def _read_release(database: sqlite3.Connection, chain: str, at: str, run: str | None, record: dict[str, Any]) -> None:
    """The entry that made a release champion first counts, and before there is one its candidacy: rollbacks and re-runs repeat it."""
    name, model = record["release"], record["quantized_model"]
    known = database.execute("select record from releases where release = ?", (name,)).fetchone()
    if known is None or (json.loads(known[0]).get("state") == CANDIDATE and record.get("state") != CANDIDATE):
        values = (name, chain, record["number"], at, run, model, json.dumps(record, ensure_ascii=False))
        database.execute("insert or replace into releases values (?, ?, ?, ?, ?, ?, ?)", values)


def _listing(store: Store) -> Iterator[tuple[Name, str]]:
    """Every artifact, present or removed, with what changes when its manifest or a sidecar does."""
    if not store.is_local:
        yield from ((name, "present") for name in store.names())
        yield from ((name, "removed") for name in store.removed())
        return
    for link in _folders(store.root):
        for folder in _folders(link.path):
            for file in (MANIFEST, REMOVED):  # a path object for each would double the time
                try:
                    status = os.stat(f"{folder.path}/{file}")  # noqa: PTH116
                except FileNotFoundError:
                    continue
                yield (link.name, folder.name), f"{status.st_mtime_ns}:{status.st_size}:{folder.stat().st_mtime_ns}"
                break


def _folders(path: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if entry.is_dir()]
    except FileNotFoundError:
        return []


@contextmanager
def _writing(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("begin immediate")
    try:
        yield
    except BaseException:
        database.execute("rollback")
        raise
    database.execute("commit")
