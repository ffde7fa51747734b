"""A store in a temporary home, and small artifacts made from one another."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, trace_back
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import MANIFEST, InputEntry, Manifest
from llm_assets.store.store import Store
from llm_assets_tests.audit.material import copied_chain
from llm_assets_tests.store.conftest import writes

LONG_AGO = time.time() - 30 * 86400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    return Store(tmp_path, f"memory://{tmp_path.name}")


def commit(store: Store, link: str, *inputs: Artifact, text: str = "text", **changes: Any) -> Artifact:
    """An artifact of one file ``a.txt``, made in January 2026 from ``inputs``; ``changes`` go into its manifest."""
    recipe = Recipe(link, 1, {"text": text}, {artifact.link: artifact.data_version for artifact in inputs})
    entries = {
        artifact.link: InputEntry(link=artifact.link, fingerprint=artifact.fingerprint, data_version=artifact.data_version) for artifact in inputs
    }

    def build(directory: Path, scratch: Path) -> Manifest:
        return writes(recipe, a__txt=text)(directory, scratch).model_copy(update={"inputs": entries, **changes})

    return store.make(recipe, build)[0]


def break_manifest(artifact: Artifact) -> None:
    (artifact.directory / MANIFEST).write_text("{")


def flip(content: bytes) -> bytes:
    return bytes([content[0] ^ 1]) + content[1:]


def aged(path: Path, is_folder: bool = False) -> Path:
    """A file or folder last touched 30 days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir() if is_folder else path.write_text("x")
    os.utime(path, (LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def index(store: Store) -> Iterator[Index]:
    opened = Index(store)
    yield opened
    opened.close()


def released_twice(store: Store) -> dict[str, Artifact]:
    """The small chain copied into a store, its model released as reviews-1 and as reviews-2."""
    made = copied_chain(store)
    for number in (1, 2):
        release(store, made["quantized_model"], number, files={})
    return made


def release(store: Store, model: Artifact, number: int = 1, chain: str = "reviews", **changes: Any) -> str:
    """Release ``<chain>-<number>`` of a model, with its scorecard before it."""
    name = f"{chain}-{number}"
    verdict = {"check": "beats_majority", "passed": True, "blocking": True, "description": "0.9 of 0.5", "values": {}}
    store.journal(chain, "scorecard").append({"trial": False, "record": {"quantized_model": model.fingerprint}, "verdicts": [verdict]})
    files = {file: entry.sha256 for file, entry in model.manifest.files.items()}
    record = {"release": name, "number": number, "quantized_model": model.fingerprint, "files": files, "approved_by": "auto", "metrics": {}}
    record["directory"] = str(model.directory.relative_to(store.home))
    store.journal(chain, "release").append({"trial": False, "run_id": f"run-{number}", "record": {**record, **changes}, "verdicts": []})
    return name


def answer(store: Store, name: str, one: str, day: str = "2026-01-02") -> None:
    """An answered request in the log of the gateway."""
    path = store.home / "serving" / "log" / name.rpartition("-")[0] / f"{day}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": one, "at": f"{day}T00:00:00+00:00", "release": name, "texts": [], "labels": ["good"], "probs": [[1.0]]}) + "\n")


def rewrite(artifact: Artifact, **changes: Any) -> None:
    """Edit a manifest by hand."""
    path = artifact.directory / MANIFEST
    path.write_text(artifact.manifest.model_copy(update=changes).model_dump_json())


METRICS = {
    "name": "quantized", "test_accuracy": 0.9, "test_accuracy_interval": [0.8, 0.95], "test_macro_f1": 0.89, "calibration_error": 0.02,
    "per_class": {"good": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 100}},
}  # fmt: skip


@pytest.fixture
def released(store: Store, index: Index) -> Lineage:
    """All that release reviews-1 of the small chain stands on."""
    made = copied_chain(store)
    name = release(store, made["quantized_model"], metrics=METRICS)
    index.refresh()
    return trace_back(find([index], name), name)
