"""A store in a temporary home, and small artifacts made from one another."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import MANIFEST, InputEntry, Manifest
from llm_assets.store.store import Store
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
