from __future__ import annotations

import json
from pathlib import Path

import pytest

from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import run

TEXTS = ("这家酒店的早餐很好吃", "房间很脏", "快递很快")


def test_the_file_names_no_document_and_keeps_its_salt(tmp_path: Path) -> None:
    stones = Tombstones.of(tmp_path)
    assert stones.state is None and stones.standing(["a", None]) == [True, True]
    first = stones.add("asked to", "a")
    second = Tombstones.of(tmp_path).add("asked to", "b")
    assert (second.salt, second.standing(["a", "b", "c"])) == (first.salt, [False, False, True])
    assert first.state != second.state and '"a"' not in first.path.read_text()


def test_a_damaged_file_stops_everything(tmp_path: Path) -> None:
    path = Tombstones.of(tmp_path).add("why", "a").path
    path.write_text(path.read_text()[:30])
    with pytest.raises(ValueError, match=r"tombstones\.json is damaged .*an erased document would come back"):
        Tombstones.of(tmp_path)


def test_reading_leaves_erased_documents_out_under_a_recipe_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("LLM_ASSETS_HOME", str(home))
    (tmp_path / "a.txt").write_text("\n".join((*TEXTS, TEXTS[1])))
    source = {"kind": "files", "name": "mine", "path": str(tmp_path / "a.txt"), "license": "yours", "language": "zh"}
    store = Store(home)
    before = run(store, "raw_corpus", {"sources": [source]}, {}).artifact
    assert "erased documents" not in before.manifest.recipe["observed"]
    Tombstones.of(home).add("asked to", doc_id(TEXTS[1]))
    after = run(store, "raw_corpus", {"sources": [source]}, {})
    assert not after.reused and after.artifact.fingerprint != before.fingerprint
    assert after.artifact.table("documents.parquet")["text"].to_pylist() == [TEXTS[0], TEXTS[2]]
    assert after.artifact.metrics["documents"] == 2 and TEXTS[1] not in json.dumps(after.artifact.manifest.model_dump(), ensure_ascii=False)
