"""Whether Dagster's graph and the store tell the same: what a materialization says it read, and what its artifact says it was made from.

Held against each other for one materialization and, by what each read, for all before it: the artifact exists or a record says why not, its data
version and those of its inputs are Dagster's, its manifest is the one that the ledger has; an act stands in its journal as it was written.
No file is hashed but the manifests: `llm-assets verify` does that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG, INPUT_EVENT_POINTER_TAG_PREFIX, get_input_data_version_tag

from llm_assets.audit.current import ENTRY, FINGERPRINT
from llm_assets.audit.index import Index, Row
from llm_assets.audit.verify import Report, input_damages, unsealed
from llm_assets.audit.witnesses import unlike
from llm_assets.links.chain import LINKS
from llm_assets.store.ledger import entry_hash

Key = tuple[str, ...]


@dataclass(frozen=True)
class Agreement:
    """What was compared, and where the two disagree, a sentence each."""

    materializations: int
    breaks: list[str]


def compare(instance: dg.DagsterInstance, index: Index, chain: str, link: str) -> Agreement:
    """Compare the newest materialization of a chain's link and all that it read. The index must be up to date."""
    return _Comparison(instance, index).run((chain, link))


class _Comparison:
    """One walk up the graph."""

    def __init__(self, instance: dg.DagsterInstance, index: Index) -> None:
        self.instance, self.index, self.store = instance, index, index.store
        entries = list(self.store.ledger.entries())
        self.acted = {(entry["chain"], entry["link"], entry["name"]): entry["entry"] for entry in entries if entry["event"] == "acted"}
        self.since = entries[0]["at"] if entries else None  # since when a ledger is kept
        self.rows: dict[Key, Row] = {}

    def run(self, key: Key) -> Agreement:
        newest = self._record(key)
        if newest is None:
            return Agreement(0, [f"Dagster's event log has no materialization of {'/'.join(key)}: materialize it"])
        waiting, seen, breaks = [(key, newest)], {newest.storage_id}, list[str]()
        while waiting:
            key, record = waiting.pop()
            breaks += self._breaks(key, record)
            for parent, version, storage_id in _read(record):
                found = self._record(parent, storage_id)
                if found is None or _version(found) != version:
                    had = f"there it has {_version(found)}" if found else "no such event is there any more"
                    breaks.append(f"{'/'.join(key)} read {'/'.join(parent)} {version} from Dagster's event {storage_id}; {had}")
                elif storage_id not in seen:
                    seen.add(storage_id)
                    waiting.append((parent, found))
        report = Report()
        report.add(unsealed(self.store, self.rows.values(), report))
        for row in self.rows.values():
            report.add(input_damages(self.index, row))
        return Agreement(len(seen), list(dict.fromkeys([*breaks, *(damage.reason for damage in report.damages)])))

    def _record(self, key: Key, storage_id: int | None = None) -> dg.EventLogRecord | None:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(key), storage_ids=[storage_id] if storage_id is not None else None)
        return next(iter(self.instance.fetch_materializations(wanted, limit=1).records), None)

    def _breaks(self, key: Key, record: dg.EventLogRecord) -> Iterator[str]:
        if len(key) != 2 or key[1] not in LINKS:
            return  # an asset of the user's own project, of which the store knows nothing
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        if FINGERPRINT in metadata:
            yield from self._made(key, str(metadata[FINGERPRINT].value), record)
        elif ENTRY in metadata:
            yield from self._acted(key, str(metadata[ENTRY].value), record)
        else:
            yield f"{'/'.join(key)}: Dagster's event {record.storage_id} names neither an artifact nor a journal's entry"

    def _made(self, key: Key, fingerprint: str, record: dg.EventLogRecord) -> Iterator[str]:
        name = (key[1], fingerprint)
        yield from (damage.reason for damage in unlike([self.index], name, record.run_id, _version(record)))
        if row := self.index.artifact(name):
            self.rows[name] = row
        recorded = {_asset(key[0], read): version for read, (_, version) in self.index.inputs(name).items()}
        yield from _differences(" ".join(name), "its manifest", recorded, record)

    def _acted(self, key: Key, at: str, record: dg.EventLogRecord) -> Iterator[str]:
        chain, link = key
        shown, journal = f"{'/'.join(key)} of {at}", self.store.journal(chain, link)
        entry = journal.newest(lambda entry: entry["at"] == at)
        if entry is None:
            yield f"{shown}: Dagster's event log has it of run {record.run_id}, {journal.path} has not"
            return
        written = self.acted.get((chain, link, at))
        if written is None and self.since and at > self.since:
            yield f"{shown}: the ledger, kept since {self.since}, has it not"
        elif written is not None and written != entry_hash(entry):
            yield f"{shown}: its entry in {journal.path} is not as it was written"
        if entry["data_version"] != _version(record):
            yield f"{shown}: Dagster's event log has data version {_version(record)}, its journal {entry['data_version']}"
        read = {name: self.index.artifact((name, fingerprint)) for name, fingerprint in entry["inputs"].items()}
        recorded: dict[Key, str] = {
            (chain, name): (row.data_version or "") if row else f"(no artifact {entry['inputs'][name]})" for name, row in read.items()
        }
        yield from _differences(shown, "its journal", recorded, record)


def _differences(shown: str, where: str, recorded: Mapping[Key, str], record: dg.EventLogRecord) -> Iterator[str]:
    """Inputs that the store records and Dagster does not, or at another data version. What a link was given and did not read is Dagster's alone."""
    tags = _tags(record)
    for asset, version in recorded.items():
        stated = tags.get(get_input_data_version_tag(dg.AssetKey(asset)))
        if stated != version:
            yield f"{shown}: {where} says that it was made from {'/'.join(asset)} {version}, Dagster's event log says {stated or 'nothing of it'}"


def _read(record: dg.EventLogRecord) -> Iterator[tuple[Key, str, int]]:
    """What a materialization says it read: asset, data version, and which event stated it."""
    tags = _tags(record)
    for tag, pointer in tags.items():
        if tag.startswith(INPUT_EVENT_POINTER_TAG_PREFIX) and pointer.isdigit():
            key = dg.AssetKey.from_user_string(tag.removeprefix(f"{INPUT_EVENT_POINTER_TAG_PREFIX}/"))
            yield tuple(key.path), tags.get(get_input_data_version_tag(key), ""), int(pointer)


def _asset(chain: str, name: str) -> Key:
    """The asset that an input's name in a manifest means: a link of the same chain, or the asset that the config names."""
    return tuple(name.split("/")) if "/" in name else (chain, name)


def _tags(record: dg.EventLogRecord) -> Mapping[str, Any]:
    return (record.asset_materialization.tags if record.asset_materialization else None) or {}


def _version(record: dg.EventLogRecord) -> str | None:
    return _tags(record).get(DATA_VERSION_TAG)
