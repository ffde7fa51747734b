"""release: numbers the quantized model that passed the scorecard's gates, and records it as the chain's champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from llm_assets.links.link import Acted, Check, Entry, Link, Office, Section
from llm_assets.serving.releases import champion, next_number
from llm_assets.serving.state import relative_to_home
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.verdict import Verdict

SERVED = ("model.onnx", "tokenizer.json", "serving.json")


class ReleaseConfig(Section):
    """How a model becomes a release."""

    approval: Literal["auto"] = Field("auto", description="auto: a model whose gates passed is released")
    note: str = Field("", description="free text kept with the release")


def release(office: Office, config: ReleaseConfig, scorecard: Entry, quantized_model: Artifact) -> Acted:
    """The quantized model as release ``<chain>-<n>``, the chain's new champion.

    Runs only when every gate of the scorecard passed. A model that is the champion already stays the same release; anything
    else gets the next number, an older model that comes back included. The journal of this asset is the truth about releases:
    MLflow's aliases mirror it, and the gateway serves the files whose hashes stand in it. Raises ``ValueError`` when the
    scorecard judged another model.
    """
    judged = scorecard.get("quantized_model")
    if judged != quantized_model.fingerprint:
        raise ValueError(f"the scorecard judged quantized_model {judged}, not {quantized_model.fingerprint}: materialize scorecard, then release")
    newest = champion(office.journal)
    if newest and newest["quantized_model"] == quantized_model.fingerprint:
        return Acted(newest, newest["release"])
    number = next_number(office.journal)
    name = f"{office.chain}-{number}"
    before = newest["release"] if newest else None
    record = {
        "release": name,
        "number": number,
        "quantized_model": quantized_model.fingerprint,
        "directory": relative_to_home(office.home, quantized_model.directory),
        "files": {file: quantized_model.manifest.files[file].sha256 for file in SERVED},
        "previous": before,
        "aliases": {"candidate": name, "champion": name, "previous": before},
        "metrics": _metrics(scorecard),
        "approved_by": config.approval,
        "note": config.note,
    }
    return Acted(record, name)


def _metrics(scorecard: Entry) -> dict[str, Any]:
    """What the scorecard says of the quantized model. Raises ``KeyError`` naming what it judged instead."""
    models = {model["name"]: dict(model) for model in scorecard["models"]}
    if "quantized" not in models:
        raise KeyError(f"the scorecard judges {', '.join(models) or 'nothing'} and no quantized model: materialize scorecard again")
    return models["quantized"]


def _files_are_whole(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    model: Artifact = inputs["quantized_model"]
    try:
        model.verify()
    except ArtifactError as error:
        return Verdict(check="files_are_whole", passed=False, description=str(error))
    found = f"all {len(model.manifest.files)} files of {model.fingerprint} have the hashes of its manifest"
    return Verdict(check="files_are_whole", passed=True, description=found)


LINK = Link(
    name="release",
    version=1,
    make=release,
    config=ReleaseConfig,
    inputs=("scorecard", "quantized_model"),
    stage="service",
    role="product_manager",
    kinds=("python",),
    checks=(Check("files_are_whole", "The model's files still have the hashes its manifest records.", _files_are_whole),),
    act=True,
)
