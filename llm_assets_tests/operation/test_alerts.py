from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from llm_assets.links.making import judge
from llm_assets.operation import alerts
from llm_assets.operation.alerts import LINK, AlertsConfig, Outcome, look
from llm_assets.operation.counters import answers_counted
from llm_assets.serving.events import read_events
from llm_assets.serving.metrics import Metrics
from llm_assets.serving.rollout import Plan, begin, rolled_back
from llm_assets.serving.state import rollout_lock, write_desired, write_rollout
from llm_assets_tests.operation.released import office, release, release_talking, texts
from llm_assets_tests.operation.servers import Web, running
from llm_assets_tests.operation.traffic import NOON, line, reply, write_log
from llm_assets_tests.serving.tiny import release as served
from llm_assets_tests.serving.tiny import roll_out

RULE = "negative_share > 0.6 over 15m"


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Web()
    with running(server):
        monkeypatch.setenv("HOOK", server.url)
        yield server


def ask(home: Path, label: str, minutes: float, count: int = 20) -> None:
    write_log(home, [line(n, "房间", labels=[label], at=NOON + timedelta(minutes=minutes)) for n in range(count)])


def at(home: Path, minutes: float, config: AlertsConfig) -> Outcome:
    return look(home, "tiny", config, NOON + timedelta(minutes=minutes))


def test_one_message_when_it_begins_and_one_when_it_is_over(tmp_path: Path, web: Web) -> None:
    config = AlertsConfig(rules=[RULE], webhooks=["HOOK"])
    ask(tmp_path, "positive", 0)
    assert at(tmp_path, 1, config).changes == []
    ask(tmp_path, "negative", 20)
    assert set(at(tmp_path, 21, config).firing) == {RULE}
    assert at(tmp_path, 22, config).changes == [] and set(at(tmp_path, 23, config).firing) == {RULE}
    assert set(at(tmp_path, 60, config).firing) == {RULE}  # no requests are no sign that it is over
    ask(tmp_path, "positive", 61)
    assert at(tmp_path, 62, config).firing == {}
    assert [(body["kind"], body["rule"], body["value"]) for body in web.bodies] == [("alert", RULE, 1.0), ("resolved", RULE, 0.0)]
    assert web.bodies[0]["message"] == f"tiny alert: {RULE}: 1, of 20 texts; no release; for team:operations_engineer"
    assert "since 2026-11-20T12:21:00 UTC" in web.bodies[1]["message"]
    assert [(event["kind"], event["rule"]) for event in read_events(tmp_path, "tiny")] == [("alert", RULE), ("resolved", RULE)]


def test_what_a_channel_does_not_take_waits_and_comes_in_order(tmp_path: Path, web: Web) -> None:
    config = AlertsConfig(rules=[RULE], webhooks=["HOOK"])
    web.status = 500
    ask(tmp_path, "negative", 0)
    assert at(tmp_path, 1, config).undelivered == ["webhook HOOK: it answered 500"]
    ask(tmp_path, "positive", 20)
    assert at(tmp_path, 21, config).undelivered == ["webhook HOOK: it answered 500"]
    assert len(web.bodies) == 2  # one a look, though two messages wait
    web.status, web.bodies = 200, []
    assert at(tmp_path, 22, config).undelivered == []
    assert [body["kind"] for body in web.bodies] == ["alert", "resolved"]
    web.status = 500
    ask(tmp_path, "negative", 60)
    at(tmp_path, 61, config)
    web.status, web.bodies = 200, []
    assert at(tmp_path, 61 + 25 * 60, config).undelivered == [] and web.bodies == []  # nobody wants yesterday's


def test_a_rule_taken_out_of_the_yaml_is_over(tmp_path: Path) -> None:
    ask(tmp_path, "negative", 0)
    at(tmp_path, 1, AlertsConfig(rules=[RULE]))
    (change,) = at(tmp_path, 2, AlertsConfig()).changes
    assert change["kind"] == "resolved" and "taken out of the YAML" in change["message"]


def test_a_rollback_by_the_gateway_is_told_once_and_its_end(tmp_path: Path, web: Web) -> None:
    config = AlertsConfig(rules=["rollback"], webhooks=["HOOK"])
    write_desired(tmp_path, "tiny", served(tmp_path, 1))
    desired = roll_out(tmp_path, 2, Plan())
    assert at(tmp_path, 0, config).changes == []
    with rollout_lock(tmp_path, "tiny"):
        write_rollout(tmp_path, "tiny", rolled_back(begin("tiny-2", "tiny-1", desired.began, Plan(), 0.0), "9 of 10 requests failed"))
    assert set(at(tmp_path, 1, config).firing) == {"rollback"} and at(tmp_path, 2, config).changes == []
    write_desired(tmp_path, "tiny", served(tmp_path, 1))
    assert at(tmp_path, 3, config).firing == {}
    assert [body["kind"] for body in web.bodies] == ["alert", "resolved"]
    assert "tiny-2 was rolled back to tiny-1: 9 of 10 requests failed" in web.bodies[0]["message"]
    assert [event["kind"] for event in read_events(tmp_path, "tiny")] == ["resolved"]  # the alert is the gateway's own event


def test_the_owner_of_what_is_wrong_is_named(tmp_path: Path) -> None:
    release(tmp_path, texts(4, 1))
    record = {"release": "tiny-1", "judged": True, "drifted": ["length"], "reason": "length differ", "estimated_accuracy": 0.5}
    office(tmp_path, "drift").journal.append({"trial": False, "record": record})
    found = at(tmp_path, 0, AlertsConfig(rules=["stale_model > 10d", "drift", "estimated_accuracy < 0.8"]))
    said = {change["rule"]: change["message"] for change in found.changes}
    assert said["stale_model > 10d"].endswith("tiny-1 was made 19.5 days ago; tiny-1; for team:data_scientist")
    assert "length differ; tiny-1; for team:operations_engineer" in said["drift"] and len(said) == 3


def test_the_owner_is_named_as_the_chain_names_it(tmp_path: Path, web: Web) -> None:
    config, teams = AlertsConfig(rules=[RULE], webhooks=["HOOK"]), {"operations_engineer": "night-watch", "data_scientist": "research"}
    ask(tmp_path, "negative", 0)
    look(tmp_path, "tiny", config, NOON + timedelta(minutes=1), teams)
    ask(tmp_path, "positive", 20)
    look(tmp_path, "tiny", config, NOON + timedelta(minutes=21), {"operations_engineer": "day-watch"})  # renamed while it lasts
    assert [(body["role"], body["team"]) for body in web.bodies] == [("operations_engineer", "night-watch")] * 2
    assert all(body["message"].endswith("for team:night-watch") for body in web.bodies)
    assert [event["team"] for event in read_events(tmp_path, "tiny")] == ["night-watch"] * 2
    act = LINK.make(replace(office(tmp_path, "alerts"), teams={"operations_engineer": "act-watch"}), AlertsConfig(rules=["requests < 1 over 1h"]))
    assert [message.endswith("for team:act-watch") for message in act.record["changes"]] == [True]


def test_the_gateways_counters_are_looked_at(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    def counters(errors: int) -> str:
        name = "llm_assets_requests_total"
        rows = [('chain="tiny",release="tiny-1",status="200"', 100), ('chain="tiny",release="tiny-1",status="503"', errors)]
        rows += [('chain="tiny",release="",status="404"', 50), ('chain="other",release="",status="500"', 9)]
        return f"# HELP {name} Questions\n" + "".join(f"{name}{{{labels}}} {float(value)}\n" for labels, value in rows)

    config = AlertsConfig(rules=["error_rate > 0.01 over 5m"], minimum_requests=5)
    monkeypatch.setattr(alerts, "gateway_state", lambda home: {"url": web.url})
    web.page = counters(0)
    assert answers_counted(web.url, "tiny") == (0, 150)
    assert at(tmp_path, 0, config).firing == {}
    web.page = counters(7)
    (change,) = at(tmp_path, 1, config).changes
    assert change["value"] == 1 and "7 of 7 requests" in change["message"]
    assert answers_counted("http://127.0.0.1:9", "tiny") is None


def test_the_counters_are_the_ones_that_the_gateway_has(web: Web) -> None:
    metrics = Metrics()
    for status in (200, 200, 503, 404):
        metrics.answered("tiny", "tiny-1", status, 0.003, 5)
    web.page = metrics.text()[0].decode()
    assert answers_counted(web.url, "tiny") == (1, 4)


def test_the_act_tells_what_fires_and_what_waits(tmp_path: Path) -> None:
    config = AlertsConfig(rules=["requests < 1 over 5m"], webhooks=["NOT_SET"])
    acted = alerts.alerts(office(tmp_path, "alerts"), config)
    fires, delivered = judge(LINK, acted.record, {})
    assert not fires.passed and "requests < 1 over 5m, since" in fires.description and not fires.blocking
    assert not delivered.passed and "NOT_SET is not set" in delivered.description
    calm = alerts.alerts(office(tmp_path, "alerts"), AlertsConfig())
    assert all(verdict.passed for verdict in judge(LINK, calm.record, {}))


def test_a_bad_rule_is_refused_with_the_forms_there_are() -> None:
    with pytest.raises(ValidationError, match=r"'negative > 0\.6' is no rule; there are: `LABEL_share"):
        AlertsConfig(rules=["negative > 0.6"])
    with pytest.raises(ValidationError, match="stands twice"):
        AlertsConfig(rules=["drift", "drift"])


def test_of_a_model_that_talks_a_rule_asks_how_its_replies_ended(tmp_path: Path) -> None:
    release_talking(tmp_path, [("你好", "在的")] * 20)
    config = AlertsConfig(rules=["length_share > 0.5 over 15m", RULE])
    write_log(tmp_path, [reply(n, "十元", "多少钱", at=NOON.isoformat(), finish="length" if n % 3 else "stop") for n in range(30)])
    found = at(tmp_path, 1, config)
    assert set(found.firing) == {config.rules[0]} and found.readings[config.rules[0]].value == pytest.approx(2 / 3)
    assert "answers with stop, length, broken off, not with negative" in found.readings[RULE].why
