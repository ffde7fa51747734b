"""The right to erasure: a tombstone, what holds the text purged, what learned from it listed, and a certificate of what a search found."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from llm_assets.audit.index import Index, Row
from llm_assets.audit.places import TABLES, Places
from llm_assets.audit.provenance import sources_of
from llm_assets.audit.search import probes, search, search_artifact
from llm_assets.audit.trace import Served, Trace, trace
from llm_assets.corpus import pii
from llm_assets.corpus.documents import doc_id as doc_id_of
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links.chain import LINKS
from llm_assets.store.files import write_json
from llm_assets.store.journal import now
from llm_assets.store.store import Store


class ForgetError(RuntimeError):
    """A document cannot be forgotten as asked."""


@dataclass(frozen=True)
class Plan:
    """What forgetting a document does, before anything is done."""

    doc_id: str
    probes: list[str]  # what the text is looked for by; never printed
    purge: list[Row]  # artifacts that hold the text
    learners: list[Row]  # models that learned from it; they stay until their releases are retired
    releases: list[Served]
    seconds: float  # that purged artifacts and the models of the releases in service took to make
    out_of_reach: list[str]
    repeats: list[str]  # documents that nearly repeat it, and stay


@dataclass(frozen=True)
class Certificate:
    """What was done, and what a search of every file found afterwards."""

    at: str
    tombstone: str  # the salted hash
    reason: str
    purged: list[str]
    searched_files: int
    searched_bytes: int
    searched_tokens: int
    found: list[str]  # files that still hold a piece of the text
    unread: list[str]  # what could not be looked into
    listed: list[str]  # of the files found, the ones of models that are still to be retired
    learners: list[str]  # models that learned from it
    to_retire: list[str]  # their releases
    out_of_reach: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing holds the text but what is listed as to be retired."""
        return set(self.found) <= set(self.listed) and not self.unread

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        return {**asdict(self), "clean": self.is_clean}


def plan_erasure(index: Index, places: Places, doc_id: str) -> Plan:
    """What holds a document and what learned from it.

    Raises ``UnknownDocumentError`` where no raw corpus holds it, and ``ForgetError`` where each piece of its text stands in
    other documents, too: no search could then tell whether it is gone.
    """
    found = trace(index, places, doc_id)
    raws = [row for row in index.artifacts("raw_corpus") if row.state == "present" and places.holds(row, "documents", doc_id)]
    if not raws:
        raise ForgetError(f"document {doc_id} was rejected when it was read, and its text stands in no artifact")
    text = places.rows(raws[0], "documents", doc_id, ["text"])[0]["text"]
    below = [row for row in index.descendants([row.name for row in raws]).values() if row.state == "present"]
    wanted, others = _distinctive(index.store, [*raws, *below], doc_id, probes(text))
    if not wanted:
        raise ForgetError(f"each piece of its text stands in other documents, too ({', '.join(others[:5])}): forget them first")
    learners = [row for row in below if row.fingerprint in {learner.fingerprint for learner in found.learners}]
    held_in = {("tokens", block.tokens) for block in found.blocks} | {("labelled_examples", one.labelled_examples) for one in found.examples}
    data = [row for row in below if row.link not in LINKS or not LINKS[row.link].trained]
    purge = [*raws, *(row for row in data if row.name in held_in or search_artifact(index.store, row.name, wanted))]
    serving = {("quantized_model", one.model) for one in found.releases if one.standing == "champion"}
    again = [*purge, *(row for row in learners if row.name in serving or serving & index.descendants([row.name]).keys())]
    seconds = sum(manifest.seconds for row in again if (manifest := index.store.read_manifest(*row.name)))
    repeats = list(dict.fromkeys(one["doc_id"] for cleaning in found.cleanings for one in cleaning.repeats))
    return Plan(doc_id, wanted, purge, learners, found.releases, seconds, list(_out_of_reach(index.store, raws, found)), repeats)


def erase(store: Store, plan: Plan, reason: str) -> Certificate:
    """Set the tombstone, purge what holds the text, and search every file for it; the certificate stands in ``<home>/audit/certificates/``."""
    masked = pii.mask(reason)[0]
    stones = Tombstones.of(store.home).add(plan.doc_id, masked)
    places = Places(store)
    for row in plan.purge:
        if row.link in TABLES:  # of the other documents it held one can still be told what learned from them
            places.make(store.open(*row.name))
            places.blot_out(row, plan.doc_id)
        with store.lock(row.fingerprint):
            store.remove(*row.name, f"erased: {masked}")
    done = _Done(
        [" ".join(row.name) for row in plan.purge],
        ["/".join(row.name) for row in plan.learners],
        [one.release for one in plan.releases],
        plan.out_of_reach,
    )
    return _certify(store, plan.probes, stones.hash(plan.doc_id), masked, done)


def certify_again(store: Store, text: str) -> Certificate:
    """A new certificate of a document that was erased before. Raises ``ForgetError`` where it was not."""
    stones = Tombstones.of(store.home)
    hashed = stones.hash(doc_id_of(text))
    if hashed not in stones.erased:
        raise ForgetError("no raw corpus holds this text, and no tombstone stands for it")
    path = certificate_path(store.home, hashed)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    done = _Done(*(before.get(field.name, []) for field in fields(_Done)))
    return _certify(store, probes(text), hashed, stones.erased[hashed]["reason"], done)


@dataclass(frozen=True)
class _Done:
    """What a certificate repeats of what was done once."""

    purged: list[str]
    learners: list[str]
    to_retire: list[str]
    out_of_reach: list[str]


def _certify(store: Store, wanted: Sequence[str], tombstone: str, reason: str, done: _Done) -> Certificate:
    """Search every file for the probes and write the certificate."""
    outcome = search(store, wanted)
    certificate = Certificate(
        at=now(),
        tombstone=tombstone,
        reason=reason,
        searched_files=outcome.files,
        searched_bytes=outcome.bytes,
        searched_tokens=outcome.tokens,
        found=outcome.found,
        unread=outcome.unread,
        listed=[path for path in outcome.found if any(f"/{learner}/" in f"/{path}" for learner in done.learners)],
        **asdict(done),
    )
    write_json(certificate_path(store.home, tombstone), certificate.as_json())
    return certificate


def certificate_path(home: Path, tombstone: str) -> Path:
    """Where the certificate of a tombstone stands."""
    return home / "audit" / "certificates" / f"{tombstone[:24]}.json"


def _distinctive(store: Store, rows: Iterable[Row], doc_id: str, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """The probes that no other document holds, and the documents that hold the others."""
    import pyarrow.compute as pc

    shared: set[str] = set()
    others: dict[str, None] = {}
    for row in rows:
        if row.link not in ("raw_corpus", "screened_corpus"):
            continue
        for batch in store.open(*row.name).batches("documents.parquet", ["doc_id", "text"]):
            foreign = batch.filter(pc.not_equal(batch["doc_id"], doc_id))
            for probe in wanted:
                holding = foreign.filter(pc.match_substring(foreign["text"], probe))["doc_id"].to_pylist()
                others |= dict.fromkeys(holding)
                shared |= {probe} if holding else set()
    return [probe for probe in wanted if probe not in shared], list(others)


def _out_of_reach(store: Store, raws: Iterable[Row], found: Trace) -> Iterator[str]:
    """Where the text came from: what stands upstream is not this program's to change, and reading leaves the document out from now on."""
    names = {fate.source for cleaning in found.cleanings for fate in cleaning.fates}
    for row in raws:
        manifest = store.read_manifest(*row.name)
        for source in sources_of(manifest) if manifest else ():
            if source.name in names:
                yield f"source {source.name} ({source.place}), and copies of it in caches and backups"
