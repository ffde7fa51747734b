"""The parts of the experiment `loop`: its texts, its project, its client, and what it says of what it finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from benchmarks import loop
from benchmarks.gateways import release as planted
from benchmarks.loop_client import Client
from benchmarks.loop_figure import draw
from benchmarks.loop_project import CHAIN, Place, environment, write_project
from benchmarks.loop_story import BAD, NEW, WRONG, Judged, Run, Story, claims, gain, notes, read, requests_until_drift
from benchmarks.loop_texts import Review, Sizes, Texts, distinct, divide
from llm_assets.corpus.near_duplicates import NearDuplicates, clusters
from llm_assets.evaluation import predictions
from llm_assets.operation.votes import votes
from llm_assets.serving.engine import OnnxClassifier
from llm_assets.serving.releases import release_journal
from llm_assets.serving.state import gateway_state, write_desired
from llm_assets.store.journal import Journal
from llm_assets_tests.operation.traffic import NOON, line, write_log
from llm_assets_tests.serving.conftest import gateway
from llm_assets_tests.serving.tiny import deploy, release

SIZES = Sizes(learnt=6, control=2, votes=3, wrong_votes=2, wrong_books=1, held_out=4)
LONG = "这本书的内容非常充实,作者的文笔也很优美,值得反复阅读和推荐给朋友{}"


def reviews(name: str, count: int) -> list[Review]:
    return [Review(f"{name}{chr(0x4E00 + 50 * number) * 9}{number}", ("positive", "negative")[number % 2]) for number in range(count)]


def test_no_two_texts_of_the_experiment_are_nearly_equal_and_disputed_ones_are_left_out() -> None:
    books = [*reviews("书", 12), Review(LONG.format("。"), "positive"), Review(LONG.format("!!"), "positive")]
    hotels = [*reviews("房", 14), Review("又脏又吵的房间再也不来了", "negative"), Review("又脏又吵的房间,再也不来了", "positive")]
    shared = Review("快递很快包装完好无损", "positive")
    found = distinct({"books": [*books, shared], "hotels": [*hotels, shared], "computers": reviews("机", 12)})
    assert {name: len(kept) for name, kept in found.items()} == {"books": 13, "hotels": 14, "computers": 12}
    parts = divide(found, SIZES, seed=1)
    everything = [review.text for part in vars(parts).values() for review in part]
    with tempfile.TemporaryDirectory() as scratch:
        number, _ = clusters([everything], NearDuplicates(), Path(scratch))
    assert len(set(number.tolist())) == len(everything)
    assert [len(part) for part in vars(parts).values()] == [6, 2, 3, 3, 4, 26 - 9]
    true = {review.text: review.label for kept in found.values() for review in kept}
    assert all(true[review.text] != review.label for review in parts.misled)
    assert all(true[review.text] == review.label for part in (parts.learnt, parts.voted, parts.held_out) for review in part)
    with pytest.raises(ValueError, match="13 different reviews, and the experiment asks for more than"):
        divide(found, replace(SIZES, learnt=20), seed=1)


def test_the_project_loads_with_every_sensor_on_and_books_alone_to_learn_from(tmp_path: Path) -> None:
    place = Place(tmp_path / "loop")
    write_project(place, "tiny", SIZES, reviews("书", 6))
    code = """
import json, dagster as dg
from llm_assets.components.llm_chain.component import LlmChain
import loop_project.definitions as module
defs = module.defs()
print(json.dumps({
    "running": sorted(one.name for one in [*defs.sensors, *defs.schedules] if one.default_status.value == "RUNNING"),
    "assets": sorted({key.path[0] for key in defs.resolve_all_asset_keys()}),
}))
"""
    variables = {**os.environ, **environment(place, "tiny")}
    ended = subprocess.run([sys.executable, "-c", code], cwd=place.project, env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found == {"running": ["loop_alerts", "loop_retraining", "loop_service_events", "loop_watching"], "assets": ["loop"]}
    learnt = [json.loads(row) for row in (place.home / "texts" / "books.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["label"] for row in learnt] == ["positive", "negative"] * 3
    with pytest.raises(FileExistsError):
        write_project(place, "tiny", SIZES, [])


def test_the_client_asks_votes_under_its_key_and_counts_what_fails(tmp_path: Path) -> None:
    deploy(tmp_path, 1, chain="loop")
    with gateway(tmp_path):
        client = Client(tmp_path, "loop")
        answered = client.ask([Review("good 喜欢", "positive"), Review("bad", "positive")])
        assert client.vote(answered) == 2 and client.failed == []
        assert client.ask([Review("", "positive")]) == [] and len(client.failed) == 1 and "400" in client.failed[0]
        client.close()
    assert {(vote.client, vote.answer, vote.label) for vote in votes(tmp_path, "loop")} == {("users", (each.id, 0), "positive") for each in answered}
    assert gateway_state(tmp_path) is None


def test_a_planted_release_stands_in_its_chains_journal_and_answers_the_opposite_when_turned(tmp_path: Path) -> None:
    model = tmp_path / release(tmp_path, 1, chain="loop")["directory"]
    bad = planted(tmp_path, 2, model, turned=True, chain="loop")
    assert bad["release"] == "loop-2" and read(tmp_path, tmp_path, "loop", []).champion == "loop-2"
    right, wrong = OnnxClassifier(model), OnnxClassifier(tmp_path / bad["directory"])
    assert right.classify(["good"]) == wrong.classify(["good"]) and right.labels == wrong.labels[::-1]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[loop._Experiment]:
    """The experiment over a gateway that serves `loop-1`, in a hurry."""
    monkeypatch.setattr(loop, "PACE", 60)
    monkeypatch.setattr(loop, "AFTER", 0.1)
    place = Place(tmp_path)
    released = {**release(place.home, 1, chain=CHAIN), "gate": {"disagreement": 0.05}}
    release_journal(place.home, CHAIN).append({"trial": False, "verdicts": [], "record": released})
    write_desired(place.home, CHAIN, released)
    kind, unkind = Review("good 喜欢", "positive"), Review("bad 讨厌", "negative")
    texts = Texts([], [], [], [], held_out=[kind, kind, unkind, kind.turned], passers=[kind, unkind])
    with gateway(place.home):
        client = Client(place.home, CHAIN)
        yield loop._Experiment(place, client, texts, SIZES)
        client.close()
        assert client.failed == []


def test_the_gateway_takes_a_canary_back_that_turns_bad_and_the_story_tells_it(served: loop._Experiment, tmp_path: Path) -> None:
    served._turn_a_canary()
    told = replace(read(tmp_path, tmp_path / "data", CHAIN, STORY.runs), marks={**STORY.marks, BAD: at(0)})
    (claim,) = [claim for claim in claims(told) if "turned bad" in claim.says]
    assert claim.holds and "loop-1 is champion" in claim.says and "answers differ from the stable release's" in claim.says
    assert {release for _, release in told.answers} == {"loop-1", "loop-2"}


def test_a_model_is_judged_on_the_frozen_set_and_on_what_is_held_out(served: loop._Experiment, tmp_path: Path) -> None:
    home = tmp_path / "data"
    row = {"model": "quantized", "split": "test", "label": "positive", "probabilities": [0.5, 0.5]}
    rows = [{**row, "doc_id": "one", "predicted": "positive"}, {**row, "doc_id": "two", "predicted": "negative"}]
    predictions.write(home / "artifacts" / "quantized_model" / "loop1" / "predictions.parquet", rows)
    Journal(home / "journal" / CHAIN / "scorecard.jsonl").append({"record": {"quantized_model": "loop1"}})
    served._judge_newest()
    assert read(tmp_path, home, CHAIN, []).judged["loop1"].accuracies == (0.5, 0.75)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def entry(seconds: float, **fields: Any) -> dict[str, Any]:
    return {"at": at(seconds).isoformat(), **fields}


def look(seconds: float, *drifted: str) -> dict[str, Any]:
    features = {"vocabulary": {"value": 0.4 if drifted else 0.1, "threshold": 0.2}}
    return entry(seconds, record={"judged": True, "texts": 200, "drifted": list(drifted), "features": features})


def gate(seconds: float, model: str, outcome: str) -> dict[str, Any]:
    verdict = {"check": "not_worse_than_champion", "passed": outcome != "worse"}
    return entry(seconds, record={"quantized_model": model, "champion": {"found": f"{outcome} than before"}}, verdicts=[verdict])


def rights(old: int, new: int) -> Judged:
    """So many of 1,000 right."""
    return Judged({f"{n:04}": float(n < old) for n in range(1000)}, {f"{n:04}": float(n < new) for n in range(1000)})


STORY = Story(
    marks={NEW: at(100), WRONG: at(300), BAD: at(500)},
    runs=[
        Run("schedule: every 7d, and it never ran", at(0), at(50), "SUCCESS"),
        Run("feedback: 3 newly labelled texts; drift: vocabulary differ", at(160), at(200), "SUCCESS"),
        Run("feedback: 3 newly labelled texts", at(350), at(400), "FAILURE"),
    ],
    looks=[look(90), look(140, "vocabulary")],
    gates=[gate(45, "m1", "not worse"), gate(195, "m2", "not worse"), gate(395, "m3", "worse")],
    events=[
        entry(140, kind="drift", release="loop-1", message="vocabulary differ"),
        entry(510, kind="rollback", release="loop-3", message="9 of 12 answers differ"),
        entry(510, kind="alert", release="loop-3", message="9 of 12 answers differ", rule="rollback"),
    ],
    answers=[*((at(60 + n), "loop-1") for n in range(150)), *((at(250 + n), "loop-2") for n in range(250)), (at(505), "loop-3"), (at(515), "loop-2")],
    champion="loop-2",
    released={"loop-1": "m1", "loop-2": "m2", "loop-3": "model3"},
    judged={"m1": rights(930, 550), "m2": rights(928, 750), "m3": rights(850, 300)},
    failed=[],
)
MODELS_TURNED = {"m1": rights(930, 550), "m2": rights(920, 750), "m3": rights(850, 300)}
WITHOUT_GAIN = {"m1": rights(930, 550), "m2": rights(930, 590), "m3": rights(850, 300)}


def test_the_story_that_was_to_be_told_holds_in_every_claim() -> None:
    assert [claim.says for claim in claims(STORY) if not claim.holds] == []
    assert requests_until_drift(STORY) == 41 and round(gain(STORY), 6) == 0.2


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"looks": [look(90, "length"), look(140, "vocabulary")]}, "no drift in 1 looks"),
        ({"looks": [look(140, "vocabulary")]}, "no drift in 0 looks"),
        ({"events": STORY.events[1:]}, "drift raised within 500 requests: after None"),
        ({"answers": [*((at(100 + n / 20), "loop-1") for n in range(900)), *STORY.answers[-2:]]}, "drift raised within 500 requests: after 801"),
        ({"runs": [STORY.runs[0], STORY.runs[2]]}, "the policy sensor ran the chain for drift: no run"),
        ({"runs": [STORY.runs[0], STORY.runs[1]._replace(reason="feedback: 3"), STORY.runs[2]]}, "the policy sensor ran the chain for drift"),
        ({"judged": MODELS_TURNED}, "accuracy on the old kind, at least -0.5: 0.9300 to 0.9200, -1.00 points"),
        ({"judged": WITHOUT_GAIN}, "accuracy on the new kind, at least +5: 0.5500 to 0.5900, +4.00 points"),
        ({"gates": [*STORY.gates[:2], gate(395, "m3", "undecided")]}, "the gate blocked"),
        ({"released": {**STORY.released, "loop-4": "m3"}, "champion": "loop-4"}, "the gate blocked"),
        ({"gates": STORY.gates[:2]}, "no candidate was made of the wrong votes"),
        ({"events": STORY.events[:1]}, "the canary that turned bad was not rolled back"),
        ({"champion": "loop-3"}, "the canary that turned bad was rolled back"),
        ({"answers": [*STORY.answers, *((at(511 + n), "loop-3") for n in range(2))]}, "the canary that turned bad was rolled back"),
        ({"failed": ["/v1/classify: 503"]}, "1 requests failed"),
    ],
)
def test_what_did_not_happen_is_not_claimed(changed: dict[str, Any], broken: str) -> None:
    fallen = [claim.says for claim in claims(replace(STORY, **changed)) if not claim.holds]
    assert len(fallen) >= 1 and any(says.startswith(broken) for says in fallen), fallen


def test_without_a_second_release_nothing_was_gained() -> None:
    alone = replace(STORY, released={"loop-1": "m1"}, champion="loop-1")
    assert gain(alone) == 0.0
    assert "no second release to compare with the first" in [claim.says for claim in claims(alone) if not claim.holds]


def test_the_story_is_read_from_the_files_that_tell_it(tmp_path: Path) -> None:
    noted = notes(tmp_path)
    noted.append({"mark": NEW})
    noted.append({"judged": "m1", "old": {"a": 1.0}, "new": {"b": 0.0}})
    noted.append({"failed": ["/v1/classify: 503"]})
    release(tmp_path, 1, chain=CHAIN)
    write_log(tmp_path, [line(1, "好", release="loop-1")], chain=CHAIN)
    told = read(tmp_path, tmp_path, CHAIN, STORY.runs)
    assert set(told.marks) == {NEW} and told.judged["m1"].accuracies == (1.0, 0.0) and told.failed == ["/v1/classify: 503"]
    assert told.answers == [(at(1), "loop-1")] and told.released == {"loop-1": "loop1"} and told.champion == "loop-1"


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    draw(STORY, tmp_path / "loop.png")
    assert (tmp_path / "loop.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
