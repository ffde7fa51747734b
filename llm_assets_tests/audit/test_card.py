from __future__ import annotations

from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard

from llm_assets.audit.card import CardError, model_card, model_card_page
from llm_assets.audit.ids import find
from llm_assets.audit.index import Index
from llm_assets.audit.provenance import Lineage, trace_back
from llm_assets.store.store import Store

from .material import copied_chain


def test_the_card_is_read_by_the_hubs_own_library(released: Lineage) -> None:
    text = model_card(released)
    card = ModelCard(text)
    assert (card.data.license, card.data.pipeline_tag) == ("mit", "text-classification")
    assert [(one.metric_type, one.metric_value) for one in card.data.eval_results] == [("accuracy", 0.9), ("macro_f1", 0.89)]
    assert "| Accuracy | 0.9000 | 0.8000 to 0.9500 |" in text and "| good | 0.900 | 0.800 | 0.850 | 100 |" in text
    assert "beats_majority | passed" in text


def test_the_card_says_what_the_licences_demand_and_which_is_unknown(released: Lineage) -> None:
    for node in released.nodes.values():
        assert node.manifest
        node.manifest.licenses[:] = ["MIT", "whatever"]
    text = model_card(released)
    assert "- MIT: keep the copyright notice" in text and "- whatever: unknown" in text


def test_the_card_says_what_energy_was_used_or_that_nobody_measured_it(released: Lineage) -> None:
    assert "| energy used by the processors | not measured: the machine shows no counters |" in model_card(released)
    manifests = [node.manifest for node in released.nodes.values() if node.manifest]
    for manifest in manifests:
        manifest.energy_joules = 3600 / len(manifests)
    assert "| energy used by the processors | 1.0 Wh |" in model_card(released)


def test_the_card_of_what_talks_is_one_of_a_decoder(released: Lineage) -> None:
    model = next(node.manifest for node in released.nodes.values() if node.link == "quantized_model")
    assert model and released.release
    model.recipe["variant"] = "generation"
    released.release.record["metrics"].update(test_bits_per_byte=2.1, test_bits_per_byte_interval=[2.0, 2.2])
    text = model_card(released)
    assert ModelCard(text).data.pipeline_tag == "text-generation" and "library_name: gguf" in text
    assert "| Bits per byte | 2.1000 | 2.0000 to 2.2000 |" in text and "parameters of the pretrained decoder" in text


class Shape(HTMLParser):
    """Headings and table cells of a page; notes tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3", "h4", "h5"):
            self.headings.append(data)


def test_the_page_holds_all_of_the_card_and_stands_alone(released: Lineage) -> None:
    text, page = model_card(released), model_card_page(released)
    shape = Shape()
    shape.feed(page)
    assert not shape.open and shape.cells > 30
    assert shape.headings == [line.lstrip("# ") for line in text.splitlines() if line.startswith("#")]
    assert "pipeline_tag" in page and "<script" not in page and "src=" not in page


def test_markup_in_a_record_is_shown_and_not_obeyed(released: Lineage) -> None:
    released.gates[0]["description"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in model_card_page(released) and "&lt;img" in model_card_page(released)


def test_what_is_no_release_has_no_card(store: Store, index: Index) -> None:
    raw = copied_chain(store)["raw_corpus"].fingerprint
    index.refresh()
    with pytest.raises(CardError, match=f"{raw} is none"):
        model_card(trace_back(find([index], raw), raw))
