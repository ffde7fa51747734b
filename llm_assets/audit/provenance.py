"""The lineage of an answer, a release or an artifact: all it stands on, down to the sources, with what was decided on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llm_assets.audit.ids import Answer, Found
from llm_assets.audit.index import Index, Release
from llm_assets.audit.lineage import Name
from llm_assets.corpus.obligations import Terms, terms
from llm_assets.store.fingerprint import digest, flatten
from llm_assets.store.journal import Journal
from llm_assets.store.manifest import ArtifactError, Manifest
from llm_assets.store.store import REMOVED, Store
from llm_assets.tracking.record import TRACKING

HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a SHA-256, or the commit of a hub


class CycleError(RuntimeError):
    """Artifacts that name each other as what they were made from; no run makes such."""


@dataclass(frozen=True)
class Source:
    """Where documents came from."""

    name: str
    kind: str
    license: str
    place: str  # package, address, path or query
    hash: str | None  # of the archive or file, where one was pinned or observed
    documents: int


@dataclass(frozen=True)
class Node:
    """One artifact of a lineage."""

    link: str
    fingerprint: str
    state: str  # present, removed, missing or unreadable
    why: str  # it is not present
    inputs: dict[str, Name]  # by the name the link knows them under
    manifest: Manifest | None
    checks: list[dict[str, Any]]
    mlflow_run: str | None
    mlflow_url: str | None
    sources: list[Source]

    @property
    def name(self) -> Name:
        """Link and fingerprint."""
        return self.link, self.fingerprint

    def as_json(self) -> dict[str, Any]:
        """What of it is for programs: the manifest without its list of files."""
        manifest = self.manifest
        recorded = manifest.model_dump(mode="json", exclude={"files", "inputs", "link", "fingerprint"}) if manifest else {}
        return {
            "link": self.link,
            "fingerprint": self.fingerprint,
            "state": self.state,
            "why": self.why,
            "inputs": {name: {"link": link, "fingerprint": fingerprint} for name, (link, fingerprint) in self.inputs.items()},
            "sources": [asdict(source) for source in self.sources],
            "checks": self.checks,
            "mlflow_run": self.mlflow_run,
            "mlflow_url": self.mlflow_url,
            "bytes": manifest.size if manifest else None,
            **recorded,
        }


@dataclass(frozen=True)
class Lineage:
    """Everything something stands on; ``nodes`` come before what was made from them."""

    kind: str  # answer, release, artifact or run
    wanted: str
    answer: Answer | None
    release: Release | None
    gates: list[dict[str, Any]]  # the scorecard's verdicts on the release, and the release's own
    approved_by: str | None
    nodes: dict[Name, Node]
    roots: tuple[Name, ...]

    @property
    def breaks(self) -> list[str]:
        """Where it cannot be followed: what is missing or cannot be read, a sentence each."""
        return [f"{node.link} {node.fingerprint} {node.why}" for node in self.nodes.values() if node.state in ("missing", "unreadable")]

    @property
    def talks(self) -> bool:
        """Whether its model writes text rather than labels."""
        made = [node.manifest for node in self.nodes.values() if node.link == "quantized_model" and node.manifest]
        return any(manifest.recipe.get("variant") == "generation" for manifest in made)

    @property
    def sources(self) -> list[Source]:
        """The sources of every raw corpus in it."""
        return [source for node in self.nodes.values() for source in node.sources]

    @property
    def licenses(self) -> list[str]:
        """The licences of everything in it."""
        return sorted({licence for node in self.nodes.values() if node.manifest for licence in node.manifest.licenses})

    @property
    def obligations(self) -> list[Terms]:
        """What those licences permit and demand; an unknown one is among them as such."""
        return terms(self.licenses)

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        answer, release = self.answer, self.release
        shown = {key: value for key, value in answer.entry.items() if key != "texts"} if answer else None
        return {
            "kind": self.kind,
            "id": self.wanted,
            "answer": shown,
            "release": {**release.record, "at": release.at, "dagster_run": release.run} if release else None,
            "gates": self.gates,
            "approved_by": self.approved_by,
            "licenses": self.licenses,
            "obligations": [asdict(one) for one in self.obligations],
            "complete": not self.breaks,
            "breaks": self.breaks,
            "nodes": [node.as_json() for node in self.nodes.values()],
        }


def trace_back(found: Found, wanted: str) -> Lineage:
    """The lineage of what ``ids.find`` found. Raises ``CycleError`` naming the artifacts that stand on each other."""
    index, release = found.index, found.release
    gates: list[dict[str, Any]] = []
    approved: str | None = None
    if release:
        gates = release_gates(index, release)
        approved = approver(index.store, release)
    nodes = {name: read_node(index, name) for name in in_order(index, found.roots)}
    return Lineage(found.kind, wanted, found.answer, release, gates, approved, nodes, found.roots)


def in_order(index: Index, roots: tuple[Name, ...]) -> list[Name]:
    """``roots`` and all they stand on, each after its inputs. Raises ``CycleError``."""
    ordered: list[Name] = []
    done: set[Name] = set()
    path: dict[Name, None] = {}

    def visit(name: Name) -> None:
        if name in done:
            return
        if name in path:
            circle = [*list(path)[list(path).index(name) :], name]
            shown = " <- ".join(f"{link} {fingerprint}" for link, fingerprint in circle)
            raise CycleError(f"these artifacts name each other as what they were made from: {shown}; a manifest was changed: run `llm-assets verify`")
        path[name] = None
        for parent, _ in index.inputs(name).values():
            visit(parent)
        del path[name]
        done.add(name)
        ordered.append(name)

    for root in roots:
        visit(root)
    return ordered


def read_node(index: Index, name: Name) -> Node:
    """An artifact with what stands beside its manifest."""
    store, row = index.store, index.artifact(name)
    if row is None:
        return Node(*name, "missing", f"is not in {store.root}, and no record says that it was removed", {}, None, [], None, None, [])
    manifest = read_kept(store, name)
    verdicts = (store.verdicts(*name) or []) if row.state == "present" else []
    tracking = store.read_sidecar(*name, TRACKING) if row.state == "present" else None
    mlflow: Mapping[str, Any] = tracking if isinstance(tracking, dict) else {}
    return Node(
        *name,
        state=row.state,
        why=row.why,
        inputs={key: parent for key, (parent, _) in index.inputs(name).items()},
        manifest=manifest,
        checks=[verdict.model_dump(mode="json", exclude={"values"}) for verdict in verdicts],
        mlflow_run=mlflow.get("run_id"),
        mlflow_url=mlflow.get("url"),
        sources=sources_of(manifest) if manifest else [],
    )


def read_kept(store: Store, name: Name) -> Manifest | None:
    """An artifact's manifest, that of a removed one included; None where it cannot be read."""
    try:
        if manifest := store.read_manifest(*name):
            return manifest
    except ArtifactError:
        return None
    marker = store.read_sidecar(*name, REMOVED)
    return Manifest.model_validate(marker["manifest"]) if isinstance(marker, dict) and marker.get("manifest") else None


def sources_of(manifest: Manifest) -> list[Source]:
    """The sources that a raw corpus was read from, none for another artifact."""
    counts: Mapping[str, int] = manifest.metrics.get("sources", {})
    observed: Mapping[str, Any] = manifest.recipe.get("observed", {})
    found = []
    for source in manifest.recipe.get("config", {}).get("sources") or ():
        if not isinstance(source, dict):  # evaluation_sets names sources by their names alone
            continue
        name = source["name"]
        found.append(Source(name, source["kind"], source["license"], _place(source), _hash(source, observed.get(name)), counts.get(name, 0)))
    return found


def _place(source: Mapping[str, Any]) -> str:
    if source["kind"] == "pypi":
        return f"{source['package']} {source['version']}: {source['member']}"
    for key in ("path", "query", "key", "urls", "feeds", "sitemaps"):
        if value := source.get(key):
            return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return str(source["kind"])


def _hash(source: Mapping[str, Any], observed: Any) -> str | None:
    """The hash by which a source is known: pinned in the YAML or seen when it was read; of several files one digest over all."""
    seen = [value for value in flatten({"seen": observed}).values() if isinstance(value, str) and HASH.fullmatch(value)]
    if source.get("sha256"):
        return str(source["sha256"])
    return seen[0] if len(seen) == 1 else digest(observed) if seen else None


def release_gates(index: Index, release: Release) -> list[dict[str, Any]]:
    """What the scorecard's gates and the release's own checks said, ``{link, check, passed, blocking, description}``."""
    scorecard = index.judged(release.chain, release.model, release.at)
    entry = index.store.journal(release.chain, "release").newest(lambda entry: entry["at"] == release.at)
    entries = (("scorecard", scorecard), ("release", entry))
    verdicts = [(link, verdict) for link, found in entries if found for verdict in found.get("verdicts") or ()]
    return [{"link": link, **{key: verdict[key] for key in ("check", "passed", "blocking", "description")}} for link, verdict in verdicts]


def approver(store: Store, release: Release) -> str | None:
    """Who approved a release: the newest approval among the service's events, else what the release's record says."""
    events = Journal(store.home / "serving" / "events" / f"{release.chain}.jsonl")
    approval = events.newest(lambda event: event.get("kind") == "approval" and event.get("release") == release.release)
    recorded = release.record.get("approved_by")
    if approval:
        return str(approval.get("by") or approval.get("client") or approval.get("message"))
    return str(recorded) if recorded else None
