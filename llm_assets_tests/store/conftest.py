"""A store in a temporary home, and a link's build to fill it with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import Manifest, content_digest, describe_files
from llm_assets.store.store import Store

Build = Callable[[Path, Path], Manifest]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def manifest_of(recipe: Recipe, directory: Path) -> Manifest:
    files = describe_files(directory)
    return Manifest(
        link=recipe.link,
        fingerprint=recipe.fingerprint,
        data_version=content_digest(files),
        recipe=recipe.stated(),
        inputs={},
        files=files,
        licenses=[],
        metrics={},
        libraries={},
        code={},
        host="test",
        started="2026-01-01T00:00:00+00:00",
        seconds=0.0,
        core_seconds=0.0,
        peak_memory_bytes=0,
    )


def writes(recipe: Recipe, **files: str) -> Build:
    """A build that writes the given files (name with a dot as ``__``) and counts nothing else."""

    def build(directory: Path, scratch: Path) -> Manifest:
        for name, text in files.items():
            (directory / name.replace("__", ".")).write_text(text, encoding="utf-8")
        return manifest_of(recipe, directory)

    return build
