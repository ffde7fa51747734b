from __future__ import annotations

import pytest

from llm_assets.audit.ids import UnknownIdError, answers, find
from llm_assets.audit.index import Index
from llm_assets.store.store import Store

from .conftest import answer, commit, release


def test_answers_releases_fingerprints_beginnings_and_runs(store: Store, index: Index) -> None:
    model = commit(store, "quantized_model", dagster_run_id="0f0f-run")
    name = release(store, model)
    for day in ("2026-01-01", "2026-01-02"):
        answer(store, name, f"classify-{day}", day)
    index.refresh()
    root = (("quantized_model", model.fingerprint),)
    found = find([index], "classify-2026-01-01")
    assert (found.kind, found.roots) == ("answer", root)
    assert found.answer and found.release and (found.answer.at[:10], found.release.release) == ("2026-01-01", name)
    for wanted, kind in ((name, "release"), (model.fingerprint, "artifact"), (model.fingerprint[:6], "artifact"), ("0f0f-run", "run")):
        assert (find([index], wanted).kind, find([index], wanted).roots) == (kind, root)
    assert find([index], f"quantized_model/{model.fingerprint[:5]}").roots == root


def test_an_id_quoted_within_another_answer_is_not_taken_for_it(store: Store, index: Index) -> None:
    name = release(store, commit(store, "quantized_model"))
    answer(store, name, "classify-aaaa")
    index.refresh()
    with pytest.raises(UnknownIdError, match=r"nothing here has the id 'classify-aaa'; near to it: classify-aaaa"):
        find([index], "classify-aaa")


def test_unknown_ids_suggest_near_ones(store: Store, index: Index) -> None:
    with pytest.raises(UnknownIdError, match="nothing was made here yet"):
        find([index], "reviews-1")
    model = commit(store, "quantized_model")
    release(store, model, 12)
    index.refresh()
    with pytest.raises(UnknownIdError, match=r"nothing here has the id 'review-12'; near to it: reviews-12"):
        find([index], "review-12")
    wrong = model.fingerprint[:9] + ("0" if model.fingerprint[9] != "0" else "1")
    with pytest.raises(UnknownIdError, match=f"near to it: {model.fingerprint}"):
        find([index], wrong)


def test_a_beginning_that_several_share_names_them(store: Store, index: Index) -> None:
    both = [commit(store, link) for link in ("tokens", "labels")]
    index.refresh()
    index._database.execute("update artifacts set fingerprint = 'abcd' || substr(fingerprint, 5)")
    with pytest.raises(UnknownIdError, match=r"'abcd' is the beginning of labels/abcd\w+, tokens/abcd\w+: say more of it"):
        find([index], "abcd")
    assert find([index], "tokens/abcd").roots == (("tokens", f"abcd{both[0].fingerprint[4:]}"),)


def test_an_answer_of_no_recorded_release_is_said_to_be_one(store: Store, index: Index) -> None:
    answer(store, "reviews-9", "classify-1")
    with pytest.raises(UnknownIdError, match="names release reviews-9, which no release journal records"):
        find([index], "classify-1")


def test_a_damaged_log_line_hides_no_other(store: Store, index: Index) -> None:
    name = release(store, commit(store, "quantized_model"))
    answer(store, name, "classify-1")
    path = next(store.home.glob("serving/log/*/*.jsonl"))
    path.write_text('{"id": "cut-off", "at"\n' + path.read_text())
    (path.parent / "2026-01-09.jsonl").touch()
    index.refresh()
    assert find([index], "classify-1").kind == "answer"
    assert [one.id for one in answers(store.home)] == ["classify-1"]
