from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from llm_assets.training.faults import DivergedError, documents, refuse
from llm_assets.training.job import FAULT, Classification, Masked, TrainingJob


def job(folder: Path, objective: Masked | Classification) -> TrainingJob:
    return TrainingJob(objective=objective, tokenizer=folder, output=folder, scratch=folder, steps=9, evaluate_every=9)


def index(folder: Path) -> Masked:
    """Three documents over four blocks: a in block 0, b in 0 and 1, c in 1, 2 and 3."""
    table = pyarrow.table({"doc_id": ["a", "b", "c"], "block": [0, 0, 1], "blocks": [1, 2, 3]})
    pyarrow.parquet.write_table(table, folder / "documents.parquet")
    return Masked(tokens=folder)


def test_a_block_leads_to_every_document_in_it(tmp_path: Path) -> None:
    objective = index(tmp_path)
    assert documents(objective, [0]) == ["a", "b"]
    assert documents(objective, [3, 1]) == ["b", "c"]


def test_an_example_leads_to_its_document(tmp_path: Path) -> None:
    table = pyarrow.table({"doc_id": ["x", "y", "z"], "text": ["", "", ""]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    objective = Classification(train=tmp_path / "train.parquet", evaluation=tmp_path, labels=("n", "p"))
    assert documents(objective, [2, 0, 2]) == ["x", "z"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stops_the_training_and_is_told_to_the_launcher(tmp_path: Path, value: float) -> None:
    with pytest.raises(DivergedError, match=r"loss is (nan|inf|-inf) at update 4 of 9, on documents a, b$"):
        refuse(job(tmp_path, index(tmp_path)), "loss", value, 4, [0])
    told = json.loads((tmp_path / FAULT).read_text())
    assert told["update"] == 4 and told["documents"] == ["a", "b"] and told["rows"] == [0] and "loss is" in told["message"]


def test_rows_are_named_where_the_data_names_no_documents(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"gradient norm is nan at update 1 of 9, on blocks 7, 3$"):
        refuse(job(tmp_path, Masked(tokens=tmp_path)), "gradient norm", float("nan"), 1, [7, 3])


def test_a_number_passes(tmp_path: Path) -> None:
    refuse(job(tmp_path, Masked(tokens=tmp_path)), "loss", 3.5, 1, [0])
    assert not (tmp_path / FAULT).exists()
