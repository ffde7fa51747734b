"""Great Expectations suites over the corpus links' tables, run in memory without a project folder.

What is validated holds no text, only its length, and results are asked for as booleans: other result formats copy values
into the report. Only for an expectation that failed are the count and the doc_ids of the offending rows looked up.
Importing the library takes 7 s, so it is imported where a suite is judged and nowhere else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

BOOLEAN = {"result_format": "BOOLEAN_ONLY"}
SHOWN = 5  # doc_ids named for a failed expectation
DOC_ID = r"^[0-9a-f]{20}$"


def judge_documents(artifact: Artifact, link: str) -> Verdict:
    """The suite of raw_corpus (rows are occurrences) or clean_corpus (rows are documents, each once)."""
    gxe = _library()

    frame = _frame(artifact, "documents.parquet", ["doc_id", "text", "source", "license", "member", "line", "metadata"])
    suite: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToMatchRegex(column="doc_id", regex=DOC_ID),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in ("characters", "source", "license", "member", "metadata")),
        gxe.ExpectColumnValuesToBeBetween(column="line", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=1),
    ]
    if link == "raw_corpus":
        suite.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=["source", "member", "line"]))
    else:
        suite.append(gxe.ExpectColumnValuesToBeUnique(column="doc_id"))
    return validate(frame, suite, link)


def judge_examples(artifact: Artifact) -> Verdict:
    """The suite of labelled_examples: each example once, its label declared, its text not empty."""
    gxe = _library()

    frame = _frame(artifact, "train.parquet", ["doc_id", "text", "label"])
    suite: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=2),
        gxe.ExpectColumnValuesToMatchRegex(column="doc_id", regex=DOC_ID),
        gxe.ExpectColumnValuesToBeUnique(column="doc_id"),
        gxe.ExpectColumnValuesToNotBeNull(column="label"),
        gxe.ExpectColumnValuesToBeInSet(column="label", value_set=artifact.json("labels.json")),
        gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=1),
    ]
    return validate(frame, suite, "labelled_examples")


def judge_index(artifact: Artifact) -> Verdict:
    """The suite of tokens: each document once, its place and length inside the layout."""
    gxe = _library()

    layout = artifact.json("layout.json")
    frame = artifact.table("documents.parquet").to_pandas()
    suite: list[Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeUnique(column="doc_id"),
        gxe.ExpectColumnValuesToBeBetween(column="block", min_value=0, max_value=layout["blocks"] - 1),
        gxe.ExpectColumnValuesToBeBetween(column="offset", min_value=0, max_value=layout["context"] - 1),
        gxe.ExpectColumnValuesToBeBetween(column="length", min_value=2),  # [CLS] and [SEP] at least
        gxe.ExpectColumnValuesToBeBetween(column="blocks", min_value=1, max_value=layout["blocks"]),
        gxe.ExpectColumnSumToBeBetween(
            column="length", min_value=(total := layout["blocks"] * layout["context"] - layout["padding_tokens"]), max_value=total
        ),
    ]
    return validate(frame, suite, "tokens")


def validate(frame: pd.DataFrame, expectations: list[Expectation], name: str) -> Verdict:
    """The suite's verdict on a frame with a ``doc_id`` column: how many expectations hold, and which rows break the others."""
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
    for place, expectation in enumerate(expectations):
        expectation.meta = {"place": place}  # results come back in an order of the library's own
    results = batch.validate(gx.ExpectationSuite(name=name, expectations=expectations), result_format=BOOLEAN).results
    places = sorted(result.expectation_config.meta["place"] for result in results if result.expectation_config and not result.success)
    broken = [expectations[place] for place in places]
    failures = {_title(expectation): _offenders(batch, expectation) for expectation in broken}
    held = len(expectations) - len(broken)
    return Verdict(
        check="expectations",
        passed=not broken,
        description=f"{held} of {len(expectations)} expectations hold over {len(frame)} rows" + "".join(f"; broken: {name}" for name in failures),
        values={"rows": len(frame), "expectations": [_title(expectation) for expectation in expectations], "broken": failures},
    )


def _library() -> Any:
    """The expectations, untyped: the package re-exports them in a way type checkers do not follow."""
    import great_expectations.expectations

    return great_expectations.expectations


def _frame(artifact: Artifact, name: str, columns: list[str]) -> pd.DataFrame:
    """The table with each text replaced by its length in characters; the texts are read in pieces."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces = []
    for batch in artifact.batches(name, columns):
        piece = pa.Table.from_batches([batch])
        pieces.append(piece.drop_columns(["text"]).append_column("characters", pc.utf8_length(piece["text"])))
    return (pa.concat_tables(pieces) if pieces else pa.table({name: [] for name in (*columns, "characters")})).to_pandas()


def _title(expectation: Expectation) -> str:
    name = type(expectation).__name__.removeprefix("Expect")
    columns = getattr(expectation, "column", None) or ", ".join(getattr(expectation, "column_list", []))
    return f"{name}({columns})"


def _offenders(batch: Any, expectation: Expectation) -> dict[str, Any]:
    """How many rows break an expectation and the doc_ids of the first; nothing else of the result, which holds values."""
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["doc_id"], "partial_unexpected_count": 0}
    result = batch.validate(expectation, result_format=form).result
    rows = result.get("unexpected_index_list") or []
    return {"rows": result.get("unexpected_count"), "doc_ids": [row["doc_id"] for row in rows[:SHOWN]]}
