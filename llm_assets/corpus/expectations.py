"""Great Expectations suites over the corpus links' tables, run in memory without a project folder.

What is validated holds no text, only its length, and results are asked for as booleans: other result formats copy values
into the report. Only for an expectation that failed are the count and the doc_ids of the offending rows looked up.
The library keeps about 340 bytes a row, so a table is judged in pieces; whether a key stands twice in it is found from
hashes beforehand and goes into the pieces as a column. Importing the library takes 7 s, so it is imported where a suite
is judged and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

from llm_assets.corpus import data_docs
from llm_assets.corpus.documents import hash_rows, repeated_rows
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation import Expectation

BOOLEAN = {"result_format": "BOOLEAN_ONLY"}
SHOWN = 5  # doc_ids named for a failed expectation
DOC_ID = r"^[0-9a-f]{20}$"
PIECE = 200_000  # rows judged at once
PLACE, IDENTITY, POSITION = "place stands twice", "doc_id stands twice", "position stands twice"  # columns that tell which rows repeat another's key
KEYS: Mapping[str, list[str]] = {PLACE: ["source", "member", "line"], IDENTITY: ["doc_id"], POSITION: ["block", "offset"]}


@dataclass(frozen=True)
class Suite:
    """What is expected of a table: of each row, and of the one row of its totals."""

    name: str
    rows: list[Expectation]
    totals: list[Expectation] = field(default_factory=list)


def judge_documents(artifact: Artifact, link: str) -> Verdict:
    """The suite of raw_corpus (rows are occurrences) or clean_corpus (rows are documents, each once)."""
    gxe = _library()

    columns = ["doc_id", "text", "source", "license", "member", "line", "metadata"]
    key = PLACE if link == "raw_corpus" else IDENTITY
    suite = Suite(
        link,
        rows=[
            gxe.ExpectColumnValuesToMatchRegex(column="doc_id", regex=DOC_ID),
            *(gxe.ExpectColumnValuesToNotBeNull(column=column) for column in ("characters", "source", "license", "member", "metadata")),
            gxe.ExpectColumnValuesToBeBetween(column="line", min_value=1),
            gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=1),
            gxe.ExpectColumnValuesToBeInSet(column=key, value_set=[False]),
        ],
        totals=[gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=1)],
    )
    return validate(suite, _pieces(artifact, "documents.parquet", columns, key), {"rows": artifact.rows("documents.parquet")})


def judge_examples(artifact: Artifact) -> Verdict:
    """The suite of labelled_examples: each example once, its label declared, its text not empty."""
    gxe = _library()

    one_label = artifact.manifest.recipe["config"].get("problem", "single_label") == "single_label"  # several, or numbers, are in no set
    declared = [gxe.ExpectColumnValuesToBeInSet(column="label", value_set=artifact.json("labels.json"))] if one_label else []
    suite = Suite(
        "labelled_examples",
        rows=[
            gxe.ExpectColumnValuesToMatchRegex(column="doc_id", regex=DOC_ID),
            gxe.ExpectColumnValuesToNotBeNull(column="label"),
            *declared,
            gxe.ExpectColumnValuesToBeBetween(column="characters", min_value=1),
            gxe.ExpectColumnValuesToBeInSet(column=IDENTITY, value_set=[False]),
        ],
        totals=[gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=2)],
    )
    return validate(suite, _pieces(artifact, "train.parquet", ["doc_id", "text", "label"], IDENTITY), {"rows": artifact.rows("train.parquet")})


def judge_conversations(artifact: Artifact) -> Verdict:
    """The suite of labelled_examples that are conversations: each once, of a task stated, opened by a user, ended by an assistant, no turn empty."""
    gxe = _library()

    suite = Suite(
        "conversations",
        rows=[
            gxe.ExpectColumnValuesToMatchRegex(column="doc_id", regex=DOC_ID),
            gxe.ExpectColumnValuesToBeInSet(column="task", value_set=artifact.json("tasks.json")),
            gxe.ExpectColumnValuesToBeInSet(column="first_role", value_set=["user"]),
            gxe.ExpectColumnValuesToBeInSet(column="last_role", value_set=["assistant"]),
            gxe.ExpectColumnValuesToBeBetween(column="turns", min_value=2),
            gxe.ExpectColumnValuesToBeBetween(column="shortest_turn", min_value=1),
            gxe.ExpectColumnValuesToBeInSet(column=IDENTITY, value_set=[False]),
        ],
        totals=[gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=2)],
    )
    return validate(suite, _spoken(artifact, "train.parquet"), {"rows": artifact.rows("train.parquet")})


def judge_index(artifact: Artifact) -> Verdict:
    """The suite of tokens: each document once (with weights each position once), its place and length inside the layout."""
    import pyarrow.compute as pc

    gxe = _library()

    layout, columns = artifact.json("layout.json"), ["doc_id", "block", "offset", "length", "blocks"]
    key = POSITION if artifact.manifest.recipe["config"].get("weights") else IDENTITY
    filled = layout["blocks"] * layout["context"] - layout["padding_tokens"]
    suite = Suite(
        "tokens",
        rows=[
            gxe.ExpectColumnValuesToBeBetween(column="block", min_value=0, max_value=layout["blocks"] - 1),
            gxe.ExpectColumnValuesToBeBetween(column="offset", min_value=0, max_value=layout["context"] - 1),
            gxe.ExpectColumnValuesToBeBetween(column="length", min_value=2),  # [CLS] and [SEP] at least
            gxe.ExpectColumnValuesToBeBetween(column="blocks", min_value=1, max_value=layout["blocks"]),
            gxe.ExpectColumnValuesToBeInSet(column=key, value_set=[False]),
        ],
        totals=[
            gxe.ExpectColumnValuesToBeBetween(column="rows", min_value=1),
            gxe.ExpectColumnValuesToBeBetween(column="tokens", min_value=filled, max_value=filled),
        ],
    )
    tokens = sum(pc.sum(batch["length"]).as_py() or 0 for batch in artifact.batches("documents.parquet", ["length"]))
    totals = {"rows": artifact.rows("documents.parquet"), "tokens": tokens}
    return validate(suite, _pieces(artifact, "documents.parquet", columns, key), totals)


def validate(suite: Suite, pieces: Iterator[pd.DataFrame], totals: Mapping[str, int]) -> Verdict:
    """The suite's verdict on a table in pieces with a ``doc_id`` column: how many expectations hold, and which rows break the others."""
    import pandas as pd

    whole = _batch_definition(suite.name)
    table = pd.DataFrame([{"doc_id": "(whole table)", **totals}])
    outcomes: dict[str, ExpectationValidationResult] = {}
    broken: dict[str, dict[str, Any]] = {}
    for frame, expectations in chain(((piece, suite.rows) for piece in pieces), [(table, suite.totals)]):
        batch = whole.get_batch({"dataframe": frame})
        for expectation, outcome in _judged(batch, suite.name, expectations):
            title = _title(expectation)
            if outcomes.setdefault(title, outcome).success:
                outcomes[title] = outcome
            if not outcome.success:
                rows, doc_ids = _offenders(batch, expectation)
                found = broken.setdefault(title, {"rows": 0, "doc_ids": []})
                found["rows"] += rows
                found["doc_ids"] = [*found["doc_ids"], *doc_ids][:SHOWN]
    return Verdict(
        check="expectations",
        passed=not broken,
        description=f"{len(outcomes) - len(broken)} of {len(outcomes)} expectations hold over {totals['rows']} rows"
        + "".join(f"; broken: {title}" for title in broken),
        values={"rows": totals["rows"], "expectations": list(outcomes), "broken": broken},
        page=data_docs.page(suite.name, list(outcomes.values()), totals["rows"], broken),
    )


def _library() -> Any:
    """The expectations, untyped: the package re-exports them in a way type checkers do not follow."""
    import great_expectations.expectations

    return great_expectations.expectations


def _batch_definition(name: str) -> Any:
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    return context.data_sources.add_pandas("memory").add_dataframe_asset(name).add_batch_definition_whole_dataframe("whole")


def _judged(batch: Any, name: str, expectations: list[Expectation]) -> Iterator[tuple[Expectation, ExpectationValidationResult]]:
    """Each expectation with its outcome, in the order of the suite: the library has an order of its own."""
    import great_expectations as gx

    for place, expectation in enumerate(expectations):
        expectation.meta = {"place": place}
    results = batch.validate(gx.ExpectationSuite(name=name, expectations=expectations), result_format=BOOLEAN).results
    yield from zip(expectations, sorted(results, key=lambda outcome: int(outcome.expectation_config.meta["place"])), strict=True)


def _pieces(artifact: Artifact, name: str, columns: list[str], key: str) -> Iterator[pd.DataFrame]:
    """The table in pieces, each text replaced by its length in characters, with a column that tells whether a row's key stands twice."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    again = repeated_rows(artifact.batches(name, KEYS[key]), KEYS[key])
    waiting: list[pa.Table] = []
    for batch in artifact.batches(name, columns):
        piece = pa.Table.from_batches([batch]).append_column(key, pa.array(np.isin(hash_rows(batch, KEYS[key]), again)))
        if "text" in columns:
            piece = piece.drop_columns(["text"]).append_column("characters", pc.utf8_length(piece["text"]))
        waiting.append(piece)
        if sum(map(len, waiting)) >= PIECE:
            yield pa.concat_tables(waiting).to_pandas()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).to_pandas()


def _spoken(artifact: Artifact, name: str) -> Iterator[pd.DataFrame]:
    """A table of conversations in pieces: what is asked of their turns, not the turns."""
    import numpy as np
    import pandas as pd

    again = repeated_rows(artifact.batches(name, KEYS[IDENTITY]), KEYS[IDENTITY])
    for batch in artifact.batches(name, ["doc_id", "task", "messages"]):
        said = batch["messages"].to_pylist()
        yield pd.DataFrame(
            {
                "doc_id": batch["doc_id"].to_pylist(),
                "task": batch["task"].to_pylist(),
                "first_role": [turns[0]["role"] if turns else None for turns in said],
                "last_role": [turns[-1]["role"] if turns else None for turns in said],
                "turns": [len(turns) for turns in said],
                "shortest_turn": [min((len(turn["content"].strip()) for turn in turns), default=0) for turns in said],
                IDENTITY: np.isin(hash_rows(batch, KEYS[IDENTITY]), again),
            }
        )


def _title(expectation: Expectation) -> str:
    return f"{type(expectation).__name__.removeprefix('Expect')}({getattr(expectation, 'column', '')})"


def _offenders(batch: Any, expectation: Expectation) -> tuple[int, list[str]]:
    """How many rows break an expectation and the doc_ids of the first; nothing else of the result, which holds values."""
    form = {"result_format": "COMPLETE", "unexpected_index_column_names": ["doc_id"], "partial_unexpected_count": 0}
    result = batch.validate(expectation, result_format=form).result
    return int(result["unexpected_count"]), [row["doc_id"] for row in result["unexpected_index_list"][:SHOWN]]
