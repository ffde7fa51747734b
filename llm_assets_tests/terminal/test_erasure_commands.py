"""`llm-assets forget`, in this process, over a small home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llm_assets.audit.search import hashes, probes
from llm_assets.cli import app
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.audit.conftest import release
from llm_assets_tests.audit.material import KEPT, OTHER, REPEATED, TEXTS, copied_chain
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


@pytest.mark.parametrize("asked", [(doc_id(OTHER),), ("--text", ASKED), ("--matching", "酒店的早餐")])
def test_its_page_tells_all_but_the_text(made: dict[str, Artifact], store: Store, asked: tuple[str, ...]) -> None:
    store.remove("tokens", made["tokens"].fingerprint, "gc")  # which could not be decoded
    texts = {doc_id(OTHER): [OTHER], ASKED: [ASKED]}.get(asked[-1], [KEPT, REPEATED, ASKED])
    ids = [doc_id(text) for text in texts]
    pages = []
    for said, verdict in (((), "nothing was done"), (("--yes",), "nothing else holds the text")):
        ended = run(*asked, *said, "--page")
        name = ended.stderr.rpartition("/audit/")[2].strip()
        page = (store.home / "audit" / "pages" / name).read_text(encoding="utf-8")
        pages.append(name)
        assert ended.exit_code == 0 and verdict in page and "asked for: asked to" in page
        for hidden in (*ids, *(one for text in texts for one in (*probes(text), *hashes(text))), "酒店的早餐"):
            assert hidden not in page and hidden not in name, hidden
        known = [stone for stone in map(Tombstones.of(store.home).hash, ids) if stone in page]
        assert len(known) == sum(text in TEXTS for text in texts)  # of documents; what the service alone has stands in the certificate
    assert pages[0] == pages[1] and f"certificate: audit/certificates/{pages[0][7:-5]}.json" in page
    if texts == [OTHER]:
        assert "purge raw_corpus" in page and "to be retired: reviews-1" in page and f"raw_corpus {made['raw_corpus'].fingerprint}" in page


def test_a_page_that_showed_the_text_is_cleaned(made: dict[str, Artifact], store: Store) -> None:
    assert CliRunner().invoke(app, ["trace", doc_id(OTHER), "--page"]).exit_code == 0
    page = store.home / "audit" / "pages" / f"trace-{doc_id(OTHER)}.html"
    assert OTHER in page.read_text()
    ended = run(doc_id(OTHER), "--yes")
    assert "cleaned audit/pages: 1 pages" in ended.output and doc_id(OTHER) not in ended.output.partition("cleaned")[2] and not page.exists()


def test_what_holds_it_still_makes_the_command_fail(made: dict[str, Artifact], store: Store) -> None:
    (store.home / "note.txt").write_text(OTHER)
    ended = run("--text", OTHER, "--yes")
    assert ended.exit_code == 1 and "holds the text: note.txt" in ended.output and "the text is NOT gone" in ended.output


@pytest.mark.parametrize("arguments", [(), ("abcdef", "--text", "t"), ("--text", "t", "--matching", "p")])
def test_one_way_of_saying_what_is_asked_for(store: Store, arguments: tuple[str, ...]) -> None:
    with pytest.raises(Exception, match="one of the three"):
        run(*arguments)


def test_an_unknown_one_is_named(made: dict[str, Artifact]) -> None:
    with pytest.raises(Exception, match="no raw corpus holds a document with this text"):
        run("--text", "nobody ever wrote this", "--yes")
