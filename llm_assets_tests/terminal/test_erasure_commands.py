"""`llm-assets forget`, in this process, over a small home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llm_assets.cli import app
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.terminal import erasure_commands
from llm_assets.tracking.tracker import Tracker
from llm_assets_tests.audit.conftest import release
from llm_assets_tests.audit.material import KEPT, OTHER, REPEATED, copied_chain
from llm_assets_tests.operation.traffic import line, write_log

ASKED = "请问这家酒店的早餐到底怎么样，有没有人可以告诉我"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    home = tmp_path / "home"
    for name, value in (("LLM_ASSETS_HOME", home), ("LLM_ASSETS_DAGSTER", home / "dagster"), ("DAGSTER_HOME", Path.cwd()), ("COLUMNS", 200)):
        monkeypatch.setenv(name, str(value))
    (home / "dagster").mkdir(parents=True)
    return Store(home)


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    made = copied_chain(store)
    release(store, made["quantized_model"], files={})
    write_log(store.home, [line(1, OTHER), line(2, ASKED), line(3, "快递很快")], chain="reviews")
    return made


def run(*arguments: str, said: str = "") -> Result:
    result = CliRunner().invoke(app, ["forget", "--reason", "asked to", *arguments], input=said)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_phrase_is_shown_asked_about_and_erased_everywhere(made: dict[str, Artifact], store: Store) -> None:
    for said in ("", "n\n"):
        refused = run("--matching", "酒店的早餐", said=said)
        assert "2 documents and 1 further texts of the service hold it, such as" in refused.output and KEPT[:10] in refused.output
        assert refused.exit_code == 0 and "nothing was done; --yes does it" in refused.output and Tombstones.of(store.home).state is None
    ended = run("--matching", "酒店的早餐", said="y\n")
    assert (
        ended.exit_code == 0
        and "nothing else holds the text" in ended.output
        and "cleaned serving/log/reviews/2026-11-20.jsonl: 1 texts" in ended.output
    )
    assert Tombstones.of(store.home).standing(map(doc_id, (KEPT, REPEATED, ASKED, OTHER))) == [False, False, False, True]
    log = (store.home / "serving" / "log" / "reviews" / "2026-11-20.jsonl").read_text()
    assert OTHER in log and ASKED not in log and len(log.splitlines()) == 3
    assert "nothing is left to forget" in run("--matching", "酒店的早餐").output


def test_a_document_by_its_id_and_again_by_its_text(made: dict[str, Artifact], store: Store) -> None:
    ended = run(doc_id(OTHER)[:8], "--yes")
    assert ended.exit_code == 0 and "to be retired: reviews-1" in ended.output
    place = Path(ended.output.rpartition("certificate: ")[2].strip())
    assert json.loads(place.read_text())["clean"]
    write_log(store.home, [line(4, OTHER)], chain="reviews")  # asked once more
    again = run("--text", OTHER, "--yes")
    assert again.exit_code == 0 and "cleaned serving/log/reviews/2026-11-20.jsonl: 1 texts" in again.output and "nothing else holds" in again.output


def test_a_text_that_the_service_alone_has(made: dict[str, Artifact], store: Store) -> None:
    assert "not searched: tokens" in run("--text", ASKED, "--yes").output  # this chain's tokens have no tokenizer
    store.remove("tokens", made["tokens"].fingerprint, "gc")
    ended = run("--text", ASKED, "--yes")
    assert ended.exit_code == 0 and "a text that no document has" in ended.output and "purge" not in ended.output


def test_what_holds_it_still_makes_the_command_fail(made: dict[str, Artifact], store: Store) -> None:
    (store.home / "note.txt").write_text(OTHER)
    ended = run("--text", OTHER, "--yes")
    assert ended.exit_code == 1 and "holds the text: note.txt" in ended.output and "the text is NOT gone" in ended.output


def test_what_is_elsewhere_is_said(made: dict[str, Artifact], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [Tracker(store.home), Tracker(store.home, "http://user:secret@mlflow.test"), Tracker(store.home, f"sqlite:///{tmp_path}/other.db")]
    monkeypatch.setattr(erasure_commands, "trackers", lambda: found)
    said = erasure_commands._elsewhere(store.home)
    assert len(said) == 2 and "mlflow.test" in said[0] and "secret" not in said[0] and "not below the data root" in said[1]
    monkeypatch.setenv("LLM_ASSETS_DAGSTER", str(tmp_path))
    assert "Dagster's event log" in erasure_commands._elsewhere(store.home)[2]


@pytest.mark.parametrize("arguments", [(), ("abcdef", "--text", "t"), ("--text", "t", "--matching", "p")])
def test_one_way_of_saying_what_is_asked_for(store: Store, arguments: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match="one of the three"):
        run(*arguments)


def test_an_unknown_one_is_named(made: dict[str, Artifact]) -> None:
    with pytest.raises(Exception, match="no raw corpus holds a document with this text"):
        run("--text", "nobody ever wrote this", "--yes")
