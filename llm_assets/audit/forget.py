"""The right to erasure: tombstones, what holds the texts purged or cleaned, what learned from them listed, and a certificate of a search."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from filelock import FileLock

from llm_assets.audit.certificate import Certificate, Done, before, certify
from llm_assets.audit.index import Index, Row
from llm_assets.audit.needles import Needles, spelled
from llm_assets.audit.places import TABLES, Places
from llm_assets.audit.provenance import sources_of
from llm_assets.audit.records import clean_records
from llm_assets.audit.search import hashes, holds, probes, search_artifact, versions
from llm_assets.audit.taught import learners as learners_from_service
from llm_assets.audit.trace import Served, Trace, served, trace
from llm_assets.corpus import pii
from llm_assets.corpus.documents import doc_id as doc_id_of
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links.chain import LINKS
from llm_assets.store.store import Store


class ForgetError(RuntimeError):
    """A text cannot be forgotten as asked."""


@dataclass(frozen=True)
class Plan:
    """What forgetting texts does to one store and the data root around it, before anything is done."""

    store: Store
    documents: list[str]  # doc_ids
    texts: int  # with those that no document has, but the service recorded
    stones: list[str]  # doc_ids of every version of every text
    probes: list[str]  # what the texts are looked for by; never printed
    purge: list[Row]  # artifacts that hold one of them
    learners: list[Row]  # models that learned from them, or show a piece of one; they stay until their releases are retired
    releases: list[Served]
    seconds: float  # that purged artifacts and the models of the releases in service took to make
    out_of_reach: list[str]
    repeats: list[str]  # documents that nearly repeat one of them, and stay


def plan_erasure(index: Index, places: Places, documents: Collection[str], records: Sequence[str] = ()) -> Plan:
    """What holds documents, by doc_id, and ``records``, texts that the service keeps or that were erased before; and what learned from them.

    Raises ``UnknownDocumentError`` for a document that no raw corpus holds, and ``ForgetError`` where each piece of a text stands
    in other documents, too: no search could then tell whether it is gone.
    """
    store = index.store
    traces = [trace(index, places, document) for document in documents]
    raws = [row for row in index.artifacts("raw_corpus") if row.state == "present" and any(places.holds(row, "documents", one) for one in documents)]
    texts = {text: None for document in documents for text in [_text(places, raws, document)]} | dict.fromkeys(records)
    wanted = _distinctive(index, set(documents), {text: probes(text) for text in texts})
    wanted += [one for text in texts for one in hashes(text)]
    present = [row for row in index.artifacts() if row.state == "present" and row not in raws]
    holding = [row for row in present if search_artifact(store, row.name, wanted)]
    encoded = {("tokens", block.tokens) for found in traces for block in found.blocks}
    learned = {("labelled_examples", one.labelled_examples) for found in traces for one in found.examples}
    purge = [*raws, *(row for row in present if not _is_trained(row) and (row in holding or row.name in encoded | learned))]
    taught = {(one.link, one.fingerprint) for found in traces for one in found.learners}
    examples = [row for row in holding if row.link == "labelled_examples"]
    taught |= {row.name for row in learners_from_service(index, examples, _batches(store, spelled(wanted)))}
    learners = [row for row in present if row.name in taught or (_is_trained(row) and row in holding)]
    below = index.descendants([row.name for row in learners]).keys() | {row.name for row in learners}
    releases = served(index, [fingerprint for link, fingerprint in below if link == "quantized_model"])
    releases = list(dict.fromkeys([*(one for found in traces for one in found.releases), *releases]))
    serving = {("quantized_model", one.model) for one in releases if one.standing == "champion"}
    again = [*purge, *(row for row in learners if row.name in serving or serving & index.descendants([row.name]).keys())]
    return Plan(
        store,
        list(documents),
        len(texts),
        list(dict.fromkeys(doc_id_of(version) for text in texts for version in versions(text))),
        wanted,
        purge,
        learners,
        releases,
        sum(manifest.seconds for row in again if (manifest := store.read_manifest(*row.name))),
        list(dict.fromkeys(place for found in traces for place in _out_of_reach(store, raws, found))),
        list(dict.fromkeys(one["doc_id"] for found in traces for part in found.cleanings for one in part.repeats if one["doc_id"] not in documents)),
    )


def erase(plans: Sequence[Plan], reason: str, elsewhere: Sequence[str] = ()) -> tuple[Certificate, Path]:
    """Set the tombstones, purge and clean what holds the texts, and search every file for them.

    ``elsewhere`` names what is not below the data root, such as somebody's MLflow, and so is out of reach. What fails, such as a
    file that cannot be written, stops nothing else and stands in the certificate. Raises ``ForgetError`` for a reason that
    quotes a text.
    """
    store, masked = plans[0].store, stated(plans, reason)
    wanted = list(dict.fromkeys(probe for plan in plans for probe in plan.probes))
    needles = spelled(wanted)
    with erasing(store.home):
        stones = Tombstones.of(store.home).add(masked, *dict.fromkeys(stone for plan in plans for stone in plan.stones))
        hashed = {stones.hash(stone) for plan in plans for stone in plan.stones}
        purged, failed = _purge(plans, masked)
        cleaning = clean_records(store, needles, stones)
        past = before(store.home, hashed)
        done = Done(
            purged=[*past.purged, *purged],
            cleaned=[*past.cleaned, *cleaning.cleaned],
            failed=[*failed, *cleaning.failed],
            learners=list(dict.fromkeys([*past.learners, *("/".join(row.name) for plan in plans for row in plan.learners)])),
            to_retire=[*dict.fromkeys([*filter(partial(_stands, plans), past.to_retire), *(one.release for plan in plans for one in plan.releases)])],
            out_of_reach=list(dict.fromkeys([*past.out_of_reach, *(one for plan in plans for one in plan.out_of_reach), *elsewhere])),
        )
        return certify([plan.store for plan in plans], wanted, hashed, masked, done)


def stated(plans: Iterable[Plan], reason: str) -> str:
    """A reason as records keep it, personal data masked. Raises ``ForgetError`` for one that quotes a text."""
    if spelled(probe for plan in plans for probe in plan.probes).stand_in(reason.encode()):
        raise ForgetError("the reason quotes the text, and would keep it in the records: say it otherwise")
    return pii.mask(reason)[0]


def tombstones(home: Path) -> Tombstones:
    """Those of a data root, with a salt that is kept: the hash of a document is told before its tombstone stands."""
    with erasing(home):
        return Tombstones.of(home).add("")


def erasing(home: Path) -> FileLock:
    """The lock of whoever writes tombstones."""
    (home / "audit").mkdir(parents=True, exist_ok=True)
    return FileLock(home / "audit" / "forget.lock")


def was_erased(home: Path, doc_id: str) -> bool:
    """Whether a tombstone stands for a document."""
    return Tombstones.of(home).standing([doc_id]) == [False]


def _purge(plans: Iterable[Plan], reason: str) -> tuple[list[str], list[str]]:
    """Remove what holds the texts; which artifacts are gone, and which could not be removed."""
    purged, failed = [], []
    for plan in plans:
        places = Places(plan.store)
        for row in plan.purge:
            name = " ".join(row.name)
            try:
                if row.link in TABLES:  # of the other documents it held one can still be told what learned from them
                    places.make(plan.store.open(*row.name))
                    for document in plan.documents:
                        places.blot_out(row, document)
                with plan.store.lock(row.fingerprint):
                    plan.store.remove(*row.name, f"erased: {reason}")
                purged.append(name)
            except OSError as error:
                failed.append(f"{name}: {error}")
    return purged, failed


def _stands(plans: Iterable[Plan], release: str) -> bool:
    """Whether the model of a release is still there."""
    for plan in plans:
        entry = plan.store.journal(release.rpartition("-")[0], "release").newest(lambda entry: entry["record"]["release"] == release)
        if entry and plan.store.read_manifest("quantized_model", entry["record"]["quantized_model"]):
            return True
    return False


def _is_trained(row: Row) -> bool:
    return row.link in LINKS and LINKS[row.link].trained


def _text(places: Places, raws: Iterable[Row], document: str) -> str:
    for raw in raws:
        if found := places.rows(raw, "documents", document, ["text"]):
            return str(found[0]["text"])
    raise ForgetError(f"document {document} was rejected when it was read, and its text stands in no artifact")


def _batches(store: Store, needles: Needles) -> list[str]:
    """The batches of feedback that hold a probe; one that cannot be read is told of when it is to be cleaned."""
    found = []
    for path in sorted(store.home.glob("feedback/*/*.parquet")):
        with suppress(OSError, ValueError):
            found += [path.stem] if holds(path, needles) else []
    return found


def _distinctive(index: Index, documents: Collection[str], wanted: Mapping[str, Sequence[str]]) -> list[str]:
    """The probes that no other document holds, of ``wanted``: text to probes. Raises ``ForgetError`` for a text that has none."""
    needles = Needles(probe.encode() for one in wanted.values() for probe in one)
    shared: dict[str, str] = {}  # probe -> one of the documents that hold it
    for row in index.artifacts():
        if row.state != "present" or row.link not in ("raw_corpus", "screened_corpus"):
            continue
        for batch in index.store.open(*row.name).batches("documents.parquet", ["doc_id", "text"]):
            foreign = [(one["doc_id"], one["text"].encode()) for one in batch.to_pylist() if one["doc_id"] not in documents]
            ends = list(accumulate(len(text) + 1 for _, text in foreign))
            for place, probe in needles.matches(b"\0".join(text for _, text in foreign)):
                shared.setdefault(probe.decode(), foreign[bisect_right(ends, place)][0])
    for one in wanted.values():
        if set(one) <= shared.keys():
            others = list(dict.fromkeys(shared[probe] for probe in one))
            raise ForgetError(f"each piece of a text stands in other documents, too ({', '.join(others[:5])}): forget them first")
    return list(dict.fromkeys(probe for one in wanted.values() for probe in one if probe not in shared))


def _out_of_reach(store: Store, raws: Iterable[Row], found: Trace) -> Iterator[str]:
    """Where the text came from: what stands upstream is not this program's to change, and reading leaves the document out from now on."""
    names = {fate.source for cleaning in found.cleanings for fate in cleaning.fates}
    for row in raws:
        manifest = store.read_manifest(*row.name)
        for source in sources_of(manifest) if manifest else ():
            if source.name in names:
                yield f"source {source.name} ({source.place}), and copies of it in caches and backups"
