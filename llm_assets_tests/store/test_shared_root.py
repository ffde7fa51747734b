"""Two homes on one root."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from llm_assets.store import store as store_module
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store

from .conftest import writes

RECIPE = Recipe("tokens", 1, {"context": 8})


@pytest.fixture(params=["local", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "shared") if request.param == "local" else f"memory://{tmp_path.name}"


def test_the_first_of_two_homes_wins(tmp_path: Path, root: str) -> None:
    first, second = Store(tmp_path / "a", root), Store(tmp_path / "b", root)

    def overtaken(directory: Path, scratch: Path) -> Manifest:
        assert not first.make(RECIPE, writes(RECIPE, a__txt="first"))[1]
        return writes(RECIPE, a__txt="later", b__txt="more")(directory, scratch)

    artifact, reused = second.make(RECIPE, overtaken)
    assert reused
    assert artifact.path("a.txt").read_text() == "first"
    assert not second.work(RECIPE.fingerprint).exists()
    Store(tmp_path / "c", root).open("tokens", RECIPE.fingerprint).verify()


def test_on_a_local_root_the_second_waits_while_the_first_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, moved, go_on = str(tmp_path / "shared"), threading.Event(), threading.Event()
    flush = store_module.flush_directory

    def pause(path: Path) -> None:
        if not moved.is_set():
            moved.set()
            assert go_on.wait(20)
        flush(path)

    monkeypatch.setattr(store_module, "flush_directory", pause)
    made: dict[str, tuple[Any, bool]] = {}

    def make(name: str) -> None:
        made[name] = Store(tmp_path / name, root).make(RECIPE, writes(RECIPE, a__txt=name))

    threads = [threading.Thread(target=make, args=(name,)) for name in ("first", "second")]
    threads[0].start()
    assert moved.wait(20)
    threads[1].start()
    threads[1].join(0.5)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert [made[name][1] for name in ("first", "second")] == [False, True]
    assert made["second"][0].path("a.txt").read_text() == "first"


@pytest.mark.parametrize("files", [{"x__txt": "later", "y__txt": "later"}, {"b__txt": "later"}], ids=["between two files", "after the last file"])
def test_a_commit_during_an_upload_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    root = f"memory://{tmp_path.name}"
    first, second = Store(tmp_path / "a", root), Store(tmp_path / "b", root)
    put, begun = MemoryFileSystem.put_file, False

    def overtaken(self: MemoryFileSystem, local: str, remote: str, **more: Any) -> None:
        nonlocal begun
        put(self, local, remote, **more)
        if not begun:
            begun = True
            first.make(RECIPE, writes(RECIPE, y__txt="first"))

    monkeypatch.setattr(MemoryFileSystem, "put_file", overtaken)
    artifact, reused = second.make(RECIPE, writes(RECIPE, **files))
    assert reused
    assert list(artifact.manifest.files) == ["y.txt"]
    artifact.verify()
    assert artifact.path("y.txt").read_text() == "first"


def test_newest_reads_no_other_link(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Recipe("tokenizer", 1, {})
    for recipe in (RECIPE, other):
        store.make(recipe, writes(recipe, a__txt="x"))
    read, places = Manifest.read, []
    monkeypatch.setattr(Manifest, "read", lambda content, place: places.append(place) or read(content, place))
    newest = store.newest("tokens")
    assert newest is not None and newest.fingerprint == RECIPE.fingerprint
    assert [place.split("/")[-3] for place in places] == ["tokens"]


def test_an_unreadable_manifest_is_passed_over(store: Store) -> None:
    other = Recipe("tokens", 1, {"context": 9})
    for recipe in (RECIPE, other):
        store.make(recipe, writes(recipe, a__txt="x"))
    (Path(store.root) / "tokens" / RECIPE.fingerprint / "manifest.json").write_text("{")
    assert [manifest.fingerprint for manifest in store.manifests()] == [other.fingerprint]
    assert sorted(store.names()) == sorted([("tokens", RECIPE.fingerprint), ("tokens", other.fingerprint)])
