"""Trials: runs whose settings differ from the chain's YAML. They share the store and never move a release."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_assets.components.llm_chain.spec import Settings
from llm_assets.links.chain import CHAIN
from llm_assets.store.files import write_json
from llm_assets.store.fingerprint import flatten


def op_name(chain: str, link: str) -> str:
    """The name Dagster gives the op of an asset."""
    return f"{chain}__{link}"


def overrides(spec: Settings, run_config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's config changes from the chain's YAML: dotted key to value; empty for an ordinary run."""
    ops = run_config.get("ops") or {}
    changed: dict[str, Any] = {}
    for link in CHAIN:
        given = (ops.get(op_name(spec.name, link.name)) or {}).get("config") or {}
        section = getattr(spec, link.name)
        values = section.model_dump(mode="json")
        asked = type(section).model_validate({**values, **given}).model_dump(mode="json")
        before, after = flatten(values), flatten(asked)
        changed |= {f"{link.name}.{key}": after.get(key) for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    return changed


def record_trial(home: Path, run_id: str, chain: str, changed: Mapping[str, Any], link: str, fingerprint: str) -> None:
    """Add a link's artifact to the trial's file, ``trials/<run id>.json``."""
    path = home / "trials" / f"{run_id}.json"
    trial = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"chain": chain, "changed": dict(changed), "artifacts": {}}
    trial["artifacts"][link] = fingerprint
    write_json(path, trial)
