from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm_assets.audit import records as module
from llm_assets.audit.matching import recorded
from llm_assets.audit.needles import spelled
from llm_assets.audit.records import MARK, Cleaning, clean_records
from llm_assets.audit.search import hashes, probes, search
from llm_assets.corpus.batches import batch_folder, read_batches, row_key, withdrawals, write_batch
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.operation import traffic
from llm_assets.operation.feedback_batch import FeedbackBatchConfig, feedback_batch
from llm_assets.operation.log import requests
from llm_assets.serving.dated_files import DatedFiles
from llm_assets.serving.events import append_event, read_events
from llm_assets.serving.feedback import read_votes
from llm_assets.serving.recorder import settle
from llm_assets.serving.request_log import log_folder
from llm_assets.serving.spool import Spool
from llm_assets.serving.spool import place as spool_place
from llm_assets.store.journal import Journal
from llm_assets.store.store import Store
from llm_assets_tests.operation.released import office
from llm_assets_tests.operation.traffic import line, reply, vote, write_log
from llm_assets_tests.serving.test_recorder import request

TEXT = "这家酒店的早餐非常好吃，房间也很干净，下次出差还会再来住，电话13800138000可以打"
OTHER = "书的内容很空洞，翻译得也不好，读起来完全浪费时间"
WANTED = [*probes(TEXT), *hashes(TEXT)]
DAY = "2026-11-20"


def clean(store: Store) -> Cleaning:
    return clean_records(store, spelled(WANTED), Tombstones.of(store.home))


def logged(home: Path) -> None:
    write_log(home, [line(0, OTHER), line(1, OTHER, f"请问：{TEXT}", labels=["negative", "positive"]), line(2, TEXT)])


def tabled(home: Path) -> None:
    logged(home)
    path = traffic.traffic_path(home, "tiny", DAY)
    traffic.write_day(log_folder(home) / "tiny" / f"{DAY}.jsonl", path)
    (log_folder(home) / "tiny" / f"{DAY}.jsonl").unlink()


def voted(home: Path) -> None:
    write_log(home, [vote(1, comment=f"我写了{TEXT}", rating="down"), vote(2, comment="好", rating="up")], kind="feedback")


def batched(home: Path) -> None:
    rows = [
        {"doc_id": "d" * 20, "id": f"classify-{number}", "index": 0, "at": DAY, "text": text, "label": "good", "votes": 1, "provenance": "feedback"}
        for number, text in enumerate((TEXT, OTHER))
    ]
    write_batch(batch_folder(home, "tiny"), rows)


def database(path: Path) -> None:
    path.parent.mkdir(parents=True)
    event = json.dumps({"metadata": {"sample": TEXT, "rows": 3}, "filler": "x" * 9000})
    with closing(sqlite3.connect(path)) as base:
        base.execute("create table event_logs (id integer primary key, event text)")
        base.execute("create table params (key text primary key, value text) without rowid")
        base.executemany("insert into event_logs (event) values (?)", [(event,), (event,), ("{}",)])
        base.execute("insert into params values ('prompt', ?)", (TEXT,))
        base.execute("insert into params values ('gone', ?)", (TEXT,))
        base.execute("delete from params where key = 'gone'")
        base.commit()


def written(content: str | bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def working(home: Path) -> None:
    written("{}")(home / "work" / "f1" / "recipe.json")
    written(TEXT)(home / "work" / "f1" / "scratch" / "shard-0.txt")


PLACES: dict[str, Callable[[Path], None]] = {
    f"serving/log/tiny/{DAY}.jsonl: 2 texts": logged,
    f"serving/traffic/tiny/{DAY}.parquet: 2 rows": tabled,
    f"serving/feedback/tiny/{DAY}.jsonl: 1 values": voted,
    "serving/events/tiny.jsonl: 1 values": lambda home: append_event(home, "tiny", "alert", f"such as {TEXT}") and None,
    "acts/tiny/drift/run/pages/samples.html: 1 values": lambda home: written(f"<p>{TEXT}")(home / "acts/tiny/drift/run/pages/samples.html"),
    "acts/tiny/scorecard/run/scorecard.json: 1 values": lambda home: written(json.dumps({"a": [TEXT], "b": 1}))(
        home / "acts/tiny/scorecard/run/scorecard.json"
    ),
    "trials/run.json: 1 values": lambda home: written(json.dumps({"changed": TEXT}))(home / "trials" / "run.json"),
    "logs/gateway.log: 1 values": lambda home: written(f"a line\n{TEXT}\n")(home / "logs" / "gateway.log"),
    "dagster/history/runs/run.db: 2 values": lambda home: database(home / "dagster" / "history" / "runs" / "run.db"),
    "dagster/run/compute_logs/a.err: 1 values": lambda home: written(TEXT)(home / "dagster/run/compute_logs/a.err"),
    "mlflow/mlflow.db: 2 values": lambda home: database(home / "mlflow" / "mlflow.db"),
    "mlflow/artifacts/sample.txt: 1 values": lambda home: written(TEXT)(home / "mlflow" / "artifacts" / "sample.txt"),
    "mlflow/artifacts/sample.jsonl: 1 values": lambda home: written(json.dumps({"text": TEXT}) + "\n")(home / "mlflow/artifacts/sample.jsonl"),
    "audit/index.db: 2 values": lambda home: database(home / "audit" / "index.db"),
    "work/f1: 1 folder of abandoned work": working,
    "quarantine/raw_corpus-f2: 1 folder": lambda home: written(TEXT)(home / "quarantine" / "raw_corpus-f2" / "a.txt"),
    "cache/root/raw_corpus/f3: 1 folder": lambda home: written(gzip.compress(TEXT.encode()))(home / "cache/root/raw_corpus/f3/a.txt.gz"),
}


@pytest.mark.parametrize("said", PLACES)
def test_each_place_is_cleaned_and_said_so(store: Store, said: str) -> None:
    PLACES[said](store.home)
    path = said.partition(":")[0]
    assert [one for one in search([store], WANTED).found if one.startswith(path)] != []
    cleaning = clean(store)
    assert (cleaning.cleaned, cleaning.failed) == ([said], [])
    after = search([store], WANTED)
    assert (after.found, after.unread) == ([], []) and clean(store).cleaned == []


@pytest.mark.parametrize(
    "path", ["journal/tiny/release.jsonl", "inbox/tiny/new.jsonl", "artifacts/tokenizer/f/a.txt", "audit/chain.jsonl", "note.txt"]
)
def test_what_is_not_to_be_changed_is_found_and_named(store: Store, path: str) -> None:
    written(json.dumps({"text": TEXT}))(store.home / path)
    assert clean(store).cleaned == [] and search([store], WANTED).found == [path]


@pytest.mark.parametrize(("name", "is_read"), [("a.jsonl.gz", True), ("a.zip", True), ("a.7z", False), ("broken.gz", False), ("a.parquet", False)])
def test_what_is_packed_is_unpacked_or_said_not_to_be_searched(store: Store, name: str, is_read: bool) -> None:
    target = store.home / name
    if name.endswith("jsonl.gz"):
        target.write_bytes(gzip.compress(TEXT.encode()))
    elif name.endswith(".zip"):
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as box:
            box.writestr("new.txt", TEXT)
    else:
        target.write_bytes(b"PK" + TEXT.encode())
    found = search([store], WANTED)
    assert found.found == [name] * is_read and [one.partition(":")[0] for one in found.unread] == [name] * (not is_read)


def test_texts_are_found_in_columns_of_every_kind(store: Store) -> None:
    plain = pa.array([TEXT])
    columns = (plain.cast(pa.large_string()), plain.dictionary_encode(), pa.array([[TEXT]]), pa.array([{"a": TEXT}]), plain.cast(pa.binary()))
    for number, column in enumerate(columns):
        pq.write_table(pa.table({"number": [1], "column": column}), store.home / f"{number}.parquet")
    assert search([store], WANTED).found == [f"{number}.parquet" for number in range(5)]


def test_a_request_keeps_all_but_its_text(store: Store) -> None:
    logged(store.home)
    [path] = (log_folder(store.home) / "tiny").iterdir()
    before = [json.loads(one) for one in path.read_bytes().splitlines()]
    clean(store)
    after = [json.loads(one) for one in path.read_bytes().splitlines()]
    assert after[0] == before[0] and after[1]["texts"][0] == before[1]["texts"][0]
    for one, other, place in ((before[1], after[1], 1), (before[2], after[2], 0)):
        erased = other["texts"][place]
        assert {**one, "texts": None} == {**other, "texts": None}
        assert (erased["characters"], erased["masked"], erased["erased"]) == (one["texts"][place]["characters"], None, True)
        assert len(erased["sha256"]) == 64 and erased["sha256"] != one["texts"][place]["sha256"]
    read = [request for request in requests(path) if request]
    assert [request.id for request in read] == [one["id"] for one in before] and read[2].texts[0].masked is None


def test_a_table_of_traffic_keeps_its_rows(store: Store) -> None:
    tabled(store.home)
    path = traffic.traffic_path(store.home, "tiny", DAY)
    before = pq.read_table(path)
    clean(store)
    after = pq.read_table(path)
    assert after.schema == before.schema and after.drop(["masked", "sha256"]) == before.drop(["masked", "sha256"])
    assert after["masked"].to_pylist() == [OTHER, OTHER, None, None]


def test_a_vote_counts_without_its_comment(store: Store) -> None:
    voted(store.home)
    clean(store)
    assert [(one["rating"], one["comment"]) for one in read_votes(store.home, "tiny")] == [("down", MARK), ("up", "好")]


def test_a_batch_is_rewritten_into_another_and_leaves_a_marker(store: Store) -> None:
    batched(store.home)
    folder = batch_folder(store.home, "tiny")
    [old] = folder.iterdir()
    assert clean(store).cleaned == [f"feedback/tiny/{old.name}: 1 rows"]
    assert read_batches(folder)["text"].to_pylist() == [OTHER] and not old.exists()
    marker = json.loads(old.with_suffix(".erased.json").read_text())
    assert (marker["erased"], marker["kept"], (folder / f"{marker['replaced_by']}.parquet").is_file()) == (1, 1, True)
    assert search([store], WANTED).found == []


def test_what_was_withdrawn_stays_so_and_its_record_keeps_no_text(store: Store) -> None:
    batched(store.home)
    folder = batch_folder(store.home, "tiny")
    rows = [row_key(row) for row in read_batches(folder).to_pylist()]
    withdrawals(folder).append({"by": "Ada", "reason": f"wrong: {TEXT}", "rows": rows, "votes": []})
    assert "feedback/tiny/withdrawn.jsonl: 1 values" in clean(store).cleaned
    [entry] = withdrawals(folder).entries()
    assert (entry["by"], entry["reason"]) == ("Ada", MARK) and len(read_batches(folder)) == 0 and len(list(folder.glob("*.parquet"))) == 1


def test_the_hash_by_which_releases_differed_goes_with_the_text(store: Store) -> None:
    asked = f"请问：{TEXT}"  # its hash is in no probe: the log tells that it was the text's
    write_log(store.home, [line(1, asked)])
    known, other = (hashlib.sha256(text.encode()).hexdigest() for text in (asked, OTHER))
    journal = Journal(store.home / "serving" / "disagreements" / "tiny.jsonl")  # gateways of before shadows joined the log wrote it
    journal.append({"texts": {text: {"tiny-1": "a", "tiny-2": "b"} for text in (known, other)}})
    clean(store)
    [noted] = journal.entries()
    found = noted["texts"]
    assert len(found) == 2 and known not in found  # two texts still differ
    [entry] = [json.loads(one) for one in next((log_folder(store.home) / "tiny").iterdir()).read_bytes().splitlines()]
    assert entry["texts"][0]["sha256"] in found


def test_events_keep_their_figures(store: Store) -> None:
    append_event(store.home, "tiny", "alert", f"such as {TEXT}", "tiny-1", requests=7)
    clean(store)
    [event] = read_events(store.home, "tiny")
    assert (event["message"], event["requests"], event["release"]) == (MARK, 7, "tiny-1")


def test_a_file_that_cannot_be_written_is_named_and_stops_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    logged(store.home)
    voted(store.home)
    rewrite = module.rewrite

    def refused(path: Path, change: Callable[[bytes], bytes]) -> bool:
        if "log" in path.parts:
            raise PermissionError("read-only file system")
        return rewrite(path, change)

    monkeypatch.setattr(module, "rewrite", refused)
    cleaning = clean(store)
    assert cleaning.failed == [f"serving/log/tiny/{DAY}.jsonl: read-only file system"] and len(cleaning.cleaned) == 1
    assert search([store], WANTED).found == [f"serving/log/tiny/{DAY}.jsonl"]


def test_work_that_a_process_is_at_is_left_and_said_so(store: Store) -> None:
    working(store.home)
    with store.lock("f1"):
        assert [one.partition(":")[0] for one in clean(Store(store.home)).failed] == ["work/f1"]
    assert clean(store).cleaned == ["work/f1: 1 folder of abandoned work"]


def test_no_line_is_lost_beside_somebody_who_writes(store: Store) -> None:
    """A gateway goes on appending to the very file that is rewritten, again and again."""
    files, day, written_lines, ended = DatedFiles(log_folder(store.home)), datetime.now(UTC).date(), 0, threading.Event()

    def append() -> None:
        nonlocal written_lines
        while not ended.is_set():
            said = json.dumps(line(written_lines, TEXT if written_lines % 3 == 0 else OTHER), ensure_ascii=False).encode() + b"\n"
            assert files.append({"tiny": said}, day) == {}
            written_lines += 1

    writer = threading.Thread(target=append)
    writer.start()
    try:
        cleaned = 0
        while cleaned < 15:
            cleaned += len(clean(store).cleaned)
    finally:
        ended.set()
        writer.join()
    clean(store)
    files.close()
    lines = [json.loads(one) for one in files.path("tiny", day).read_bytes().splitlines()]
    assert [one["id"] for one in lines] == [f"classify-{number:04}" for number in range(written_lines)]
    assert all(("erased" in one["texts"][0]) == (number % 3 == 0) for number, one in enumerate(lines))


@pytest.mark.parametrize("place", ["answer", "turn", "correction"])
def test_what_was_said_in_a_conversation_goes_from_log_traffic_votes_and_batches(store: Store, place: str) -> None:
    answered, asked, label = (TEXT if one == place else OTHER for one in ("answer", "turn", "correction"))
    write_log(store.home, [reply(1, answered, asked)])
    write_log(store.home, [vote(1, id="chatcmpl-0001", rating="down", label=label)], kind="feedback")
    write_log(store.home, [reply(2, "好", "早餐")])
    write_log(store.home, [vote(2, id="chatcmpl-0002", rating="up")], kind="feedback")
    traffic.write_day(log_folder(store.home) / "tiny" / f"{DAY}.jsonl", traffic.traffic_path(store.home, "tiny", DAY))
    act = office(store.home, "feedback_batch")
    assert feedback_batch(act, FeedbackBatchConfig(minimum=1, client_share=1)).record["rows"] == 2
    assert TEXT.partition("电话")[0] in "".join(recorded(store.home))
    places = {one.partition("/")[0] for one in search([store], WANTED).found}
    assert places == {"serving", "feedback"}
    assert clean(store).failed == []
    assert search([store], WANTED).found == [] and [row["answered"] for row in read_batches(batch_folder(store.home, "tiny")).to_pylist()] == ["好"]
    rows = pq.read_table(traffic.traffic_path(store.home, "tiny", DAY)).to_pylist()
    assert [row["label"] for row in rows] == ["stop", "stop"] and rows[1]["answer"] == "好"
    again = feedback_batch(act, FeedbackBatchConfig(minimum=1, client_share=1)).record
    assert again["rows"] == (1 if place == "correction" else 0)  # the reply is still known to be wrong


def test_what_waits_in_memory_to_be_logged_is_written_and_cleaned_or_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def waiting() -> Spool:
        spool = Spool(spool_place(log_folder(store.home)))
        spool.append(json.dumps(request(7, [TEXT])).encode() + b"\n")
        return spool

    waiting().close()  # as by a gateway that was killed
    cleaning = clean(store)
    assert len(cleaning.cleaned) == 1 and cleaning.cleaned[0].startswith("serving/log/tiny/") and not cleaning.failed
    living = waiting()
    monkeypatch.setattr(settle, "__defaults__", (0.1,))
    assert [str(living.folder) in one for one in clean(store).failed] == [True]
    living.remove()
    assert clean(store).failed == []
