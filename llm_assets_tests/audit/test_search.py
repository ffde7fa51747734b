from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_assets.audit import search as module
from llm_assets.audit.search import PIECE, probes, search
from llm_assets.links.making import Outcome
from llm_assets.store.store import Store

TEXT = '这家酒店的早餐非常"好吃"，房间也很干净 & 安静，下次出差还会再来住，电话13800138000可以打'


def table(path: Path) -> None:
    pq.write_table(pa.table({"number": [1], "excerpt": [f"…{TEXT[:30]}…"]}), path)


HOLDING: dict[str, Callable[[Path], object]] = {
    "plain.txt": lambda path: path.write_text(f"before {TEXT} after"),
    "piece.html": lambda path: path.write_text(f"<td>{escape(TEXT[:30])}</td>"),
    "log.jsonl": lambda path: path.write_text(json.dumps({"masked": TEXT[:40]})),
    "utf8.jsonl": lambda path: path.write_text(json.dumps({"masked": TEXT}, ensure_ascii=False)),
    "masked.txt": lambda path: path.write_text(probes(TEXT)[-1]),
    "table.parquet": table,
}


@pytest.mark.parametrize("name", HOLDING)
def test_the_text_is_found_however_it_is_written(store: Store, name: str) -> None:
    path = store.home / "acts" / name
    path.parent.mkdir()
    HOLDING[name](path)
    found = search([store], probes(TEXT))
    assert (found.found, found.files) == ([f"acts/{name}"], 1)


def test_a_turn_of_several_lines_is_found_where_it_stands_in_one(store: Store) -> None:
    (store.home / "batch.jsonl").write_text(json.dumps({"text": "Call me Anna Bergström"}, ensure_ascii=False))
    assert search([store], probes("Call me\nAnna Bergström")).found == ["batch.jsonl"]


def test_it_is_found_across_the_blocks_of_a_large_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 64)
    for shift in range(64):
        (store.home / "a.bin").write_bytes(b"x" * shift + TEXT[:PIECE].encode() + b"y" * 100)
        assert search([store], probes(TEXT)).found == ["a.bin"], shift


def test_another_text_is_not_taken_for_it(store: Store) -> None:
    (store.home / "a.txt").write_text(TEXT[3:20])
    assert search([store], probes(TEXT)).found == []


def test_tokens_are_decoded(corpus: dict[str, Outcome]) -> None:
    clean, tokens = corpus["clean_corpus"].artifact, corpus["tokens"].artifact
    store = Store(clean.directory.parents[2])
    longest = max(clean.table("documents.parquet", ["text"])["text"].to_pylist(), key=len)
    found = search([store], probes(longest))
    assert f"tokens/{tokens.fingerprint}, decoded" in found.found and found.tokens > 1000 and not found.unread
    assert not [one for one in search([store], ["这个句子不在任何文档里面，谁也没有写过它"]).found if "tokens" in one]


def test_tokens_without_their_tokenizer_are_said_not_to_be_searched(store: Store) -> None:
    from .material import commit

    tokens = commit(store, "tokens", {"layout.json": {}})
    assert search([store], ["text"]).unread == [f"tokens {tokens.fingerprint}, whose tokens could not be decoded: its tokenizer is gone"]
