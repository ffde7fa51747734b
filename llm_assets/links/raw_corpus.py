"""The link raw_corpus: every document of every source, as it came, with where it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from llm_assets.corpus.codepoints import flatten, hash_texts
from llm_assets.corpus.documents import doc_id, document_schema, hash_rows, reject_schema, repeated_rows, table_writer
from llm_assets.corpus.licenses import LicensePolicy
from llm_assets.corpus.reading import Piece, read
from llm_assets.corpus.sources import Source, ignored_files, observe, passed_over_pages
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links import pages
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.home import data_root
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

ERASED = "erased documents"  # beside the sources' names, none of which holds a space
OWN_ID = ["source", "id"]  # what tells a user's own row from another


class RawCorpusConfig(Section):
    """Where the text comes from, and under which licences it may."""

    sources: list[Source] = Field(min_length=1, description="archives, files, pages, databases, data sets or upstream assets, read in this order")
    limit: int | None = Field(None, ge=1, description="distinct documents to keep of each source that states no limit of its own")
    licenses: LicensePolicy = Field(LicensePolicy(), description="which licences are admitted; another one stops the run before its text is read")

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: list[Source]) -> list[Source]:
        counts = Counter(source.name for source in sources)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"two sources are named {', '.join(twice)}; give each its own name")
        return sources

    def recipe(self) -> dict[str, Any]:
        """All of it but what the model is for, which refuses sources and changes none that it admits."""
        values = super().recipe()
        return {**values, "licenses": {key: value for key, value in values["licenses"].items() if key != "use"}}


def observe_sources(config: RawCorpusConfig) -> dict[str, Any]:
    """What each source shows now, by its name.

    Raises ``SourceError`` for a licence that is not admitted, before anything is opened, and for a source that has vanished.
    """
    config.licenses.refuse(config.sources)
    seen = {source.name: observe(source) for source in config.sources}
    erased = Tombstones.of(data_root()).state
    return {**seen, ERASED: erased} if erased else seen


def raw_corpus(bench: Bench, config: RawCorpusConfig) -> Made:
    """Reads every source into one table of documents, unchanged.

    Each row is one occurrence of a text: where it stood (source, file or archive member, line), under which licence, with
    which label and domain. `doc_id` is derived from the text itself, so the same text has the same `doc_id` wherever it
    stands, and everything the chain makes later can be traced back to these rows. A row that cannot be read ends the run
    or, where its source says `on_error: reject`, stands in `rejects.parquet` with the rule it broke. Documents that
    `llm-assets forget` erased are left out without a trace.
    """
    tally, stones = _Tally(), Tombstones.of(data_root())
    with (
        table_writer(bench.directory / "documents.parquet", document_schema()) as keep,
        table_writer(bench.directory / "rejects.parquet", reject_schema()) as reject,
    ):
        for source in config.sources:
            for found in read(source, bench.cache, source.limit or config.limit, bench.progress):
                piece = found._replace(documents=_standing(stones, found.documents), rejects=_standing(stones, found.rejects))
                keep(piece.documents)
                reject(piece.rejects)
                tally.add(source.name, piece)
    lengths = tally.lengths()
    sizes = {source.name: tally.documents[source.name] for source in config.sources}
    passed_over = {source.name: passed_over_pages(source, bench.cache) for source in config.sources}
    languages: Counter[str] = Counter()
    for source in config.sources:
        languages[source.language or "not stated"] += sizes[source.name]
    histogram(bench.directory, "lengths", lengths, "Length of the documents", "characters")
    bars(bench.directory, "sources", sizes, "Documents a source", "documents")
    bars(bench.directory, "languages", languages, "Documents a language, as their sources state it", "documents")
    pages.table(
        bench.directory,
        "sources",
        "Sources",
        ("source", "kind", "licence", "encoding", "documents", "rejected rows"),
        [
            (s.name, s.kind, s.license, ", ".join(sorted(tally.encodings.get(s.name, ()))), sizes[s.name], _counted(tally.rejects.get(s.name)))
            for s in config.sources
        ],
    )
    return Made(
        metrics={
            "documents": sum(sizes.values()),
            "distinct_documents": tally.distinct(),
            "characters": int(lengths.sum()),
            "sources": sizes,
            "encodings": {name: sorted(found) for name, found in tally.encodings.items() if found},
            "rejected": {name: dict(sorted(counts.items())) for name, counts in tally.rejects.items() if counts},
            "ignored_files": sum(len(ignored_files(source)) for source in config.sources),
            "passed_over_pages": {name: dict(counts) for name, counts in passed_over.items() if counts},
            "labels": dict(sorted(tally.labels.items())),
        },
        licenses=tuple(sorted({source.license for source in config.sources})),
    )


def _standing(stones: Tombstones, rows: pa.Table) -> pa.Table:
    """The rows but for those of erased documents."""
    import pyarrow as pa

    return rows.filter(pa.array(stones.standing(rows["doc_id"].to_pylist()), pa.bool_())) if stones.erased else rows


class _Tally:
    """Counts over the pieces as they pass: 12 bytes a document stay."""

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.rejects: dict[str, Counter[str]] = {}
        self.encodings: dict[str, set[str]] = {}
        self._lengths: list[NDArray[np.uint32]] = []
        self._ids: list[NDArray[np.uint64]] = []

    def add(self, source: str, piece: Piece) -> None:
        import numpy as np
        import pyarrow.compute as pc

        self.documents[source] += len(piece.documents)
        self.labels.update(label for label in piece.documents["label"].to_pylist() if label is not None)
        self.rejects.setdefault(source, Counter()).update(piece.rejects["rule"].to_pylist())
        self.encodings.setdefault(source, set()).update({piece.encoding} - {None})  # type: ignore[arg-type]
        self._lengths.append(pc.utf8_length(piece.documents["text"]).to_numpy().astype(np.uint32))
        self._ids.append(hash_texts(flatten(piece.documents["doc_id"].to_pylist())))

    def lengths(self) -> NDArray[np.uint32]:
        import numpy as np

        return np.concatenate([np.empty(0, np.uint32), *self._lengths])

    def distinct(self) -> int:
        import numpy as np

        return len(np.unique(np.concatenate([np.empty(0, np.uint64), *self._ids])))


def _counted(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{rule} {count}" for rule, count in sorted((counts or {}).items())) or "0"


def _sources_present(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    required = {source["name"]: source for source in artifact.manifest.recipe["config"]["sources"] if source.get("required", True)}
    found = Counter(name for batch in artifact.batches("documents.parquet", ["source"]) for name in batch["source"].to_pylist())
    empty = sorted(name for name in required if not found[name])
    return Verdict(
        check="sources_present",
        passed=not empty,
        description=f"{len(found)} sources gave {found.total()} documents" + (f"; none came from {', '.join(empty)}" if empty else ""),
        values={"documents": dict(found)},
    )


def _identity(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    wrong: list[str] = []
    for batch in artifact.batches("documents.parquet", ["doc_id", "text"]):
        pairs = zip(batch["doc_id"].to_pylist(), batch["text"].to_pylist(), strict=True)
        wrong += [key for key, text in pairs if key != doc_id(text)]
    return Verdict(
        check="doc_id_is_the_text",
        passed=not wrong,
        description=f"{len(wrong)} of {artifact.rows('documents.parquet')} documents have a doc_id that is not their text's hash",
        values={"doc_ids": wrong[:10]},
    )


def _own_ids_unique(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import numpy as np

    again = repeated_rows(_own_ids(artifact), OWN_ID)
    found: set[tuple[str, str]] = set()
    for batch in _own_ids(artifact) if len(again) else ():
        found |= {tuple(batch.slice(place, 1).to_pylist()[0].values()) for place in np.flatnonzero(np.isin(hash_rows(batch, OWN_ID), again)).tolist()}
        found = set(sorted(found)[:5])
    shown = ", ".join(f"{source}: {own}" for source, own in sorted(found))
    return Verdict(
        check="own_ids_unique",
        passed=not len(again),
        description=f"{len(again)} of the users' own ids stand in more than one row of their source" + (f", such as {shown}" if shown else ""),
        values={"repeated": len(again)},
    )


def _own_ids(artifact: Artifact) -> Iterator[pa.RecordBatch]:
    """Source and own id of every row that has one."""
    import pyarrow.compute as pc

    for batch in artifact.batches("documents.parquet", OWN_ID):
        yield batch.filter(pc.is_valid(batch["id"]))


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_documents

    return judge_documents(artifact, "raw_corpus")


LINK = Link(
    name="raw_corpus",
    version=1,
    make=raw_corpus,
    config=RawCorpusConfig,
    inputs=(),
    stage="corpus",
    role="data_engineer",
    kinds=("python", "parquet"),
    checks=(
        Check("sources_present", "Every source that must give documents gave some", _sources_present),
        Check("doc_id_is_the_text", "Every doc_id is the hash of its row's text, so that lineage leads to the right text", _identity),
        Check(
            "own_ids_unique",
            "The users' own ids tell the rows of a source apart (a warning: lineage goes by doc_id)",
            _own_ids_unique,
            blocking=False,
        ),
        Check("expectations", "Great Expectations: columns filled, lines counted from 1, languages and licences stated", _expectations),
    ),
    observe=observe_sources,
    libraries=("datasets", "pyarrow"),
)
