from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from llm_assets.links.making import Outcome
from llm_assets.links.tokenizer import load
from llm_assets.links.tokens import is_validation
from llm_assets.store.artifact import Artifact
from llm_assets_tests.corpus.material import altered, judge


def blocks(artifact: Artifact) -> np.ndarray:
    layout = artifact.json("layout.json")
    return np.memmap(artifact.path("tokens.bin"), dtype=layout["dtype"], mode="r", shape=(layout["blocks"], layout["context"]))


def test_the_index_leads_from_every_document_to_its_tokens(corpus: dict[str, Outcome]) -> None:
    outcome = corpus["tokens"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    layout, stream = outcome.artifact.json("layout.json"), blocks(outcome.artifact).reshape(-1)
    encoder = load(corpus["tokenizer"].artifact.directory)
    clean = corpus["clean_corpus"].artifact.table("documents.parquet")
    texts = dict(zip(clean["doc_id"].to_pylist(), clean["text"].to_pylist(), strict=True))
    covered = np.zeros(len(stream), dtype=int)
    for row in outcome.artifact.table("documents.parquet").to_pylist():
        start = row["block"] * layout["context"] + row["offset"]
        ids = stream[start : start + row["length"]].tolist()
        assert encoder.decode(ids) == texts[row["doc_id"]]
        assert (start + row["length"] - 1) // layout["context"] == row["block"] + row["blocks"] - 1
        assert (row["block"] >= layout["train_blocks"]) == is_validation(row["doc_id"], 0.02)
        covered[start : start + row["length"]] += 1
    padding = encoder.token_to_id("[PAD]")
    assert covered.max() == 1 and (stream[covered == 0] == padding).all() and (covered == 0).sum() == layout["padding_tokens"]
    assert layout["padding_tokens"] < 2 * layout["context"]  # nothing wasted but the ends of the two parts


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    packed = corpus["tokens"].artifact
    inputs = {"clean_corpus": corpus["clean_corpus"].artifact, "tokenizer": corpus["tokenizer"].artifact}
    layout, index, matrix = packed.json("layout.json"), packed.table("documents.parquet"), np.array(blocks(packed))

    def check(name: str, **files: object) -> bool:
        return judge("tokens", name, altered(packed, tmp_path / name, "tokens", **files), **inputs).passed

    assert not check("layout_holds", tokens__bin=matrix[:-1].tobytes())
    high = matrix.copy()
    high[0, 1] = layout["vocabulary_size"]
    assert not check("layout_holds", tokens__bin=high.tobytes(), layout__json=layout)
    assert not check("layout_holds", tokens__bin=matrix.tobytes(), layout__json={**layout, "train_blocks": layout["blocks"], "validation_blocks": 0})
    shifted = index.set_column(index.schema.get_field_index("offset"), "offset", pa.compute.add(index["offset"], 1))
    assert not check("index_holds", documents__parquet=shifted)
    assert not check("index_holds", documents__parquet=index.slice(1))
    swapped = index.set_column(0, "doc_id", pa.array(index["doc_id"].to_pylist()[::-1]))
    assert not check("index_holds", documents__parquet=swapped)
    assert not check("validation_held_out", documents__parquet=swapped)
    assert not check("expectations", documents__parquet=pa.concat_tables([index, index.slice(0, 1)]))
