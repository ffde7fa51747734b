"""Which words carried an answer: how a text is cut, what each word weighs, and the route `/v1/explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.serving.engine import Classified, OnnxClassifier
from llm_assets.serving.explanation import MOST, erasures, pieces, weighed
from llm_assets.serving.rollout import Plan
from llm_assets.serving.wire import EXPLAINED_LENGTH, EXPLAINED_LIMIT
from llm_assets_tests.serving.conftest import ask, eventually, local_client
from llm_assets_tests.serving.tiny import deploy, roll_out, write_model


def words(text: str) -> list[str]:
    return [piece for piece, is_word in pieces(text) if is_word]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't like it, at all!", ["I", "don't", "like", "it", "at", "all"]),
        ("我喜欢iPhone 15。", ["我", "喜", "欢", "iPhone", "15"]),
        ("きれいだ", ["き", "れ", "い", "だ"]),
        ("한국어 좋아요", ["한국어", "좋아요"]),
        ("naïve café_x", ["naïve", "café_x"]),
        ("?! …", []),
    ],
)
def test_words_are_runs_of_letters_and_single_characters_where_nothing_parts_them(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(max_size=300))
def test_the_pieces_are_the_text_and_no_more_than_may_be(text: str) -> None:
    cut = pieces(text)
    assert "".join(piece for piece, _ in cut) == text and all(piece for piece, _ in cut)
    without = erasures(cut)
    assert len(without) == len(words(text)) <= MOST
    assert all(len(shorter) == len(text) - len(word) for shorter, word in zip(without, words(text), strict=True))


def test_neighbours_of_a_long_text_are_taken_together() -> None:
    found = words(" ".join(f"w{number}" for number in range(200)))
    assert len(found) == MOST and {len(each.split()) for each in found} == {3, 4} and found[0] == "w0 w1 w2"


def explained(engine: OnnxClassifier, text: str) -> dict[str, Any]:
    cut = pieces(text)
    whole, *without = engine.answer([text, *erasures(cut)])
    return weighed(cut, whole, without, engine.labels, engine.problem)


def weights(found: dict[str, Any]) -> dict[str, float]:
    return {piece["text"]: piece["weight"] for piece in found["pieces"] if piece["weight"] is not None}


def test_the_word_that_decides_weighs_most_and_its_opposite_less_than_nothing(tmp_path: Path) -> None:
    engine = OnnxClassifier(write_model(tmp_path))
    found = explained(engine, "rooms good food bad view good")
    by_place = [piece["weight"] for piece in found["pieces"] if piece["weight"] is not None]
    assert found["label"] == "positive" and found["value"] == engine.classify(["rooms good food bad view good"])[0][1]
    assert by_place[1] == by_place[5] == max(by_place) > 0.1  # either "good"
    assert by_place[3] == min(by_place) < -0.1  # "bad"
    assert all(abs(by_place[place]) < 0.05 for place in (0, 2, 4))  # words that the model does not know
    assert weights(explained(engine, "bad rooms"))["bad"] > 0.1  # for the answer, whichever it is


def test_each_weight_is_what_the_answer_loses_without_the_word(tmp_path: Path) -> None:
    engine = OnnxClassifier(write_model(tmp_path))
    found = weights(explained(engine, "good food"))
    whole, food, good = (row[1] for row in engine.classify(["good food", " food", "good "]))
    assert found == {"good": pytest.approx(whole - food), "food": pytest.approx(whole - good)}


def test_of_a_number_it_is_the_number_that_is_explained(tmp_path: Path) -> None:
    engine = OnnxClassifier(write_model(tmp_path, problem="regression"))
    found = explained(engine, "bad food")
    assert found["label"] == "" and found["value"] == pytest.approx(0.5) and weights(found)["bad"] == pytest.approx(0.5)
    assert weighed([("a", True)], Classified([2.0], 3), [Classified([0.5], 2)], ["x"], "regression")["pieces"] == [{"text": "a", "weight": 1.5}]


def explain(client: TestClient, text: str | list[str], **more: Any) -> Any:
    return client.post("/v1/explain", json={"model": "tiny", "input": text, **more})


def test_the_route_explains_each_text_and_leaves_no_trace_in_the_log(client: TestClient, home: Path) -> None:
    answer = ask(client, ["good food", "讨厌 !"]).json()
    log = home / "serving" / "log" / "tiny"
    eventually(lambda: any(answer["id"] in path.read_text() for path in log.glob("*")))
    logged = [path.read_bytes() for path in log.iterdir()]
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("llm_assets_requests_total")]
    found = explain(client, ["good food", "讨厌 !"], release="tiny-1").json()
    assert found["model"] == "tiny" and found["release"] == answer["release"]
    assert [(each["index"], each["label"]) for each in found["data"]] == [(0, "positive"), (1, "negative")]
    assert [each["value"] for each in found["data"]] == pytest.approx([max(entry["probs"]) for entry in answer["data"]])
    assert ["".join(piece["text"] for piece in each["pieces"]) for each in found["data"]] == ["good food", "讨厌 !"]
    assert weights(found["data"][0])["good"] > 0.1 and found["data"][1]["pieces"][-1] == {"text": " !", "weight": None}
    assert [path.read_bytes() for path in log.iterdir()] == logged
    assert [line for line in client.get("/metrics").text.splitlines() if line.startswith("llm_assets_requests_total")] == counted


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"input": ["good"] * (EXPLAINED_LIMIT + 1)}, 400, f"{EXPLAINED_LIMIT} can be explained at once"),
        ({"input": "x" * (EXPLAINED_LENGTH + 1)}, 400, f"more than {EXPLAINED_LENGTH} characters"),
        ({"input": ""}, 400, "empty text"),
        ({"input": "good", "model": "other"}, 404, "the models here: tiny"),
        ({"input": "good", "release": "tiny-9"}, 404, "tiny does not serve tiny-9 now; it serves tiny-1"),
        ({"input": 7}, 400, "input"),
    ],
)
def test_what_cannot_be_explained_is_told_why(client: TestClient, body: dict[str, Any], status: int, said: str) -> None:
    response = client.post("/v1/explain", content=json.dumps({"model": "tiny", **body}), headers={"Content-Type": "application/json"})
    assert response.status_code == status and said in response.json()["error"]["message"]


def test_a_release_on_trial_explains_its_own_answers(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        roll_out(tmp_path, 2, Plan(steps=(1.0, 100.0), step_seconds=600), sign=-1)
        eventually(lambda: explain(client, "good", release="tiny-2").status_code == 200)
        assert [explain(client, "good", release=f"tiny-{number}").json()["data"][0]["label"] for number in (1, 2)] == ["positive", "negative"]


def test_a_long_text_is_explained_in_a_bounded_number_of_passes(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with local_client(tmp_path) as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        found = explain(client, ["good " * (EXPLAINED_LENGTH // 5)] * EXPLAINED_LIMIT).json()["data"]
    assert [len(weights(each)) for each in found] and all(sum(piece["weight"] is not None for piece in each["pieces"]) == MOST for each in found)
