from __future__ import annotations

import json
import shutil

import pyarrow.parquet as pq
import pytest

from llm_assets.audit.index import Index
from llm_assets.audit.places import Places
from llm_assets.audit.trace import Trace, UnknownDocumentError, find_documents, trace
from llm_assets.audit.words.trace import trace_tree
from llm_assets.corpus.documents import doc_id
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import documents
from llm_assets_tests.terminal.drawn import drawn

from .conftest import release
from .material import KEPT, OTHER, REPEATED, SHORT, TESTED, TEXTS, copied_chain, raw_corpus


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    return copied_chain(store)


def trace_of(index: Index, text: str) -> Trace:
    index.refresh()
    return trace(index, Places(index.store), doc_id(text))


def test_a_kept_document_with_its_copies_and_what_repeats_it(made: dict[str, Artifact], index: Index) -> None:
    found = trace_of(index, KEPT)
    (cleaning,) = found.cleanings
    assert (cleaning.raw_corpus, cleaning.clean_corpus) == (made["raw_corpus"].fingerprint, made["clean_corpus"].fingerprint)
    assert [(fate.line, fate.state, fate.rule) for fate in cleaning.fates] == [(1, "kept", None), (6, "dropped", "duplicate")]
    assert cleaning.repeats == [{"doc_id": doc_id(REPEATED), "rule": "duplicate", "relation": "repeats it"}]
    assert cleaning.evaluation is None


def test_a_dropped_document_names_rule_evidence_and_what_it_repeats(made: dict[str, Artifact], index: Index) -> None:
    (cleaning,) = trace_of(index, REPEATED).cleanings
    (fate,) = cleaning.fates
    assert (fate.state, fate.link, fate.rule, fate.evidence) == ("dropped", "clean_corpus", "duplicate", doc_id(KEPT))
    assert cleaning.repeats == [{"doc_id": doc_id(KEPT), "rule": "duplicate", "relation": "it repeats this one"}]  # KEPT's own copy is no other text
    short = trace_of(index, SHORT)
    assert [(fate.link, fate.rule) for fate in short.cleanings[0].fates] == [("screened_corpus", "too_short")]
    assert not (short.blocks or short.examples or short.learners or short.releases)


def test_the_models_and_releases_that_learned_from_it(made: dict[str, Artifact], store: Store, index: Index) -> None:
    name = release(store, made["quantized_model"])
    kept = made["tokens"].table("documents.parquet")["doc_id"].to_pylist()
    in_training, held_out = (text for one in kept for text in TEXTS[:5] if doc_id(text) == one)
    found = trace_of(index, in_training)
    assert [(block.first, block.part) for block in found.blocks] == [(0, "train")]
    models = [made[link].fingerprint for link in ("pretrained_checkpoint", "finetuned_model", "quantized_model")]
    assert [learner.fingerprint for learner in found.learners] == models
    assert "pretraining text" in found.learners[0].through
    assert [(one.release, one.standing) for one in found.releases] == [(name, "champion")]
    other = trace_of(index, held_out)
    assert [block.part for block in other.blocks] == ["validation"]
    assert "pretraining text" not in [how for learner in other.learners for how in learner.through]
    labelled = trace_of(index, OTHER)
    assert [(one.label, one.suggested) for one in labelled.examples] == [("bad", "good")]
    assert ["labelled example" in learner.through for learner in labelled.learners][-2:] == [True, True]


def test_an_evaluation_document_taught_nobody(made: dict[str, Artifact], index: Index) -> None:
    found = trace_of(index, TESTED)
    (cleaning,) = found.cleanings
    assert [(fate.state, fate.rule) for fate in cleaning.fates] == [("evaluation", "evaluation")]
    assert cleaning.evaluation == {"split": "test", "cluster": "k"} and not found.learners


def test_what_learned_from_content_that_stands_twice_is_found_by_either(made: dict[str, Artifact], store: Store, index: Index) -> None:
    """An artifact of another recipe with the same content: what was made from one was made from the other."""
    index.refresh()
    row = index.artifact(("tokens", made["tokens"].fingerprint))
    assert row is not None
    index._database.execute(
        "insert into artifacts select link, 'ffff', seen, state, why, data_version, made, '', '', '' from artifacts where link = 'tokens'"
    )
    assert ("quantized_model", made["quantized_model"].fingerprint) in index.descendants([("tokens", "ffff")])


def test_removed_tokens_still_lead_to_the_models(made: dict[str, Artifact], store: Store, index: Index) -> None:
    in_training = made["tokens"].table("documents.parquet")["doc_id"].to_pylist()[0]
    store.remove("tokens", made["tokens"].fingerprint, "gc")
    found = trace(_refreshed(index), Places(store), in_training)
    assert {one.link for one in found.learners} == {"pretrained_checkpoint", "finetuned_model", "quantized_model"}
    (sentence,) = found.unsearched
    assert sentence.startswith(f"tokens {made['tokens'].fingerprint} removed on ")


def test_a_removed_corpus_is_asked_through_its_places_or_said_not_to_be(made: dict[str, Artifact], store: Store, index: Index) -> None:
    name = release(store, made["quantized_model"])
    in_training = made["tokens"].table("documents.parquet")["doc_id"].to_pylist()[0]
    before = trace(_refreshed(index), Places(store), in_training)
    for link in ("raw_corpus", "screened_corpus", "clean_corpus", "tokens", "labelled_examples"):
        store.remove(link, made[link].fingerprint, "gc")
    found = trace(_refreshed(index), Places(store), in_training)
    assert (found.learners, [one.release for one in found.releases]) == (before.learners, [name]) and not found.unsearched
    shutil.rmtree(Places(store).folder)
    raw = f"what raw_corpus {made['raw_corpus'].fingerprint} removed on .*: gc; on it stands {name} held cannot be told"
    with pytest.raises(UnknownDocumentError, match=raw):
        trace(index, Places(store), in_training)
    with pytest.raises(UnknownDocumentError, match=raw):
        find_documents(index, Places(store), text=KEPT)


def test_what_a_removed_input_dropped_is_not_guessed(made: dict[str, Artifact], store: Store, index: Index) -> None:
    store.remove("screened_corpus", made["screened_corpus"].fingerprint, "gc")
    found = trace_of(index, SHORT)
    assert found.cleanings[0].clean_corpus is None and found.unsearched[0].startswith("screened_corpus")


def test_texts_and_beginnings_find_documents(made: dict[str, Artifact], store: Store, index: Index) -> None:
    index.refresh()
    places = Places(store)
    assert find_documents(index, places, text=KEPT) == [doc_id(KEPT)]
    assert set(find_documents(index, places, text="房间也很干净")) == {doc_id(KEPT), doc_id(REPEATED)}
    assert find_documents(index, places, doc_id(KEPT)[:8]) == [doc_id(KEPT)]
    with pytest.raises(UnknownDocumentError, match="no raw corpus holds a document with this text; 1 were searched"):
        find_documents(index, places, text="没有的话")
    with pytest.raises(UnknownDocumentError, match="is no doc_id: it has 20 hexadecimal digits"):
        find_documents(index, places, "xyz")
    wrong = doc_id(KEPT)[:19] + ("0" if doc_id(KEPT)[19] != "0" else "1")
    with pytest.raises(UnknownDocumentError, match=f"holds document {wrong}; near to it: {doc_id(KEPT)}"):
        find_documents(index, places, wrong)


def test_its_databases_are_made_once_shared_by_content_and_mended(made: dict[str, Artifact], store: Store, index: Index) -> None:
    first = trace_of(index, KEPT)
    files = sorted((store.home / "audit" / "documents").glob("*.db"))
    assert len(files) == 6 and not [path for path in files[0].parent.iterdir() if path.is_dir()]
    times = [path.stat().st_mtime_ns for path in files]
    assert trace_of(index, KEPT) == first and [path.stat().st_mtime_ns for path in files] == times
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert trace_of(index, KEPT) == first


def test_rows_are_found_in_every_row_group(store: Store) -> None:
    raw = raw_corpus(store, *(f"文本{number}" for number in range(50)))
    table = documents(*(f"文本{number}" for number in range(50)))
    pq.write_table(table, raw.path("documents.parquet"), row_group_size=7)
    places = Places(store)
    for number in (0, 6, 7, 48, 49):
        (row,) = places.rows(raw, "documents", doc_id(f"文本{number}"), ["text", "line"])
        assert row == {"text": f"文本{number}", "line": number + 1}


def test_the_tree_says_it_in_words(made: dict[str, Artifact], store: Store, index: Index) -> None:
    release(store, made["quantized_model"])
    text = drawn(trace_tree(trace_of(index, OTHER)))
    assert "test test.txt:5 kept" in text and "bad, good suspected" in text and "reviews-1 (champion)" in text
    text = drawn(trace_tree(trace_of(index, SHORT)))
    assert "dropped by screened_corpus: too_short" in text and "no model learned from it" in text
    assert json.dumps(trace_of(index, OTHER).as_json())


def _refreshed(index: Index) -> Index:
    index.refresh()
    return index
