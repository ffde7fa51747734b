"""The questions of an audit that somebody asks: by the command of that name, or of an asset of each chain in Dagster; one function answers both."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from llm_assets.audit.ids import UnknownIdError, find
from llm_assets.audit.index import Index
from llm_assets.corpus.documents import DOC_ID_LENGTH

if TYPE_CHECKING:
    from llm_assets.audit.diff import Diff
    from llm_assets.audit.reproduce import Reproduction
    from llm_assets.audit.trace import Trace
    from llm_assets.audit.verify import Report
    from llm_assets.audit.words.reply import Reply
    from llm_assets.links.link import Launch
    from llm_assets.store.store import Store
    from llm_assets.tracking.tracker import Tracker

HASHED = re.compile(r"[0-9a-f]{6,64}")  # a SHA-256 or its beginning; a doc_id is one


@contextmanager
def opened(stores: Iterable[Store]) -> Iterator[list[Index]]:
    """The index of each store, brought up to date."""
    indexes = [Index(store) for store in stores]
    try:
        for index in indexes:
            index.refresh()
        yield indexes
    finally:
        for index in indexes:
            index.close()


def trace_documents(indexes: Sequence[Index], document: str = "", text: str = "") -> list[Trace]:
    """The trace of a document in each store that knows it, or of up to five that hold a text. Raises ``UnknownDocumentError``."""
    from llm_assets.audit.places import Places
    from llm_assets.audit.trace import UnknownDocumentError, find_documents, trace

    found, unknown = [], []
    for index in indexes:
        places = Places(index.store)
        try:
            found += [trace(index, places, one) for one in find_documents(index, places, document, text)]
        except UnknownDocumentError as error:
            unknown.append(str(error))
    if not found:
        raise UnknownDocumentError("; ".join(unknown))
    return found


def compare(indexes: Sequence[Index], before: str, after: str) -> Diff:
    """What changed from one release, run or artifact to another. Raises ``UnknownIdError``."""
    from llm_assets.audit.diff import diff
    from llm_assets.audit.provenance import trace_back

    sides = [find(indexes, wanted) for wanted in (before, after)]
    first, second = ((side.index, trace_back(side, wanted)) for side, wanted in zip(sides, (before, after), strict=True))
    return diff(first, second)


def verify(indexes: Sequence[Index], instance: dg.DagsterInstance, trackers: Sequence[Tracker], wanted: str = "") -> Report:
    """Hold everything against the records of it, or what one release (or another id) stands on. Raises ``UnknownIdError``."""
    from llm_assets.audit.provenance import in_order
    from llm_assets.audit.verify import verify_all

    found = find(indexes, wanted) if wanted else None
    return verify_all(indexes, instance, trackers, in_order(found.index, found.roots) if found else None)


def reproduce(indexes: Sequence[Index], artifact: str, launch: Launch, folder: Path, tolerance: float) -> Reproduction:
    """Make an artifact again in a new folder and compare. Raises ``UnknownIdError`` and ``NotReproducibleError``."""
    from llm_assets.audit.reproduce import reproduce as make_again

    found = find(indexes, artifact)
    if found.kind != "artifact":
        raise UnknownIdError(f"{artifact} is a {found.kind}: name one of its artifacts, which `llm-assets lineage {artifact}` lists")
    return make_again(found.index, found.roots[0], folder.resolve(), launch, tolerance)[0]


# --- as assets in Dagster ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Desk:
    """Where a question is asked in Dagster."""

    chain: str
    indexes: Sequence[Index]  # of every store of the data root, up to date
    instance: dg.DagsterInstance
    trackers: Sequence[Tracker]
    launch: Launch


@dataclass(frozen=True)
class Question:
    """A question as an asset: who answers for it, what it is asked with, and the check that fails where the answer is bad news."""

    name: str
    role: str
    config: type[dg.Config]
    ask: Callable[[Desk, Any], Reply]
    check: tuple[str, str] | None = None  # its name, and what it says; None where no answer is bad news

    @property
    def description(self) -> str:
        """What the asset's description says."""
        return inspect.cleandoc(self.ask.__doc__ or "")


class _Document(dg.Config):
    document: str = Field(
        description="A document's id, its beginning, or the whole SHA-256 of its text (UTF-8). Never the text: Dagster keeps the config of each run"
    )


class _Releases(dg.Config):
    before: str = Field("", description="A release, a run or an artifact; default, of both: the last two releases of this chain")
    after: str = Field("", description="Another one")


class _Records(dg.Config):
    release: str = Field("", description="Only what this release (or another id) stands on; default: everything in the data root")


class _Erasure(_Document):
    reason: str = Field(description="Why, without a name and without a word of the text: Dagster keeps it, and so do the records")
    really: bool = Field(False, description="Erase it; without this the plan is made, and nothing else is done")


class _Artifact(dg.Config):
    artifact: str = Field(description="An artifact's fingerprint or its beginning, or link/fingerprint")
    tolerance: float = Field(0.01, description="What figures of a trained link may differ by, as a share")


def _trace(desk: Desk, asked: _Document) -> Reply:
    """Where a document came from, what became of it and by which rule, and every model and release that learned from it.

    Asked by materializing this with a document's id. No text stands here: the page on the gateway shows its beginning, masked.
    """
    from llm_assets.audit.words.trace import traced

    return traced(trace_documents(desk.indexes, _id_of(asked.document)))


def _diff(desk: Desk, asked: _Releases) -> Reply:
    """What changed between two releases: sources, rules, rows, config, code, figures with intervals, and answers on the same test documents.

    Asked by materializing this: of the chain's last two releases where no others are named.
    """
    from llm_assets.audit.words.diff import diffed

    if bool(asked.before) != bool(asked.after):
        raise UnknownIdError("name both, `before` and `after`, or neither: the last two releases are compared then")
    before, after = (asked.before, asked.after) if asked.before else _last_two(desk)
    return diffed(compare(desk.indexes, before, after))


def _verify(desk: Desk, asked: _Records) -> Reply:
    """Whether every file, manifest, journal and the ledger agree with each other, with Dagster, MLflow and git.

    Asked by materializing this; each damage is named, and the check `whole` then fails. `llm-assets verify` can sign and discard, too.
    """
    from llm_assets.audit.words.verify import verified

    return verified(verify(desk.indexes, desk.instance, desk.trackers, asked.release), asked.release)


def _forget(desk: Desk, asked: _Erasure) -> Reply:
    """The right to erasure: what holds a document is purged or cleaned, it is never read again, and every file is searched for it.

    Materialized with a document's id and a reason it makes the plan; with `really: true` it erases, and the check `gone` fails where
    something still holds the text. By its text, or by a phrase, a document is forgotten on the command line, since Dagster keeps
    the config of each run.
    """
    from llm_assets.audit.erasures import elsewhere, erasure
    from llm_assets.audit.forget import ForgetError, erase, stated
    from llm_assets.audit.words.forget import forgotten

    plans, home = erasure(desk.indexes, _id_of(asked.document)).plans, desk.indexes[0].store.home
    try:
        reason = stated(plans, asked.reason)
    except ForgetError as error:
        raise ForgetError(f"{error}; this run's config keeps it: delete this run") from error
    return forgotten(plans, reason, erase(plans, reason, elsewhere(home, desk.instance, desk.trackers)) if asked.really else None)


def _reproduce(desk: Desk, asked: _Artifact) -> Reply:
    """An artifact made again from its recipe in a clean folder and compared: the bytes of data, the figures of what was trained.

    Asked by materializing this with a fingerprint. The check `same` fails where the two differ; where the code is another, or an input
    is gone, the step fails with the reason.
    """
    from llm_assets.audit.words.reproduce import reproduced

    with tempfile.TemporaryDirectory(prefix="llm-assets-") as folder:
        return reproduced(reproduce(desk.indexes, asked.artifact, desk.launch, Path(folder), asked.tolerance), asked.artifact)


QUESTIONS = (
    Question("trace", "data_engineer", _Document, _trace),
    Question("diff", "data_scientist", _Releases, _diff),
    Question("verify", "operations_engineer", _Records, _verify, ("whole", "Every record agrees with every other, and with the files.")),
    Question("forget", "data_engineer", _Erasure, _forget, ("gone", "It was erased, and a search of everything found nothing that holds the text.")),
    Question("reproduce", "programmer", _Artifact, _reproduce, ("same", "Made again it has the same bytes, or figures within the tolerance.")),
)


def refusals() -> tuple[type[Exception], ...]:
    """Errors for which there is no answer, and whose message says all."""
    from llm_assets.audit.forget import ForgetError
    from llm_assets.audit.provenance import CycleError
    from llm_assets.audit.reproduce import NotReproducibleError
    from llm_assets.audit.trace import UnknownDocumentError
    from llm_assets.store.manifest import ArtifactError

    return ArtifactError, CycleError, ForgetError, NotReproducibleError, UnknownDocumentError, UnknownIdError


def _id_of(document: str) -> str:
    """A doc_id or its beginning. Raises ``UnknownIdError``, which does not repeat what was given: it may be a text."""
    if not HASHED.fullmatch(document):
        raise UnknownIdError(
            "`document` is no id: it has 20 hexadecimal digits, of which the first 6 may do. If it is a text, delete this run, since its config "
            "keeps it; `llm-assets trace --text` says the id, which is the beginning of the text's SHA-256"
        )
    return document[:DOC_ID_LENGTH]


def _last_two(desk: Desk) -> tuple[str, str]:
    releases = sorted((one for one in desk.indexes[0].releases() if one.chain == desk.chain), key=lambda one: one.number)
    if len(releases) < 2:
        raise UnknownIdError(f"{desk.chain} has {len(releases)} releases, and two are compared: name `before` and `after`")
    return releases[-2].release, releases[-1].release
