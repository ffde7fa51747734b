from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq

from llm_assets.links.link import Office
from llm_assets.links.making import judge
from llm_assets.operation import traffic
from llm_assets.store.journal import Journal
from llm_assets_tests.operation.traffic import NOON, line, reply, write_log

DAY = "2026-11-20"


def office(home: Path, day: str | None = DAY) -> Office:
    return Office("tiny", home, Journal(home / "journal" / "tiny" / "traffic.jsonl"), home / "act", day=day)


def test_a_day_is_a_table_of_its_texts_and_the_same_log_the_same_bytes(tmp_path: Path) -> None:
    shadow = {"release": "tiny-2", "labels": ["negative", "positive"]}
    write_log(tmp_path, [line(1, "一般", "很好", labels=["negative", "positive"], shadow=shadow, client="shop"), line(2, "差", labels=["negative"])])
    write_log(tmp_path, [line(3, "别的一天", at=NOON + timedelta(days=1))])
    acted = traffic.traffic(office(tmp_path), traffic.TrafficConfig())
    path = tmp_path / acted.record["table"]
    assert path == tmp_path / "serving" / "traffic" / "tiny" / f"{DAY}.parquet"
    rows = pq.read_table(path).to_pylist()
    assert [(row["id"], row["index"], row["masked"], row["label"], row["probability"], row["shadow"]) for row in rows] == [
        ("classify-0001", 0, "一般", "negative", 0.9, "negative"),
        ("classify-0001", 1, "很好", "positive", 0.9, "positive"),
        ("classify-0002", 0, "差", "negative", 0.9, None),
    ]
    assert rows[0]["at"] == NOON + timedelta(seconds=1) and rows[0]["client"] == "shop" and rows[0]["probs"] == [0.9, 0.1]
    assert acted.record | {"requests": 2, "texts": 3, "unreadable": 0, "clients": 2, "labels": {"negative": 2, "positive": 1}} == acted.record
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    again = traffic.traffic(office(tmp_path), traffic.TrafficConfig())
    assert again == acted and hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_lines_cut_off_are_counted_and_warned_of(tmp_path: Path) -> None:
    (path,) = write_log(tmp_path, [line(1, "好"), line(2, "坏")])
    path.write_bytes(path.read_bytes()[:-40])
    acted = traffic.traffic(office(tmp_path), traffic.TrafficConfig())
    assert (acted.record["requests"], acted.record["unreadable"]) == (1, 1)
    (verdict,) = judge(traffic.LINK, acted.record, {})
    assert not verdict.passed and not verdict.blocking and "1 lines" in verdict.description


def test_a_day_without_requests_is_an_empty_table_and_today_is_the_default(tmp_path: Path) -> None:
    acted = traffic.traffic(office(tmp_path, None), traffic.TrafficConfig())
    assert acted.record["texts"] == 0 and judge(traffic.LINK, acted.record, {})[0].passed
    assert pq.read_table(tmp_path / acted.record["table"]).schema.equals(traffic.schema())


def test_newest_rows_come_first_across_days(tmp_path: Path) -> None:
    for number in range(3):
        moment = NOON + timedelta(days=number)
        (path,) = write_log(tmp_path, [line(10 * number + n, f"{n}", at=moment + timedelta(seconds=n)) for n in range(3)])
        traffic.write_day(path, traffic.traffic_path(tmp_path, "tiny", path.stem))
    ids = [row["id"][-2:] for row in traffic.newest_rows(tmp_path, "tiny")]
    assert ids == ["22", "21", "20", "12", "11", "10", "02", "01", "00"]
    assert len(list(traffic.newest_rows(tmp_path, "tiny", days=1))) == 3


def test_the_table_says_which_adapter_answered(tmp_path: Path) -> None:
    write_log(tmp_path, [reply(1, "十元", "多少钱"), reply(2, "ten yuan", "十元", adapter="translation"), line(3, "好")])
    acted = traffic.traffic(office(tmp_path), traffic.TrafficConfig())
    assert pq.read_table(tmp_path / acted.record["table"])["adapter"].to_pylist() == [None, "translation", None]


def test_a_reply_stands_beside_the_turn_that_it_answers(tmp_path: Path) -> None:
    write_log(tmp_path, [reply(1, "十元", "你好", "在的", "多少钱"), reply(2, "明天", "发货", finish="length")])
    acted = traffic.traffic(office(tmp_path), traffic.TrafficConfig())
    rows = pq.read_table(tmp_path / acted.record["table"]).to_pylist()
    names = ("index", "masked", "label", "answer", "answer_characters", "probability", "probs")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (0, "多少钱", "stop", "十元", 2, None, []),
        (0, "发货", "length", "明天", 2, None, []),
    ]
    assert acted.record["labels"] == {"stop": 1, "length": 1} and acted.record["texts"] == 2  # no reply stands in the journal
