"""The scorecard of a decoder: what is measured, and each gate failing on a model that should not be released."""

from __future__ import annotations

import io
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from llm_assets.links import reply_disagreement
from llm_assets.links.champion import not_worse_than_champion
from llm_assets.links.generation_scorecard import LINK, GenerationScorecardConfig, scorecard, spent, worth
from llm_assets.links.link import Office
from llm_assets.links.reply_disagreement import UNIT
from llm_assets.links.scorecard_page import as_markdown
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact
from llm_assets.store.journal import Journal
from llm_assets.terminal.tables import scorecard_table
from llm_assets_tests.links import trained
from llm_assets_tests.operation.traffic import reply, write_log
from llm_assets_tests.serving import talking

DOCUMENTS = 40


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "acts").mkdir()
    return Office("talk", tmp_path, Journal(tmp_path / "journal" / "talk" / "scorecard.jsonl"), tmp_path / "acts")


def rounded(folder: Path, bits: float, rise: float = 0.0, seed: int = 0) -> Artifact:
    """A served decoder that found each test document as likely as so many bits a byte; F16 less so by ``rise``."""
    talking.write_model(folder, seed)
    rows = [
        {
            "model": name,
            "split": "test",
            "doc_id": str(number),
            "nats": share * bits * (90 + number) * math.log(2),
            "tokens": 30,
            "bytes": 90 + number,
        }
        for name, share in (("quantized", 1 + rise), ("f16", 1.0))
        for number in range(DOCUMENTS)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "predictions.parquet")
    size = {"bytes": 1000}
    return trained.artifact(folder, "quantized_model", {"models": {"quantized": size}, "candidates": {"f16": size}})


def inputs(folder: Path, model: Artifact) -> dict[str, Artifact]:
    made = {"quantized_model": model}
    for name in ("pretrained_checkpoint", "finetuned_model", "labelled_examples", "evaluation_sets"):
        (folder / name).mkdir(exist_ok=True)
    rows = [
        {"doc_id": str(number), "text": f"好吗 {number}\n好 {number}", "label": "shop", "split": "test" if number % 2 else "validation"}
        for number in range(12)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "evaluation_sets" / "evaluation.parquet")
    pq.write_table(pa.Table.from_pylist([{"doc_id": "1"}]), folder / "labelled_examples" / "train.parquet")
    scores = {"models": {"finetuned": {"test": {"chrf": 12.5}, "validation": {"chrf": 11.0}}, "copy": {"test": {"chrf": 3.0}}}}
    for name in ("pretrained_checkpoint", "labelled_examples", "evaluation_sets", "finetuned_model"):
        config = {"sources": ["shop"]} if name == "labelled_examples" else None
        made[name] = trained.artifact(folder / name, name, scores if name == "finetuned_model" else None, config)
    return made


def after(office: Office, bits: float, seed: int = 0) -> Any:
    """What a candidate of so many bits a byte is told beside a champion of two."""
    if not (office.home / "before").exists():
        rounded(office.home / "before", 2.0)
        record = {
            "number": 1, "release": "talk-1", "quantized_model": "before", "directory": "before", "metrics": {"test_bits_per_byte": 2.0},
        }  # fmt: skip
        Journal(office.home / "journal" / "talk" / "release.jsonl").append({"trial": False, "verdicts": [], "record": record})
    return run(office, rounded(office.home / "after", bits, seed=seed))["champion"]


def run(office: Office, model: Artifact) -> Any:
    config = GenerationScorecardConfig(latency_calls=2, answer_tokens=3)
    return scorecard(office, config, **inputs(office.home, model)).record


def test_the_record_is_of_what_is_served_and_f16_beside_it(office: Office) -> None:
    record = run(office, rounded(office.home / "model", 2.0, rise=0.01))
    worst, best = record["models"]
    assert (worst["name"], best["name"]) == ("quantized", "f16") and best["test_bits_per_byte"] == pytest.approx(2.0)
    assert worst["against_reference"] == pytest.approx(0.01) and worst["p99_ms"] >= worst["p50_ms"] > 0 and worst["tokens_per_second"] > 0
    assert record["split"] == {"train": 1, "validation": 6, "test": 6}
    assert all(check.judge(record, {}).passed and check.blocking for check in LINK.checks)
    assert json.loads((office.directory / "scorecard.json").read_text()) == record
    shown = Console(file=io.StringIO(), width=100)
    shown.print(scorecard_table({**record, "release": None}))
    assert "2.0200" in shown.file.getvalue()  # type: ignore[attr-defined]
    page = as_markdown(record)
    assert "| finetuned | 12.5 |" in page and "| copy | 3 |" in page and "there is no champion yet" in page


def test_speed_counts_tokens_not_the_pieces_they_come_in(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    async def two_pieces(*_: Any) -> AsyncIterator[list[dict[str, Any]]]:
        yield [{"tokens": [1]}]
        yield [{"tokens": [2]}, {"tokens": [3]}, {"tokens": [], "timings": {"predicted_n": 3, "predicted_ms": 4.0}}]

    monkeypatch.setattr(Generator, "generate", two_pieces)
    assert run(office, rounded(office.home / "model", 2.0, rise=0.01))["models"][0]["tokens_per_second"] == 500.0


def test_rounding_beyond_what_is_allowed_is_refused(office: Office) -> None:
    record = run(office, rounded(office.home / "model", 2.0, rise=0.03))
    assert not LINK.checks[0].judge(record, {}).passed
    assert LINK.checks[0].judge({**record, "allowed_rise": 0.04}, {}).passed


@pytest.mark.parametrize(("bits", "outcome"), [(1.9, "better"), (2.005, "not worse"), (2.1, "worse")])
def test_the_champion_is_faced_document_by_document(office: Office, monkeypatch: pytest.MonkeyPatch, bits: float, outcome: str) -> None:
    monkeypatch.setattr("llm_assets.links.generation_scorecard.foretold", lambda *_: {"disagreement": None})
    found = after(office, bits)
    assert found["outcome"] == outcome and found["documents"] == DOCUMENTS and "talk-1" in found["found"]
    assert not_worse_than_champion({"champion": found}, {}).passed == (outcome != "worse")


def test_the_champion_is_not_compared_with_itself(office: Office) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_assets.links.generation_scorecard.foretold", lambda *_: {"disagreement": None})
        after(office, 2.0)
    assert run(office, rounded(office.home / "before", 2.0))["champion"]["found"] == "the candidate is the champion"


def test_how_far_replies_will_be_apart_is_foretold_and_goes_with_the_release(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same weights and of others; the request log holds enough conversations or too few."""
    monkeypatch.setattr(reply_disagreement, "ANSWER", 8)
    same = after(office, 1.9)
    assert same["unit"] == UNIT and same["disagreement"] == pytest.approx(0, abs=1e-3) and same["disagreement_in_ranking"] == 0
    assert "6 test conversations; the request log holds 0 conversations, 20 are needed" in same["prediction"]
    write_log(office.home, [reply(number, "hm", f"退货 {number}") for number in range(20)], chain="talk")
    other = after(office, 1.9, seed=1)
    assert other["disagreement"] == max(other["disagreement_on_test"], other["disagreement_on_traffic"]) > 0.1 and other["traffic_texts"] == 20
    assert f"{other['disagreement_on_traffic']:.3f} on the newest 20 conversations" in other["prediction"]
    page = as_markdown({**run(office, rounded(office.home / "model", 2.0)), "champion": other})
    assert f"How far a canary's replies are to be apart from the champion's: {other['prediction']}." in page


def test_bits_per_byte_are_of_all_documents_as_one_text() -> None:
    rows = [{"doc_id": "a", "nats": 2 * math.log(2), "bytes": 2, "tokens": 1}, {"doc_id": "b", "nats": 12 * math.log(2), "bytes": 2, "tokens": 2}]
    found = worth(rows)
    assert found["test_bits_per_byte"] == pytest.approx(14 / 4) and found["test_perplexity"] == pytest.approx(2 ** (14 / 3))
    assert found["test_bits_per_byte_interval"] == pytest.approx([1.0, 6.0])
    assert spent(rows) == {"a": pytest.approx((2, 2)), "b": pytest.approx((12, 2))}


def test_an_aligned_models_figures_stand_beside_the_finetuned_ones(office: Office, tmp_path: Path) -> None:
    (tmp_path / "quantized_model").mkdir()
    (tmp_path / "aligned_model").mkdir()
    scores = {"models": {"finetuned": {"test": {"preferred": 0.5}}, "aligned": {"test": {"preferred": 0.75, "bits_per_byte": 2.0}}}}
    given = inputs(office.home, rounded(tmp_path / "quantized_model", 2.0))
    aligned = trained.artifact(tmp_path / "aligned_model", "aligned_model", scores)
    record = scorecard(office, GenerationScorecardConfig(latency_calls=1, answer_tokens=3), **given, aligned_model=aligned).record
    assert record["tasks"]["finetuned"] == {"chrf": 12.5, "preferred": 0.5} and record["tasks"]["aligned"]["preferred"] == 0.75
    assert record["models"][0]["cost"]["seconds"] == 4  # a second each, the aligned model's among them
    assert "0.75" in as_markdown(record)
