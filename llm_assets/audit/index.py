"""An embedded database over a store's manifests, sidecars and a home's journals: who was made from what, asked within milliseconds.

It holds nothing that is not in those files: deleting ``<home>/audit/`` loses nothing, and the next question builds it again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from llm_assets.audit.indexing import open_tables, read_what_is_new
from llm_assets.audit.lineage import Name
from llm_assets.store.store import Store


@dataclass(frozen=True)
class Row:
    """An artifact as the index knows it."""

    link: str
    fingerprint: str
    state: str  # present, removed or unreadable
    why: str  # it is not present
    data_version: str | None
    made: str | None  # UTC, ISO 8601
    dagster_run: str | None
    mlflow_run: str | None
    git_commit: str | None

    @property
    def name(self) -> Name:
        """Link and fingerprint."""
        return self.link, self.fingerprint


COLUMNS = tuple(column.name for column in fields(Row))


@dataclass(frozen=True)
class Release:
    """A release as its chain's journal records it."""

    release: str
    chain: str
    number: int
    at: str
    run: str | None
    model: str  # fingerprint of its quantized_model
    record: dict[str, Any]


class Index:
    """The database of one store, at ``<home>/audit/index.db`` (of a remote root: ``index-<digest of the root>.db``)."""

    def __init__(self, store: Store) -> None:
        self.store = store
        name = "index.db" if store.root == str(store.home / "artifacts") else f"index-{store.cache.name}.db"
        self.path = store.home / "audit" / name
        self._database = open_tables(self.path)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def refresh(self) -> int:
        """Read what is new in the store and the journals; returns how many artifacts were read."""
        return read_what_is_new(self._database, self.store)

    def artifact(self, name: Name) -> Row | None:
        """What is known of an artifact."""
        return next(self._artifacts("where link = ? and fingerprint = ?", name), None)

    def artifacts(self, link: str = "%") -> list[Row]:
        """Every artifact, of one link or of all."""
        return list(self._artifacts("where link like ? order by made", (link,)))

    def starting_with(self, prefix: str) -> list[Row]:
        """Artifacts whose fingerprint begins so."""
        return list(self._artifacts("where fingerprint >= ? and fingerprint < ?", (prefix, f"{prefix}g")))

    def of_run(self, run: str) -> list[Row]:
        """Artifacts that a Dagster or MLflow run made."""
        return list(self._artifacts("where dagster_run = ? or mlflow_run = ?", (run, run)))

    def inputs(self, name: Name) -> dict[str, tuple[Name, str]]:
        """The inputs of an artifact by their names there: which artifact, and the data version it had."""
        rows = self._rows("select name, input_link, input_fingerprint, data_version from inputs where link = ? and fingerprint = ?", name)
        return {key: ((link, fingerprint), version) for key, link, fingerprint, version in rows}

    def descendants(self, roots: Iterable[Name]) -> dict[Name, Row]:
        """All that was made from ``roots``, or from what has the same content, nearest first."""
        columns = ", ".join(f"artifacts.{column}" for column in COLUMNS)
        query = f"select {columns} from inputs join artifacts using (link, fingerprint) where input_link = ?1 and"
        either = f"{query} input_fingerprint = ?2 union {query} inputs.data_version = ?3"  # an `or` would look through all of the link
        found: dict[Name, Row] = {}
        waiting = deque((root, known.data_version if (known := self.artifact(root)) else None) for root in roots)
        while waiting:
            parent, version = waiting.popleft()
            for row in (Row(*values) for values in self._rows(either, (*parent, version))):
                if row.name not in found:
                    found[row.name] = row
                    waiting.append((row.name, row.data_version))
        return found

    def release(self, release: str) -> Release | None:
        """A release by its name."""
        return next(self._releases("where release = ?", (release,)), None)

    def releases(self, chain: str = "%") -> list[Release]:
        """Every release, of one chain or of all, oldest first."""
        return list(self._releases("where chain like ? order by at", (chain,)))

    def releases_of(self, models: Iterable[str]) -> list[Release]:
        """The releases of quantized models, by fingerprint, oldest first."""
        found = [release for model in models for release in self._releases("where model = ?", (model,))]
        return sorted(found, key=lambda release: release.at)

    def has_act(self, chain: str, act: str, at: str) -> bool:
        """Whether the journal of an act has an entry of that time."""
        return bool(self._rows("select 1 from acts where chain = ? and act = ? and at = ?", (chain, act, at)))

    def newest_act(self, act: str) -> dict[str, Any] | None:
        """The newest entry of an act, of whichever chain."""
        found = self._rows("select entry from acts where act = ? and passed order by at desc limit 1", (act,))
        return dict(json.loads(found[0][0])) if found else None

    def judged(self, chain: str, model: str, before: str) -> dict[str, Any] | None:
        """The newest scorecard entry of a chain on a quantized model up to a time: what the release's gates said."""
        query = "select entry from acts where act = 'scorecard' and model = ? and chain = ? and at <= ? order by at desc limit 1"
        found = self._database.execute(query, (model, chain, before)).fetchone()
        return dict(json.loads(found[0])) if found else None

    def ids(self) -> list[str]:
        """Every fingerprint and release name."""
        return [one for (one,) in self._rows("select fingerprint from artifacts union select release from releases")]

    def _artifacts(self, where: str, values: tuple[Any, ...]) -> Iterator[Row]:
        return (Row(*row) for row in self._rows(f"select {', '.join(COLUMNS)} from artifacts {where}", values))

    def _releases(self, where: str, values: tuple[Any, ...]) -> Iterator[Release]:
        rows = self._rows(f"select release, chain, number, at, run, model, record from releases {where}", values)
        return (Release(name, chain, number, at, run, model, json.loads(record)) for name, chain, number, at, run, model, record in rows)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return self._database.execute(query, values).fetchall()
