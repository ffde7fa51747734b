"""Where a document went: its sources, the rule that dropped it or the blocks that hold it, and every model and release that learned from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from llm_assets.audit.documents import REJECTED, Corpus, Fate, corpus_of, fate_of, holding, place_of
from llm_assets.audit.index import Index, Row
from llm_assets.audit.lineage import Name
from llm_assets.audit.places import DOC_ID, TABLES, Places
from llm_assets.corpus.documents import doc_id as doc_id_of
from llm_assets.links.chain import LINKS
from llm_assets.serving.releases import standing
from llm_assets.store.manifest import ArtifactError

SHORTEST = 6  # characters of a doc_id that may stand for it
SHOWN = 40  # characters of a text that its snippet is cut around
SUGGESTED = 3
TRACED = 5  # documents that hold a text, of which each is traced


class UnknownDocumentError(LookupError):
    """No raw corpus of the store holds the document."""


@dataclass(frozen=True)
class Cleaning:
    """What one clean corpus made of a document."""

    raw_corpus: str  # fingerprints
    clean_corpus: str | None  # None: nothing was cleaned from that raw corpus, or it is gone
    fates: list[Fate]  # one an occurrence in the raw corpus
    repeats: list[dict[str, str]]  # what it repeats, and what was dropped because it repeats it: doc_id, rule, relation
    evaluation: dict[str, str] | None  # split and cluster, where it stands in the evaluation sets or is a member of a cluster


@dataclass(frozen=True)
class Blocks:
    """The blocks of a tokens artifact that hold a document; the last one included."""

    tokens: str
    first: int
    last: int
    offset: int  # in the first block, tokens
    length: int  # tokens
    part: str  # train or validation


@dataclass(frozen=True)
class Example:
    """A document as a labelled example."""

    labelled_examples: str
    label: str  # of a conversation its task
    suggested: str | None  # where label noise was suspected


@dataclass(frozen=True)
class Learner:
    """A model that learned from a document."""

    link: str
    fingerprint: str
    state: str
    through: list[str]  # pretraining text, labelled example


@dataclass(frozen=True)
class Served:
    """A release whose model learned from a document."""

    release: str
    chain: str
    model: str
    at: str
    standing: str  # candidate, champion, previous or earlier


@dataclass(frozen=True)
class Trace:
    """All that is known of a document."""

    doc_id: str
    cleanings: list[Cleaning]
    blocks: list[Blocks] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    learners: list[Learner] = field(default_factory=list)
    releases: list[Served] = field(default_factory=list)
    unsearched: list[str] = field(default_factory=list)  # artifacts downstream whose files are gone, so that nobody can look

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        return asdict(self)


def trace(index: Index, places: Places, doc_id: str) -> Trace:
    """What became of a document in every raw corpus that holds or held it. Raises ``UnknownDocumentError``.

    A removed artifact is asked through its places, where these were made while it stood; of another one nobody can say what
    it held, and ``unsearched`` names it with the releases that stand on it.
    """
    cleanings: list[Cleaning] = []
    below: dict[Name, Row] = {}
    unsearched: dict[Name, Row] = {}
    for raw in _distinct(index.artifacts("raw_corpus")):
        if not _can_be_asked(places, raw):
            unsearched[raw.name] = raw
        elif any(places.holds(raw, table, doc_id) for table in TABLES["raw_corpus"]):
            made = index.descendants([raw.name])
            below |= made
            cleanings += _cleanings(index, places, raw, made.values(), doc_id)
    if not cleanings:
        raise UnknownDocumentError(_unknown(index, places, doc_id))
    rows = list(_distinct(below.values()))
    unsearched |= {row.name: row for row in rows if row.link in TABLES and not _can_be_asked(places, row)}
    asked = [row for row in rows if row.link in TABLES and row.name not in unsearched]
    blocks = [block for row in asked if row.link == "tokens" and row.state == "present" for block in _blocks(places, row, doc_id)]
    examples = [example for row in asked if row.link == "labelled_examples" and row.state == "present" for example in _examples(places, row, doc_id)]
    kept = {row.fingerprint for row in asked if row.link == "clean_corpus" and places.holds(row, "documents", doc_id)}
    gone = [row for row in rows if row.state != "present"]
    lost = [row.name for row in asked if row.link == "labelled_examples" and row.state != "present" and places.holds(row, "examples", doc_id)]
    taught = {
        "pretraining text": [("tokens", block.tokens) for block in blocks if block.part == "train"] + _made_from(index, gone, "tokens", kept),
        "labelled example": [("labelled_examples", example.labelled_examples) for example in examples] + lost,
    }
    learners = _learners(index, taught)
    releases = served(index, [learner.fingerprint for learner in learners if learner.link == "quantized_model"])
    sentences = [_unsearched(index, row) for row in unsearched.values()]
    return Trace(doc_id, cleanings, blocks, examples, learners, releases, sentences)


def find_documents(index: Index, places: Places, wanted: str = "", text: str = "") -> list[str]:
    """Documents by the beginning of a doc_id, or by a text: the one that it is, else up to five that hold it.

    Raises ``UnknownDocumentError`` with what is near.
    """
    raws = [row for row in _distinct(index.artifacts("raw_corpus")) if _can_be_asked(places, row)]
    standing = [raw for raw in raws if raw.state == "present"]
    if text:
        exact = doc_id_of(text)
        if any(places.holds(raw, "documents", exact) for raw in raws):
            return [exact]
        found = dict.fromkeys(row["doc_id"] for raw in reversed(standing) for row in _first(holding(index.store.open(*raw.name), text), TRACED))
        if not found:
            raise UnknownDocumentError(f"no raw corpus holds a document with this text; {len(standing)} were searched{_unasked(index, places)}")
        return list(found)[:TRACED]
    if len(wanted) < SHORTEST or not DOC_ID.fullmatch(wanted.ljust(20, "0")):
        raise UnknownDocumentError(f"{wanted!r} is no doc_id: it has 20 hexadecimal digits, of which the first {SHORTEST} may do; or give --text")
    matching = sorted({one for raw in raws for table in TABLES["raw_corpus"] for one in places.starting_with(raw, table, wanted, SUGGESTED + 1)})
    if not matching:
        raise UnknownDocumentError(_unknown(index, places, wanted))
    if len(matching) > 1:
        raise UnknownDocumentError(f"{wanted!r} is the beginning of {', '.join(matching[:SUGGESTED])}: say more of it")
    return matching


def _can_be_asked(places: Places, row: Row) -> bool:
    return row.state == "present" or places.known(row)


def _unsearched(index: Index, row: Row) -> str:
    standing = [one.release for one in index.releases_of(name[1] for name in index.descendants([row.name]) if name[0] == "quantized_model")]
    on_it = f"; on it stands {', '.join(standing)}" if standing else ""
    return f"{row.link} {row.fingerprint} {row.why or 'cannot be read'}{on_it}"


def _cleanings(index: Index, places: Places, raw: Row, below: Iterable[Row], doc_id: str) -> Iterator[Cleaning]:
    if raw.state != "present":
        yield Cleaning(raw.fingerprint, None, [], [], None)
        return
    rows = places.rows(raw, "documents", doc_id)
    lost = [Fate(*place_of(row), "", "dropped", raw.link, row["rule"], row["evidence"]) for row in places.rows(raw, "rejects", doc_id)]
    cleaned = False
    for clean in _present(row for row in below if row.link == "clean_corpus"):
        try:
            corpus = corpus_of(index.store, index.store.open(*clean.name))
        except ArtifactError:
            continue  # what it was made from is gone, and stands among the unsearched
        if corpus.raw_corpus.data_version != raw.data_version:
            continue
        cleaned = True
        rejected = [(artifact, row) for artifact in corpus.rejecting[1:] for row in places.rows(artifact, "rejects", doc_id, REJECTED)]
        ends = {place_of(row): (artifact.link, row["rule"], row["evidence"]) for artifact, row in rejected}
        fates = [fate_of(row, row["text"][:SHOWN], ends) for row in rows]
        yield Cleaning(raw.fingerprint, clean.fingerprint, lost + fates, _repeats(places, corpus, doc_id), _evaluation(places, corpus, doc_id))
    if not cleaned:
        yield Cleaning(raw.fingerprint, None, lost + [fate_of(row, row["text"][:SHOWN], {}) for row in rows], [], None)


def _repeats(places: Places, corpus: Corpus, doc_id: str) -> list[dict[str, str]]:
    """Its duplicates and near-duplicates, other texts alone: a copy of the same text has the same doc_id."""
    clean = corpus.clean_corpus
    of = [row for row in places.rows(clean, "rejects", doc_id, REJECTED) if row["evidence"] != doc_id and DOC_ID.fullmatch(row["evidence"])]
    by = [row for kept in [doc_id, *(row["evidence"] for row in of)] for row in places.rows(clean, "repeats", kept, REJECTED)]
    found = {(row["evidence"], row["rule"]): "it repeats this one" for row in of}
    for row in by:
        if row["doc_id"] not in (doc_id, row["evidence"]):
            found.setdefault((row["doc_id"], row["rule"]), "repeats it" if row["evidence"] == doc_id else "repeats the same one")
    return [{"doc_id": one, "rule": rule, "relation": relation} for (one, rule), relation in found.items()]


def _evaluation(places: Places, corpus: Corpus, doc_id: str) -> dict[str, str] | None:
    sets = corpus.evaluation_sets
    if drawn := places.rows(sets, "evaluation", doc_id, ["split", "cluster"]):
        return {"split": drawn[0]["split"], "cluster": drawn[0]["cluster"]}
    member = places.rows(sets, "members", doc_id, ["cluster"])
    return {"split": "stands for none itself", "cluster": member[0]["cluster"]} if member else None


def _blocks(places: Places, tokens: Row, doc_id: str) -> Iterator[Blocks]:
    if not (rows := places.rows(tokens, "documents", doc_id)):
        return
    border = places.store.open(*tokens.name).json("layout.json")["train_blocks"]
    for row in rows:
        part = "train" if row["block"] < border else "validation"
        yield Blocks(tokens.fingerprint, row["block"], row["block"] + row["blocks"] - 1, row["offset"], row["length"], part)


def _examples(places: Places, examples: Row, doc_id: str) -> Iterator[Example]:
    for row in places.rows(examples, "examples", doc_id, ["label", "task"]):
        suspects = places.rows(examples, "suspects", doc_id)
        yield Example(examples.fingerprint, row["label"] if "label" in row else row["task"], suspects[0]["suggested"] if suspects else None)


def _made_from(index: Index, rows: Iterable[Row], link: str, cleans: set[str]) -> list[Name]:
    """Removed artifacts of a link that were made from clean corpora which kept the document: they held it, too."""
    return [row.name for row in rows if row.link == link and any(one[1] in cleans for one, _ in index.inputs(row.name).values())]


def _learners(index: Index, taught: dict[str, list[Name]]) -> list[Learner]:
    through: dict[Name, list[str]] = {}
    rows: dict[Name, Row] = {}
    for how, roots in taught.items():
        for name, row in index.descendants(roots).items():
            if name[0] in LINKS and LINKS[name[0]].trained:
                rows[name] = row
                through.setdefault(name, []).append(how)
    order = list(LINKS)
    ordered = sorted(rows.values(), key=lambda row: (order.index(row.link), row.made or ""))
    return [Learner(*row.name, row.state, through[row.name]) for row in ordered]


def served(index: Index, models: list[str]) -> list[Served]:
    """The releases of quantized models, by fingerprint, and what each is to its chain now."""
    titles: dict[str, str] = {}
    found = index.releases_of(models)
    for chain in {release.chain for release in found}:
        known = standing(index.store.journal(chain, "release"))
        for title, record in (("candidate", known.candidate), ("previous", known.previous), ("champion", known.champion)):
            if record:
                titles[record["release"]] = title
    return [Served(one.release, one.chain, one.model, one.at, titles.get(one.release, "earlier")) for one in found]


def _present(rows: Iterable[Row]) -> Iterator[Row]:
    """The artifacts that stand, one of each content."""
    return (row for row in _distinct(rows) if row.state == "present")


def _distinct(rows: Iterable[Row]) -> Iterator[Row]:
    """One artifact of each content, rather one that stands: what equals another is answered by it."""
    seen: set[tuple[str, str | None]] = set()
    for row in sorted(rows, key=lambda row: row.state != "present"):
        if (row.link, row.data_version) not in seen:
            seen.add((row.link, row.data_version))
            yield row


def _first(rows: Iterable[Any], limit: int) -> Iterator[Any]:
    seen: set[str] = set()
    for row in rows:
        seen.add(row["doc_id"])
        yield row
        if len(seen) >= limit:
            return


def _unknown(index: Index, places: Places, wanted: str) -> str:
    raws = [row for row in _distinct(index.artifacts("raw_corpus")) if _can_be_asked(places, row)]
    near: list[str] = []
    for length in range(min(len(wanted), 19), 1, -1):
        near = sorted({one for raw in raws for one in places.starting_with(raw, "documents", wanted[:length], SUGGESTED)})[:SUGGESTED]
        if near:
            break
    suggestion = f"; near to it: {', '.join(near)}" if near else ""
    return f"no raw corpus of {index.store.root} holds document {wanted}{suggestion}{_unasked(index, places)}"


def _unasked(index: Index, places: Places) -> str:
    """The raw corpora of which nobody can say what they held."""
    rows = [row for row in _distinct(index.artifacts("raw_corpus")) if not _can_be_asked(places, row)]
    return "".join(f"; what {_unsearched(index, row)} held cannot be told" for row in rows)
