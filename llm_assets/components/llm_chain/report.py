"""What an asset shows in the UI: counts, pictures, cost, path, MLflow link and verdicts."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from llm_assets.audit.current import ENTRY, FINGERPRINT, TRIAL
from llm_assets.serving.state import act_page_url, page_url
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import flatten
from llm_assets.store.verdict import VERDICT_PAGES, Verdict
from llm_assets.tracking.tracker import Sent

Metadata = dict[str, Any]
RECORDS = "cost_records_seconds"  # of a materialization's and of the check lineage's metadata: what of its time went into records


def artifact_metadata(artifact: Artifact, home: Path, reused: bool, trial: bool, sent: Sent) -> Metadata:
    """Metadata of a made link's materialization; its pages are links to the gateway of the data root ``home``."""
    manifest = artifact.manifest
    metadata: Metadata = {
        **_figures(artifact.metrics),
        FINGERPRINT: artifact.fingerprint,
        "path": dg.MetadataValue.path(artifact.directory),
        "size_bytes": manifest.size,
        "reused": reused,
        TRIAL: trial,
        "licenses": ", ".join(manifest.licenses) or "none stated",
        **_cost(manifest.model_dump()),
        **_pictures(artifact.directory / "plots"),
        **{f"page_{path.stem}": _page(artifact, home, path) for path in _pages(artifact.directory)},
    }
    if sent.url:
        metadata["mlflow_run"] = dg.MetadataValue.url(sent.url)
    if sent.warning:
        metadata["mlflow_warning"] = sent.warning
    return metadata


def act_metadata(entry: Mapping[str, Any], directory: Path, home: Path, trial: bool) -> Metadata:
    """Metadata of an act's materialization; its pages are links to the gateway of the data root ``home``."""
    report = directory / "scorecard.md"
    return {
        **_figures(entry["record"]),
        ENTRY: entry["at"],
        "path": dg.MetadataValue.path(directory),
        TRIAL: trial,
        **_cost(entry),
        **({"report": dg.MetadataValue.md(report.read_text(encoding="utf-8"))} if report.exists() else {}),
        **{f"page_{path.stem}": dg.MetadataValue.url(act_page_url(home, directory, f"pages/{path.name}")) for path in _pages(directory)},
        **_pictures(directory / "plots"),
    }


def check_pages(artifact: Artifact, home: Path) -> dict[str, Metadata]:
    """For each check that came with a page, the link to it."""
    return {path.stem: {"page": _page(artifact, home, path)} for path in sorted((artifact.directory / VERDICT_PAGES).glob("*.html"))}


def check_results(
    verdicts: Sequence[Verdict | Mapping[str, Any]], team: str, pages: Mapping[str, Metadata] | None = None
) -> list[dg.AssetCheckResult]:
    """Verdicts as Dagster's check results, each with the ``team`` that answers for it and its page; one that does not block is a warning."""
    parsed = [Verdict.model_validate(verdict) if isinstance(verdict, Mapping) else verdict for verdict in verdicts]
    return [
        dg.AssetCheckResult(
            check_name=verdict.check,
            passed=verdict.passed,
            severity=dg.AssetCheckSeverity.ERROR if verdict.blocking else dg.AssetCheckSeverity.WARN,
            description=verdict.description,
            metadata={"team": team, **_figures(verdict.values), **(pages or {}).get(verdict.check, {})},
        )
        for verdict in parsed
    ]


def _figures(values: Mapping[str, Any]) -> Metadata:
    """Numbers and short texts as they are, dotted where nested."""
    return {key.replace(" ", "_"): value for key, value in flatten(dict(values)).items() if isinstance(value, (int, float, str, bool))}


def _cost(values: Mapping[str, Any]) -> Metadata:
    names = ("seconds", "core_seconds", "peak_memory_bytes", "energy_joules")  # the last one where the machine shows it
    return {f"cost_{name}": values[name] for name in names if values.get(name) is not None}


def _pages(directory: Path) -> list[Path]:
    return sorted((directory / "pages").glob("*.html"))


def _page(artifact: Artifact, home: Path, path: Path) -> dg.UrlMetadataValue:
    return dg.MetadataValue.url(page_url(home, artifact.link, artifact.fingerprint, f"{path.parent.name}/{path.name}"))


def _pictures(folder: Path) -> Metadata:
    """Every picture of a folder, inline, since the UI opens no local files."""
    return {
        f"plot_{path.stem}": dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})")
        for path in sorted(folder.glob("*.png"))
    }
