"""The bill of materials of a release: a CycloneDX ML-BOM of model, data sets with licences and provenance, parameters, figures and pins."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from llm_assets.audit.cost import joules_to_make
from llm_assets.audit.index import Release
from llm_assets.audit.provenance import Lineage, Node, Source
from llm_assets.links.chain import LINKS
from llm_assets.store.fingerprint import flatten
from llm_assets.store.manifest import Manifest

SPEC = "1.6"
NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # for URLs (RFC 4122), from which the BOM's own id is derived
DATA = {
    "raw_corpus": "every document as it came",
    "screened_corpus": "documents normalised, masked and screened",
    "clean_corpus": "documents without duplicates and evaluation text",
    "evaluation_sets": "validation and test documents",
    "labelled_examples": "what the classifier was trained on",
    "tokens": "the clean corpus in packed blocks",
}
REMEDY = 'pip install -c constraints.txt -e ".[bom]"'

Json = dict[str, Any]


class BomError(RuntimeError):
    """A bill of materials cannot be written, or would not be valid."""


def bill_of_materials(lineage: Lineage) -> Json:
    """The BOM of a release's lineage; the same release gives the same BOM. Raises ``BomError`` where it would break CycloneDX's schema."""
    release = lineage.release
    if release is None:
        raise BomError(f"a bill of materials is one of a release, and {lineage.wanted} is none")
    nodes = list(lineage.nodes.values())
    model = lineage.nodes["quantized_model", release.model]
    bom: Json = {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, f'llm-assets:{release.release}:{release.model}')}",
        "version": 1,
        "metadata": {
            "timestamp": release.at,
            "tools": {"components": [{"type": "application", "name": "llm-assets", "version": _version(model)}]},
            "component": _released(lineage, release, model),
        },
        "components": [
            *(_artifact(node) for node in nodes if node.name != model.name),
            *(_source(source) for source in lineage.sources),
            *_libraries(nodes),
        ],
        "dependencies": [{"ref": _ref(node), "dependsOn": list(_depends_on(node))} for node in nodes],
    }
    if wrong := schema_error(bom):
        raise BomError(f"the bill of materials of {release.release} is not valid CycloneDX {SPEC}: {wrong}")
    return bom


def schema_error(bom: Json) -> str | None:
    """What the schema of CycloneDX says against a BOM. Raises ``BomError`` where the library is not installed."""
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as error:
        raise BomError(f"a bill of materials needs cyclonedx-python-lib: {REMEDY}") from error
    wrong = JsonStrictValidator(SchemaVersion.from_version(SPEC)).validate_str(json.dumps(bom))
    return str(wrong) if wrong else None


def _released(lineage: Lineage, release: Release, model: Node) -> Json:
    described = _artifact(model)
    trained = [manifest for manifest in _manifests(lineage) if LINKS[manifest.link].trained]
    return {
        **described,
        "name": release.chain,
        "version": release.release,
        "components": [
            {"type": "file", "name": name, "hashes": [_sha256(hashed)], "bom-ref": f"file:{name}"} for name, hashed in release.record["files"].items()
        ],
        "modelCard": _model_card(lineage, release),
        "properties": [
            *described["properties"],
            *_property("release", {"at": release.at, "approved_by": lineage.approved_by, "dagster_run": release.run}),
            *_property("cost", _cost(lineage)),
            *_property("licences", {one.licence: str(one) for one in lineage.obligations}),
            *(row for manifest in trained for row in _property(f"{manifest.link}:recipe", manifest.recipe)),
        ],
    }


def _model_card(lineage: Lineage, release: Release) -> Json:
    metrics = release.record.get("metrics") or {}
    problem = next((one.recipe["config"].get("problem") for one in _manifests(lineage) if one.link == "finetuned_model"), None) or "single_label"
    data = [node for node in lineage.nodes.values() if node.link in ("labelled_examples", "clean_corpus", "evaluation_sets")]
    limits = [f"{gate['check']}: {gate['description']}" for gate in lineage.gates]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": "text generation" if lineage.talks else "regression" if problem == "regression" else "classification",
            "architectureFamily": "transformer decoder" if lineage.talks else "transformer encoder",
            "datasets": [{"ref": _ref(node)} for node in data],
            "inputs": [{"format": "text"}],
            "outputs": [{"format": "text" if lineage.talks else "label with probabilities"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": list(_performance(metrics))},
        "considerations": {"technicalLimitations": limits},
    }


def _performance(metrics: Mapping[str, Any]) -> Iterator[Json]:
    for name, value in flatten({key: value for key, value in metrics.items() if not key.endswith("_interval")}).items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            interval = metrics.get(f"{name}_interval")
            bounds = {"confidenceInterval": {"lowerBound": str(interval[0]), "upperBound": str(interval[1])}} if interval else {}
            yield {"type": name, "value": str(value), **bounds}


def _artifact(node: Node) -> Json:
    """A model as a model, all else as data."""
    manifest = node.manifest
    is_model = node.link in LINKS and LINKS[node.link].trained
    described = {} if is_model else {"data": [{"type": "dataset", "name": node.link, "description": DATA.get(node.link, node.link)}]}
    properties = {"state": node.state, "dagster_run": manifest.dagster_run_id if manifest else None, "mlflow_run": node.mlflow_run}
    return {
        "type": "machine-learning-model" if is_model else "data",
        "bom-ref": _ref(node),
        "name": node.link,
        "version": node.fingerprint,
        **({"licenses": _licenses(manifest.licenses)} if manifest and manifest.licenses else {}),
        **described,
        "properties": [*_property(node.link, properties), *_property("made", _made(manifest) if manifest else {})],
    }


def _made(manifest: Manifest) -> Json:
    keys = ("data_version", "started", "seconds", "core_seconds", "peak_memory_bytes", "energy_joules")
    code = {f"code_{key}": value for key, value in manifest.code.items()}
    return {key: getattr(manifest, key) for key in keys} | {"bytes": manifest.size} | code


def _source(source: Source) -> Json:
    provenance = _property("source", {"kind": source.kind, "place": source.place, "documents": source.documents})
    package, _, version = source.place.partition(":")[0].partition(" ")
    return {
        "type": "data",
        "bom-ref": f"source:{source.name}",
        "name": source.name,
        "licenses": _licenses([source.license]),
        **({"purl": f"pkg:pypi/{package.lower()}@{version}"} if source.kind == "pypi" else {}),
        **({"hashes": [_sha256(source.hash)]} if source.hash and len(source.hash) == 64 else {}),
        "data": [{"type": "dataset", "name": source.name, "description": f"{source.documents} documents from {source.place}"}],
        "properties": provenance,
    }


def _libraries(nodes: list[Node]) -> Iterator[Json]:
    """Every library that shaped an artifact, in every version that did."""
    pins = {pin for node in nodes if node.manifest for pin in node.manifest.libraries.items() if pin[1] != "not installed"}
    for name, version in sorted(pins):
        kind = {"type": "platform"} if name == "python" else {"type": "library", "purl": f"pkg:pypi/{name}@{version.replace('+', '%2B')}"}
        yield {**kind, "bom-ref": f"library:{name}@{version}", "name": name, "version": version}


def _depends_on(node: Node) -> Iterator[str]:
    yield from dict.fromkeys(f"{link}:{fingerprint}" for link, fingerprint in node.inputs.values())
    yield from (f"source:{source.name}" for source in node.sources)
    libraries = node.manifest.libraries.items() if node.manifest else ()
    yield from (f"library:{name}@{version}" for name, version in libraries if version != "not installed")


def _licenses(names: list[str]) -> list[Json]:
    """SPDX ids where they are such, else the licence's own words."""
    from cyclonedx.spdx import is_supported_id

    return [{"license": {"id": name} if is_supported_id(name) else {"name": name}} for name in names]


def _cost(lineage: Lineage) -> Json:
    """Of all that stands in the lineage together; energy is stated where every part of it was measured."""
    manifests = _manifests(lineage)
    seconds, core_seconds = (round(sum(getattr(one, key) for one in manifests), 3) for key in ("seconds", "core_seconds"))
    return {"seconds": seconds, "core_seconds": core_seconds, "energy_joules": joules_to_make(manifests)}


def _manifests(lineage: Lineage) -> list[Manifest]:
    return [node.manifest for node in lineage.nodes.values() if node.manifest]


def _property(prefix: str, values: Mapping[str, Any]) -> list[Json]:
    return [{"name": f"llm_assets:{prefix}:{name}", "value": str(value)} for name, value in flatten(dict(values)).items() if value is not None]


def _sha256(hashed: str) -> Json:
    return {"alg": "SHA-256", "content": hashed}


def _ref(node: Node) -> str:
    return ":".join(node.name)


def _version(node: Node) -> str:
    return node.manifest.libraries.get("llm-assets", "unknown") if node.manifest else "unknown"
