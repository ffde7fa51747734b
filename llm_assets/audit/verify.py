"""Everything that can be held against everything else: bytes, manifests, recipes, inputs, journals, the ledger, Dagster, MLflow and git."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llm_assets.audit.index import Index, Release, Row
from llm_assets.audit.integrity import Damage, damage_of
from llm_assets.audit.lineage import Name
from llm_assets.audit.provenance import CycleError, in_order
from llm_assets.audit.signature import signature_breaks
from llm_assets.store.ledger import entry_hash
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store

if TYPE_CHECKING:
    import dagster as dg

    from llm_assets.tracking.tracker import Tracker

KINDS = {
    "bytes": "a file is missing, or its bytes are not those of its manifest",
    "manifest": "a manifest cannot be read",
    "place": "a manifest stands in the folder of another artifact",
    "recipe": "a manifest's recipe does not make its fingerprint, or contradicts its inputs",
    "data_version": "a manifest's files do not make its data version",
    "input": "an input is gone without a record, or has another data version than was used",
    "cycle": "artifacts name each other as what they were made from",
    "sealed": "a manifest or its verdicts are not those that were committed",
    "gone": "an artifact that was committed is neither there nor recorded as removed",
    "ledger": "the ledger's own hashes do not follow each other, or its signature does not hold",
    "release": "a release's files are not those that its journal names, or its model is gone",
    "journal": "a journal's entry is lost, damaged or changed",
    "dagster": "Dagster's event log and the store disagree",
    "mlflow": "an MLflow run is missing",
    "code": "the recorded hash of the code is not that of its commit",
}


@dataclass
class Report:
    """What `llm-assets verify` found."""

    artifacts: int = 0
    damages: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what could not be compared, and why

    def add(self, damages: Iterator[Damage]) -> None:
        """Keep what is found, each once."""
        self.damages += [damage for damage in damages if damage not in self.damages]


def verify_all(
    indexes: Sequence[Index], instance: dg.DagsterInstance | None = None, trackers: Sequence[Tracker] = (), only: Collection[Name] | None = None
) -> Report:
    """Hold the stores of a home against each other's records; of ``only`` these artifacts what concerns them alone.

    Reads and hashes every byte of them. The indexes must be up to date.
    """
    from llm_assets.audit import witnesses

    report = Report()
    rows: list[Row] = []
    for index in indexes:
        chosen = [row for row in index.artifacts() if only is None or row.name in only]
        rows += chosen
        for row in chosen:
            report.artifacts += row.state == "present"
            report.add(damage_of(index.store, row.name))
            report.add(input_damages(index, row))
        report.add(_cycles(index, chosen))
        report.add(witnesses.code_damages(index, chosen))
        report.add(unsealed(index.store, chosen, report))
    home = indexes[0].store
    report.add(_gone(indexes, only))
    report.add(Damage("ledger", "", sentence, "ledger") for sentence in [*home.ledger.breaks(), *signature_breaks(home.ledger)])
    report.add(_release_damages(indexes, only))
    if only is None:
        report.add(_journal_damages(home))
    if instance is not None:
        found = witnesses.dagster_damages(instance, indexes, rows)
        report.add(damage for damage in found if only is None or (damage.link, damage.fingerprint) in only)
    if trackers:
        try:
            report.add(witnesses.mlflow_damages(trackers, rows))
        except Exception as error:  # whatever the client of a server raises
            report.notes.append(f"MLflow did not answer, so its runs were not compared ({type(error).__name__})")
    return report


def input_damages(index: Index, row: Row) -> Iterator[Damage]:
    """Inputs of an artifact that are gone without a record, or have another data version than was used."""
    for key, (parent, version) in index.inputs(row.name).items():
        known = index.artifact(parent)
        shown = f"{row.link} {row.fingerprint}: its input {key} ({' '.join(parent)})"
        if known is None:
            yield Damage(*row.name, f"{shown} is not in the store, and no record says that it was removed", "input")
        elif known.data_version and known.data_version != version:
            yield Damage(*row.name, f"{shown} has data version {known.data_version} now, and had {version} when it was used", "input")


def _cycles(index: Index, rows: Sequence[Row]) -> Iterator[Damage]:
    try:
        in_order(index, tuple(row.name for row in rows))
    except CycleError as error:
        yield Damage("store", "", str(error), "cycle")


def unsealed(store: Store, rows: Iterable[Row], report: Report) -> Iterator[Damage]:
    """Manifests and verdicts that are not those the ledger has; artifacts it does not have are noted, or, where it should, damage."""
    sealed, first = _sealed(store), next(store.ledger.entries(), None)
    foreign = 0
    for row in rows:
        if row.state == "removed":
            continue
        entry = sealed.get(row.name, {})
        shown = f"{row.link} {row.fingerprint}"
        if "manifest" not in entry:
            if first and row.made and row.made > first["at"] and store.root == str(store.home / "artifacts"):
                yield Damage(*row.name, f"{shown} was made at {row.made}; the ledger, kept since {first['at']}, has it not", "sealed")
            else:
                foreign += 1
        elif entry["manifest"] != store.manifest_hash(*row.name):
            yield Damage(*row.name, f"{shown}: its manifest is not the one that was committed", "sealed")
        if "verdicts" in entry and entry["verdicts"] != store.verdicts_hash(*row.name):
            yield Damage(*row.name, f"{shown}: its verdicts are not those that its checks gave", "sealed")
    if foreign:
        report.notes.append(f"{foreign} artifacts were made before the ledger was kept or by another data root: nothing vouches for their manifests")


def _sealed(store: Store) -> dict[Name, dict[str, Any]]:
    """The newest hashes of each artifact in the ledger; one that was removed has none."""
    sealed: dict[Name, dict[str, Any]] = {}
    for entry in store.ledger.entries():
        name = (entry["link"], entry["name"])
        if entry["event"] == "removed":
            sealed.pop(name, None)
        elif entry["event"] in ("made", "judged"):
            sealed.setdefault(name, {}).update({key: entry[key] for key in ("manifest", "verdicts") if key in entry})
    return sealed


def _gone(indexes: Sequence[Index], only: Collection[Name] | None) -> Iterator[Damage]:
    """What the ledger says was committed and not removed, and no store of this home has."""
    for name, entry in _sealed(indexes[0].store).items():
        if "manifest" in entry and (only is None or name in only) and not any(index.artifact(name) for index in indexes):
            yield Damage(*name, f"{' '.join(name)} was committed, and is neither there nor recorded as removed", "gone")


def _release_damages(indexes: Sequence[Index], only: Collection[Name] | None) -> Iterator[Damage]:
    for release in indexes[0].releases():
        name = ("quantized_model", release.model)
        if only is not None and name not in only:
            continue
        holding = next((index for index in indexes if index.artifact(name)), None)
        if holding is None:
            said = f"release {release.release}: its model {release.model} is not in the store, and no record says that it was removed"
            yield Damage(*name, said, "release")
        else:
            yield from _swapped(holding.store, release)


def _swapped(store: Store, release: Release) -> Iterator[Damage]:
    try:
        manifest = store.read_manifest("quantized_model", release.model)
    except ArtifactError:
        return  # said already
    for file, hashed in release.record.get("files", {}).items():
        entry = manifest.files.get(file) if manifest else None
        if manifest and (entry is None or entry.sha256 != hashed):
            found = f"the journal has hash {hashed[:12]}, the manifest {entry.sha256[:12] if entry else 'none'}"
            said = f"release {release.release}: {file} of quantized_model {release.model} is not the file that was released ({found})"
            yield Damage("quantized_model", release.model, said, "release")


def _journal_damages(store: Store) -> Iterator[Damage]:
    """Lines of journals that cannot be read, and entries that are lost or not as they were written."""
    written = {(entry["chain"], entry["link"], entry["name"]): entry["entry"] for entry in store.ledger.entries() if entry["event"] == "acted"}
    for path in sorted((store.home / "journal").glob("*/*.jsonl")):
        chain, act = path.parent.name, path.stem
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    entry = json.loads(line)
                    at = entry["at"]
                except (ValueError, KeyError, TypeError):
                    yield Damage(act, "", f"line {number} of {path} cannot be read", "journal")
                    continue
                hashed = written.pop((chain, act, at), None)
                if hashed is not None and hashed != entry_hash(entry):
                    yield Damage(act, at, f"line {number} of {path} is not as it was written at {at}", "journal")
    for chain, act, at in written:
        yield Damage(act, at, f"{store.journal(chain, act).path} has lost its entry of {at}", "journal")
