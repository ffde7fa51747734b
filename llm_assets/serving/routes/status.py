"""How the service stands: what serves, traffic, rollout, drift and alerts of each chain, read off what the gateway and the acts wrote."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain as chained
from itertools import islice
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from llm_assets.serving.dated_files import dated_files, last_lines
from llm_assets.serving.errors import documented
from llm_assets.serving.events import alerts_path, read_events
from llm_assets.serving.pulse import Pulse
from llm_assets.serving.reconciler import Reconciler
from llm_assets.serving.request_log import log_folder
from llm_assets.store.journal import Journal

NEWEST = 500  # requests of the log whose answers are counted
EVENTS = 20  # newest events
SHARES = 20  # most frequent answers: of a regression each is another


class Minute(BaseModel):
    """What a chain was asked in one minute."""

    at: int = Field(description="unix time of its beginning")
    requests: int
    failed: int = Field(description="answered with 5xx")


class Traffic(BaseModel):
    """What a chain was asked, and what it answered to the newest requests of its log."""

    minutes: list[Minute] = Field(description="oldest first, the last one not over; since the gateway started, an hour at most")
    requests: int = Field(description=f"that the other figures are of: the newest {NEWEST} at most")
    labels: dict[str, float] = Field(description="share of the texts by answer")
    releases: dict[str, float] = Field(description="share of the requests by the release that answered")
    p50_ms: float | None
    p99_ms: float | None


class Rolling(BaseModel):
    """Where a rollout stands."""

    release: str
    stable: str
    stage: str = Field(description="shadow, canary, full or rolled_back")
    share: float = Field(description="percent of the requests that the new release answers")
    steps: list[float] = Field(description="shares that it takes on its way")
    reason: str = Field(description="of a rollback")


class Drift(BaseModel):
    """The newest look for drift."""

    at: str
    drifted: list[str] = Field(description="what differs from the training distribution")
    reason: str


class Firing(BaseModel):
    """An alert that has begun and is not over."""

    rule: str
    since: str
    team: str


class Event(BaseModel):
    """What happened to a chain's service."""

    at: str
    kind: str
    release: str | None
    message: str


class ChainStatus(BaseModel):
    """One chain."""

    chain: str
    state: str = Field(description="full, shadow, canary, rolled_back or loading")
    live: str | None
    desired: str | None
    error: str | None
    split: dict[str, float] = Field(description="percent by release, as it is meant")
    traffic: Traffic
    rollout: Rolling | None
    drift: Drift | None
    alerts: list[Firing]
    events: list[Event] = Field(description="newest first")


class Status(BaseModel):
    """Every chain that is to be served."""

    chains: list[ChainStatus]


def install(app: FastAPI, home: Path, reconciler: Reconciler, pulse: Pulse) -> None:
    """Serve the status of a data root."""

    @app.get("/v1/status", response_model=Status, responses=documented())
    def status() -> JSONResponse:
        """What serves, what it is asked, and what is wrong."""
        return JSONResponse({"chains": [_chain(home, reconciler, pulse, chain, found) for chain, found in reconciler.status().items()]})


def _chain(home: Path, reconciler: Reconciler, pulse: Pulse, chain: str, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "chain": chain,
        **{name: found[name] for name in ("state", "live", "desired", "error", "split")},
        "traffic": {"minutes": [minute._asdict() for minute in pulse.minutes(chain)], **_answered(home, chain)},
        "rollout": _rollout(reconciler, chain),
        "drift": _drift(home, chain),
        "alerts": _firing(home, chain),
        "events": [{name: event[name] for name in ("at", "kind", "release", "message")} for event in reversed(read_events(home, chain)[-EVENTS:])],
    }


def _answered(home: Path, chain: str) -> dict[str, Any]:
    files = reversed(list(dated_files(log_folder(home), chain)))
    lines = list(islice(chained.from_iterable(last_lines(path, NEWEST) for path in files), NEWEST))
    times = sorted(line["milliseconds"] for line in lines)
    return {
        "requests": len(lines),
        "labels": _shares(label for line in lines for label in line.get("labels", ())),
        "releases": _shares(line["release"] for line in lines),
        "p50_ms": _rank(times, 0.5),
        "p99_ms": _rank(times, 0.99),
    }


def _shares(values: Any) -> dict[str, float]:
    counted = Counter(values)
    return {value: count / counted.total() for value, count in counted.most_common(SHARES)}


def _rank(times: Sequence[float], share: float) -> float | None:
    """The quantile of sorted times by nearest rank; None of none."""
    return times[math.ceil(share * len(times)) - 1] if times else None


def _rollout(reconciler: Reconciler, chain: str) -> dict[str, Any] | None:
    rollout, wanted = reconciler.rollouts.get(chain), reconciler.wanted.get(chain)
    if rollout is None or wanted is None or wanted.plan is None:
        return None
    kept = ("release", "stable", "stage", "share", "reason")
    return {**{name: value for name, value in asdict(rollout).items() if name in kept}, "steps": list(wanted.plan.steps)}


def _drift(home: Path, chain: str) -> dict[str, Any] | None:
    found = Journal(home / "journal" / chain / "drift.jsonl").newest(lambda entry: not entry["trial"])
    return {"at": found["at"], **{name: found["record"][name] for name in ("drifted", "reason")}} if found else None


def _firing(home: Path, chain: str) -> list[dict[str, Any]]:
    try:
        state = json.loads(alerts_path(home, chain).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [{"rule": rule, "since": fired["since"], "team": fired.get("team", fired["role"])} for rule, fired in state["firing"].items()]
