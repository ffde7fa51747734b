"""alerts: whether a rule of the YAML is broken now; who is told, once when it begins and once when it is over."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import Field, field_validator

from llm_assets.links import endpoint, finetuned_model
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.operation import drift
from llm_assets.operation.champion import Released, released
from llm_assets.operation.channels import Channel, ChannelError, Email, Slack, channels
from llm_assets.operation.counters import answers_counted
from llm_assets.operation.log import requests_since
from llm_assets.operation.rules import Reading, Rule, Signals, parse, read
from llm_assets.serving.answers import FINISHES
from llm_assets.serving.events import alerts_path, append_event
from llm_assets.serving.generation import TASK
from llm_assets.serving.state import gateway_state, newest_rollout
from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import digest
from llm_assets.store.journal import Journal
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.verdict import Verdict

logger = logging.getLogger(__name__)

KEPT = timedelta(days=1)  # that a message which no channel took is tried again
ROLES = {"drift": drift.LINK.role, "estimated_accuracy": drift.LINK.role, "stale_model": finetuned_model.LINK.role}  # others: the endpoint's


class AlertsConfig(Section):
    """What is alarming, and who is told; the log and the journal of events always are."""

    rules: list[str] = Field(
        default_factory=list,
        description="such as `negative_share > 0.6 over 15m`, `error_rate > 0.01 over 5m`, `p99_ms > 200 over 15m`, `drift`, `rollback`, "
        "`stale_model > 30d`",
    )
    minimum_requests: int = Field(20, ge=1, description="of a rule's window, below which shares, errors and latency say nothing")
    seconds: int = Field(60, ge=10, description="between two looks of the sensor")
    webhooks: list[str] = Field(default_factory=list, description="environment variables that hold addresses to POST to as JSON")
    email: Email = Field(Email(), description="whom to write to")
    slack: Slack = Field(Slack(), description="where to write in Slack")

    @field_validator("rules")
    @classmethod
    def _are_rules(cls, rules: list[str]) -> list[str]:
        for rule in rules:
            parse(rule)
        if len(set(rules)) < len(rules):
            raise ValueError("a rule stands twice; leave one out")
        return rules

    def parsed(self) -> list[Rule]:
        """The rules."""
        return [parse(rule) for rule in self.rules]


@dataclass(frozen=True)
class Outcome:
    """What one look at the rules came to."""

    readings: Mapping[str, Reading]
    firing: Mapping[str, str]  # rule -> since when
    changes: Sequence[Mapping[str, Any]]  # the messages of this look
    undelivered: Sequence[str]  # "channel: why", of messages that wait


def alerts(office: Office, config: AlertsConfig) -> Acted:
    """Reads the rules off the request log, the gateway's counters and rollout, the newest look for drift and the age of the model.

    A rule that begins to hold sends one message to every channel, and one when it is over; in between there is silence.
    Without requests enough to judge by, a rule stays as it is. A message that a channel does not take waits, for a day.
    The sensor `<chain>_alerts` does the same between materializations.
    """
    outcome = look(office.home, office.chain, config, teams=office.teams)
    record = {
        "rules": len(config.rules),
        "firing": dict(outcome.firing),
        "changes": [change["message"] for change in outcome.changes],
        "readings": {rule: {"value": reading.value, "why": reading.why} for rule, reading in outcome.readings.items()},
        "undelivered": list(outcome.undelivered),
    }
    return Acted(record, digest(sorted(outcome.firing))[:24])


def look(home: Path, chain: str, config: AlertsConfig, now: datetime | None = None, teams: Mapping[str, str] = {}) -> Outcome:
    """Read every rule, tell of what began and what ended, and deliver what waits. One at a time for each chain.

    ``teams`` are the teams by role that the chain names otherwise.
    """
    moment = now or datetime.now(UTC)
    path = alerts_path(home, chain)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        state = _read_state(path)
        rules = config.parsed()
        longest = timedelta(seconds=max((rule.seconds for rule in rules), default=0))
        state["counters"] = _counted(home, chain, state["counters"], moment, longest)
        signals = signals_of(home, chain, state["counters"], moment, longest)
        readings = {rule.text: read(rule, signals, config.minimum_requests) for rule in rules}
        changes = _changes(chain, rules, readings, state["firing"], signals, teams)
        for change in changes:
            if (change["rule"].strip(), change["kind"]) == ("rollback", "alert"):
                continue  # the gateway told of it when it did so
            append_event(home, chain, **{key: change[key] for key in ("kind", "message", "release", "rule", "value", "role", "team")})
            logger.warning("%s", change["message"])
        ways = list(channels(config.webhooks, config.email, config.slack))
        state["waiting"] += [{"channel": way.name, "since": moment.isoformat(), "body": change} for change in changes for way in ways]
        state["waiting"], undelivered = _deliver(ways, state["waiting"], moment)
        write_json(path, state)
    return Outcome(readings, {text: fired["since"] for text, fired in state["firing"].items()}, changes, undelivered)


def signals_of(home: Path, chain: str, counters: Sequence[Sequence[Any]], moment: datetime, longest: timedelta) -> Signals:
    """What a chain's service shows now."""
    try:
        release = released(home, chain)
    except ArtifactError:  # its model is not on this machine: its age is not known, all else is
        release = None
    newest = Journal(home / "journal" / chain / "drift.jsonl").newest(lambda entry: not entry["trial"] and entry["record"]["judged"])
    return Signals(
        now=moment,
        requests=requests_since(home, chain, moment - longest),
        counters=[(datetime.fromisoformat(at), errors, answers) for at, errors, answers in counters],
        drift=newest["record"] if newest else None,
        rollout=newest_rollout(home, chain),
        release=release.name if release else None,
        made=datetime.fromisoformat(release.model.manifest.started) if release else None,
        labels=_labels(release) if release else (),
    )


def _labels(release: Released) -> Sequence[str]:
    """What a rule may ask the share of: labels, or how replies end; nothing where answers are numbers."""
    if release.settings.get("task") == TASK:
        return FINISHES
    return () if release.settings.get("problem") == "regression" else list(release.settings["labels"])


def _changes(
    chain: str, rules: Sequence[Rule], readings: Mapping[str, Reading], firing: dict[str, Any], signals: Signals, teams: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The messages of what began and ended; ``firing`` is brought up to date."""
    changes = []
    for rule in rules:
        reading = readings[rule.text]
        if reading.value is None:
            continue
        if rule.holds(reading.value) and rule.text not in firing:
            role = ROLES.get(rule.metric, endpoint.LINK.role)
            firing[rule.text] = {"since": signals.now.isoformat(), "role": role, "team": teams.get(role, role)}
            changes.append(_message(chain, "alert", rule.text, reading, firing[rule.text], signals.release))
        elif not rule.holds(reading.value) and rule.text in firing:
            changes.append(_message(chain, "resolved", rule.text, reading, firing.pop(rule.text), signals.release))
    for text in firing.keys() - readings.keys():
        changes.append(_message(chain, "resolved", text, Reading(None, "the rule was taken out of the YAML"), firing.pop(text), signals.release))
    return changes


def _message(chain: str, kind: str, rule: str, reading: Reading, fired: Mapping[str, Any], release: str | None) -> dict[str, Any]:
    value = f"{reading.value:.4g}, " if reading.value is not None else ""
    since = f" (since {fired['since'][:19]} UTC)" if kind == "resolved" else ""
    team = fired.get("team", fired["role"])  # one that began under an earlier version has none
    text = f"{chain} {kind}: {rule}: {value}{reading.why}{since}; {release or 'no release'}; for team:{team}"
    return {
        "chain": chain, "kind": kind, "rule": rule, "value": reading.value, "release": release, "role": fired["role"], "team": team,
        "since": fired["since"], "message": text,
    }  # fmt: skip


def _deliver(ways: Sequence[Channel], waiting: Sequence[Mapping[str, Any]], moment: datetime) -> tuple[list[Any], list[str]]:
    """Send what waits, oldest first; returns what still waits and why. What no channel took for a day, or whose channel is gone, is dropped."""
    by_name = {way.name: way for way in ways}
    left: list[Any] = []
    failed: dict[str, str] = {}  # a channel that failed is not asked again in this look: each time may take seconds
    for entry in waiting:
        way = by_name.get(entry["channel"])
        if way is None or moment - datetime.fromisoformat(entry["since"]) > KEPT:
            logger.warning("%s: given up: %s", entry["channel"], entry["body"]["message"])
            continue
        if way.name not in failed:
            try:
                way.send(entry["body"])
                continue
            except ChannelError as error:
                failed[way.name] = f"{way.name}: {error}"
        left.append(entry)
    return left, list(failed.values())


def _counted(home: Path, chain: str, looks: Sequence[Any], moment: datetime, longest: timedelta) -> list[Any]:
    """The looks at the gateway's counters with one more, where a gateway runs; those that no window reaches back to are dropped."""
    state = gateway_state(home)
    counted = answers_counted(state["url"], chain) if state else None
    kept = [look for look in looks if datetime.fromisoformat(look[0]) >= moment - longest]
    before = [look for look in looks if datetime.fromisoformat(look[0]) < moment - longest][-1:]
    return [*before, *kept, *([[moment.isoformat(), *counted]] if counted else [])]


def _read_state(path: Path) -> dict[str, Any]:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"firing": {}, "waiting": [], "counters": [], **known}


def _nothing_fires(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    firing = record["firing"]
    said = "; ".join(f"{rule}, since {since[:19]} UTC" for rule, since in firing.items()) or f"none of the {record['rules']} rules holds"
    return Verdict(check="nothing_fires", passed=not firing, description=said, values={"firing": len(firing)})


def _delivered(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    waiting = record["undelivered"]
    return Verdict(check="delivered", passed=not waiting, description="; ".join(waiting) or "every channel took every message")


LINK = Link(
    name="alerts",
    version=1,
    make=alerts,
    config=AlertsConfig,
    inputs=(),
    stage="service",
    role="operations_engineer",
    kinds=("python",),
    checks=(
        Check("nothing_fires", "No rule of the YAML is broken now.", _nothing_fires, blocking=False),
        Check("delivered", "Every channel took every message.", _delivered, blocking=False),
    ),
    act=True,
    reads=("drift", "traffic", "release"),  # traffic stands for the request log, which it reads to the last second
)
