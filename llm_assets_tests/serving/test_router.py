"""Two releases of one chain side by side: who answers whom, and who goes."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.operation.log import requests
from llm_assets.serving import comparisons
from llm_assets.serving.app import create_app
from llm_assets.serving.comparisons import Pair
from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.engine import Classified
from llm_assets.serving.errors import ApiError
from llm_assets.serving.events import read_events
from llm_assets.serving.reconciler import Deployment, Reconciler
from llm_assets.serving.releases import release_journal, standing
from llm_assets.serving.request_log import log_folder
from llm_assets.serving.rollout import Apart, Plan, Rollout
from llm_assets.serving.router import Router, seconds_for, takes
from llm_assets.serving.shadows import shadow_folder
from llm_assets.serving.state import desired_path, proven, read_desired, rollout_lock, rollout_of, write_desired, write_rollout
from llm_assets.serving.windows import Watches, step_of
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import release, roll_out

FOREVER = 1e9
STILL = {"step_seconds": FOREVER, "max_error_rate": 1.0, "max_p99_ms": FOREVER, "max_extra_disagreement": 1.0}  # no step is taken, no limit broken
Client = TestClient | httpx.Client


def first(home: Path) -> None:
    """Release 1 in service."""
    write_desired(home, "tiny", release(home, 1))


@contextmanager
def serving(home: Path, state: str) -> Iterator[TestClient]:
    """The application once the chain's rollout is in a state."""
    with TestClient(create_app(home), raise_server_exceptions=False) as client:
        eventually(lambda: chain_of(client).get("state") == state)
        yield client


def chain_of(client: Client) -> dict:
    return client.get("/readyz").json()["chains"].get("tiny", {})


def ask(client: Client, text: str = "good", session: str | None = None) -> tuple[str, str]:
    """The release that answered, and its label; fails unless it was answered."""
    response = client.post("/v1/classify", json={"model": "tiny", "input": text}, headers={"X-Session-Id": session} if session else None)
    assert response.status_code == 200, response.text
    return response.json()["release"], response.json()["data"][0]["label"]


@given(st.text(max_size=20), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_keeps_the_sessions_of_a_smaller(session: str, one: float, other: float) -> None:
    small, large = (Rollout("new", "old", "t", "canary", share=share) for share in sorted((one, other)))
    assert takes(large, session) or not takes(small, session)
    assert takes(Rollout("new", "old", "t", "canary", share=100.0), session)
    assert not takes(Rollout("new", "old", "t", "canary", share=0.0), session)


def test_a_canary_takes_its_share_of_the_requests_and_all_of_a_session(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(25.0, 100.0), **STILL), sign=-1)
    with serving(tmp_path, "canary") as client:
        assert chain_of(client)["split"] == {"tiny-1": 75.0, "tiny-2": 25.0} and chain_of(client)["live"] == "tiny-1"
        seen = Counter(ask(client) for _ in range(400))
        sessions = [{ask(client, session=f"client {number}") for _ in range(4)} for number in range(12)]
    assert set(seen) == {("tiny-1", "positive"), ("tiny-2", "negative")}
    assert abs(seen["tiny-2", "negative"] - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)
    assert all(len(answers) == 1 for answers in sessions) and len(set.union(*sessions)) == 2


def test_a_shadow_never_changes_an_answer(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(shadow=True, step_requests=20, **{**STILL, "step_seconds": 0}), sign=-1)
    with serving(tmp_path, "shadow") as client:
        assert chain_of(client)["split"] == {"tiny-1": 100.0}
        seen = Counter()
        while chain_of(client)["state"] == "shadow":
            asked = ask(client)
            if chain_of(client)["state"] == "shadow":
                seen[asked] += 1
    assert set(seen) == {("tiny-1", "positive")} and sum(seen.values()) >= 19
    heard = next(event for event in read_events(tmp_path, "tiny") if event["stage"] == "canary")
    assert heard["total"] >= 20 and heard["p99_ms"] > 0 and heard["errors"] == 0
    assert heard["different"] == heard["compared"] > 0  # it answered the opposite, and nobody heard it
    logged = [request for path in dated_files(log_folder(tmp_path), "tiny") for request in requests(path) if request]
    said = [request.texts[0].shadow for request in logged if request.release == "tiny-1"]
    assert said.count("negative") >= 20 and set(said) <= {"negative", None}  # but annotators may: None where it was busy


@pytest.mark.parametrize(("shares", "compared"), [((1e-9, 1.0), 1), ((1.0, 1e-9), comparisons.ENOUGH + 1)])
def test_comparing_takes_its_share_of_the_time_at_most_and_a_smaller_one_once_it_has_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, float], compared: int
) -> None:
    for name, share in zip(("SHARE", "AFTERWARDS"), shares, strict=True):
        monkeypatch.setattr(comparisons, name, share)
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(shadow=True, **STILL))

    def noted() -> int:
        return sum(path.read_text(encoding="utf-8").count("\n") for path in dated_files(shadow_folder(tmp_path), "tiny"))

    with serving(tmp_path, "shadow") as client:
        eventually(lambda: ask(client) and noted() >= compared)
        for _ in range(20):
            ask(client)
        assert noted() == compared


def test_a_shadow_keeps_no_client_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(shadow=True, **STILL))
    reconciler, released = Reconciler(tmp_path), threading.Event()
    monkeypatch.setattr("llm_assets.serving.gateway.Reconciler", lambda home: reconciler)
    with serving(tmp_path, "shadow") as client:
        monkeypatch.setattr(reconciler.candidates["tiny"].engine, "answer", lambda texts: released.wait(30) and [])
        try:
            assert {ask(client) for _ in range(10)} == {("tiny-1", "positive")}  # while the shadow hangs on the first of them
        finally:
            released.set()


def test_a_healthy_release_takes_every_step_and_then_serves_alone(tmp_path: Path) -> None:
    first(tmp_path)
    plan = Plan(steps=(50.0, 100.0), shadow=True, step_seconds=0, step_requests=5, expected_disagreement=0.0)
    roll_out(tmp_path, 2, plan)
    with serving(tmp_path, "shadow") as client:
        deadline = time.monotonic() + 30
        while chain_of(client)["state"] != "full" and time.monotonic() < deadline:
            ask(client)
        assert {ask(client) for _ in range(5)} == {("tiny-2", "positive")}  # nobody falls back to tiny-1 while it gives its place up
        eventually(lambda: chain_of(client)["live"] == "tiny-2")
        assert chain_of(client)["split"] == {"tiny-2": 100.0} and chain_of(client)["error"] is None
        assert {ask(client) for _ in range(5)} == {("tiny-2", "positive")}
    assert [(event["kind"], event["stage"], event["share"]) for event in read_events(tmp_path, "tiny")] == [
        ("rollout", "shadow", 0.0), ("rollout", "canary", 50.0), ("rollout", "canary", 100.0), ("rollout", "full", 100.0),
    ]  # fmt: skip
    serves = proven(tmp_path, "tiny")
    assert serves and (serves.release, serves.stable) == ("tiny-2", None)


@pytest.mark.parametrize(
    ("broken", "limits", "words"),
    [
        ({"words": 6}, {}, "requests failed"),
        ({"sign": -1.0}, {"expected_disagreement": 0.02}, "answers differ from the stable release's, the gate predicted 2.0%"),
        ({}, {"max_p99_ms": 1e-6}, "took longer than 1e-06 ms"),
    ],
)
def test_a_candidate_that_turns_bad_is_rolled_back_and_no_request_fails(tmp_path: Path, broken: dict, limits: dict, words: str) -> None:
    first(tmp_path)
    desired = roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), **{"step_seconds": FOREVER, "max_p99_ms": FOREVER, **limits}), **broken)
    with serving(tmp_path, "canary") as client:
        began = time.monotonic()
        while chain_of(client)["state"] != "rolled_back":
            assert time.monotonic() - began < 30
            assert ask(client, "bad bad") in {("tiny-1", "negative"), ("tiny-2", "negative"), ("tiny-2", "positive")}
        assert {ask(client, "bad") for _ in range(20)} == {("tiny-1", "negative")}
        status = chain_of(client)
        assert (status["desired"], status["live"], status["split"]) == ("tiny-2", "tiny-1", {"tiny-1": 100.0})
        assert words in status["error"] and client.get("/readyz").status_code == 200
    *_, rollback, alert = read_events(tmp_path, "tiny")
    assert (rollback["kind"], alert["kind"], rollback["release"]) == ("rollback", "alert", "tiny-2")
    assert words in rollback["message"] and rollback["requests"] >= 10 and rollback["stable"] == "tiny-1"
    known = standing(release_journal(tmp_path, "tiny"))
    assert known.champion and known.champion["release"] == "tiny-1" and known.withdrew("tiny2")
    assert known.champion["approved_by"] == "gateway" and words in known.champion["note"]
    assert proven(tmp_path, "tiny") == desired.stable

    with serving(tmp_path, "rolled_back") as client:  # remembered by the next gateway
        assert {ask(client, "bad") for _ in range(10)} == {("tiny-1", "negative")}
        write_desired(tmp_path, "tiny", {**vars(desired), "quantized_model": "tiny2"}, desired.stable, desired.plan)
        eventually(lambda: chain_of(client)["state"] == "canary")  # asked for anew


def test_a_failure_in_the_shadow_rolls_back_unheard(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(shadow=True), words=6)
    with serving(tmp_path, "shadow") as client:
        eventually(lambda: ask(client, "bad") == ("tiny-1", "negative") and chain_of(client)["state"] == "rolled_back")


def test_a_damaged_release_is_refused_and_the_old_one_serves(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), **STILL), sign=-1)
    (tmp_path / "artifacts" / "quantized_model" / "tiny2" / "model.onnx").write_bytes(b"broken")
    with serving(tmp_path, "loading") as client:
        error = str(eventually(lambda: chain_of(client)["error"]))
        assert "model.onnx is not the file that was released" in error
        assert {ask(client) for _ in range(20)} == {("tiny-1", "positive")} and client.get("/readyz").status_code == 200
    assert read_events(tmp_path, "tiny") == []


def test_with_a_damaged_stable_release_a_restart_serves_the_other(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), **STILL), sign=-1)
    (tmp_path / "artifacts" / "quantized_model" / "tiny1" / "model.onnx").unlink()
    with serving(tmp_path, "canary") as client:
        assert {ask(client) for _ in range(10)} == {("tiny-2", "negative")}
        assert "tiny-1" in chain_of(client)["error"] and "model.onnx is missing" in chain_of(client)["error"]


def test_a_killed_gateway_resumes_the_same_split(tmp_path: Path) -> None:
    first(tmp_path)
    desired = roll_out(tmp_path, 2, Plan(steps=(1.0, 40.0, 100.0), **STILL), sign=-1)
    with rollout_lock(tmp_path, "tiny"):  # as a gateway wrote it in the middle of its steps
        write_rollout(tmp_path, "tiny", Rollout("tiny-2", "tiny-1", desired.began, "canary", 1, 40.0, time.time()))
    seen = []
    for _ in range(2):
        with gateway(tmp_path) as (client, process):
            eventually(lambda client=client: chain_of(client)["split"] == {"tiny-1": 60.0, "tiny-2": 40.0})
            seen.append([ask(client, session=f"client {number}") for number in range(30)])
            process.send_signal(signal.SIGKILL)
    assert seen[0] == seen[1] and len(set(seen[0])) == 2
    assert read_events(tmp_path, "tiny") == []  # nothing began anew


def test_what_is_no_fault_of_the_release_is_not_counted_but_taking_too_long_is(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(100.0,), step_seconds=FOREVER))
    reconciler = Reconciler(tmp_path)
    router = Router(tmp_path, reconciler)
    reconciler.step()
    router.step()

    async def ask_twenty(status: HTTPStatus) -> list[str]:
        async def submit(deployment: Deployment) -> list[Classified]:
            if deployment is not reconciler.live["tiny"]:
                raise ApiError(status, "for a reason")
            return [Classified([0.1, 0.9], 3)]

        return [(await router.answer(reconciler.live["tiny"], "id", None, ["good"], submit))[0].desired.release for _ in range(20)]

    with pytest.raises(ApiError, match="for a reason"):
        asyncio.run(ask_twenty(HTTPStatus.TOO_MANY_REQUESTS))
    assert router._pair(reconciler.live["tiny"])
    assert asyncio.run(ask_twenty(HTTPStatus.GATEWAY_TIMEOUT)) == ["tiny-1"] * 20
    assert router._pair(reconciler.live["tiny"]) is None
    router.close()


def test_a_candidate_that_hangs_costs_its_requests_a_bounded_wait_and_itself_the_rollout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(100.0,), step_seconds=FOREVER, max_p99_ms=20, minimum_requests=2))
    reconciler, released = Reconciler(tmp_path), threading.Event()
    monkeypatch.setattr("llm_assets.serving.gateway.Reconciler", lambda home: reconciler)
    with serving(tmp_path, "canary") as client:
        monkeypatch.setattr(reconciler.candidates["tiny"].engine, "encode", lambda texts: released.wait(60) and [])
        try:
            assert [ask(client) for _ in range(10)] == [("tiny-1", "positive")] * 10  # the first two after half a second of waiting each
            assert "2 of 2 requests failed" in eventually(lambda: chain_of(client)["error"])
        finally:
            released.set()


def test_a_shadow_that_hangs_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(shadow=True, step_seconds=FOREVER, minimum_requests=2))
    reconciler, released = Reconciler(tmp_path), threading.Event()
    monkeypatch.setattr("llm_assets.serving.gateway.Reconciler", lambda home: reconciler)
    monkeypatch.setattr(comparisons, "SECONDS", 0.05)
    with serving(tmp_path, "shadow") as client:
        monkeypatch.setattr(reconciler.candidates["tiny"].engine, "answer", lambda texts: released.wait(60) and [])
        try:
            eventually(lambda: ask(client) == ("tiny-1", "positive") and chain_of(client)["state"] == "rolled_back")
            assert "requests failed" in chain_of(client)["error"]
        finally:
            released.set()


def test_a_long_request_may_take_longer_and_none_for_ever() -> None:
    plan = Plan(max_p99_ms=500)
    assert seconds_for(plan, ["x" * 100]) == pytest.approx(1.02) and seconds_for(plan, ["x" * 5000] * 4) == pytest.approx(5)
    assert seconds_for(plan, ["x" * 1_000_000]) == seconds_for(Plan(max_p99_ms=60_000), ["x"]) == 10


def test_two_gateways_on_one_data_root_agree(tmp_path: Path) -> None:
    first(tmp_path)
    roll_out(tmp_path, 2, Plan(steps=(10.0, 100.0), step_seconds=5, step_requests=0, expected_disagreement=0.0))
    now = [1000.0]
    pairs = []
    for _ in range(2):
        reconciler = Reconciler(tmp_path)
        pairs.append((reconciler, Router(tmp_path, reconciler, clock=lambda: now[0])))

    def step() -> list[Rollout | None]:
        for reconciler, router in pairs:
            reconciler.step()
            router.step()
        for reconciler, _ in pairs:
            reconciler.step()
        return [reconciler.rollouts.get("tiny") for reconciler, _ in pairs]

    def answered(number: int, failed: bool) -> None:
        """One of the two gateways saw this of the newer release."""
        reconciler, router = pairs[number]
        pair = router._pair(reconciler.live["tiny"])
        assert pair
        for _ in range(20):
            pair.watches.candidate.request(failed, milliseconds=1)
        router._judge(pair)

    one, other = step()
    assert one == other and one and one.share == 10
    answered(0, failed=False)
    now[0] += 6
    one, other = step()
    assert one == other and one and one.share == 100
    answered(1, failed=True)
    reconciler, router = pairs[1]
    assert router._pair(reconciler.live["tiny"]) is None  # at once, before anything is written
    one, other = step()
    assert one == other and one and one.stage == "rolled_back"
    assert all(reconciler.candidates == {} for reconciler, _ in pairs)
    assert [event["kind"] for event in read_events(tmp_path, "tiny")] == ["rollout", "rollout", "rollback", "alert"]
    assert rollout_of(tmp_path, read_desired(desired_path(tmp_path, "tiny"))) == one
    for _, router in pairs:
        router.close()


def test_a_distance_that_is_no_number_is_a_failure_and_no_part_of_a_sum(tmp_path: Path) -> None:
    rollout = Rollout("new", "old", "t", "canary", share=50.0)
    pair = Pair("tiny", Deployment(None, None), Deployment(None, None), rollout, Plan(), Watches(step_of(rollout)))  # type: ignore[arg-type]
    router = Router(tmp_path, Reconciler(tmp_path))
    for bits in (0.5, float("nan"), float("inf")):
        router._read(pair, Apart(bits, 1))
    router.close()
    found = pair.watches.candidate.window(500)
    assert (found.compared, found.different, found.errors) == (1, 0.5, 2)
