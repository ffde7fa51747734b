"""The commands of an audit, in this process, over a small home."""

from __future__ import annotations

import json
import re
from html import escape, unescape
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llm_assets.cli import app
from llm_assets.corpus.documents import doc_id
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.terminal import audit_commands
from llm_assets_tests.audit.conftest import answer, flip, released_twice, rewrite
from llm_assets_tests.audit.material import OTHER


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A home whose Dagster and MLflow have nothing to say."""
    home = tmp_path / "home"
    for name, value in (("LLM_ASSETS_HOME", home), ("LLM_ASSETS_DAGSTER", home / "dagster"), ("DAGSTER_HOME", Path.cwd()), ("COLUMNS", 200)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("LLM_ASSETS_SIGNING_KEY", str(tmp_path / "key.pem"))
    (home / "dagster").mkdir(parents=True)
    monkeypatch.setattr(audit_commands, "trackers", list)
    return Store(home)


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    made = released_twice(store)
    answer(store, "reviews-1", "classify-1")
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_lineage_prints_and_writes(made: dict[str, Artifact], tmp_path: Path) -> None:
    picture, page = tmp_path / "graph.svg", tmp_path / "page.html"
    ended = run("lineage", "classify-1", "--svg", str(picture), "--html", str(page))
    assert ended.exit_code == 0 and "source test: MIT" in ended.output
    assert picture.read_text().startswith("<svg") and page.read_text().startswith("<!doctype html>")
    assert json.loads(run("lineage", "reviews-1", "--json").stdout)["complete"]
    made["clean_corpus"].path("manifest.json").unlink()
    ended = run("lineage", "reviews-1")
    assert ended.exit_code == 1 and "not complete: clean_corpus" in ended.output


def test_trace_by_id_and_by_text(made: dict[str, Artifact]) -> None:
    by_id, by_text = run("trace", doc_id(OTHER), "--json"), run("trace", "--text", OTHER, "--json")
    assert json.loads(by_id.stdout) == json.loads(by_text.stdout) and json.loads(by_id.stdout)[0]["doc_id"] == doc_id(OTHER)
    assert "reviews-2 (champion)" in run("trace", doc_id(OTHER)[:8]).output
    assert "one of the two" in str(run("trace").exception) and "holds document" in str(run("trace", "abcdef012345").exception)


def test_an_answer_is_kept_as_a_page(made: dict[str, Artifact], store: Store) -> None:
    asked = (("trace", doc_id(OTHER)), ("diff", "reviews-1", "reviews-2"), ("verify",))
    for command, *wanted in asked:
        ended = run(command, *wanted, "--page")
        name = f"{command}-{'-'.join(wanted) or 'all'}.html"
        assert f"/audit/{name}" in ended.stderr, ended.output
        page = (store.home / "audit" / "pages" / name).read_text(encoding="utf-8")
        assert page.startswith("<!doctype html>") and f"<h1>llm-assets {' '.join((command, *wanted))}</h1>" in page
        assert escape(ended.stdout.splitlines()[0]) in page, (command, page)


def test_diff_verify_bom_and_card(made: dict[str, Artifact], store: Store, tmp_path: Path) -> None:
    assert "sources: no change" in run("diff", "reviews-1", "reviews-2").output
    ended = run("verify", "reviews-1", "--sign")
    assert ended.exit_code == 0 and "artifacts are what every record says" in ended.output, ended.output
    assert (store.home / "audit" / "chain.signature.json").exists()
    for command, options, begins in (("bom", (), "{"), ("card", (), "---"), ("card", ("--html",), "<!doctype html>")):
        assert run(command, "reviews-1", *options, "--out", str(tmp_path / command)).exit_code == 0
        assert (tmp_path / command).read_text().startswith(begins)
    path = made["tokens"].path("layout.json")
    path.write_bytes(flip(path.read_bytes()))
    ended = run("verify")
    assert ended.exit_code == 1 and "bytes: tokens" in ended.output
    assert [damage["kind"] for damage in json.loads(run("verify", "--json").stdout)["damages"]] == ["bytes"]
    ended = run("verify", "--discard")
    assert ended.exit_code == 0 and "quarantine" in ended.output
    assert run("verify").exit_code == 0


def test_reproduce_says_what_stands_in_the_way(made: dict[str, Artifact]) -> None:
    assert "is a release: name one of its artifacts" in str(run("reproduce", "reviews-1").exception)
    assert "cannot be made again" in str(run("reproduce", f"tokens/{made['tokens'].fingerprint}").exception)


def test_what_was_made_again_is_kept_as_a_page(made: dict[str, Artifact], store: Store) -> None:
    clean = made["clean_corpus"]
    rewrite(clean, code={**clean.manifest.code, "dirty": False})  # whatever the tree of whoever runs this
    ended = run("reproduce", f"clean_corpus/{clean.fingerprint}", "--page")
    name = f"reproduce-clean_corpus-{clean.fingerprint}.html"
    assert ended.exit_code == 0 and f"/audit/{name}" in ended.stderr and "it is the same" in ended.stdout, ended.output
    page = (store.home / "audit" / "pages" / name).read_text(encoding="utf-8")
    shown = unescape(re.sub("</?span[^>]*>", "", page))
    assert all(line in shown for line in ended.stdout.splitlines())
