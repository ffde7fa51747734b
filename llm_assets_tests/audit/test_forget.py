from __future__ import annotations

import json

import pyarrow as pa
import pytest

from llm_assets.audit.forget import ForgetError, Plan, erase, plan_erasure, was_erased
from llm_assets.audit.index import Index
from llm_assets.audit.places import Places
from llm_assets.audit.trace import UnknownDocumentError, trace
from llm_assets.audit.verify import verify_all
from llm_assets.audit.words.forget import certificate_lines, plan_lines
from llm_assets.corpus.batches import batch_folder, write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

from .conftest import release
from .material import KEPT, OTHER, REPEATED, TESTED, commit, copied_chain


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    made = copied_chain(store)
    release(store, made["quantized_model"])
    return made


def plan_of(index: Index, text: str) -> Plan:
    index.refresh()
    return plan_erasure(index, Places(index.store), [doc_id(text)])


def test_the_plan_names_what_holds_it_and_what_learned_from_it(made: dict[str, Artifact], index: Index) -> None:
    plan = plan_of(index, OTHER)
    assert {row.link for row in plan.purge} == {"raw_corpus", "screened_corpus", "clean_corpus", "tokens", "labelled_examples"}
    learned = [made[link].manifest.seconds for link in ("pretrained_checkpoint", "finetuned_model", "quantized_model")]
    again = sum(made[row.link].manifest.seconds for row in plan.purge) + sum(learned[-len(plan.learners) :])
    assert [one.release for one in plan.releases] == ["reviews-1"] and plan.seconds == pytest.approx(again)
    text = "\n".join(plan_lines(plan))
    assert "out of reach: source test (p 1: test.txt)" in text and "reviews-1 (champion) learned from it" in text and OTHER not in text


def test_erasing_purges_leaves_markers_and_certifies(made: dict[str, Artifact], store: Store, index: Index) -> None:
    certificate, path = erase([plan_of(index, OTHER)], "asked by 13800138000")
    assert certificate.is_clean and not certificate.found and certificate.to_retire == ["reviews-1"] and certificate.searched_files > 10
    assert "13800138000" not in certificate.reason and path.is_file()
    assert Tombstones.of(store.home).standing([doc_id(OTHER), doc_id(KEPT)]) == [False, True]
    index.refresh()
    row = index.artifact(("raw_corpus", made["raw_corpus"].fingerprint))
    assert row and row.state == "removed" and "erased: asked by [PHONE]" in row.why
    assert index.inputs(("clean_corpus", made["clean_corpus"].fingerprint))
    assert verify_all([index]).damages == []
    assert certificate_lines(certificate) and "nothing else holds the text" in "\n".join(certificate_lines(certificate))


def test_the_other_documents_of_what_was_purged_are_still_traced(made: dict[str, Artifact], store: Store, index: Index) -> None:
    erase([plan_of(index, OTHER)], "asked to")
    index.refresh()
    places = Places(store)
    assert [one.release for one in trace(index, places, doc_id(KEPT)).releases] == ["reviews-1"]  # its tokens are gone: what it was kept in tells
    with pytest.raises(UnknownDocumentError):
        trace(index, places, doc_id(OTHER))
    for path in places.folder.iterdir():
        assert bytes.fromhex(doc_id(OTHER)) not in path.read_bytes()


def test_a_copy_that_nobody_may_change_fails_the_certificate_until_it_is_gone(made: dict[str, Artifact], store: Store, index: Index) -> None:
    inbox = store.home / "inbox" / "reviews" / "new.jsonl"
    inbox.parent.mkdir(parents=True)
    inbox.write_text(f'{{"text": "{OTHER}"}}')
    certificate, path = erase([plan_of(index, OTHER)], "asked to")
    assert not certificate.is_clean and certificate.found == ["inbox/reviews/new.jsonl"] and was_erased(store.home, doc_id(OTHER))
    assert "the text is NOT gone" in "\n".join(certificate_lines(certificate))
    inbox.unlink()
    index.refresh()
    again, same = erase([plan_erasure(index, Places(store), [], [OTHER])], "asked to")
    assert again.is_clean and same == path and again.tombstones == certificate.tombstones
    assert (again.purged, again.to_retire, again.out_of_reach) == (certificate.purged, ["reviews-1"], certificate.out_of_reach)
    assert json.loads(path.read_text())["clean"]


def test_a_release_whose_model_was_removed_is_not_to_be_retired_any_more(made: dict[str, Artifact], store: Store, index: Index) -> None:
    erase([plan_of(index, OTHER)], "asked to")
    store.remove("quantized_model", made["quantized_model"].fingerprint, "gc")
    index.refresh()
    assert erase([plan_erasure(index, Places(store), [], [OTHER])], "asked to")[0].to_retire == []


def test_many_documents_are_one_rewriting_and_one_certificate(made: dict[str, Artifact], store: Store, index: Index) -> None:
    index.refresh()
    plan = plan_erasure(index, Places(store), [doc_id(KEPT), doc_id(REPEATED), doc_id(OTHER)])
    certificate, _ = erase([plan], "asked to")
    assert certificate.is_clean and len(certificate.purged) == len(set(certificate.purged)) == len(plan.purge)
    assert Tombstones.of(store.home).standing([doc_id(KEPT), doc_id(REPEATED), doc_id(OTHER), doc_id(TESTED)]) == [False, False, False, True]
    assert len(list((store.home / "audit" / "certificates").iterdir())) == 1


def test_an_artifact_that_does_not_stand_on_a_corpus_is_purged_for_what_it_holds(made: dict[str, Artifact], store: Store, index: Index) -> None:
    train = pa.table({"doc_id": [doc_id(OTHER)], "text": [OTHER], "label": ["bad"], "provenance": ["feedback"]})
    suspects = pa.table({"doc_id": pa.array([], pa.string())})
    alone = commit(store, "labelled_examples", {"train.parquet": train, "suspects.parquet": suspects})
    certificate, _ = erase([plan_of(index, OTHER)], "asked to")
    assert certificate.is_clean and f"labelled_examples {alone.fingerprint}" in certificate.purged


def test_what_cannot_be_removed_stands_in_the_certificate(
    made: dict[str, Artifact], store: Store, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = Store.remove

    def refused(self: Store, link: str, fingerprint: str, reason: str | None = None) -> None:
        if link == "clean_corpus":
            raise PermissionError("read-only file system")
        remove(self, link, fingerprint, reason)

    monkeypatch.setattr(Store, "remove", refused)
    certificate, _ = erase([plan_of(index, OTHER)], "asked to")
    clean = made["clean_corpus"].fingerprint
    assert not certificate.is_clean and certificate.failed == [f"clean_corpus {clean}: read-only file system"]
    assert certificate.found == [f"artifacts/clean_corpus/{clean}/documents.parquet"] and len(certificate.purged) == 4


def test_a_reason_that_quotes_the_text_is_refused(made: dict[str, Artifact], store: Store, index: Index) -> None:
    with pytest.raises(ForgetError, match="the reason quotes the text"):
        erase([plan_of(index, OTHER)], f"she wrote {OTHER}")
    assert not was_erased(store.home, doc_id(OTHER))


def test_a_model_that_holds_a_piece_is_listed_with_its_release(made: dict[str, Artifact], store: Store, index: Index) -> None:
    page = made["finetuned_model"].directory / "page.html"
    page.write_text(OTHER)
    certificate, _ = erase([plan_of(index, OTHER)], "asked to")
    assert certificate.found == certificate.listed == [str(page.relative_to(store.home))] and certificate.is_clean


def test_a_text_that_others_repeat_whole_is_refused_with_their_ids(made: dict[str, Artifact], index: Index) -> None:
    with pytest.raises(ForgetError, match=f"stands in other documents, too \\({doc_id(REPEATED)}\\): forget them first"):
        plan_of(index, KEPT)


def test_what_learned_a_reply_from_feedback_is_named_though_no_file_of_it_holds_it(made: dict[str, Artifact], store: Store, index: Index) -> None:
    """A reply that a user wrote: in a batch, in the examples of one chain, and among the preferences of another, which keep marks alone."""
    text, reply = "你们几点关门", "我住在北京路五号三单元"
    row = {"id": "chatcmpl-1", "index": 0, "at": "2026-11-20", "text": text, "label": reply, "answered": "不知道", "votes": 1}
    batch = write_batch(batch_folder(store.home, "talk"), [{**row, "doc_id": doc_id(f"{text}\n{reply}"), "provenance": "feedback"}])
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]
    train = pa.table({"doc_id": [doc_id(f"{text}\n{reply}")], "messages": [turns], "task": ["conversation"], "source": ["feedback"]})
    examples = commit(store, "labelled_examples", {"train.parquet": train})
    tuned = commit(store, "finetuned_model", {"model.safetensors": b"1"}, examples)
    recipe = {"observed": {"feedback": {batch.stem: "1"}}}
    aligned = commit(store, "aligned_model", {"model.safetensors": b"2"}, made["finetuned_model"], recipe=recipe)
    rounded = commit(store, "quantized_model", {"model.gguf": b"3"}, aligned)
    release(store, rounded, 1, chain="talk")
    index.refresh()
    plan = plan_erasure(index, Places(store), [], [reply])
    assert {row.name for row in plan.purge} == {("labelled_examples", examples.fingerprint)}
    assert {row.name for row in plan.learners} == {(one.link, one.fingerprint) for one in (tuned, aligned, rounded)}
    assert [one.release for one in plan.releases] == ["talk-1"]
    certificate, _ = erase([plan], "asked to")
    assert (certificate.found, certificate.failed, certificate.to_retire) == ([], [], ["talk-1"]) and not batch.exists()


def test_a_conversation_is_traced_to_what_learned_from_it(made: dict[str, Artifact], store: Store, index: Index) -> None:
    turns = [{"role": "user", "content": OTHER}, {"role": "assistant", "content": "好"}]
    train = pa.table({"doc_id": [doc_id(OTHER)], "messages": [turns], "task": ["titles"], "source": ["test"]})
    config = {"sources": ["test"]}  # conversations have no labels and no suspects
    examples = commit(store, "labelled_examples", {"train.parquet": train}, made["clean_corpus"], config=config)
    tuned = commit(store, "finetuned_model", {"model.safetensors": b"1"}, examples)
    index.refresh()
    found = trace(index, Places(store), doc_id(OTHER))
    assert ("titles", None) in [(one.label, one.suggested) for one in found.examples if one.labelled_examples == examples.fingerprint]
    assert tuned.fingerprint in [one.fingerprint for one in found.learners]
