"""What became of documents: which rule dropped how many, which ones, and where those that hold a text are now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llm_assets.audit.current import current_artifact
from llm_assets.corpus import pii
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

REJECTED = ["doc_id", "source", "member", "line", "rule", "evidence"]  # columns
SNIPPET = 30  # characters shown on either side of a hit


class UnknownRuleError(LookupError):
    """A rule was asked for under which nothing was dropped."""


@dataclass(frozen=True)
class Corpus:
    """The artifacts a chain's clean corpus was made from, and itself."""

    raw_corpus: Artifact
    screened_corpus: Artifact
    evaluation_sets: Artifact
    clean_corpus: Artifact

    @property
    def rejecting(self) -> tuple[Artifact, ...]:
        """Those that drop documents, in the order in which they do."""
        return self.raw_corpus, self.screened_corpus, self.clean_corpus


@dataclass(frozen=True)
class Fate:
    """One occurrence of a document in the raw corpus, and what became of it."""

    doc_id: str
    source: str
    member: str
    line: int
    snippet: str  # masked, around the hit
    state: str  # kept, dropped, evaluation
    link: str | None = None  # that dropped it
    rule: str | None = None
    evidence: str | None = None


def current_corpus(chain: str, store: Store) -> Corpus:
    """The corpus a chain stands on now: its clean corpus, and what that was made from. Raises ``NothingUsableError``."""
    return corpus_of(store, current_artifact(chain, "clean_corpus", store.root))


def corpus_of(store: Store, clean: Artifact) -> Corpus:
    """A clean corpus with what it was made from. Raises ``ArtifactError`` where that is gone."""
    screened = _input(store, clean, "screened_corpus")
    return Corpus(_input(store, screened, "raw_corpus"), screened, _input(store, clean, "evaluation_sets"), clean)


def dropped(corpus: Corpus) -> list[dict[str, Any]]:
    """How many documents each rule of each link dropped from each source: ``{link, rule, source, documents}``, most first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for artifact in corpus.rejecting:
        for batch in artifact.batches("rejects.parquet", ["rule", "source"]):
            counts.update((artifact.link, *pair) for pair in zip(batch["rule"].to_pylist(), batch["source"].to_pylist(), strict=True))
    return [{"link": link, "rule": rule, "source": source, "documents": count} for (link, rule, source), count in counts.most_common()]


def rejected(corpus: Corpus, rule: str, limit: int) -> list[dict[str, Any]]:
    """Documents that a rule dropped, those with the smallest doc_ids, with place and masked evidence.

    Raises ``UnknownRuleError`` naming the rules there are.
    """
    found: list[dict[str, Any]] = []
    known: set[str] = set()
    for artifact in corpus.rejecting:
        for batch in artifact.batches("rejects.parquet"):
            known.update(batch["rule"].to_pylist())
            found += [{"link": artifact.link, **row} for row in batch.to_pylist() if row["rule"] == rule]
            found = sorted(found, key=lambda row: (row["doc_id"], row["source"], row["member"], row["line"]))[:limit]
    if rule not in known:
        raise UnknownRuleError(f"no rule {rule!r} dropped anything here; these did: {', '.join(sorted(known)) or 'none'}")
    return found


def search(corpus: Corpus, text: str, limit: int, rule: str | None = None) -> list[Fate]:
    """Occurrences in the raw corpus that hold a text, and what became of each; with ``rule`` only those it dropped."""
    fates = []
    ends = _ends(corpus)
    for row in holding(corpus.raw_corpus, text):
        fate = fate_of(row, text, ends)
        if rule is None or fate.rule == rule:
            fates.append(fate)
        if len(fates) >= limit:
            break
    return fates


def _input(store: Store, artifact: Artifact, name: str) -> Artifact:
    return store.open(name, artifact.manifest.inputs[name].fingerprint)


def holding(raw: Artifact, text: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a raw corpus whose text holds another; reads all of it."""
    import pyarrow.compute as pc

    for batch in raw.batches("documents.parquet", ["doc_id", "text", "source", "member", "line"]):
        yield from batch.filter(pc.match_substring(batch["text"], text)).to_pylist()


Place = tuple[str, str, str, int]


def _ends(corpus: Corpus) -> dict[Place, tuple[str, str, str]]:
    """By place, the link, rule and evidence that ended a document's way."""
    return {
        place_of(row): (artifact.link, row["rule"], row["evidence"])
        for artifact in corpus.rejecting[1:]
        for batch in artifact.batches("rejects.parquet", REJECTED)
        for row in batch.to_pylist()
    }


def place_of(row: Mapping[str, Any]) -> Place:
    """Where a row of documents or rejects stood: what tells the occurrences of a text apart."""
    return row["doc_id"], row["source"], row["member"], row["line"]


def fate_of(row: Mapping[str, Any], text: str, ends: Mapping[Place, tuple[str, str, str]]) -> Fate:
    """What became of a row of raw_corpus, shown around a ``text`` that it holds; ``ends`` gives link, rule and evidence by place."""
    hit = row["text"].index(text)
    start, end = max(hit - 4 * SNIPPET, 0), hit + len(text) + 4 * SNIPPET  # masked with more around it than is shown
    parts = (row["text"][start:hit], row["text"][hit : hit + len(text)], row["text"][hit + len(text) : end])
    before, inside, after = (pii.mask(part)[0] for part in parts)
    whole = pii.mask(row["text"][start:end])[0]
    snippet = f"{before[-SNIPPET:]}{inside}{after[:SNIPPET]}" if f"{before}{inside}{after}" == whole else whole[: 2 * SNIPPET]
    link, rule, evidence = ends.get(place_of(row), (None, None, None))
    state = "kept" if rule is None else "evaluation" if rule == "evaluation" else "dropped"
    return Fate(*place_of(row), snippet, state, link, rule, evidence)
