from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from openlineage.client.serde import Serde
from referencing import Registry, Resource

from llm_assets.audit.openlineage import Materializing
from llm_assets.links.chain import LINKS
from llm_assets.store.store import Store
from llm_assets_tests.audit.material import KEPT, OTHER, SOURCE, raw_corpus, run

SCHEMAS = Path(__file__).parent / "openlineage"
RUN = str(uuid.UUID(int=1))


def validator() -> Draft202012Validator:
    """Of a run event, every facet that it may carry included: the specification leaves facets open, their own schemas close them."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in SCHEMAS.rglob("*.json")]
    registry: Registry[Any] = Registry().with_resources([(content["$id"], Resource.from_contents(content)) for content in contents])
    event = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    return Draft202012Validator({"$ref": event}, registry=registry, format_checker=FormatChecker())


def facets_of(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = [*event["inputs"], *event["outputs"]]
    for holder in (event["run"], event["job"], *data):
        yield from (holder.get("facets") or {}).items()
    for one in data:
        yield from {**(one.get("inputFacets") or {}), **(one.get("outputFacets") or {})}.items()


def refuse_invalid(event: dict[str, Any]) -> None:
    """Raise where an event, or one of its facets, is not what the specification says."""
    known = validator()
    known.validate(event)
    for name, facet in facets_of(event):
        known.evolve(schema={"$ref": facet["_schemaURL"]}).validate(facet)
        assert name in json.dumps([json.loads(path.read_text())["properties"] for path in SCHEMAS.glob("facets/*.json")])


def materializing(link: str, **inputs: str) -> Materializing:
    return Materializing("reviews", LINKS[link], "data_engineer", RUN, {("reviews", name): version for name, version in inputs.items()})


def plain(event: Any) -> dict[str, Any]:
    return json.loads(Serde.to_json(event))


def tags(event: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}


def test_every_event_is_what_the_specification_says(store: Store) -> None:
    raw = raw_corpus(store, KEPT, OTHER)
    screened = run(store, "screened_corpus", {"minimum_kept": 0.0}, {"raw_corpus": raw}).artifact
    told = materializing("screened_corpus", raw_corpus=raw.data_version)
    entry = {"at": "2026-01-01T00:00:00+00:00", "data_version": "v", "seconds": 1.0, "core_seconds": 1.0, "peak_memory_bytes": 1}
    events = [
        told.started(),
        told.made(screened, False, {}),
        told.failed(ValueError("no")),
        told.failed(KeyboardInterrupt()),
        materializing("raw_corpus").made(raw, True, {}),
        materializing("release", scorecard="v").done(entry, {"failed_checks": "files_are_whole"}),
    ]
    for event in map(plain, events):
        refuse_invalid(event)
    assert [plain(event)["eventType"] for event in events] == ["START", "COMPLETE", "FAIL", "ABORT", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize(
    "spoil", [lambda e: e.pop("producer"), lambda e: e["run"].update(runId="x"), lambda e: e["job"]["facets"]["ownership"].update(owners="x")]
)
def test_an_event_that_breaks_the_specification_is_refused(spoil: Any) -> None:
    event = plain(materializing("tokens").started())
    spoil(event)
    with pytest.raises(Exception, match=r"is a required property|is not a 'uuid'|is not of type 'array'"):
        refuse_invalid(event)


def test_what_was_read_and_made_is_told_with_versions_columns_rows_and_owners(store: Store) -> None:
    raw = raw_corpus(store, KEPT, OTHER)
    screened = run(store, "screened_corpus", {"minimum_kept": 0.0}, {"raw_corpus": raw}).artifact
    event = plain(materializing("screened_corpus", raw_corpus=raw.data_version).made(screened, False, {"mlflow_run": "m"}))
    (read,), (made,) = event["inputs"], event["outputs"]
    assert (read["name"], read["facets"]["version"]["datasetVersion"]) == ("reviews/raw_corpus", raw.data_version)
    assert (made["name"], made["facets"]["version"]["datasetVersion"]) == ("reviews/screened_corpus", screened.data_version)
    columns = {table["name"]: [column["name"] for column in table["fields"]] for table in made["facets"]["schema"]["fields"]}
    assert {"doc_id", "text"} <= set(columns["documents.parquet"]) and "evidence" in columns["rejects.parquet"]
    figures = made["outputFacets"]["outputStatistics"]
    assert (figures["rowCount"], figures["size"], figures["fileCount"]) == (2, screened.manifest.size, len(screened.manifest.files))
    assert made["facets"]["ownership"]["owners"][0]["name"] == event["job"]["facets"]["ownership"]["owners"][0]["name"] == "team:data_engineer"
    assert event["run"]["facets"]["parent"] | {"_producer": 0, "_schemaURL": 0} == {
        "run": {"runId": RUN, "facets": {}}, "job": {"namespace": "llm_assets", "name": "reviews", "facets": {}}, "_producer": 0, "_schemaURL": 0,
    }  # fmt: skip
    assert {"minimum_kept"} <= {one["key"] for one in event["run"]["facets"]["executionParameters"]["parameters"]}
    assert tags(event)["reused"] == "false" and tags(event)["fingerprint"] == screened.fingerprint and tags(event)["mlflow_run"] == "m"
    assert event["job"]["facets"]["sourceCodeLocation"]["path"] == "llm_assets/links/screened_corpus.py"


def test_sources_are_inputs_with_licence_and_hash(store: Store) -> None:
    event = plain(materializing("raw_corpus").made(raw_corpus(store, KEPT), True, {}))
    (source,) = event["inputs"]
    assert (source["namespace"], source["name"]) == ("pypi", "p 1: test.txt")
    assert source["facets"]["version"]["datasetVersion"] == SOURCE["sha256"]
    assert source["facets"]["tags"]["tags"][0]["value"] == "MIT"
    assert tags(event)["reused"] == "true"


def test_the_events_of_one_materialization_share_a_run_and_no_other_has_it() -> None:
    one, other = materializing("tokens"), materializing("tokenizer")
    again = Materializing("reviews", LINKS["tokens"], "t", RUN, {}, part="/1")
    assert plain(one.started())["run"]["runId"] == plain(one.failed(ValueError("x")))["run"]["runId"]
    assert len({one.run_id, other.run_id, again.run_id}) == 3


def test_an_error_tells_no_personal_data() -> None:
    message = plain(materializing("tokens").failed(ValueError("row 3: call 13812345678")))["run"]["facets"]["errorMessage"]["message"]
    assert message.startswith("ValueError: row 3") and "13812345678" not in message
