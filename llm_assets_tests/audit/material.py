"""A small chain in a store: the real cleaning links over a few texts, and models of a few bytes."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from llm_assets.corpus.documents import doc_id, reject_schema
from llm_assets.evaluation import predictions
from llm_assets.links.chain import LINKS
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe, digest
from llm_assets.store.manifest import InputEntry, Manifest, content_digest, describe_files
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import documents, run

KEPT = "这家酒店的早餐非常好吃，房间也很干净，下次还会再来住"
REPEATED = "这家酒店的早餐非常好吃，房间也很干净，下次还会再来住！！"  # equal but for punctuation
SHORT = "好"
TESTED = "电脑的屏幕很清晰，键盘手感也不错，就是电池不太耐用"
OTHER = "书的内容很空洞，翻译得也不好，读起来完全浪费时间"
TEXTS = (KEPT, REPEATED, SHORT, TESTED, OTHER, KEPT)
SOURCE = {"name": "test", "kind": "pypi", "license": "MIT", "package": "p", "version": "1", "member": "test.txt", "sha256": "c" * 64}


def commit(store: Store, link: str, files: Mapping[str, Any], *inputs: Artifact, config: Mapping[str, Any] | None = None, **changes: Any) -> Artifact:
    """An artifact with these files: tables as Parquet, bytes as they are, the rest as JSON; ``changes`` go into its manifest."""
    seen = {"sources": digest([str(content) for content in files.values()])} if link == "raw_corpus" else {}
    versions = {artifact.link: artifact.data_version for artifact in inputs}
    recipe = Recipe(link, LINKS[link].version, dict(config or {}), versions, seed=17, observed=seen)

    def build(directory: Path, scratch: Path) -> Manifest:
        for name, content in files.items():
            if isinstance(content, pa.Table):
                pq.write_table(content, directory / name)
            else:
                (directory / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        described = describe_files(directory)
        entries = {one.link: InputEntry(link=one.link, fingerprint=one.fingerprint, data_version=one.data_version) for one in inputs}
        manifest = Manifest(
            link=link, fingerprint=recipe.fingerprint, recipe=recipe.stated(), inputs=entries, files=described, licenses=["MIT"], metrics={},
            data_version=recipe.fingerprint if LINKS[link].trained else content_digest(described), libraries={"python": "3.11"},
            code={}, host="test", started="2026-01-01T00:00:00+00:00", seconds=1, core_seconds=1, peak_memory_bytes=1,
        )  # fmt: skip
        return manifest.model_copy(update=changes)

    return store.make(recipe, build)[0]


def raw_corpus(store: Store, *texts: str) -> Artifact:
    """A raw corpus of these texts, each on a line of its own."""
    files = {"documents.parquet": documents(*texts), "rejects.parquet": reject_schema().empty_table()}
    return commit(store, "raw_corpus", files, config={"sources": [SOURCE]}, metrics={"sources": {"test": len(texts)}, "documents": len(texts)})


def copied_chain(store: Store) -> dict[str, Artifact]:
    """``chain`` with its defaults, copied into a store: made once a session."""
    for folder in ("artifacts", "audit"):
        shutil.copytree(_made_once() / folder, store.home / folder, dirs_exist_ok=True)
    return {link: store.open(link, fingerprint) for link, fingerprint in store.names()}


@functools.cache
def _made_once() -> Path:
    home = Path(tempfile.mkdtemp(prefix="llm-assets-tests-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    chain(Store(home))
    return home


def chain(store: Store, texts: tuple[str, ...] = TEXTS, weights: bytes = b"weights", answers: Mapping[str, str] | None = None) -> dict[str, Artifact]:
    """Every made link but the tokenizer; TESTED is the one test document, ``answers`` its predictions by model."""
    raw = raw_corpus(store, *texts)
    screened = run(store, "screened_corpus", {"minimum_kept": 0.0}, {"raw_corpus": raw}).artifact
    tested = pa.table({"doc_id": [doc_id(TESTED)], "text": [TESTED], "label": ["good"], "domain": ["test"], "split": ["test"], "cluster": ["k"]})
    members = pa.table({"doc_id": [doc_id(TESTED)], "cluster": ["k"]})
    sets = commit(store, "evaluation_sets", {"evaluation.parquet": tested, "members.parquet": members}, raw)
    clean = run(store, "clean_corpus", {"minimum_kept": 1}, {"screened_corpus": screened, "evaluation_sets": sets}).artifact
    kept = [row["doc_id"] for row in clean.table("documents.parquet", ["doc_id"]).to_pylist()]
    places = {"doc_id": kept, "block": list(range(len(kept))), "offset": [0] * len(kept), "length": [9] * len(kept), "blocks": [1] * len(kept)}
    layout = {"train_blocks": 1, "validation_blocks": len(kept) - 1}
    tokens = commit(store, "tokens", {"documents.parquet": pa.table(places), "layout.json": layout}, clean)
    train = pa.table({"doc_id": [doc_id(OTHER)], "text": [OTHER], "label": ["bad"], "domain": ["test"], "provenance": ["test"]})
    suspects = pa.table({"doc_id": [doc_id(OTHER)], "given": ["bad"], "suggested": ["good"], "margin": [0.5]})
    examples = commit(store, "labelled_examples", {"train.parquet": train, "suspects.parquet": suspects}, clean)
    pretrained = commit(store, "pretrained_checkpoint", {"model.safetensors": weights}, tokens)
    finetuned = commit(store, "finetuned_model", {"model.safetensors": weights}, pretrained, examples, sets)
    rows = [
        {"model": "quantized", "split": "test", "doc_id": doc_id(TESTED), "label": "good", "predicted": predicted, "probabilities": [0.4, 0.6]}
        for predicted in (answers or {"quantized": "good"}).values()
    ]
    folder = store.home / "scratch"
    folder.mkdir(exist_ok=True)
    predictions.write(folder / "predictions.parquet", rows)
    files = {"model.onnx": weights, "predictions.parquet": (folder / "predictions.parquet").read_bytes()}
    quantized = commit(store, "quantized_model", files, finetuned, sets)
    made = (raw, screened, sets, clean, tokens, examples, pretrained, finetuned, quantized)
    return {artifact.link: artifact for artifact in made}
