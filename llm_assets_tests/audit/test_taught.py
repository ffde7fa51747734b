from __future__ import annotations

from llm_assets.audit.index import Index
from llm_assets.audit.taught import learners, taught_by
from llm_assets.store.store import Store
from llm_assets_tests.audit.conftest import commit, release


def test_releases_below_labelled_examples_that_read_a_batch_learned_from_it(store: Store, index: Index) -> None:
    for number, batches in enumerate(({"b1": "1"}, {"b1": "1", "b2": "2"}, {}), start=1):
        recipe = {"observed": {"feedback": batches}} if batches else {}
        examples = commit(store, "labelled_examples", text=str(number), recipe=recipe)
        tuned = commit(store, "finetuned_model", examples, text=str(number))
        release(store, commit(store, "quantized_model", tuned, text=str(number)), number)
    index.refresh()
    assert [(one.release, one.standing) for one in taught_by(index, ["b1"])] == [("reviews-1", "earlier"), ("reviews-2", "previous")]
    assert [one.release for one in taught_by(index, ["b2"])] == ["reviews-2"]
    assert taught_by(index, ["b3"]) == []


def test_preferences_that_were_read_from_a_batch_are_learned_from_it_too(store: Store, index: Index) -> None:
    tuned = commit(store, "finetuned_model", commit(store, "labelled_examples"))
    aligned = commit(store, "aligned_model", tuned, recipe={"observed": {"feedback": {"b1": "1"}}})
    rounded = commit(store, "quantized_model", aligned)
    release(store, rounded, 1)
    index.refresh()
    assert [one.release for one in taught_by(index, ["b1"])] == ["reviews-1"] and taught_by(index, ["b2"]) == []
    assert {row.name for row in learners(index, [], ["b1"])} == {("aligned_model", aligned.fingerprint), ("quantized_model", rounded.fingerprint)}
    examples = list(index.artifacts("labelled_examples"))
    assert {row.link for row in learners(index, examples, [])} == {"finetuned_model", "aligned_model", "quantized_model"}
