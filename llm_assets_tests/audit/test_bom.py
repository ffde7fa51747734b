from __future__ import annotations

import json

import pytest

from llm_assets.audit.bom import BomError, bill_of_materials, schema_error
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, trace_back
from llm_assets.store.store import Store

from .material import copied_chain


def test_the_bom_is_valid_and_says_what_is_asked_of_it(released: Lineage) -> None:
    bom = bill_of_materials(released)
    model = bom["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "reviews", "reviews-1")
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0] == {
        "type": "test_accuracy",
        "value": "0.9",
        "confidenceInterval": {"lowerBound": "0.8", "upperBound": "0.95"},
    }
    assert {file["name"] for file in model["components"]} == {"model.onnx", "predictions.parquet"}
    parts = {component["bom-ref"]: component for component in bom["components"]}
    source = parts["source:test"]
    assert source["licenses"] == [{"license": {"id": "MIT"}}] and source["hashes"] == [{"alg": "SHA-256", "content": "c" * 64}]
    assert source["purl"] == "pkg:pypi/p@1" and "library:python@3.11" in parts
    assert {part["name"] for part in parts.values() if part["type"] == "machine-learning-model"} == {"pretrained_checkpoint", "finetuned_model"}
    values = {row["name"]: row["value"] for row in model["properties"]}
    assert values["llm_assets:quantized_model:recipe:seed"] == "17" and float(values["llm_assets:cost:seconds"]) >= 7
    refs = {*parts, model["bom-ref"]}
    assert values["llm_assets:licences:MIT"].startswith("MIT: keep the copyright notice")
    assert all({row["ref"], *row["dependsOn"]} <= refs for row in bom["dependencies"])


def test_what_talks_is_a_decoder(released: Lineage) -> None:
    def told() -> tuple[str, str]:
        parameters = bill_of_materials(released)["metadata"]["component"]["modelCard"]["modelParameters"]
        return parameters["task"], parameters["architectureFamily"]

    assert told() == ("classification", "transformer encoder")
    model = next(node.manifest for node in released.nodes.values() if node.link == "quantized_model")
    assert model
    model.recipe["variant"] = "generation"
    assert told() == ("text generation", "transformer decoder")


def test_energy_is_stated_where_every_part_of_it_was_measured(released: Lineage) -> None:
    def stated() -> dict[str, str]:
        return {row["name"]: row["value"] for row in bill_of_materials(released)["metadata"]["component"]["properties"]}

    manifests = [node.manifest for node in released.nodes.values() if node.manifest]
    for manifest in manifests[1:]:
        manifest.energy_joules = 2.5
    assert "llm_assets:cost:energy_joules" not in stated()
    manifests[0].energy_joules = 0.0
    assert float(stated()["llm_assets:cost:energy_joules"]) == 2.5 * (len(manifests) - 1)


def test_the_same_release_gives_the_same_bom(released: Lineage) -> None:
    assert json.dumps(bill_of_materials(released)) == json.dumps(bill_of_materials(released))


def test_the_schema_refuses_what_is_no_bom(released: Lineage) -> None:
    bom = bill_of_materials(released)
    assert schema_error(bom) is None
    assert schema_error({**bom, "metadata": {"component": {"type": "model"}}})
    bom["metadata"]["component"]["modelCard"]["accuracy"] = 1
    assert schema_error(bom)


def test_a_licence_that_is_none_of_spdx_stands_in_its_own_words(store: Store, released: Lineage) -> None:
    for node in released.nodes.values():
        assert node.manifest
        node.manifest.licenses[:] = ["yours, for research"]
    assert bill_of_materials(released)["metadata"]["component"]["licenses"] == [{"license": {"name": "yours, for research"}}]


def test_what_is_no_release_has_no_bom(store: Store, index: Index) -> None:
    made = copied_chain(store)
    index.refresh()
    raw = made["raw_corpus"].fingerprint
    found = trace_back(find([index], raw), raw)
    with pytest.raises(BomError, match=f"{raw} is none"):
        bill_of_materials(found)
