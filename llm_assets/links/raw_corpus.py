"""The link raw_corpus: every document of every source, as it came, with where it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from llm_assets.corpus.reading import read
from llm_assets.corpus.sources import Source, ignored_files, observe
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict


class RawCorpusConfig(Section):
    """Where the text comes from."""

    sources: list[Source] = Field(min_length=1, description="archives, files, data sets or upstream assets, read in this order")

    limit: int | None = Field(None, ge=1, description="distinct documents to keep of each source that states no limit of its own")

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: list[Source]) -> list[Source]:
        counts = Counter(source.name for source in sources)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"two sources are named {', '.join(twice)}; give each its own name")
        return sources


def observe_sources(config: RawCorpusConfig) -> dict[str, Any]:
    """What each source shows now, by its name. Raises ``SourceError`` for one that has vanished."""
    return {source.name: observe(source) for source in config.sources}


def raw_corpus(bench: Bench, config: RawCorpusConfig) -> Made:
    """Reads every source into one table of documents, unchanged.

    Each row is one occurrence of a text: where it stood (source, file or archive member, line), under which licence, with
    which label and domain. `doc_id` is derived from the text itself, so the same text has the same `doc_id` wherever it
    stands, and everything the chain makes later can be traced back to these rows.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    tables = [read(source, bench.cache, source.limit or config.limit, bench.progress) for source in config.sources]
    documents = pa.concat_tables(tables)
    pq.write_table(documents, bench.directory / "documents.parquet")
    lengths = pc.utf8_length(documents["text"])
    sizes = {source.name: len(table) for source, table in zip(config.sources, tables, strict=True)}
    histogram(bench.directory, "lengths", lengths.to_pylist(), "Length of the documents", "characters")
    bars(bench.directory, "sources", sizes, "Documents a source", "documents")
    return Made(
        metrics={
            "documents": len(documents),
            "distinct_documents": pc.count_distinct(documents["doc_id"]).as_py(),
            "characters": pc.sum(lengths).as_py() or 0,
            "sources": sizes,
            "ignored_files": sum(len(ignored_files(source)) for source in config.sources),
            "labels": dict(sorted(Counter(label for label in documents["label"].to_pylist() if label is not None).items())),
        },
        licenses=tuple(sorted({source.license for source in config.sources})),
    )


def _sources_present(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    required = {source["name"]: source for source in artifact.manifest.recipe["config"]["sources"] if source.get("required", True)}
    found = Counter(artifact.table("documents.parquet", ["source"])["source"].to_pylist())
    empty = sorted(name for name in required if not found[name])
    return Verdict(
        check="sources_present",
        passed=not empty,
        description=f"{len(found)} sources gave {found.total()} documents" + (f"; none came from {', '.join(empty)}" if empty else ""),
        values={"documents": dict(found)},
    )


def _identity(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.documents import doc_id

    table = artifact.table("documents.parquet", ["doc_id", "text"])
    wrong = [key for key, text in zip(table["doc_id"].to_pylist(), table["text"].to_pylist(), strict=True) if key != doc_id(text)]
    return Verdict(
        check="doc_id_is_the_text",
        passed=not wrong,
        description=f"{len(wrong)} of {len(table)} documents have a doc_id that is not their text's hash",
        values={"doc_ids": wrong[:10]},
    )


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
    role="data-engineering",
    kinds=("python", "parquet"),
    checks=(
        Check("sources_present", "Every source that must give documents gave some", _sources_present),
        Check("doc_id_is_the_text", "Every doc_id is the hash of its row's text, so that lineage leads to the right text", _identity),
        Check("expectations", "Great Expectations: columns filled, lines counted from 1, languages and licences stated", _expectations),
    ),
    observe=observe_sources,
    libraries=("datasets", "pyarrow"),
)
