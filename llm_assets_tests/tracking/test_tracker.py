from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from llm_assets.tracking.record import RunRecord, record_of
from llm_assets.tracking.tracker import Sent, Tracker
from llm_assets_tests.tracking.made import STEPS, make

NOWHERE = "http://me:s3cr@t@127.0.0.1:1"  # nothing listens there


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")


def client_of(tracker: Tracker) -> Any:
    return tracker._client()


def runs(tracker: Tracker, chain: str = "tiny") -> list[Any]:
    client = client_of(tracker)
    experiment = client.get_experiment_by_name(chain)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def assert_whole(tracker: Tracker, sent: Sent, record: RunRecord) -> None:
    """The run holds all that the record says."""
    assert sent.run_id and sent.url and sent.url.endswith(f"/runs/{sent.run_id}")
    client = client_of(tracker)
    run = client.get_run(sent.run_id)
    assert run.info.status == "FINISHED" and (run.info.start_time, run.info.end_time) == (record.started_ms, record.ended_ms)
    assert run.data.params == record.params and len(record.params) > 100
    assert run.data.metrics["accuracy.test"] == 0.75
    curve = client.get_metric_history(sent.run_id, "loss")
    assert sorted(point.step for point in curve) == list(range(1, STEPS + 1))
    assert [point.value for point in curve if point.step == 700] == [pytest.approx(1 / 700)]
    assert [(entry.dataset.name, entry.dataset.digest) for entry in run.inputs.dataset_inputs] == [("tokens", "beef")]
    assert run.data.tags.items() >= {**record.tags, "llm_assets.complete": "true"}.items()


def test_a_run_is_written_once_into_the_database(tmp_path: Path) -> None:
    tracker, record = Tracker(tmp_path), record_of("tiny", make(tmp_path, "aaa"))
    sent = tracker.send(record)
    assert_whole(tracker, sent, record)
    assert str(sent.url).startswith("http://127.0.0.1:5000/#/experiments/") and sent.warning is None
    assert tracker.send(record) == sent and len(runs(tracker)) == 1
    assert not (tmp_path / "mlflow" / "artifacts").exists()  # the artifact itself is at hand: no copy


def test_a_half_written_run_is_written_anew(tmp_path: Path) -> None:
    tracker, record = Tracker(tmp_path), record_of("tiny", make(tmp_path, "aaa"))
    client = client_of(tracker)
    half = client.create_run(tracker._experiment(client, "tiny"), tags=record.tags).info.run_id  # as a process that was killed left it
    sent = tracker.send(record)
    assert sent.run_id != half
    assert_whole(tracker, sent, record)


def test_a_record_that_cannot_be_sent_is_kept_and_holds_nothing_up(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    good, bad = (record_of("tiny", make(tmp_path, name)) for name in ("aaa", "bbb"))
    bad.metrics["no (name) for a metric!"] = 1.0
    refused = tracker.send(bad)
    assert refused.run_id is None and "no (name)" in str(refused.warning)
    (tracker.pending / "ccc.json").write_bytes(b"\xff{")
    sent = tracker.send(good)
    assert_whole(tracker, sent, good)
    assert "bbb.json" in str(sent.warning) and "ccc.json" in str(sent.warning)
    assert {path.name for path in tracker.pending.iterdir()} == {"tiny-bbb.json", "ccc.json"}
    assert [run.info.run_id for run in runs(tracker)] == [sent.run_id]  # what was written of the bad one is gone


def test_two_processes_may_send_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(tmp_path)
    tracker.pending.mkdir(parents=True)
    for name in ("aaa", "bbb"):
        (tracker.pending / f"{name}.json").write_text(record_of("tiny", make(tmp_path, name)).model_dump_json())
    other, sent = Tracker(tmp_path), tracker._send

    def overtaken(record: RunRecord) -> Sent:
        monkeypatch.setattr(tracker, "_send", sent)
        assert other.flush() == [] and not runs(other)  # what waits is left to the process that is at it
        return sent(record)

    monkeypatch.setattr(tracker, "_send", overtaken)
    assert tracker.flush() == []
    assert not list(tracker.pending.iterdir()) and len(runs(tracker)) == 2
    with FileLock(tracker.folder / "pending.lock"):
        pass  # free again


def test_the_registry_mirrors_releases_in_the_database(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    model = make(tmp_path, "aaa", "quantized_model")
    sent = tracker.send(record_of("tiny", model))
    client = client_of(tracker)
    client.create_registered_model("tiny")
    client.create_model_version("tiny", source=str(model.directory))  # the user's own
    assert tracker.mirror_release("tiny", "tiny-1", str(model.directory), "aaa", {"champion": "tiny-1", "previous": None}) is None
    version = client.get_model_version_by_alias("tiny", "champion")
    assert (version.run_id, version.source, version.tags["release"]) == (sent.run_id, str(model.directory), "tiny-1")
    assert client.get_registered_model("tiny").aliases == {"champion": version.version}
    assert tracker.mirror_release("tiny", "tiny-1", str(model.directory), "aaa", {"candidate": "tiny-1", "champion": None}) is None
    assert client.get_registered_model("tiny").aliases == {"candidate": version.version}


def holds_secret(*places: Path) -> list[Path]:
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(secret in path.read_bytes() for secret in (b"s3cr", b"t@127"))]


def test_a_secret_of_the_address_is_neither_shown_nor_stored(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracker, model = Tracker(tmp_path, NOWHERE), make(tmp_path, "aaa")
    sent = tracker.send(record_of("tiny", model))
    warning = tracker.mirror_release("tiny", "tiny-1", str(model.directory), "aaa", {"champion": "tiny-1"})
    shown = f"{sent} {warning} {tracker.ui} {capfd.readouterr()}"
    assert "127.0.0.1:1" in str(sent.warning) and "127.0.0.1:1" in str(warning)
    assert "s3cr" not in shown and "t@127" not in shown
    assert tracker.ui == "http://127.0.0.1:1"
    assert not holds_secret(tmp_path)


def test_a_servers_run_is_whole_and_written_once(server: str, tmp_path: Path) -> None:
    tracker, record = Tracker(tmp_path, server), record_of("whole", make(tmp_path, "aaa"))
    sent = tracker.send(record)
    assert_whole(tracker, sent, record)
    assert str(sent.url).startswith(f"{server}/#/experiments/")
    assert tracker.send(record) == sent and len(runs(tracker, "whole")) == 1
    copied = [file.path for file in client_of(tracker).list_artifacts(sent.run_id, "model")]
    assert {"model/model.safetensors", "model/curve.parquet", "model/manifest.json"} <= set(copied)


def test_a_model_that_is_gone_costs_its_run_the_copy_only(server: str, tmp_path: Path) -> None:
    tracker, model = Tracker(tmp_path, server), make(tmp_path, "aaa")
    record = record_of("gone", model)
    shutil.rmtree(model.directory)
    sent = tracker.send(record)
    assert_whole(tracker, sent, record)
    assert "was gone" in client_of(tracker).get_run(sent.run_id).data.tags["llm_assets.copy"]


def test_a_servers_registry_mirrors_releases(server: str, tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, server)
    first, second = (make(tmp_path, name, "quantized_model") for name in ("aaa", "bbb"))
    unknown = tracker.mirror_release("mirrored", "mirrored-1", str(first.directory), "aaa", {"champion": "mirrored-1"})
    assert "no run of model aaa" in str(unknown)
    sent = [tracker.send(record_of("mirrored", model)).run_id for model in (first, second)]
    assert tracker.mirror_release("mirrored", "mirrored-1", str(first.directory), "aaa", {"champion": "mirrored-1", "previous": None}) is None
    aliases = {"candidate": "mirrored-2", "champion": "mirrored-2", "previous": "mirrored-1"}
    assert tracker.mirror_release("mirrored", "mirrored-2", str(second.directory), "bbb", aliases) is None
    client = client_of(tracker)
    for alias, release, run in (("champion", "mirrored-2", sent[1]), ("candidate", "mirrored-2", sent[1]), ("previous", "mirrored-1", sent[0])):
        version = client.get_model_version_by_alias("mirrored", alias)
        assert (version.tags["release"], version.run_id, version.source) == (release, run, f"runs:/{run}/model")


def test_what_an_absent_server_missed_is_sent_when_it_is_there(server: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = record_of("late", make(tmp_path, "aaa", "quantized_model"))
    missed = Tracker(tmp_path, NOWHERE).send(record)
    assert missed.run_id is None and "it is sent with the next one" in str(missed.warning)
    assert [path.name for path in (tmp_path / "mlflow" / "pending").iterdir()] == ["late-aaa.json"]
    tracker = Tracker(tmp_path, server.replace("//", "//me:s3cr@t@"))
    assert tracker.mirror_release("late", "late-1", record.directory, "aaa", {"champion": "late-1"}) is None  # sends its model's run first
    assert not list(tracker.pending.iterdir())
    sent = tracker.send(record)
    assert_whole(tracker, sent, record)
    assert str(sent.url).startswith(f"{server}/#/")
    out = capfd.readouterr()
    assert "s3cr" not in f"{sent} {out}" and not holds_secret(tmp_path)
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"  # the user's own patience counts
