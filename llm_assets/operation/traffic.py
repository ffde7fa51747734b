"""traffic: a day of the request log as a table, one row a text, which drift, alerts and annotation read."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus.documents import table_writer
from llm_assets.links.link import Acted, Check, Link, Office, Section
from llm_assets.operation.log import Request, requests
from llm_assets.serving.request_log import log_folder
from llm_assets.store.files import flush_directory, flush_file, sha256_file
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
BATCH = 2_000  # requests turned into rows at once


class TrafficConfig(Section):
    """How the request log becomes a table."""

    first_day: str = Field("2026-01-01", pattern=r"^\d{4}-\d\d-\d\d$", description="UTC date of the first partition")


def traffic(office: Office, config: TrafficConfig) -> Acted:
    """A day of the request log as Parquet, one row a text: answer, probabilities, client, release, latency and the masked text.

    Where answers are generated a row is the last turn of a conversation, `answer` the reply to it and `label` how that ended: stop,
    length or broken off. The day is the partition, UTC, else today. Of a text that both releases of a rollout were asked, `shadow` is
    what the other one said. A line that a crash cut off is passed over and counted. The same log gives the same file, byte for byte; a day that is
    still being written grows with each materialization.
    """
    day = office.day or datetime.now(UTC).date().isoformat()
    path = traffic_path(office.home, office.chain, day)
    record = {"day": day, "table": str(path.relative_to(office.home)), **write_day(log_folder(office.home) / office.chain / f"{day}.jsonl", path)}
    return Acted(record, sha256_file(path)[:24])


def traffic_path(home: Path, chain: str, day: str) -> Path:
    """The table of a UTC date."""
    return home / "serving" / "traffic" / chain / f"{day}.parquet"


def write_day(log: Path, path: Path) -> dict[str, Any]:
    """Write a day's log, which may not exist, as the table ``path``; returns what it counted.

    The table stands whole or not at all: it is written beside ``path``, flushed, and renamed.
    """
    counted: Counter[str] = Counter(requests=0, texts=0, unreadable=0)
    releases: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    clients: set[str] = set()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with table_writer(temporary, schema()) as write:
            for batch in _batches(log, counted):
                write(_table(batch))
                counted["requests"] += len(batch)
                counted["texts"] += sum(len(request.texts) for request in batch)
                releases.update(request.release for request in batch)
                labels.update(text.label for request in batch for text in request.texts)
                clients |= {request.client for request in batch}
        flush_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_directory(path.parent)
    return {**counted, "clients": len(clients), "releases": dict(sorted(releases.items())), "labels": dict(labels.most_common(20))}


def newest_rows(home: Path, chain: str, days: int | None = None) -> Iterator[Row]:
    """The rows of a chain's tables, the newest first, of the newest so many tables or of all."""
    import pyarrow.parquet

    paths = sorted(traffic_path(home, chain, "x").parent.glob("[0-9]*.parquet"), reverse=True)
    for path in paths[:days]:
        with pyarrow.parquet.ParquetFile(path) as file:
            for group in reversed(range(file.num_row_groups)):
                yield from reversed(file.read_row_group(group).to_pylist())


def schema() -> pa.Schema:
    """The columns of a table; ``at`` is UTC, ``probability`` that of the answer, ``shadow`` what the other release of a rollout said.

    ``answer`` is a reply with personal data masked, ``answer_characters`` its length as it went out; both null of a classifier.
    ``adapter`` is the one that answered beside the model; null where the model answered alone.
    """
    import pyarrow as pa

    strings = ("id", "release", "client", "sha256", "masked", "label", "shadow", "answer", "adapter")
    counts = dict.fromkeys(("index", "characters", "answer_characters"), pa.int32())
    numbers = {**counts, "probability": pa.float64(), "milliseconds": pa.float64()}
    kinds = {**dict.fromkeys(strings, pa.string()), **numbers, "at": pa.timestamp("us", "UTC"), "probs": pa.list_(pa.float64())}
    order = (
        *("id", "index", "at", "release", "client", "sha256", "masked", "characters"),
        *("label", "probability", "probs", "shadow", "milliseconds", "answer", "answer_characters", "adapter"),
    )
    return pa.schema([(name, kinds[name]) for name in order])


def _batches(log: Path, counted: Counter[str]) -> Iterator[list[Request]]:
    if not log.exists():
        return
    found = requests(log)
    while batch := list(islice(found, BATCH)):
        readable = [request for request in batch if request is not None]
        counted["unreadable"] += len(batch) - len(readable)
        yield readable


def _table(batch: list[Request]) -> pa.Table:
    import pyarrow as pa

    rows = [
        {
            "id": request.id,
            "index": text.index,
            "at": request.at,
            "release": request.release,
            "client": request.client,
            "sha256": text.sha256,
            "masked": text.masked,
            "characters": text.characters,
            "label": text.label,
            "probability": text.certainty,
            "probs": text.probs,
            "shadow": text.shadow,
            "milliseconds": request.milliseconds,
            "answer": text.reply.masked if text.reply else None,
            "answer_characters": text.reply.characters if text.reply else None,
            "adapter": request.adapter or None,
        }
        for request in batch
        for text in request.texts
    ]
    return pa.Table.from_pylist(rows, schema())


def _readable(record: Mapping[str, Any], inputs: Mapping[str, Any]) -> Verdict:
    lost = record["unreadable"]
    return Verdict(
        check="log_readable",
        passed=not lost,
        description=f"{record['requests']} requests with {record['texts']} texts on {record['day']}; {lost} lines could not be read",
        values={"unreadable": lost},
    )


LINK = Link(
    name="traffic",
    version=1,
    make=traffic,
    config=TrafficConfig,
    inputs=(),
    stage="service",
    role="operations_engineer",
    kinds=("parquet",),
    checks=(Check("log_readable", "Every line of the day's log is a request, none cut off.", _readable, blocking=False),),
    act=True,
    reads=("request_log",),
)
