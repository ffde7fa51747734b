from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from llm_assets.links.making import Outcome
from llm_assets.links.mixture import is_validation
from llm_assets.links.tokenizer import FILES, load
from llm_assets.links.tokens import LINK
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import altered, judge, run


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


def test_efficiency_and_long_documents_are_counted(corpus: dict[str, Outcome]) -> None:
    metrics = corpus["tokens"].artifact.metrics
    assert metrics["packing_efficiency"] == pytest.approx(metrics["tokens"] / (metrics["blocks"] * metrics["context"]), abs=1e-6)
    lengths = corpus["tokens"].artifact.table("documents.parquet")["length"].to_numpy()
    assert metrics["longer_than_a_block"] == int((lengths > metrics["context"]).sum()) > 0


def test_an_existing_tokenizer_may_call_its_special_tokens_otherwise(corpus: dict[str, Outcome], tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in FILES:
        text = corpus["tokenizer"].artifact.path(name).read_text(encoding="utf-8")
        for ours, theirs in (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>")):
            text = text.replace(ours, theirs)
        (folder / name).write_text(text, encoding="utf-8")
    store, clean = Store(tmp_path / "home"), corpus["clean_corpus"].artifact
    taken = run(store, "tokenizer", {"existing": str(folder)}, {"clean_corpus": clean})
    packed = run(store, "tokens", {"context": 32}, {"clean_corpus": clean, "tokenizer": taken.artifact})
    assert all(verdict.passed for verdict in (*taken.verdicts, *packed.verdicts))
    assert blocks(packed.artifact).reshape(-1)[0] == load(folder).token_to_id("<s>")


def test_weights_repeat_and_thin_the_sources(corpus: dict[str, Outcome], tmp_path: Path) -> None:
    clean, plain = corpus["clean_corpus"].artifact, corpus["tokens"].artifact
    weights = {"positive": 2.0, "negative": 0.5, "news": 0.0}
    inputs = {"clean_corpus": clean, "tokenizer": corpus["tokenizer"].artifact}
    outcome = run(Store(tmp_path / "home"), "tokens", {"context": 32, "weights": weights}, inputs)
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    mixed = outcome.artifact
    source = dict(zip(*(clean.table("documents.parquet")[name].to_pylist() for name in ("doc_id", "source")), strict=True))
    stand = {name: sum(is_validation(one, 0.02) for one, found in source.items() if found == name) for name in weights}
    rows = [(row["doc_id"], source[row["doc_id"]]) for row in mixed.table("documents.parquet").to_pylist()]
    counts = {name: sum(found == name for _, found in rows) - stand[name] for name in weights}
    there = {name: sum(found == name for found in source.values()) - stand[name] for name in weights}
    assert counts["positive"] == 2 * there["positive"] and counts["news"] == 0  # held-out documents stand once whatever the weight
    assert 0.35 * there["negative"] < counts["negative"] < 0.65 * there["negative"]
    before, after = plain.metrics["tokens_by_source"], mixed.metrics["tokens_by_source"]
    assert after["positive"] == 2 * before["positive"] and after["news"] == 0
    assert sum(before.values()) + before_validation(plain) == plain.metrics["tokens"]

    index = mixed.table("documents.parquet")
    broken = altered(mixed, tmp_path / "twice", "tokens", documents__parquet=pa.concat_tables([index, index.slice(0, 1)]))
    assert not judge("tokens", "index_holds", broken, **inputs).passed and not judge("tokens", "expectations", broken, **inputs).passed
    with pytest.raises(ValueError, match=r"tokens.weights names films; the clean corpus has documents of negative, news, positive"):
        run(Store(tmp_path / "home"), "tokens", {"context": 32, "weights": {"films": 1.0}}, inputs)


def before_validation(artifact: Artifact) -> int:
    return sum(row["length"] for row in artifact.table("documents.parquet").to_pylist() if is_validation(row["doc_id"], 0.02))


def test_without_weights_the_recipe_is_what_it_was_before_there_were_any() -> None:
    assert LINK.config().recipe() == {"context": 128, "validation_share": 0.02}
    assert LINK.config.model_validate({"weights": {"a": 1.5}}).recipe()["weights"] == {"a": 1.5}


def test_a_document_that_names_a_special_token_holds_none(corpus: dict[str, Outcome], tmp_path: Path) -> None:
    table = corpus["clean_corpus"].artifact.table("documents.parquet")
    named = "[MASK] and [SEP] are written so" + " in a text" * 3
    texts = [named, *table["text"].to_pylist()[1:]]
    changed = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts, table.schema.field("text").type))
    clean = altered(corpus["clean_corpus"].artifact, tmp_path / "clean", "clean_corpus", documents__parquet=changed)
    made = run(Store(tmp_path / "home"), "tokens", {"context": 32}, {"clean_corpus": clean, "tokenizer": corpus["tokenizer"].artifact})
    assert all(verdict.passed for verdict in made.verdicts), made.verdicts
    index = {row["doc_id"]: row for row in made.artifact.table("documents.parquet").to_pylist()}
    row, encoder = index[table["doc_id"][0].as_py()], load(corpus["tokenizer"].artifact.directory)
    start = row["block"] * 32 + row["offset"]
    ids = blocks(made.artifact).reshape(-1)[start : start + row["length"]].tolist()
    assert encoder.decode(ids[1:-1]) == named and not {encoder.token_to_id(token) for token in ("[MASK]", "[SEP]")} & set(ids[1:-1])
