"""What happens to a chain's service, in Dagster: releases and the service's events as observations of its endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import dagster as dg

from llm_assets.components.llm_chain.registry import mirror_releases
from llm_assets.components.llm_chain.resources import ChainResource
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.serving.events import events_journal
from llm_assets.serving.releases import release_journal
from llm_assets.store.fingerprint import flatten
from llm_assets.store.home import data_root
from llm_assets.store.journal import Entry, Journal

SECONDS = 30  # between two looks
MOST = 100  # entries of each journal in one look; the rest follows with the next


def service_events(spec: Settings) -> dg.SensorDefinition:
    """The sensor that reports a chain's release journal and service events; it starts no run, so it is on whatever `automation` says."""

    @dg.sensor(
        name=f"{spec.name}_service_events",
        minimum_interval_seconds=SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Shows releases, approvals, rollouts, rollbacks, drift, alerts and withdrawn votes of {spec.name} as observations of its "
        "endpoint, and keeps MLflow's aliases as the release journal has them. Starts no run.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen: dict[str, int] = json.loads(context.cursor or "{}")
        news = {source: list(islice(journal.entries(), seen.get(source, 0), seen.get(source, 0) + MOST)) for source, journal in _journals(spec.name)}
        resource = ChainResource(store_root=spec.store, mlflow_uri=spec.mlflow)
        if warning := mirror_releases(resource.store(), resource.tracker(), spec.name):
            context.log.warning(warning)
        if not any(news.values()):
            return dg.SensorResult(skip_reason="nothing new in the release journal or among the service's events", cursor=context.cursor)
        observations = [_observation(spec.name, source, entry) for source in news for entry in news[source] if not entry.get("trial")]
        return dg.SensorResult(
            asset_events=sorted(observations, key=lambda observation: str(observation.metadata["happened_at"].value)),
            cursor=json.dumps({source: seen.get(source, 0) + len(entries) for source, entries in news.items()}),
            skip_reason=f"reported {len(observations)} events; this sensor starts no run",
        )

    return watch


def _journals(chain: str) -> list[tuple[str, Journal]]:
    """Both are only ever appended to, so how many entries were seen is where to go on; a clock that is set back changes nothing."""
    home = data_root()
    return [("release", release_journal(home, chain)), ("event", events_journal(home, chain))]


def _observation(chain: str, source: str, entry: Entry) -> dg.AssetObservation:
    """One entry; its figures as metadata."""
    if source == "release":
        record = entry["record"]
        kind, message = record.get("state", "champion"), _told(record)
        shown = {name: record.get(name) for name in ("release", "previous", "approved_by", "note", "rolled_back_from", "quantized_model")}
        shown |= {f"gate_{name}": value for name, value in (record.get("gate") or {}).items()}
    else:
        kind, message = entry["kind"], entry["message"]
        shown = {name: value for name, value in entry.items() if name not in ("at", "kind", "message")}
    figures: dict[str, Any] = {name: value for name, value in flatten(shown).items() if isinstance(value, int | float | str) and value != ""}
    return dg.AssetObservation(
        asset_key=[chain, "endpoint"],
        description=message,
        metadata={"kind": kind, "happened_at": entry["at"], **figures},
        tags={"llm_assets/event": kind},
    )


def _told(record: Mapping[str, Any]) -> str:
    if left := record.get("rolled_back_from"):
        why = record.get("note") or "no reason given"
        return f"{record['release']} is the champion again, rolled back from {left} by {record['approved_by']}: {why}"
    if record.get("state") == "candidate":
        return f"{record['release']} waits for approval"
    return f"{record['release']} is the champion, approved by {record.get('approved_by', 'auto')}"
