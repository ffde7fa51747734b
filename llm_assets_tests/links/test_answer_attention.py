"""An encoder-decoder in the assistant's link: one real training, its scores beside the baselines, and the page of where its answers looked."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy
import pytest

from llm_assets.corpus.documents import EVIDENCE_LENGTH
from llm_assets.evaluation.encoder_decoder import Looked
from llm_assets.links.answer_attention import as_table
from llm_assets.links.assistant_model import LINK, AssistantModelConfig
from llm_assets.links.assistant_scores import BM25, FINETUNED, PRETRAINED
from llm_assets.links.making import Outcome, make
from llm_assets.store.store import Store
from llm_assets_tests.links.test_assistant_model import CONFIG, inputs
from llm_assets_tests.links.trained import COMPUTE, artifact, root
from llm_assets_tests.training.room import launch_in_room
from llm_assets_tests.training.talking import encoder_decoder, reading_checkpoint


@functools.cache
def reader() -> Outcome:
    folder = root() / "untaught"
    encoder_decoder().save_pretrained(folder)
    changes = {"adapter": {"kind": "none"}, "processes": 1, "learning_rate": 1e-2, "epochs": 1}
    config = AssistantModelConfig.model_validate({**CONFIG.model_dump(), **changes})
    given = {**inputs(), "pretrained_checkpoint": artifact(folder, "untaught"), "compute": COMPUTE}
    return make(Store(root() / "reading"), LINK, config, given, seed=1, launch=launch_in_room)


def test_an_encoder_decoder_is_taught_and_scored_as_a_decoder_is() -> None:
    outcome = reader()
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    models = outcome.artifact.metrics["models"]
    assert models[FINETUNED]["test"]["bits_per_byte"] < models[PRETRAINED]["test"]["bits_per_byte"] - 1
    assert models[FINETUNED]["test"]["ranked"] == models[BM25]["test"]["ranked"] == 12
    assert {"chrf", "bleu", "rouge1", "rougel"} <= set(models[FINETUNED]["test"]) and models["copy"]["test"]["translations"] == 1
    metrics = outcome.artifact.metrics
    assert 0 <= metrics["padding_share"] < 0.35 and 0.05 < metrics["answer_share"] < 0.5 and metrics["trained_parameters"] == metrics["parameters"]
    told = outcome.artifact.json("generation_config.json")
    assert told["decoder_start_token_id"] == told["bos_token_id"] == 2 and len(told["eos_token_id"]) == 2


def test_the_page_shows_where_held_out_answers_looked() -> None:
    page = reader().artifact.path("pages/attention.html").read_text(encoding="utf-8")
    assert page.count("<table>") == 2 and page.count("<h2>translation</h2>") == page.count("<h2>title</h2>") == 1  # one test document of each
    assert "&lt;|im_start|&gt;" in page and "<|im_start|>" not in page and "mean of the heads of the decoder&#x27;s last layer" in page


def test_what_is_shown_is_escaped_and_ends_after_80_characters() -> None:
    weights = numpy.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])
    shown = as_table(Looked(["<script>", "&", "x" * EVIDENCE_LENGTH], ["<b>", "y" * EVIDENCE_LENGTH], weights))
    assert "&lt;script&gt;" in shown and "&amp;" in shown and "&lt;b&gt;" in shown and "<script>" not in shown
    assert "xx" not in shown and "yy" not in shown
    assert "<caption>&lt;script&gt;&amp; → &lt;b&gt;</caption>" in shown
    assert shown.count("<tr>") == 2 and shown.count('0.25)">0.25</td>') == 2  # the second of the source, and the rest


def test_an_adapter_beside_an_encoder_decoder_is_refused_before_training(tmp_path: Path) -> None:
    given = {**inputs(), "pretrained_checkpoint": artifact(reading_checkpoint(), "reading-checkpoint"), "compute": COMPUTE}
    with pytest.raises(ValueError, match=r"adapter\.kind is lora: adapters stand beside a decoder's matrices"):
        make(Store(tmp_path), LINK, CONFIG, given, seed=1, launch=lambda *_: pytest.fail("launched"))
    assert json.loads((reading_checkpoint() / "config.json").read_text())["model_type"] == "t5"
