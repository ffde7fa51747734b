from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from llm_assets.serving import keys
from llm_assets.serving.keys import Bucket, Key, Keyring, KeysError, add_key, keys_path, read_keys, remove_key
from llm_assets_tests.running import llm_assets, succeed


def test_a_key_is_not_in_its_file_which_its_owner_alone_reads(tmp_path: Path) -> None:
    value = add_key(tmp_path, "shop", ["ask", "feedback", "ask"], per_minute=60)
    path = keys_path(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert value not in path.read_text() and value.removeprefix("lla_") not in path.read_text()
    [key] = read_keys(tmp_path) or []
    assert (key.name, key.roles, key.per_minute, len(key.sha256)) == ("shop", ("ask", "feedback"), 60, 64)
    assert Keyring(tmp_path).find(value) == key and Keyring(tmp_path).find(value + "a") is None and Keyring(tmp_path).find("ключ") is None


@pytest.mark.parametrize(
    ("name", "roles", "words"),
    [
        ("shop", ["ask"], "already"),
        ("", ["ask"], "no name"),
        ("a b", ["ask"], "no name"),
        ("anonymous", ["ask"], "no name"),
        ("new", [], "--role"),
        ("new", ["admin"], "no role admin"),
    ],
)
def test_an_unfit_key_is_refused(tmp_path: Path, name: str, roles: list[keys.Role], words: str) -> None:
    add_key(tmp_path, "shop", ["ask"])
    with pytest.raises(KeysError, match=words):
        add_key(tmp_path, name, roles)
    assert [key.name for key in read_keys(tmp_path) or []] == ["shop"]


def test_a_removed_key_opens_nothing_and_none_left_is_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RELOAD", 0.0)
    ring = Keyring(tmp_path)
    assert ring.keys() is None
    value = add_key(tmp_path, "shop", ["ask"])
    assert ring.find(value)
    assert remove_key(tmp_path, "shop") == 0
    assert ring.find(value) is None and ring.keys() == []
    with pytest.raises(KeysError, match="no key shop"):
        remove_key(tmp_path, "shop")


@pytest.mark.parametrize("content", ["{", "[]", '{"keys": [{}]}', '{"keys": [{"name": "a", "sha256": "", "roles": ["ask"], "more": 1}]}'])
def test_a_damaged_file_opens_nothing(tmp_path: Path, content: str) -> None:
    add_key(tmp_path, "shop", ["ask"])
    ring = Keyring(tmp_path)
    keys_path(tmp_path).write_text(content)
    with pytest.raises(KeysError, match=r"keys\.json"):
        ring.keys()


def test_a_change_counts_within_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    ring = Keyring(tmp_path)
    assert ring.keys() is None
    value = add_key(tmp_path, "shop", ["ask"])
    now[0] += keys.RELOAD
    assert ring.find(value)
    path = keys_path(tmp_path)
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({"keys": [{**entries["keys"][0], "per_minute": 1}]}))
    os.utime(path, ns=(1, 1))
    now[0] += keys.RELOAD
    found = ring.find(value)
    assert found and found.per_minute == 1


def test_a_bucket_lets_so_many_through_at_once_and_then_one_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [50.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])
    bucket = Bucket(30)
    assert [bucket.take(now[0]) for _ in range(30)] == [0.0] * 30
    assert bucket.take(now[0]) == pytest.approx(2.0)
    assert bucket.take(now[0] + 2.0) == 0.0 and bucket.take(now[0] + 2.0) > 0
    assert sum(bucket.take(now[0] + 3600.0) == 0.0 for _ in range(40)) == 30


def test_a_ring_counts_each_key_alone(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    slow, free = Key("slow", "", ("ask",), 1), Key("free", "", ("ask",))
    assert ring.wait(slow) == 0.0 and 0 < ring.wait(slow) <= 60
    assert ring.wait(free) == ring.wait(free) == 0.0


def test_the_command_line_prints_a_key_once_and_lists_and_removes_it(tmp_path: Path) -> None:
    value = succeed(tmp_path, "keys", "add", "shop", "--role", "ask", "--role", "feedback", "--per-minute", "10").strip()
    found = Keyring(tmp_path).find(value)
    assert found and (found.name, found.roles, found.per_minute) == ("shop", ("ask", "feedback"), 10)
    listed = succeed(tmp_path, "keys", "list")
    assert "shop" in listed and "ask, feedback" in listed and value not in listed
    assert "no key is left" in succeed(tmp_path, "keys", "remove", "shop")
    refused = llm_assets(tmp_path, "keys", "add", "shop", "--role", "boss")
    assert refused.returncode == 1 and "no role boss" in refused.stderr and "Traceback" not in refused.stderr
