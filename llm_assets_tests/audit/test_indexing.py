from __future__ import annotations

import shutil

from llm_assets.audit.index import Index
from llm_assets.store.store import Store
from llm_assets.tracking.record import TRACKING

from .conftest import break_manifest, commit, release


def test_a_refresh_reads_what_is_new_alone(store: Store, index: Index) -> None:
    corpus = commit(store, "corpus", dagster_run_id="run-7", code={"commit": "abc"})
    assert (index.refresh(), index.refresh()) == (1, 0)
    model = commit(store, "quantized_model", corpus)
    name = release(store, model)
    assert index.refresh() == 1
    assert index.inputs(("quantized_model", model.fingerprint)) == {"corpus": (("corpus", corpus.fingerprint), corpus.data_version)}
    known = index.artifact(("corpus", corpus.fingerprint))
    assert known and (known.state, known.dagster_run, known.git_commit) == ("present", "run-7", "abc")
    found = index.release(name)
    assert found and (found.chain, found.number, found.model, found.run) == ("reviews", 1, model.fingerprint, "run-1")
    assert [one.release for one in index.releases_of([model.fingerprint])] == [name]


def test_a_sidecar_written_later_is_seen_and_leads_back(store: Store, index: Index) -> None:
    corpus = commit(store, "corpus")
    index.refresh()
    store.write_sidecar("corpus", corpus.fingerprint, TRACKING, {"run_id": "mlflow-1", "url": "u"})
    assert index.refresh() == 1
    assert [row.fingerprint for row in index.of_run("mlflow-1")] == [corpus.fingerprint]


def test_what_was_removed_keeps_its_inputs_and_its_reason_and_comes_back(store: Store, index: Index) -> None:
    corpus = commit(store, "corpus")
    tokens = commit(store, "tokens", corpus)
    store.remove("tokens", tokens.fingerprint, "no longer needed")
    store.remove("corpus", corpus.fingerprint)
    index.refresh()
    row = index.artifact(("tokens", tokens.fingerprint))
    assert row and row.state == "removed" and row.why.endswith(": no longer needed") and row.data_version == tokens.data_version
    assert list(index.inputs(row.name)) == ["corpus"]
    assert index.artifact(("corpus", corpus.fingerprint)) is None
    commit(store, "tokens", corpus)
    index.refresh()
    row = index.artifact(row.name)
    assert row and (row.state, row.why) == ("present", "")


def test_an_unreadable_manifest_stands_with_its_reason(store: Store, index: Index) -> None:
    corpus = commit(store, "corpus")
    index.refresh()
    break_manifest(corpus)
    index.refresh()
    row = index.artifact(("corpus", corpus.fingerprint))
    assert row and row.state == "unreadable" and "is damaged" in row.why


def test_failed_and_tried_releases_are_none_and_the_first_entry_counts(store: Store, index: Index) -> None:
    model = commit(store, "quantized_model")
    journal = store.journal("c", "release")
    record = {"release": "c-1", "number": 1, "quantized_model": model.fingerprint}
    failed = {"check": "whole", "passed": False, "blocking": True, "description": "", "values": {}}
    journal.append({"trial": True, "record": {**record, "release": "c-7"}})
    journal.append({"record": {**record, "release": "c-8", "number": 8}, "verdicts": [failed]})
    journal.append({"record": record, "run_id": "first"})
    journal.append({"record": record, "run_id": "second"})
    index.refresh()
    assert [(one.release, one.run) for one in index.releases()] == [("c-1", "first")]


def test_a_candidate_is_a_release_once_approved_and_a_rollback_changes_neither(store: Store, index: Index) -> None:
    model = commit(store, "quantized_model")
    journal = store.journal("c", "release")
    record = {"release": "c-1", "number": 1, "quantized_model": model.fingerprint, "state": "candidate", "approved_by": None}
    journal.append({"record": record, "run_id": "made"})
    index.refresh()
    assert [(one.run, one.record["approved_by"]) for one in index.releases()] == [("made", None)]
    journal.append({"record": {**record, "state": "champion", "approved_by": "ann"}, "run_id": "approved"})
    journal.append({"record": {**record, "state": "champion", "approved_by": "bob", "rolled_back_from": "c-2"}, "run_id": None})
    index.refresh()
    assert [(one.run, one.record["approved_by"]) for one in index.releases()] == [("approved", "ann")]


def test_a_shortened_journal_is_read_anew_and_half_a_line_waits(store: Store, index: Index) -> None:
    model = commit(store, "quantized_model")
    release(store, model, 1)
    release(store, model, 2)
    path = store.journal("reviews", "release").path
    index.refresh()
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:-20])
    index.refresh()
    assert [one.number for one in index.releases()] == [1]
    path.write_bytes(first + second)
    index.refresh()
    assert [one.number for one in index.releases()] == [1, 2]


def test_a_lost_or_damaged_database_is_built_again(store: Store, index: Index) -> None:
    name = release(store, commit(store, "quantized_model"))
    index.refresh()
    index.close()
    for spoil in (lambda: index.path.write_bytes(b"no database" * 500), lambda: shutil.rmtree(index.path.parent)):
        spoil()
        again = Index(store)
        again.refresh()
        assert again.release(name)
        again.close()
