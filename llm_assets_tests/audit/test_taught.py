from __future__ import annotations

from llm_assets.audit.index import Index
from llm_assets.audit.taught import taught_by
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
