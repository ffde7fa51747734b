from __future__ import annotations

import pytest

from llm_assets.audit.forget import Certificate, ForgetError, Plan, certificate_path, certify_again, erase, plan_erasure
from llm_assets.audit.index import Index
from llm_assets.audit.places import Places
from llm_assets.audit.trace import UnknownDocumentError, trace
from llm_assets.audit.verify import verify_all
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.terminal.forget import certificate_lines, plan_lines

from .conftest import release
from .material import KEPT, OTHER, REPEATED, copied_chain


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    made = copied_chain(store)
    release(store, made["quantized_model"])
    return made


def plan_of(index: Index, text: str) -> Plan:
    index.refresh()
    return plan_erasure(index, Places(index.store), doc_id(text))


def test_the_plan_names_what_holds_it_and_what_learned_from_it(made: dict[str, Artifact], index: Index) -> None:
    plan = plan_of(index, OTHER)
    assert {row.link for row in plan.purge} == {"raw_corpus", "screened_corpus", "clean_corpus", "tokens", "labelled_examples"}
    learned = [made[link].manifest.seconds for link in ("pretrained_checkpoint", "finetuned_model", "quantized_model")]
    again = sum(made[row.link].manifest.seconds for row in plan.purge) + sum(learned[-len(plan.learners) :])
    assert [one.release for one in plan.releases] == ["reviews-1"] and plan.seconds == pytest.approx(again)
    text = "\n".join(plan_lines(plan))
    assert "out of reach: source test (p 1: test.txt)" in text and "reviews-1 (champion) learned from it" in text and OTHER not in text


def test_erasing_purges_leaves_markers_and_certifies(made: dict[str, Artifact], store: Store, index: Index) -> None:
    certificate = erase(store, plan_of(index, OTHER), "asked by 13800138000")
    assert certificate.is_clean and not certificate.found and certificate.to_retire == ["reviews-1"] and certificate.searched_files > 10
    assert "13800138000" not in certificate.reason and certificate_path(store.home, certificate.tombstone).is_file()
    assert Tombstones.of(store.home).standing([doc_id(OTHER), doc_id(KEPT)]) == [False, True]
    index.refresh()
    row = index.artifact(("raw_corpus", made["raw_corpus"].fingerprint))
    assert row and row.state == "removed" and "erased: asked by [PHONE]" in row.why
    assert index.inputs(("clean_corpus", made["clean_corpus"].fingerprint))
    assert verify_all([index]).damages == []
    assert certificate_lines(certificate) and "nothing else holds the text" in "\n".join(certificate_lines(certificate))


def test_the_other_documents_of_what_was_purged_are_still_traced(made: dict[str, Artifact], store: Store, index: Index) -> None:
    erase(store, plan_of(index, OTHER), "asked to")
    index.refresh()
    places = Places(store)
    assert [one.release for one in trace(index, places, doc_id(KEPT)).releases] == ["reviews-1"]  # its tokens are gone: what it was kept in tells
    with pytest.raises(UnknownDocumentError):
        trace(index, places, doc_id(OTHER))
    for path in places.folder.iterdir():
        assert bytes.fromhex(doc_id(OTHER)) not in path.read_bytes()


def test_a_forgotten_copy_in_a_log_is_found(made: dict[str, Artifact], store: Store, index: Index) -> None:
    (store.home / "serving" / "log").mkdir(parents=True)
    (store.home / "serving" / "log" / "a.jsonl").write_text(f'{{"masked": "{OTHER}"}}')
    certificate = erase(store, plan_of(index, OTHER), "asked to")
    assert not certificate.is_clean and certificate.found == ["serving/log/a.jsonl"]
    assert "the text is NOT gone" in "\n".join(certificate_lines(certificate))
    (store.home / "serving" / "log" / "a.jsonl").unlink()
    again: Certificate = certify_again(store, OTHER)
    assert again.is_clean and again.reason == "asked to" and again.tombstone == certificate.tombstone
    assert (again.purged, again.to_retire, again.out_of_reach) == (certificate.purged, ["reviews-1"], certificate.out_of_reach)


def test_a_model_that_holds_a_piece_is_listed_with_its_release(made: dict[str, Artifact], store: Store, index: Index) -> None:
    page = made["finetuned_model"].directory / "page.html"
    page.write_text(OTHER)
    certificate = erase(store, plan_of(index, OTHER), "asked to")
    assert certificate.found == certificate.listed == [str(page.relative_to(store.home))] and certificate.is_clean


def test_a_text_that_others_repeat_whole_is_refused_with_their_ids(made: dict[str, Artifact], index: Index) -> None:
    with pytest.raises(ForgetError, match=f"stands in other documents, too \\({doc_id(REPEATED)}\\): forget them first"):
        plan_of(index, KEPT)


def test_no_certificate_without_a_tombstone(store: Store) -> None:
    with pytest.raises(ForgetError, match="no tombstone stands for it"):
        certify_again(store, "never seen")
