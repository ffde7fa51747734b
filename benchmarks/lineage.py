"""How long an auditor waits: lineage and trace over many releases and documents."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.result import Result
from benchmarks.timing import timed
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.places import Places
from llm_assets.audit.provenance import trace_back
from llm_assets.audit.trace import trace
from llm_assets.corpus.documents import ROW_GROUP, doc_id, document_schema, reject_schema
from llm_assets.links.chain import LINKS
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import MANIFEST, FileEntry, InputEntry, Manifest
from llm_assets.store.store import Store

RELEASES, DOCUMENTS, ANSWERS = 1_000, 10_000_000, 200_000
DRAWN = 1_000  # answers
STEPS = (10, 1)  # the last step is the whole size, those before it so many times smaller
DROPPED = 10  # one document in so many is dropped as a duplicate of the one before
ROUNDS = 5
TARGET = 1.0  # seconds
CHAIN = "synthetic"


def lineage(preset: str, home: Path) -> Result:
    """`lineage` and `trace` over 1,000 releases, 10 million documents and 200,000 answers: the slowest question, against 1 s.

    Synthetic: manifests, journals and request log are written straight to the disk, not made by runs; texts are "document N", all in one
    corpus that the 1,000 models share; each model has labelled examples, a checkpoint, a finetuned and a quantized model of its own, of a
    few bytes. Questions are asked in this process with the index opened and refreshed each time; the median of 5 counts. The time to
    build the index and the places of documents, once, is printed beside, and what the command takes with Python's start and Dagster's import.
    """
    slowest, complete = 0.0, False
    for step in STEPS:
        folder = home / f"lineage-{step}"
        releases, documents = RELEASES // step, DOCUMENTS // step
        store, seconds = timed(lambda folder=folder, releases=releases, documents=documents: _write(folder, releases, documents))
        print(f"\n{releases:,} releases, {documents:,} documents (written in {seconds:.0f} s)")
        slowest, complete = _questions(store, releases, documents)
        shutil.rmtree(folder)
    target = f"<= {TARGET:g} s for the slowest question, and every answer leads to its sources"
    return Result("lineage", round(slowest, 3), "s", target, slowest <= TARGET and complete)


def _questions(store: Store, releases: int, documents: int) -> tuple[float, bool]:
    index = Index(store)
    count, building = timed(index.refresh)
    index.close()
    places = Places(store)
    print(f"index of {count:,} artifacts built in {building:.1f} s")
    _, placing = timed(lambda: _trace(store, places, doc_id(_text(1))))
    size = sum(path.stat().st_size for path in (store.home / "audit").rglob("*.db"))
    print(f"places of documents made by the first trace in {placing:.1f} s; {size / 1e6:,.0f} MB in all")
    asked = {
        "lineage of an answer": lambda: _lineage(store, f"classify-{ANSWERS // 3}"),
        "lineage of the last release": lambda: _lineage(store, f"{CHAIN}-{releases}"),
        "trace of a kept document": lambda: _trace(store, places, doc_id(_text(documents // 2 + 1))),
        "trace of a dropped document": lambda: _trace(store, places, doc_id(_text(documents // 2 // DROPPED * DROPPED))),
    }
    medians = {}
    for name, ask in asked.items():
        medians[name] = sorted(timed(ask)[1] for _ in range(ROUNDS))[ROUNDS // 2]
        print(f"{name:<30} {medians[name]:8.3f} s")
    drawn = random.Random(0).sample(range(ANSWERS), DRAWN)
    index = Index(store)
    resolved = sum(bool(trace_back(find([index], f"classify-{one}"), str(one)).sources) for one in drawn)
    index.close()
    print(f"{resolved:,} of {DRAWN:,} answers drawn at random lead to their documents' sources")
    command = [sys.executable, "-m", "llm_assets.cli", "lineage", f"{CHAIN}-{releases}", "--json"]
    environment = {**os.environ, "LLM_ASSETS_HOME": str(store.home), "LLM_ASSETS_DAGSTER": str(store.home / "dagster")}
    _, whole = timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))
    print(f"{'the command, start included':<30} {whole:8.3f} s")
    return max(medians.values()), resolved == DRAWN


def _lineage(store: Store, wanted: str) -> None:
    index = Index(store)
    index.refresh()
    found = trace_back(find([index], wanted), wanted)
    assert len(found.nodes) == 9 and not found.breaks and found.sources
    json.dumps(found.as_json())
    index.close()


def _trace(store: Store, places: Places, document: str) -> None:
    index = Index(store)
    index.refresh()
    found = trace(index, places, document)
    dropped = any(fate.state == "dropped" for cleaning in found.cleanings for fate in cleaning.fates)
    assert dropped == (not found.releases) and found.cleanings
    json.dumps(found.as_json())
    index.close()


# --- what is synthetic ---------------------------------------------------------------------------------------------------


def _write(home: Path, releases: int, documents: int) -> Store:
    """The home of a chain with so many releases of one corpus."""
    shutil.rmtree(home, ignore_errors=True)
    store = Store(home)
    source = {"name": "all", "kind": "files", "license": "CC0-1.0", "path": "inbox/*.txt", "language": "en"}
    metrics = {"documents": documents, "sources": {"all": documents}}
    raw = _commit(store, "raw_corpus", {"sources": [source]}, (), metrics, lambda folder: _raw(folder, documents))
    screened = _commit(store, "screened_corpus", {}, (raw,), {"dropped": {}}, _screened)
    sets = _commit(store, "evaluation_sets", {}, (raw,), {}, _sets)
    clean = _commit(store, "clean_corpus", {}, (screened, sets), {"dropped": {}}, lambda folder: _clean(folder, documents))
    tokens = _commit(store, "tokens", {}, (clean,), {}, lambda folder: _tokens(folder, documents))
    journal, scorecard = (store.journal(CHAIN, act).path for act in ("release", "scorecard"))
    journal.parent.mkdir(parents=True)
    with journal.open("w") as released, scorecard.open("w") as scored:
        for number in range(1, releases + 1):
            config = {"number": number}
            examples = _commit(store, "labelled_examples", config, (clean,), {}, lambda folder, number=number: _examples(folder, number))
            pretrained = _commit(store, "pretrained_checkpoint", config, (tokens,), {}, _model)
            finetuned = _commit(store, "finetuned_model", config, (pretrained, examples, sets), {}, _model)
            model = _commit(store, "quantized_model", config, (finetuned, examples, sets), {}, _model)
            moment = f"2026-01-01T00:{number // 60 % 60:02}:{number % 60:02}.{number:06}+00:00"
            record = {"release": f"{CHAIN}-{number}", "number": number, "quantized_model": model.fingerprint, "files": {}, "approved_by": "auto"}
            record["directory"] = f"artifacts/quantized_model/{model.fingerprint}"
            verdict = {"check": "beats_majority", "passed": True, "blocking": True, "description": "synthetic", "values": {}}
            judged = {"quantized_model": model.fingerprint, "models": [{"name": str(other)} for other in range(20)]}
            scored.write(json.dumps({"at": moment, "trial": False, "verdicts": [verdict], "record": judged}) + "\n")
            released.write(json.dumps({"at": moment, "trial": False, "run_id": "run", "verdicts": [verdict], "record": record}) + "\n")
    _log(home, releases)
    return store


def _commit(store: Store, link: str, config: Mapping[str, Any], inputs: Sequence[Manifest], metrics: Mapping[str, Any], write: Any) -> Manifest:
    """An artifact written straight to its place: hashing and flushing what is thrown away would take most of the time."""
    recipe = Recipe(link, LINKS[link].version, config, {one.link: one.data_version for one in inputs}, 17)
    folder = Path(store.root) / link / recipe.fingerprint
    folder.mkdir(parents=True)
    write(folder)
    files = {path.name: FileEntry(size=path.stat().st_size, sha256="0" * 64) for path in folder.iterdir()}
    manifest = Manifest(
        link=link, fingerprint=recipe.fingerprint, data_version=recipe.fingerprint, recipe=asdict(recipe), files=files, licenses=["CC0-1.0"],
        inputs={one.link: InputEntry(link=one.link, fingerprint=one.fingerprint, data_version=one.data_version) for one in inputs},
        metrics=dict(metrics), libraries={}, code={"commit": "0" * 40}, host="", started="2026-01-01T00:00:00+00:00", seconds=1,
        core_seconds=1, peak_memory_bytes=1, dagster_run_id="run",
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return manifest


def _text(number: int) -> str:
    return f"document {number}"


def _pieces(documents: int) -> Iterator[tuple[range, list[str]]]:
    """Numbers and doc_ids, a row group at a time."""
    for start in range(0, documents, ROW_GROUP):
        numbers = range(start, min(start + ROW_GROUP, documents))
        yield numbers, [hashlib.sha256(_text(number).encode()).hexdigest()[:20] for number in numbers]


def _raw(folder: Path, documents: int) -> None:
    with pq.ParquetWriter(folder / "documents.parquet", document_schema()) as writer:
        for numbers, ids in _pieces(documents):
            writer.write_table(_documents(list(numbers), ids))
    pq.write_table(reject_schema().empty_table(), folder / "rejects.parquet")


def _documents(numbers: list[int], ids: list[str]) -> pa.Table:
    count = len(ids)
    constants = {"id": None, "language": "en", "source": "all", "license": "CC0-1.0", "member": "all.txt", "label": None, "metadata": "{}"}
    columns = {name: pa.array([value] * count, pa.string()) for name, value in constants.items()}
    columns |= {"doc_id": pa.array(ids), "text": pa.array(list(map(_text, numbers))), "line": pa.array([number + 1 for number in numbers])}
    return pa.table({name: columns[name] for name in document_schema().names}, schema=document_schema())


def _screened(folder: Path) -> None:
    pq.write_table(document_schema().empty_table(), folder / "documents.parquet")  # nothing of a trace is read from it
    pq.write_table(reject_schema().empty_table(), folder / "rejects.parquet")


def _sets(folder: Path) -> None:
    table = pa.table({"doc_id": ["f" * 20], "split": ["test"], "cluster": ["k"]})
    pq.write_table(table, folder / "evaluation.parquet")
    pq.write_table(table.select(["doc_id", "cluster"]), folder / "members.parquet")


def _clean(folder: Path, documents: int) -> None:
    """Every tenth document is dropped for the one before it."""
    before = ""
    with (
        pq.ParquetWriter(folder / "documents.parquet", document_schema()) as keep,
        pq.ParquetWriter(folder / "rejects.parquet", reject_schema()) as reject,
    ):
        for numbers, ids in _pieces(documents):
            kept = [place for place, number in enumerate(numbers) if number % DROPPED or not number]
            keep.write_table(_documents([numbers[place] for place in kept], [ids[place] for place in kept]))
            lost = [place for place, number in enumerate(numbers) if number and number % DROPPED == 0]
            constants = {"source": "all", "member": "all.txt", "rule": "near_duplicate", "start": 0, "end": 1}
            repeated = [ids[place - 1] if place else before for place in lost]
            pairs = zip(lost, repeated, strict=True)
            rows = [{**constants, "doc_id": ids[place], "line": numbers[place] + 1, "evidence": one} for place, one in pairs]
            reject.write_table(pa.Table.from_pylist(rows, reject_schema()))
            before = ids[-1]


def _tokens(folder: Path, documents: int) -> None:
    kept = (name for numbers, ids in _pieces(documents) for number, name in zip(numbers, ids, strict=True) if number % DROPPED or not number)
    names = np.fromiter((name.encode() for name in kept), "S20")
    names.sort()
    schema = pa.schema([("doc_id", pa.string()), *((name, pa.int64()) for name in ("block", "offset", "length", "blocks"))])
    with pq.ParquetWriter(folder / "documents.parquet", schema) as writer:
        for start in range(0, len(names), ROW_GROUP):
            piece = names[start : start + ROW_GROUP].astype("U20")
            places = np.arange(start, start + len(piece))
            ones = np.ones(len(piece), np.int64)
            columns = [piece.tolist(), places // 10, places % 10, ones, ones]
            writer.write_table(pa.table(list(map(pa.array, columns)), schema=schema))
    (folder / "layout.json").write_text(json.dumps({"train_blocks": len(names)}))


def _examples(folder: Path, number: int) -> None:
    ids = [doc_id(_text(number * 100 + other)) for other in range(1, 10)]
    pq.write_table(pa.table({"doc_id": ids, "label": ["good"] * len(ids)}), folder / "train.parquet")
    empty = pa.schema([*((name, pa.string()) for name in ("doc_id", "given", "suggested")), ("margin", pa.float64())]).empty_table()
    pq.write_table(empty, folder / "suspects.parquet")


def _model(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")


def _log(home: Path, releases: int) -> None:
    """Answers of 20 days, spread over the releases."""
    folder = home / "serving" / "log" / CHAIN
    folder.mkdir(parents=True)
    for day in range(20):
        with (folder / f"2026-02-{day + 1:02}.jsonl").open("w") as file:
            for number in range(day, ANSWERS, 20):
                entry = {"id": f"classify-{number}", "at": f"2026-02-{day + 1:02}T00:00:00+00:00", "release": f"{CHAIN}-{number % releases + 1}"}
                file.write(json.dumps({**entry, "texts": [{"characters": 9, "sha256": "0" * 64}], "labels": ["good"], "probs": [[0.1, 0.9]]}) + "\n")
