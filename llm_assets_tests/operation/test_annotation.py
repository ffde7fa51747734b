from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_assets.audit.search import versions
from llm_assets.corpus.batches import batch_folder, read_batches
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.operation import features
from llm_assets.operation.annotation import Annotation, AnnotationError, export, put_on_page, queue, take_from_page, take_in
from llm_assets.operation.drift import DriftConfig
from llm_assets.serving.labelling import read_queue, write_label
from llm_assets_tests.operation.released import release, texts
from llm_assets_tests.operation.test_drift import ask
from llm_assets_tests.operation.traffic import vote, write_log

DRIFT = DriftConfig(window=100, minimum=50, false_alarms=0.05)
SETTINGS = Annotation(texts=40, common=4, minimum_kappa=0.4)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "RESAMPLES", 200)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A release, and traffic of which some is worth more than the rest: sure answers but for a few of each kind."""
    release(tmp_path, texts(300, 1))
    ask(tmp_path, [f"喜欢 good {number}" for number in range(200)])
    ask(tmp_path, [f"good bad {number}" for number in range(6)], first=300, probs=[[0.48, 0.52]])
    ask(tmp_path, [f"讨厌 bad {number}" for number in range(15)], first=400, shadow={"release": "tiny-2", "labels": ["positive"]})
    ask(tmp_path, [f"量子 纠缠 薛定谔 {number}" for number in range(12)], first=500)
    return tmp_path


def numbers(chosen: list[tuple[dict[str, Any], str]], reason: str) -> set[int]:
    return {int(row["id"][-4:]) for row, why in chosen if why == reason}


def test_the_queue_holds_what_is_worth_labelling_and_no_text_twice(home: Path) -> None:
    ask(home, ["喜欢 good 0"] * 50, first=600)  # a text asked again and again
    chosen = queue(home, "tiny", SETTINGS, DRIFT)
    assert Counter(reason for _, reason in chosen) == {"disagreement": 8, "uncertainty": 10, "novelty": 10, "random": 12}
    assert len({row["sha256"] for row, _ in chosen}) == 40
    assert numbers(chosen, "disagreement") == set(range(400, 415, 2))  # tiny-1 said negative, tiny-2 positive
    assert numbers(chosen, "uncertainty") >= set(range(300, 306)) and numbers(chosen, "novelty") <= set(range(500, 512))


def test_where_two_releases_of_a_rollout_differed_is_worth_labelling(home: Path) -> None:
    ask(home, ["喜欢 good 7"], ["positive"], first=600, shadow={"release": "tiny-2", "labels": ["negative"]})
    ask(home, ["喜欢 good 7"], ["positive"], first=601)  # asked again, and not compared
    ask(home, ["喜欢 good 8"], ["positive"], first=602, shadow={"release": "tiny-2", "labels": ["positive"]})
    chosen = queue(home, "tiny", Annotation(texts=80), DRIFT)
    assert 601 in numbers(chosen, "disagreement") and 602 not in numbers(chosen, "disagreement")


def test_what_is_exported_or_in_a_batch_is_not_exported_again(home: Path) -> None:
    tasks, project = export(home, "tiny", SETTINGS, DRIFT)
    again, _ = export(home, "tiny", SETTINGS, DRIFT)
    ids = [{task["data"]["answer_id"] for task in each} for each in (tasks, again)]
    assert len(ids[0]) == 40 and not ids[0] & ids[1] and '<Choice value="negative"/>' in project
    for _ in range(10):
        try:
            export(home, "tiny", SETTINGS, DRIFT)
        except AnnotationError as error:
            assert "no traffic of tiny is left to label" in str(error)
            break
    else:
        pytest.fail("the queue never ends")


def test_without_a_release_there_are_no_labels_to_give(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="tiny has no release"):
        export(tmp_path, "tiny", SETTINGS, DRIFT)


def labelled(tasks: list[dict[str, Any]], **annotators: str) -> list[dict[str, Any]]:
    """The tasks as they come back; each annotator's labels are written p, n, - (skipped) or x (a label that is none)."""
    names = {"p": "positive", "n": "negative", "x": "great"}
    found = []
    for number, task in enumerate(tasks):
        given = {who: names[labels[number]] for who, labels in annotators.items() if labels[number] != "-"}
        results = {who: [{"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}] for who, label in given.items()}
        annotations = [{"completed_by": {"email": who}, "result": result, "created_at": "2026-11-21T09:00:00Z"} for who, result in results.items()]
        found.append({"id": number, **task, "annotations": annotations})
    return found


def test_two_annotators_become_a_batch_and_their_kappa_is_told(home: Path) -> None:
    tasks, _ = export(home, "tiny", Annotation(texts=8, common=4), DRIFT)
    found = take_in(home, "tiny", labelled(tasks, ann="ppnnpp--", bob="ppnnnp-x"), SETTINGS)
    (agreement,) = found.agreements
    assert agreement.annotators == ("ann", "bob") and agreement.texts == 6 and agreement.kappa == pytest.approx(2 / 3)
    assert found.left_out == {"unlabelled": 2, "unknown_label": 1, "disagreement": 1, "erased": 0}
    rows = read_batches(batch_folder(home, "tiny")).to_pylist()
    assert found.rows == len(rows) == 5 and {row["provenance"] for row in rows} == {"annotation"} and {row["votes"] for row in rows} == {2}
    expected = {task["data"]["answer_id"]: label for task, label in zip(tasks, "ppnn?p", strict=False) if label != "?"}
    assert {row["id"]: row["label"][0] for row in rows} == expected
    again = take_in(home, "tiny", labelled(tasks, ann="ppnnpp--", bob="ppnnnp-x"), SETTINGS)
    assert again.batch == found.batch and len(read_batches(batch_folder(home, "tiny"))) == 5  # the same file is the same batch


def test_a_text_erased_since_it_was_exported_is_not_taken_in(home: Path) -> None:
    tasks, _ = export(home, "tiny", Annotation(texts=8, common=4), DRIFT)
    Tombstones.of(home).add("asked to", *map(doc_id, versions(tasks[0]["data"]["text"])))
    found = take_in(home, "tiny", labelled(tasks, ann="ppnnpppp"), SETTINGS)
    assert (found.rows, found.left_out["erased"]) == (7, 1)
    assert tasks[0]["data"]["answer_id"] not in read_batches(batch_folder(home, "tiny"))["id"].to_pylist()


def test_annotators_who_agree_too_little_are_refused(home: Path) -> None:
    tasks, _ = export(home, "tiny", Annotation(texts=8, common=4), DRIFT)
    with pytest.raises(AnnotationError, match=r"agree too little .* ann and bob on 8 texts: 0\.00"):
        take_in(home, "tiny", labelled(tasks, ann="ppppnnnn", bob="ppnnppnn"), SETTINGS)
    assert len(read_batches(batch_folder(home, "tiny"))) == 0
    assert take_in(home, "tiny", labelled(tasks, ann="ppp-----", bob="nnn-----"), SETTINGS).rows == 0  # too few in common to judge, and all tied


def test_a_file_that_is_no_export_is_told_so(home: Path) -> None:
    for wrong in ([{"text": "a"}], {"a": 1}, [1], 7):
        with pytest.raises(AnnotationError, match="no JSON export of Label Studio"):
            take_in(home, "tiny", wrong, SETTINGS)


def test_a_queue_for_the_page_comes_back_as_a_batch_and_what_is_undecided_stays(home: Path) -> None:
    tasks = put_on_page(home, "tiny", Annotation(texts=8, common=4), DRIFT)
    assert {task.id for task in tasks}.isdisjoint(task["data"]["answer_id"] for task in export(home, "tiny", SETTINGS, DRIFT)[0])
    for annotator, labels in (("ann", "ppnnpp-"), ("bob", "ppnnnp-")):
        for task, label in zip(tasks, labels, strict=False):  # the last one is seen by nobody, the one before skipped by both
            write_label(home, "tiny", task, annotator, "anonymous", {"p": "positive", "n": "negative", "-": None}[label])
    found = take_from_page(home, "tiny", SETTINGS)
    assert found.rows == 5 and found.left_out == {"unlabelled": 1, "unknown_label": 0, "disagreement": 1, "erased": 0}
    assert found.agreements[0].kappa == pytest.approx(2 / 3)
    assert {row["id"]: row["label"] for row in read_batches(batch_folder(home, "tiny")).to_pylist()} == {
        task.id: {"p": "positive", "n": "negative"}[label] for task, label in zip(tasks, "ppnn?p", strict=False) if label != "?"
    }
    left = read_queue(home, "tiny")
    assert left and [task.id for task in left.tasks] == [tasks[place].id for place in (4, 6, 7)]
    write_label(home, "tiny", tasks[4], "cy", "anonymous", "positive")
    assert take_from_page(home, "tiny", SETTINGS).rows == 1 and take_from_page(home, "tiny", SETTINGS).batch is None


def test_annotators_of_the_page_who_agree_too_little_are_refused(home: Path) -> None:
    with pytest.raises(AnnotationError, match="tiny has no queue"):
        take_from_page(home, "tiny", SETTINGS)
    tasks = put_on_page(home, "tiny", Annotation(texts=8, common=4), DRIFT)
    for task, one, other in zip(tasks, "ppppnnnn", "ppnnppnn", strict=True):
        for annotator, label in (("ann", one), ("bob", other)):
            write_label(home, "tiny", task, annotator, "anonymous", {"p": "positive", "n": "negative"}[label])
    with pytest.raises(AnnotationError, match=r"ann and bob on 8 texts: 0\.00"):
        take_from_page(home, "tiny", SETTINGS)
    left = read_queue(home, "tiny")
    assert left and len(left.tasks) == 8


def test_votes_and_annotations_do_not_ask_for_the_same_answer(home: Path) -> None:
    from llm_assets.operation.feedback_batch import FeedbackBatchConfig, feedback_batch
    from llm_assets_tests.operation.released import office

    write_log(home, [vote(number, rating="up") for number in range(200)], kind="feedback")
    feedback_batch(office(home, "feedback_batch"), FeedbackBatchConfig(client_share=1))
    chosen = queue(home, "tiny", Annotation(texts=40), DRIFT)
    assert min(int(row["id"][-4:]) for row, _ in chosen) >= 300
