"""Which materialization of an asset may be built on: one of given runs, else the newest whose blocking checks passed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from llm_assets.links.chain import LINKS
from llm_assets.links.link import Entry, Input
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store
from llm_assets.store.verdict import RefusedError, Verdict, failed

FINGERPRINT = "fingerprint"  # metadata of a made link's materialization
ENTRY = "journal_entry"  # metadata of an act's: the time its journal entry carries
TRIAL = "trial"
HISTORY = 100  # materializations looked through for one that may be used


class NothingUsableError(LookupError):
    """No materialization of a link may be built on."""


@dataclass(frozen=True)
class Usable:
    """A link's outcome that may be built on, and the materialization that states it."""

    value: Input
    data_version: str
    storage_id: int


def newest_usable(instance: dg.DagsterInstance, store: Store, chain: str, link: str, runs: Collection[str] = ()) -> Usable:
    """What the newest of ``runs`` made, else the newest outcome that is no trial and passed its blocking checks.

    Raises ``NothingUsableError`` with the reason and the command that mends it.
    """
    records = instance.fetch_materializations(dg.AssetKey([chain, link]), limit=HISTORY).records
    same_run = [record for record in records if record.run_id in runs]
    reasons = []
    for record in same_run[:1] or records:
        metadata = record.asset_materialization.metadata if record.asset_materialization else {}
        if not same_run and TRIAL in metadata and metadata[TRIAL].value:
            continue
        try:
            value, data_version = _load(store, chain, link, metadata)
        except (ArtifactError, RefusedError) as error:
            reasons.append(str(error))
            continue
        return Usable(value, data_version, record.storage_id)
    why = reasons[0] if reasons else "it was never materialized"
    raise NothingUsableError(f"no usable {link} for chain {chain}: {why}. Remedy: llm-assets run {chain} --select {link}")


def current_artifact(chain: str, link: str, root: str | None = None) -> Artifact:
    """The artifact a chain stands on now, in its store at ``root`` or below the data root. Raises ``NothingUsableError``."""
    from llm_assets.store.home import prepare_environment

    store = Store(prepare_environment(), root)
    with dg.DagsterInstance.get() as instance:
        value = newest_usable(instance, store, chain, link).value
    if not isinstance(value, Artifact):
        raise NothingUsableError(f"{link} is an act and leaves no artifact; read its journal at {store.journal(chain, link).path}")
    return value


def _load(store: Store, chain: str, link: str, metadata: Mapping[str, Any]) -> tuple[Input, str]:
    if LINKS[link].act:
        entry = _entry(store, chain, link, str(metadata[ENTRY].value))
        return entry["record"], entry["data_version"]
    artifact = store.open(link, str(metadata[FINGERPRINT].value))
    store.refuse_failed(artifact)
    return artifact, artifact.data_version


def _entry(store: Store, chain: str, link: str, at: str) -> Entry:
    journal = store.journal(chain, link)
    entry = journal.newest(lambda entry: entry["at"] == at)
    if entry is None:
        raise ArtifactError(f"{journal.path} has no entry of {at}; materialize {link} again")
    if bad := failed([Verdict.model_validate(verdict) for verdict in entry["verdicts"]]):
        raise RefusedError(f"{link} of {at} failed {', '.join(verdict.check for verdict in bad)}: {bad[0].description}")
    return entry
