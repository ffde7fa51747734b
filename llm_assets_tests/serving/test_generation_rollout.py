"""Two releases of a decoder side by side: a canary split by request, one that dies, a shadow, a rollback."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import httpx

from llm_assets.serving.rollback import roll_back_by_hand
from llm_assets.serving.rollout import Plan
from llm_assets.serving.state import desired_path, read_desired, rollout_of
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.talking import deploy, roll_out

FOREVER = 1e9
PLAN = {"step_seconds": FOREVER, "max_error_rate": 1.0, "max_p99_ms": FOREVER, "max_extra_disagreement": 1.0}


def state(client: httpx.Client) -> str:
    return str(client.get("/readyz").json()["chains"]["talk"]["state"])


def ask(client: httpx.Client, session: str, stream: bool = False) -> str:
    """The release that answered."""
    body = {"model": "talk", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "temperature": 0, "stream": stream}
    response = client.post("/v1/chat/completions", json=body, headers={"X-Session-Id": session})
    assert response.status_code == 200, response.text
    return next(name for name in ("talk-1", "talk-2") if f'"release":"{name}"' in response.text)


def test_a_canary_takes_its_share_and_a_rollback_takes_it_back(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        client.timeout = httpx.Timeout(60)
        roll_out(tmp_path, 2, Plan(steps=(50.0, 100.0), **PLAN), seed=1)
        eventually(lambda: state(client) == "canary")
        answered = [ask(client, str(number)) for number in range(24)]
        assert min(Counter(answered)["talk-1"], Counter(answered)["talk-2"]) >= 4
        assert [ask(client, str(number), stream=True) for number in range(6)] == answered[:6]  # a session keeps its release
        roll_back_by_hand(tmp_path, "talk", "talk-1", "tester", "")
        eventually(lambda: state(client) == "full")
        assert {ask(client, str(number)) for number in range(6)} == {"talk-1"}


def test_a_shadow_hears_every_request_and_takes_over(tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        client.timeout = httpx.Timeout(60)
        plan = {**PLAN, "step_seconds": 0.0}
        roll_out(tmp_path, 2, Plan(steps=(100.0,), shadow=True, step_requests=2, minimum_requests=1, **plan), seed=1)
        eventually(lambda: state(client) == "shadow")
        eventually(lambda: ask(client, "one") == "talk-2")
    rollout = rollout_of(tmp_path, read_desired(desired_path(tmp_path, "talk")))
    assert rollout and not rollout.reason
