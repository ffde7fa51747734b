"""What MLflow is told about one made artifact, as plain data that can wait on the disk for an unreachable server."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import flatten

REFUSED = re.compile(r"[^\w.\- :/]")  # in a metric's name
TRACKING = "tracking.json"  # sidecar of a made artifact: its MLflow run
CURVE = "curve.parquet"  # a trained link's metrics a step, with a column `step`


class RunRecord(BaseModel):
    """One MLflow run: one made materialization."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")  # JSON knows no NaN, which a figure may be
    chain: str
    link: str
    fingerprint: str
    dagster_run_id: str | None
    directory: str
    trained: bool
    started_ms: int = Field(description="milliseconds since the epoch, as MLflow counts")
    ended_ms: int
    params: dict[str, str]
    metrics: dict[str, float]
    curve: list[tuple[int, str, float]] = Field(description="step, metric, value")
    inputs: list[tuple[str, str, str]] = Field(description="name, digest, source")
    tags: dict[str, str]


def record_of(chain: str, artifact: Artifact) -> RunRecord:
    """The record of an artifact: its recipe as parameters, its figures, its curve, its inputs with their digests."""
    from datetime import datetime

    manifest = artifact.manifest
    started = int(datetime.fromisoformat(manifest.started).timestamp() * 1000)
    observed = manifest.recipe.get("observed", {})
    return RunRecord(
        chain=chain,
        link=artifact.link,
        fingerprint=artifact.fingerprint,
        dagster_run_id=manifest.dagster_run_id,
        directory=str(artifact.directory),
        trained=manifest.data_version == manifest.fingerprint,
        started_ms=started,
        ended_ms=started + int(manifest.seconds * 1000),
        params={key: str(value) for key, value in flatten({"config": manifest.recipe["config"], "seed": manifest.recipe["seed"]}).items()},
        metrics={
            **_numbers(flatten(manifest.metrics)),
            "cost.seconds": manifest.seconds,
            "cost.core_seconds": manifest.core_seconds,
            "cost.peak_memory_bytes": float(manifest.peak_memory_bytes),
            **({"cost.energy_joules": manifest.energy_joules} if manifest.energy_joules is not None else {}),
        },
        curve=_curve(artifact),
        inputs=[(name, entry.data_version, f"{entry.link}/{entry.fingerprint}") for name, entry in manifest.inputs.items()]
        + [(name, str(flatten(value)), name) for name, value in observed.items()],
        tags={
            "dagster.run_id": manifest.dagster_run_id or "",
            "dagster.asset_key": f"{chain}/{artifact.link}",
            "llm_assets.fingerprint": artifact.fingerprint,
            "llm_assets.data_version": artifact.data_version,
            "llm_assets.directory": str(artifact.directory),
            "mlflow.runName": f"{artifact.link} {artifact.fingerprint[:8]}",
            "mlflow.source.git.commit": str(manifest.code.get("commit") or ""),
        },
    )


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """The figures by name; labels stand in names, and may hold signs that MLflow refuses."""
    return {REFUSED.sub("_", key): float(value) for key, value in values.items() if isinstance(value, (int, float)) and not isinstance(value, bool)}


def _curve(artifact: Artifact) -> list[tuple[int, str, float]]:
    if CURVE not in artifact.manifest.files:
        return []
    points = []
    for row in artifact.table(CURVE).to_pylist():
        step = int(row.pop("step"))
        points += [(step, name, value) for name, value in _numbers(row).items() if value == value]
    return points
