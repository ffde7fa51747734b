from __future__ import annotations

import pytest

from llm_assets.audit.cost import seconds_to_make
from llm_assets.audit.lineage import ancestors, manifests_by_name
from llm_assets.store.store import Store

from .conftest import break_manifest, commit


def test_a_shared_ancestor_is_paid_once_and_what_is_beside_it_not_at_all(store: Store) -> None:
    corpus = commit(store, "corpus", seconds=1.0)
    tokens, labels = commit(store, "tokens", corpus, seconds=2.0), commit(store, "labels", corpus, seconds=4.0)
    model = commit(store, "model", tokens, labels, seconds=8.0)
    commit(store, "other", corpus, seconds=100.0)
    roots = [(artifact.link, artifact.fingerprint) for artifact in (model, labels)]
    assert seconds_to_make(store, roots) == pytest.approx(15)
    assert seconds_to_make(store, [("model", "absent")]) == 0


def test_what_cannot_be_read_is_named_and_not_followed(store: Store) -> None:
    corpus = commit(store, "corpus", seconds=1.0)
    tokens = commit(store, "tokens", corpus, seconds=2.0)
    model = commit(store, "model", tokens, seconds=4.0)
    break_manifest(tokens)
    root = ("model", model.fingerprint)
    assert ancestors(manifests_by_name(store), [root]) == {root, ("tokens", tokens.fingerprint)}
    assert seconds_to_make(store, [root]) == pytest.approx(4)
