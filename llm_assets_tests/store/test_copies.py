from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.store import Store

from .conftest import writes

RECIPE = Recipe("tokens", 1, {"context": 8})


def test_roots_do_not_share_a_cache(tmp_path: Path) -> None:
    stores = [Store(tmp_path, f"memory://{tmp_path.name}/{name}") for name in ("one", "two")]
    for store, text in zip(stores, ("one", "two"), strict=True):
        store.make(RECIPE, writes(RECIPE, a__txt=text))
    assert [store.open("tokens", RECIPE.fingerprint).path("a.txt").read_text() for store in stores] == ["one", "two"]


def test_each_download_has_a_name_of_its_own_and_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, f"memory://{tmp_path.name}")
    artifact, _ = store.make(RECIPE, writes(RECIPE, a__txt="x"))
    get, targets = MemoryFileSystem.get_file, []

    def noted(self: MemoryFileSystem, remote: str, local: str, **more: Any) -> None:
        targets.append(local)
        get(self, remote, local, **more)

    monkeypatch.setattr(MemoryFileSystem, "get_file", noted)
    for _ in range(2):
        store.open("tokens", RECIPE.fingerprint, refetch=True)
    assert len(set(targets)) == 2
    assert [path.name for path in artifact.directory.iterdir()] == ["a.txt"]


def test_changed_remote_bytes_are_refused_when_fetched(tmp_path: Path) -> None:
    here, there = (Store(tmp_path / name, f"memory://{tmp_path.name}") for name in ("here", "there"))
    here.make(RECIPE, writes(RECIPE, a__txt="whole"))
    place = f"{here.root}/tokens/{RECIPE.fingerprint}/a.txt"
    here.filesystem.pipe_file(place, b"whale")
    with pytest.raises(ArtifactError, match=rf"{place} does not have the hash.*--discard"):
        there.open("tokens", RECIPE.fingerprint)
    here.filesystem.rm_file(place)
    with pytest.raises(ArtifactError, match=rf"{place} is missing"):
        there.open("tokens", RECIPE.fingerprint)
    assert [path for path in there.cache.rglob("*") if path.is_file()] == []
