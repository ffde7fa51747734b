"""What of each chain runs by itself, and when next: a line a chain, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._utils.schedules import get_next_cron_tick

from llm_assets.components.llm_chain.spec import Settings
from llm_assets.components.llm_chain.watching import alert_settings

CHOSEN = {InstigatorStatus.RUNNING: True, InstigatorStatus.STOPPED: False}  # by somebody in the UI; any other status is the YAML's word
HINT = " (automation: on in its YAML switches them on, or Automation in the Dagster UI)"


def agenda(instance: dg.DagsterInstance, specs: Iterable[Settings], now: datetime) -> Iterator[str]:
    """A line a chain: each schedule and sensor with its next tick, or off. Switches thrown in the UI count over the YAML."""
    chosen = {state.instigator_name: CHOSEN[state.status] for state in instance.all_instigator_state() if state.status in CHOSEN}
    for spec in specs:
        ticks = {
            "nightly": _next(spec.schedule, now),
            "watching": _next(spec.watching, now),
            "alerts": f"every {alert_settings(spec).seconds} s",
            "retraining": f"every {spec.inbox_seconds} s",
        }
        default = {**dict.fromkeys(ticks, spec.automation), "nightly": spec.automation and not spec.retraining.every}
        on = {name: chosen.get(f"{spec.name}_{name}", default[name]) for name in ticks}
        said = [f"{name} {ticks[name] if on[name] else 'off'}" for name in ticks]
        yield f"{spec.name}: {', '.join(said)}{'' if any(on.values()) else HINT}"


def _next(cron: str, now: datetime) -> str:
    return f"next {get_next_cron_tick(cron, now, 'UTC'):%Y-%m-%d %H:%M} UTC"
