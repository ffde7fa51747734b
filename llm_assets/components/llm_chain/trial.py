"""Trials: runs whose settings differ from the chain's YAML. They share the store and never move a release."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llm_assets.components.llm_chain.spec import Settings
from llm_assets.links.link import Section
from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import flatten


def op_name(chain: str, link: str) -> str:
    """The name Dagster gives the op of an asset."""
    return f"{chain}__{link}"


def overrides(spec: Settings, runs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What the configs of a run and of those it re-executes change from the chain's YAML: dotted key to value.

    Empty for an ordinary run. A re-execution builds on what the first run made, so a trial stays one. What a section counts as
    said of a run is no change: an approval is given in the run's config, and a trial could release nothing.
    """
    changed: dict[str, Any] = {}
    for run_config in runs:
        ops = run_config.get("ops") or {}
        for link in (*spec.links, *spec.OPERATION):
            given = (ops.get(op_name(spec.name, link.name)) or {}).get("config") or {}
            changed |= _changes(getattr(spec, link.name), link.name, given)
    return changed


def _changes(section: Section, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    values = section.model_dump(mode="json")
    before, after = flatten(values), flatten(type(section).model_validate({**values, **given}).model_dump(mode="json"))
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key) and key not in section.SAID_OF_A_RUN}
    return {f"{name}.{key}": after.get(key) for key in changed}


def record_trial(home: Path, run_id: str, chain: str, changed: Mapping[str, Any], link: str, outcome: str) -> None:
    """Add a link's artifact, or an act's journal entry, to the trial's file, ``trials/<run id>.json``."""
    path = home / "trials" / f"{run_id}.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))["outcomes"] if path.exists() else {}
    write_json(path, {"chain": chain, "changed": dict(changed), "outcomes": {**known, link: outcome}})
