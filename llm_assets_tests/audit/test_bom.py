from __future__ import annotations

import json

import pytest

from llm_assets.audit.bom import BomError, bill_of_materials, schema_error
from llm_assets.audit.card import CardError, model_card
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, trace_back
from llm_assets.store.store import Store

from .conftest import release
from .material import copied_chain

METRICS = {
    "name": "quantized", "test_accuracy": 0.9, "test_accuracy_interval": [0.8, 0.95], "test_macro_f1": 0.89, "calibration_error": 0.02,
    "per_class": {"good": {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 100}},
}  # fmt: skip


@pytest.fixture
def lineage(store: Store, index: Index) -> Lineage:
    made = copied_chain(store)
    name = release(store, made["quantized_model"], metrics=METRICS)
    index.refresh()
    return trace_back(find([index], name), name)


def test_the_bom_is_valid_and_says_what_is_asked_of_it(lineage: Lineage) -> None:
    bom = bill_of_materials(lineage)
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
    assert all({row["ref"], *row["dependsOn"]} <= refs for row in bom["dependencies"])


def test_the_same_release_gives_the_same_bom(lineage: Lineage) -> None:
    assert json.dumps(bill_of_materials(lineage)) == json.dumps(bill_of_materials(lineage))


def test_the_schema_refuses_what_is_no_bom(lineage: Lineage) -> None:
    bom = bill_of_materials(lineage)
    assert schema_error(bom) is None
    assert schema_error({**bom, "metadata": {"component": {"type": "model"}}})
    bom["metadata"]["component"]["modelCard"]["accuracy"] = 1
    assert schema_error(bom)


def test_a_licence_that_is_none_of_spdx_stands_in_its_own_words(store: Store, lineage: Lineage) -> None:
    for node in lineage.nodes.values():
        assert node.manifest
        node.manifest.licenses[:] = ["yours, for research"]
    assert bill_of_materials(lineage)["metadata"]["component"]["licenses"] == [{"license": {"name": "yours, for research"}}]


def test_the_card_is_read_by_the_hubs_own_library(lineage: Lineage) -> None:
    from huggingface_hub import ModelCard

    text = model_card(lineage)
    card = ModelCard(text)
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "text-classification")
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("accuracy", 0.9), ("macro_f1", 0.89)]
    assert "| Accuracy | 0.9000 | 0.8000 to 0.9500 |" in text and "| good | 0.900 | 0.800 | 0.850 | 100 |" in text
    assert "| test | pypi | MIT | p 1: test.txt |" in text and "too_short 1" in text and "beats_majority | passed" in text


def test_what_is_no_release_has_neither(store: Store, index: Index) -> None:
    made = copied_chain(store)
    index.refresh()
    raw = made["raw_corpus"].fingerprint
    found = trace_back(find([index], raw), raw)
    with pytest.raises(BomError, match=f"{raw} is none"):
        bill_of_materials(found)
    with pytest.raises(CardError, match=f"{raw} is none"):
        model_card(found)
