"""What others recorded of the same artifacts - Dagster's event log, MLflow, git - beside what the store says of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO

import dagster as dg

from llm_assets.audit.current import ENTRY, FINGERPRINT
from llm_assets.audit.index import Index, Row
from llm_assets.audit.integrity import Damage
from llm_assets.links.chain import LINKS, link_of
from llm_assets.links.sources import PACKAGE
from llm_assets.store.manifest import ArtifactError, Manifest
from llm_assets.tracking.tracker import Tracker

PAGE = 1000  # materializations read at once
# Run in the sources of another commit: the hash of every link there, as that commit computes it.
HASHES = """
import json
from llm_assets.links import chain
from llm_assets.links.sources import code_hash
links = getattr(chain, "EVERY", chain.CHAIN)  # before links had variants there was one chain
print(json.dumps({getattr(link, "identity", link.name): code_hash(link.make.__module__) for link in links}))
"""


def dagster_damages(instance: dg.DagsterInstance, indexes: Sequence[Index], rows: Iterable[Row]) -> Iterator[Damage]:
    """Materializations that the stores or journals do not know or know otherwise, and artifacts of runs that Dagster never had."""
    for key in instance.all_asset_keys():
        if len(key.path) != 2 or key.path[1] not in LINKS:
            continue
        chain, link = key.path
        for record in _materializations(instance, key):
            materialization = record.asset_materialization
            if materialization is None:
                continue
            metadata, version = materialization.metadata, (materialization.tags or {}).get("dagster/data_version")
            if ENTRY in metadata:
                at = str(metadata[ENTRY].value)
                if not any(index.has_act(chain, link, at) for index in indexes):
                    yield Damage(link, at, f"{link} of {chain}: Dagster's event log has run {record.run_id} at {at}, the journal has not", "journal")
            elif FINGERPRINT in metadata:
                yield from unlike(indexes, (link, str(metadata[FINGERPRINT].value)), record.run_id, version)
    runs = {row.dagster_run: row for row in rows if row.dagster_run}
    known = {run.run_id for run in instance.get_runs(dg.RunsFilter(run_ids=list(runs)))} if runs else set()
    for run, row in runs.items():
        if run not in known:
            yield Damage(*row.name, f"{row.link} {row.fingerprint}: Dagster has no run {run}, which its manifest names", "dagster")


def unlike(indexes: Sequence[Index], name: tuple[str, str], run: str, version: str | None) -> Iterator[Damage]:
    """An artifact that Dagster's event log has and no store, or has at another data version."""
    row = next((row for index in indexes if (row := index.artifact(name))), None)
    shown = " ".join(name)
    if row is None:
        yield Damage(*name, f"{shown}: Dagster's event log has it of run {run}; the store has neither it nor a record of its removal", "dagster")
    elif row.data_version and version and row.data_version != version:
        yield Damage(*name, f"{shown}: Dagster's event log has data version {version}, its manifest {row.data_version}", "dagster")


def _materializations(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[dg.EventLogRecord]:
    cursor: str | None = None
    while True:
        page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
        yield from page.records
        if not page.has_more:
            return
        cursor = page.cursor


def mlflow_damages(trackers: Sequence[Tracker], rows: Iterable[Row]) -> Iterator[Damage]:
    """Artifacts whose MLflow run is in none of the trackers. Raises what the client raises when one does not answer."""
    runs = {row.mlflow_run: row for row in rows if row.mlflow_run}
    missing = list(runs)
    for tracker in trackers:
        missing = tracker.missing(missing) if missing else []
    for run in missing:
        yield Damage(*runs[run].name, f"{runs[run].link} {runs[run].fingerprint}: MLflow has no run {run}, which its sidecar names", "mlflow")


def code_damages(index: Index, rows: Iterable[Row]) -> Iterator[Damage]:
    """Artifacts whose recorded hash of the code is not that of their commit. Of a commit that is not here nothing can be said."""
    by_commit: dict[str, list[Manifest]] = defaultdict(list)
    for row in rows:
        if row.state == "present" and row.git_commit and (manifest := _manifest(index, row)) and manifest.code.get("dirty") is False:
            by_commit[row.git_commit].append(manifest)
    for commit, manifests in by_commit.items():
        hashes = code_hashes(commit)
        for manifest in manifests:
            link = link_of(manifest.link, manifest.recipe.get("variant", ""))
            there = hashes.get(link.identity) if hashes and link else None
            if there and there != manifest.code.get("hash"):
                said = f"the code of commit {commit[:12]} has hash {there}, its manifest says {manifest.code.get('hash')}"
                yield Damage(manifest.link, manifest.fingerprint, f"{manifest.link} {manifest.fingerprint}: {said}", "code")


def code_hashes(commit: str) -> Mapping[str, str] | None:
    """The code hash of every link at a commit, computed by the sources of that commit; None where git does not have it."""
    archive = subprocess.run(("git", "archive", commit, PACKAGE.name), cwd=PACKAGE.parent, capture_output=True, check=False)
    if archive.returncode:
        return None
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
        environment = {**os.environ, "PYTHONPATH": folder}
        found = subprocess.run((sys.executable, "-c", HASHES), cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return dict(json.loads(found.stdout)) if found.returncode == 0 else None


def _manifest(index: Index, row: Row) -> Manifest | None:
    try:
        return index.store.read_manifest(*row.name)
    except ArtifactError:
        return None
