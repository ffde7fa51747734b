from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from llm_assets.serving.app import create_app
from llm_assets.serving.state import act_page_url, page_url
from llm_assets_tests.serving.conftest import local_client

PLACE = "/artifacts/screened_corpus/0123abcd"
ACT = "/acts/reviews/drift/5af10ecd-3b85"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for folder, name in (("pages", "rules.html"), ("plots", "lengths.png"), ("checks", "expectations.html")):
        path = tmp_path / PLACE[1:] / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<p>{folder}</p>")
    (tmp_path / PLACE[1:] / "documents.parquet").write_text("text")
    (tmp_path / PLACE[1:] / "pages" / "secret.json").write_text("{}")
    act = tmp_path / ACT[1:] / "pages" / "drift.html"
    act.parent.mkdir(parents=True)
    act.write_text("<p>drift</p>")
    return tmp_path


@pytest.fixture
def client(home: Path) -> Iterator[TestClient]:
    with local_client(home) as client:
        yield client


@pytest.mark.parametrize("page", ["pages/rules.html", "plots/lengths.png", "checks/expectations.html"])
def test_what_an_artifact_shows_is_served_and_can_load_nothing_from_outside(client: TestClient, page: str) -> None:
    answer = client.get(f"{PLACE}/{page}")
    assert answer.status_code == 200 and answer.text == f"<p>{page.split('/')[0]}</p>"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("path", ["documents.parquet", "pages/secret.json", "pages/..%2Fdocuments.parquet", "pages/.html", "other/rules.html"])
def test_nothing_else_of_an_artifact_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"{PLACE}/{path}").status_code in (400, 404)


def test_what_an_act_shows_is_served_and_nothing_else_of_it(client: TestClient) -> None:
    answer = client.get(f"{ACT}/pages/drift.html")
    assert answer.status_code == 200 and answer.text == "<p>drift</p>" and "default-src 'none'" in answer.headers["content-security-policy"]
    assert client.get(f"{ACT}/pages/gone.html").status_code == 404
    for path in ("pages/secret.json", "../../drift.html", "pages/..%2F..%2Fdrift.html"):
        assert client.get(f"{ACT}/{path}").status_code in (400, 404)


def test_what_an_audit_answered_is_served_and_nothing_else_of_it(client: TestClient, home: Path) -> None:
    page = home / "audit" / "pages" / "verify-all.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>whole</p>")
    (home / "audit" / "chain.html").write_text("not a page")
    answer = client.get("/audit/verify-all.html")
    assert answer.status_code == 200 and answer.text == "<p>whole</p>" and "default-src 'none'" in answer.headers["content-security-policy"]
    for path in ("gone.html", "chain.html", "..%2Fchain.html", "index.db"):
        assert client.get(f"/audit/{path}").status_code in (400, 404)


def test_a_page_that_is_gone_says_so(client: TestClient) -> None:
    answer = client.get(f"{PLACE}/pages/gone.html")
    assert answer.status_code == 404 and "llm-assets gc" in answer.json()["error"]["message"]


def test_other_machines_are_refused(home: Path) -> None:
    with TestClient(create_app(home), client=("192.0.2.7", 5000), raise_server_exceptions=False) as stranger:
        answer = stranger.get(f"{PLACE}/pages/rules.html")
    assert answer.status_code == 403 and "this machine alone" in answer.json()["error"]["message"]


def test_the_address_is_the_usual_one_while_no_gateway_runs(tmp_path: Path) -> None:
    assert page_url(tmp_path, "tokens", "ab", "pages/tokens.html") == "http://127.0.0.1:8000/artifacts/tokens/ab/pages/tokens.html"
    assert act_page_url(tmp_path, tmp_path / ACT[1:], "pages/drift.html") == f"http://127.0.0.1:8000{ACT}/pages/drift.html"
