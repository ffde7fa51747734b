"""release: numbers the quantized model that passed the scorecard's gates, and records it as champion or as a candidate that waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from llm_assets.links.link import Acted, Check, Entry, Link, Office, Section
from llm_assets.serving.events import append_event
from llm_assets.serving.releases import CANDIDATE, CHAMPION, Record, ReleaseError, Standing, next_number, standing, verify_files
from llm_assets.serving.state import relative_to_home
from llm_assets.store.artifact import Artifact
from llm_assets.store.manifest import ArtifactError
from llm_assets.store.verdict import Verdict

GATE = (  # what of the scorecard's comparison a release carries: whom it was held against, and what its canary is to expect
    *("release", "outcome", "found"),
    *("disagreement", "disagreement_on_test", "disagreement_on_traffic", "traffic_texts", "prediction"),
)
OF_REPLIES = ("unit", "disagreement_in_ranking")  # and where replies were compared
SERVED = ("serving.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # beside the model, where a model has them


class ReleaseConfig(Section):
    """How a model becomes a release, and in a run's config who approves one."""

    SAID_OF_A_RUN: ClassVar[frozenset[str]] = frozenset({"approved_by", "candidate", "note"})

    approval: Literal["auto", "by_hand"] = Field(
        "auto", description="auto: a model whose gates passed is released; by_hand: it waits as a candidate until somebody approves it"
    )
    approved_by: str = Field("", description="in a run's config: who approves, recorded as claimed")
    candidate: str = Field("", description="in a run's config: the waiting release that is approved; default: the model that the scorecard judged")
    note: str = Field("", description="free text kept with the release")


def release(office: Office, config: ReleaseConfig, scorecard: Entry, quantized_model: Artifact) -> Acted:
    """The quantized model as release ``<chain>-<n>``, the chain's new champion or, until approved, a candidate.

    Runs only when every gate of the scorecard passed. A model that is the champion already stays the same release; anything
    else gets the next number, an older model that comes back included. With `approval: by_hand` it waits until this asset is
    materialized with `approved_by` in its run config (`llm-assets approve` does that). A model that was rolled back from waits
    too, whatever `approval` says: a run that makes it again must not bring it back. The journal of this asset is the truth about
    releases: MLflow's aliases mirror it, and the gateway serves the files whose hashes stand in it. Raises ``ValueError`` when
    the scorecard judged another model, ``ReleaseError`` for an approval of what does not wait, or whose files are damaged.
    """
    known = standing(office.journal)
    if config.candidate:
        if not config.approved_by:
            raise ReleaseError(f"release: candidate {config.candidate} is named and nobody approves it: say who in approved_by")
        if known.champion and known.champion["release"] == config.candidate:
            return Acted(known.champion, config.candidate)  # approved already, by a run that this one repeats
        return _approved(office, config, known, _waiting(office, known, config.candidate))
    judged = scorecard.get("quantized_model")
    if judged != quantized_model.fingerprint:
        raise ValueError(f"the scorecard judged quantized_model {judged}, not {quantized_model.fingerprint}: materialize scorecard, then release")
    if known.champion and known.champion["quantized_model"] == quantized_model.fingerprint:
        return Acted(known.champion, known.champion["release"])
    proposed = _known(known, quantized_model.fingerprint) or _new(office, config, scorecard, quantized_model)
    if config.approved_by:
        return _approved(office, config, known, proposed)
    if config.approval == "auto" and not known.withdrew(quantized_model.fingerprint):
        return _champion(known, proposed, "auto", config.note)
    return _candidate(known, proposed)


def _new(office: Office, config: ReleaseConfig, scorecard: Entry, quantized_model: Artifact) -> Record:
    number = next_number(office.journal)
    compared = scorecard.get("champion", {})
    return {
        "release": f"{office.chain}-{number}",
        "number": number,
        "quantized_model": quantized_model.fingerprint,
        "directory": relative_to_home(office.home, quantized_model.directory),
        "files": {file: quantized_model.manifest.files[file].sha256 for file in _served(quantized_model)},
        "metrics": _metrics(scorecard),
        "gate": {name: compared.get(name) for name in GATE} | {name: compared[name] for name in OF_REPLIES if name in compared},
        "note": config.note,
    }


def _served(quantized_model: Artifact) -> list[str]:
    """The files that a gateway loads: the model, its adapters and its folder for vLLM that serving.json names, and what is read with them."""
    settings = quantized_model.json("serving.json")
    model: str = settings.get("model", "model.onnx")
    files = quantized_model.manifest.files
    for_vllm = [file for file in files if "vllm" in settings and file.startswith(f"{settings['vllm']}/")]
    return [model, *settings.get("adapters", {}).values(), *for_vllm, *(file for file in SERVED if file in files)]


def _known(known: Standing, fingerprint: str) -> Record | None:
    """The release that this model is already, where it waits or was rolled back from."""
    listed = [*known.withdrawn.values(), *known.waiting.values()]
    return next((record for record in reversed(listed) if record["quantized_model"] == fingerprint), None)


def _waiting(office: Office, known: Standing, name: str) -> Record:
    listed = {**known.withdrawn, **known.waiting}
    if name not in listed:
        raise ReleaseError(f"{office.chain} has no release {name} that waits for approval; there are: {', '.join(listed) or 'none'}")
    return listed[name]


def _approved(office: Office, config: ReleaseConfig, known: Standing, record: Record) -> Acted:
    verify_files(record["release"], office.home / record["directory"], record["files"])
    append_event(
        office.home,
        office.chain,
        "approval",
        f"{record['release']} was approved by {config.approved_by}" + (f": {config.note}" if config.note else ""),
        record["release"],
        by=config.approved_by,
        note=config.note,
    )
    return _champion(known, record, config.approved_by, config.note or record.get("note", ""))


def _champion(known: Standing, record: Record, approved_by: str, note: str) -> Acted:
    name, before = record["release"], known.champion["release"] if known.champion else None
    aliases = {"candidate": name, "champion": name, "previous": before}
    stated = {"state": CHAMPION, "previous": before, "aliases": aliases, "approved_by": approved_by, "note": note, "rolled_back_from": None}
    return Acted({**record, **stated}, name)


def _candidate(known: Standing, record: Record) -> Acted:
    name, before = record["release"], known.champion["release"] if known.champion else None
    aliases = {**known.aliases, "candidate": name}
    stated = {"state": CANDIDATE, "previous": before, "aliases": aliases, "approved_by": None, "rolled_back_from": None}
    return Acted({**record, **stated}, f"{name}-{CANDIDATE}")


def _metrics(scorecard: Entry) -> dict[str, Any]:
    """What the scorecard says of the quantized model. Raises ``KeyError`` naming what it judged instead."""
    models = {model["name"]: dict(model) for model in scorecard["models"]}
    if "quantized" not in models:
        raise KeyError(f"the scorecard judges {', '.join(models) or 'nothing'} and no quantized model: materialize scorecard again")
    return models["quantized"]


def _files_are_whole(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    model: Artifact = inputs["quantized_model"]
    if record["quantized_model"] != model.fingerprint:
        found = f"the files of {record['release']} had the hashes they were released with when it was approved"
        return Verdict(check="files_are_whole", passed=True, description=found)
    try:
        model.verify()
    except ArtifactError as error:
        return Verdict(check="files_are_whole", passed=False, description=str(error))
    found = f"all {len(model.manifest.files)} files of {model.fingerprint} have the hashes of its manifest"
    return Verdict(check="files_are_whole", passed=True, description=found)


LINK = Link(
    name="release",
    version=2,
    make=release,
    config=ReleaseConfig,
    inputs=("scorecard", "quantized_model"),
    stage="service",
    role="product_manager",
    kinds=("python",),
    checks=(Check("files_are_whole", "The model's files still have the hashes its manifest records.", _files_are_whole),),
    act=True,
)
