from __future__ import annotations

from llm_assets.audit.index import Index
from llm_assets.store.store import Store

from .conftest import commit


def test_the_whole_way_down_each_reached_once(store: Store, index: Index) -> None:
    corpus = commit(store, "corpus")
    tokens, labels = commit(store, "tokens", corpus), commit(store, "labels", corpus)
    model = commit(store, "model", tokens, labels)
    commit(store, "corpus", text="another")
    index.refresh()
    below = index.descendants([("corpus", corpus.fingerprint)])
    assert set(below) == {(one.link, one.fingerprint) for one in (tokens, labels, model)}


def test_a_remote_root_has_a_database_of_its_own(remote: Store) -> None:
    corpus = commit(remote, "corpus")
    index = Index(remote)
    assert index.path.name != "index.db" and index.refresh() == 1
    remote.remove("corpus", corpus.fingerprint, "why")
    assert index.refresh() == 1
    row = index.artifact(("corpus", corpus.fingerprint))
    assert row and row.state == "removed"
    index.close()
