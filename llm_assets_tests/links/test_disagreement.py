"""The disagreement that the gate foretells, and the canary that is held against it."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from llm_assets.evaluation import predictions
from llm_assets.links.champion import against_champion
from llm_assets.links.disagreement import MINIMUM, TEXTS, predicted
from llm_assets.links.endpoint import EndpointConfig, endpoint
from llm_assets.links.link import Office
from llm_assets.links.quantized_model import QUANTIZED
from llm_assets.links.release import ReleaseConfig, release
from llm_assets.serving import comparisons
from llm_assets.serving.app import create_app
from llm_assets.serving.events import read_events
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets_tests.operation.traffic import line, write_log
from llm_assets_tests.serving.tiny import LABELS, committed, write_artifact, write_model

CLEAR, NEUTRAL = "good", "so so"  # the two models say the opposite of the first, the same of the second


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(
        "tiny", tmp_path, Journal(tmp_path / "journal" / "tiny" / "scorecard.jsonl"), tmp_path, teams={"operations_engineer": "night-watch"}
    )


def mixture(count: int, share: float, seed: int = 0) -> list[str]:
    """Texts of which exactly a share is answered differently, in an order without a pattern."""
    texts = [CLEAR] * round(count * share) + [NEUTRAL] * (count - round(count * share))
    random.Random(seed).shuffle(texts)
    return texts


def log(home: Path, texts: Sequence[str]) -> None:
    write_log(home, [line(number, text) for number, text in enumerate(texts)])


def two(home: Path) -> tuple[Artifact, Artifact]:
    """A model and one that answers the opposite."""
    return write_artifact(home, "candidate", sign=-1), write_artifact(home, "champion")


def foretold(office: Office, on_test: float = 0.03) -> dict[str, Any]:
    return predicted(office, *two(office.home), on_test, 200)


def test_the_larger_share_of_test_documents_and_newest_traffic_is_foretold(office: Office) -> None:
    log(office.home, [NEUTRAL] * TEXTS + mixture(TEXTS, 0.4))
    found = foretold(office)
    assert found == {
        "disagreement": pytest.approx(0.4),
        "disagreement_on_test": 0.03,
        "disagreement_on_traffic": pytest.approx(0.4),
        "traffic_texts": TEXTS,
        "prediction": f"40.0% of the newest {TEXTS} texts of the request log, 3.0% of 200 test documents",
    }
    assert foretold(office, on_test=0.6)["disagreement"] == 0.6


def test_what_was_erased_or_cut_off_is_no_traffic(office: Office) -> None:
    erased = line(0, CLEAR)
    erased["texts"][0] |= {"masked": None, "erased": True}
    (path,) = write_log(office.home, [*(line(n, CLEAR, NEUTRAL) for n in range(MINIMUM // 2)), erased])
    with path.open("a") as file:
        file.write('null\n{"texts": 3}\n' + json.dumps(line(1, CLEAR))[:40])
    found = foretold(office)
    assert (found["traffic_texts"], found["disagreement_on_traffic"]) == (MINIMUM, 0.5)


def test_too_little_traffic_leaves_the_test_documents_alone_and_says_so(office: Office) -> None:
    log(office.home, [CLEAR] * (MINIMUM - 1))
    found = foretold(office)
    assert (found["disagreement"], found["disagreement_on_traffic"], found["traffic_texts"]) == (0.03, None, MINIMUM - 1)
    assert found["prediction"] == f"3.0% of 200 test documents; the request log holds {MINIMUM - 1} texts, {MINIMUM} are needed"


def test_a_candidate_that_turns_most_of_the_traffic_around_is_held_against_the_test_documents(office: Office) -> None:
    log(office.home, mixture(TEXTS, 0.52))
    found = foretold(office)
    assert (found["disagreement"], found["disagreement_on_traffic"]) == (0.03, pytest.approx(0.52))
    assert "on the newest 500 texts of the request log it is 52.0%, more than a gate foretells (50%)" in found["prediction"]


def test_a_champion_that_cannot_be_asked_leaves_the_test_documents_alone_and_says_so(office: Office) -> None:
    log(office.home, [CLEAR] * MINIMUM)
    candidate, champion = two(office.home)
    champion.path("tokenizer.json").unlink()
    found = predicted(office, candidate, champion, 0.03, 200)
    assert (found["disagreement"], found["disagreement_on_traffic"]) == (0.03, None)
    assert "could not be asked" in found["prediction"] and "tokenizer.json" in found["prediction"]


def judged(home: Path, name: str, sign: float, wrong: int) -> Artifact:
    """A model whose answers to 200 test documents are kept with it, ``wrong`` of them wrong."""
    directory = write_model(home / "artifacts" / "quantized_model" / name, sign)
    rows = [
        {
            "model": QUANTIZED, "split": "test", "doc_id": f"{n:020x}", "label": LABELS[n % 2], "predicted": LABELS[(n + (n < wrong)) % 2],
            "probabilities": [0.5, 0.5],
        }
        for n in range(200)
    ]  # fmt: skip
    predictions.write(directory / "predictions.parquet", rows)
    return committed(directory)


def roll_out(office: Office, step_requests: int = 1_000_000) -> dict[str, Any]:
    """Judge, release and ask for a model that answers every clear text otherwise than the one before; what the gate said."""
    for model in (judged(office.home, "old", 1, wrong=0), judged(office.home, "new", -1, wrong=4)):
        at = replace(office, journal=Journal(office.home / "journal" / "tiny" / "release.jsonl"))
        compared = against_champion(office, model, "single_label", 0.05)
        scorecard = {"champion": compared, "models": [{"name": QUANTIZED, "test_accuracy": 0.9}], "quantized_model": model.fingerprint}
        acted = release(at, ReleaseConfig(), scorecard=scorecard, quantized_model=model)
        at.journal.append({"trial": False, "verdicts": [], "record": acted.record})
        config = EndpointConfig(rollout="canary", steps=[100], step_seconds=0, step_requests=step_requests, max_p99_ms=1e6, wait_seconds=0)
        endpoint(office, config, release=acted.record)
    return dict(acted.record["gate"])


@pytest.fixture(autouse=True)
def all_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time that takes: what is judged is to hang by no clock."""
    for name in ("SHARE", "AFTERWARDS"):
        monkeypatch.setattr(comparisons, name, 1.0)


def asked_until_it_is_over(home: Path, texts: Sequence[str]) -> str:
    """How the rollout ends when users ask this, again and again."""
    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        deadline, number = time.monotonic() + 60, 0
        while time.monotonic() < deadline:
            chain = client.get("/readyz").json()["chains"].get("tiny", {})
            if chain.get("live") == "tiny-2" or chain.get("state") in ("full", "rolled_back"):
                return str(chain["state"])
            client.post("/v1/classify", json={"model": "tiny", "input": texts[number % len(texts)]})
            number += 1
    return "not over"


def test_a_canary_that_differs_as_much_as_was_foretold_from_the_traffic_takes_over(office: Office) -> None:
    log(office.home, mixture(TEXTS, 0.4))
    gate = roll_out(office, step_requests=400)
    assert gate["disagreement"] == pytest.approx(0.4) and gate["disagreement_on_test"] == pytest.approx(0.02)
    assert asked_until_it_is_over(office.home, mixture(500, 0.4, seed=1)) == "full"
    *_, taken_over = read_events(office.home, "tiny")
    assert taken_over["stage"] == "full" and taken_over["compared"] >= 20 and taken_over["different"] > 0


def test_a_canary_that_begins_to_answer_otherwise_than_foretold_is_taken_back(office: Office) -> None:
    log(office.home, mixture(TEXTS, 0.4))
    roll_out(office)
    assert asked_until_it_is_over(office.home, [CLEAR]) == "rolled_back"
    *_, rollback, alert = read_events(office.home, "tiny")
    foretold = "the gate predicted 40.0% (40.0% of the newest 500 texts of the request log, 2.0% of 200 test documents) and 10.0% more are allowed"
    assert foretold in rollback["message"] and foretold in alert["message"]
    assert (alert["role"], alert["team"]) == ("operations_engineer", "night-watch") and alert["message"].endswith("; for team:night-watch")


def test_without_a_look_at_the_traffic_the_same_canary_would_be_taken_back(office: Office) -> None:
    assert roll_out(office)["disagreement"] == pytest.approx(0.02)
    assert asked_until_it_is_over(office.home, mixture(500, 0.4, seed=1)) == "rolled_back"
