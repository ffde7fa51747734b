"""Erasing and making again on a chain that was really run, preset tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_assets.audit.forget import ForgetError, plan_erasure
from llm_assets.audit.index import Index
from llm_assets.audit.places import Places
from llm_assets.audit.reproduce import reproduce
from llm_assets.audit.search import hashes, probes, search
from llm_assets.audit.words.reproduce import summary
from llm_assets.serving.request_log import log_folder
from llm_assets.store.store import Store
from llm_assets.training.launch import launch
from llm_assets_tests.running import llm_assets, succeed
from llm_assets_tests.serving.conftest import eventually, gateway

from .conftest import rewrite

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tiny_chain: Path, tmp_path: Path) -> Path:
    """The run chain, to be spoiled."""
    return Path(shutil.copytree(tiny_chain, tmp_path / "home"))


def a_document(store: Store) -> str:
    """The text, as it came, of the longest document that a model learned from and nothing repeats."""
    index = Index(store)
    index.refresh()
    [examples] = store.manifests("labelled_examples")
    [corpus] = store.manifests("raw_corpus")
    came = store.open("raw_corpus", corpus.fingerprint).table("documents.parquet", ["doc_id", "text"]).to_pylist()
    raw = {row["doc_id"]: str(row["text"]) for row in came}
    rows = store.open("labelled_examples", examples.fingerprint).table("train.parquet", ["doc_id", "text"]).to_pylist()
    try:
        for row in sorted(rows, key=lambda row: -len(row["text"])):
            try:
                plan = plan_erasure(index, Places(store), [row["doc_id"]])
            except ForgetError:
                continue
            if not plan.repeats and plan.releases:
                return raw[row["doc_id"]]
    finally:
        index.close()
    raise AssertionError("every document is repeated somewhere")


def test_after_forgetting_and_retraining_nothing_holds_the_text(home: Path) -> None:
    store = Store(home)
    text = a_document(store)
    wanted = [*probes(text), *hashes(text)]
    with gateway(home) as (client, _):

        def ask(question: str) -> None:
            client.post("/v1/classify", json={"model": "reviews", "input": question}).raise_for_status()

        ask(f"请问：{text}")
        eventually(lambda: any(one.startswith("serving/log/") for one in search([store], wanted).found))
        said = succeed(home, "forget", "--text", text, "--reason", "asked to", "--yes")
        assert "cleaned serving/log/reviews/" in said and "to be retired: reviews-1" in said and "nothing else holds the text" in said
        ask("快递很快")  # the gateway goes on in the file that was put in the place of its own
    [log] = (log_folder(home) / "reviews").glob("*.jsonl")
    eventually(lambda: [json.loads(line)["texts"][0]["masked"] for line in log.read_bytes().splitlines()] == [None, "快递很快"])
    succeed(home, "run", "reviews", "--preset", "tiny")
    assert {len(list(store.names(link))) for link in ("raw_corpus", "tokens", "labelled_examples")} == {1}  # the new ones alone
    found = search([store], wanted)
    assert (found.found, found.unread) == ([], []) and found.tokens > 10_000 and {"artifacts", "dagster", "mlflow", "journal"} <= found.places.keys()
    again = succeed(home, "forget", "--text", text, "--reason", "asked to", "--yes")
    assert "purge" not in again and "nothing else holds the text" in again
    assert "nothing is left to forget" in succeed(home, "forget", "--matching", text, "--reason", "asked to", "--yes")
    assert "no raw corpus holds" in llm_assets(home, "trace", "--text", text).stderr
    succeed(home, "verify")


@pytest.mark.parametrize("link", ["tokens", "pretrained_checkpoint", "finetuned_model", "quantized_model"])
def test_a_run_link_is_made_again(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(home))
    store, index = Store(home), Index(Store(home))
    [manifest] = store.manifests(link)
    rewrite(store.open(link, manifest.fingerprint), code={**manifest.code, "dirty": False})  # this very checkout, whatever of it is committed
    index.refresh()
    if link == "quantized_model":  # a tie of the two ways of rounding falls by their speed, on a busy machine otherwise than before
        known = store.open(link, manifest.fingerprint).metrics["candidates"]
        times = {way: {name: figures[name] for name in ("p50_ms", "p99_ms")} for way, figures in known.items()}
        monkeypatch.setattr("llm_assets.links.quantized_model.alternating_latency", lambda *_: times)
    found, again = reproduce(index, (link, manifest.fingerprint), tmp_path / "again", launch)
    index.close()
    assert found.equal, "\n".join(summary(found))
    assert again.fingerprint == manifest.fingerprint and found.trained == (link != "tokens")
    assert all(found.files.values()) if link == "tokens" else len(found.figures) > 5
