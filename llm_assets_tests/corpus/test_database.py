"""Rows of a query, from SQLite and from a PostgreSQL server of the test's own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import create_engine, text

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.reading import read
from llm_assets.corpus.sources import observe
from llm_assets_tests.corpus.test_sources import source

QUERY = "SELECT number, body, mood FROM reviews ORDER BY number"
COLUMNS = {"text": "body", "label": "mood", "id": "number"}
SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)


def fill(url: str, rows: int = 3) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS reviews (number INTEGER, body TEXT, mood TEXT)"))
        known = connection.execute(text("SELECT COUNT(*) FROM reviews")).scalar_one()
        for number in range(known, known + rows):
            connection.execute(text("INSERT INTO reviews VALUES (:n, :b, 'positive')"), {"n": number, "b": f"评论{number}"})
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'reviews.db'}"
        monkeypatch.setenv("REVIEWS_DB", address)
        yield address
        return
    if SERVER is None:
        pytest.skip("needs Debian's postgresql")
    pytest.importorskip("pg8000", reason="needs the driver pg8000")
    with postgres(SERVER.parent, tmp_path) as address:
        monkeypatch.setenv("REVIEWS_DB", address)
        yield address


class postgres:  # noqa: N801  # used like a function
    """A server below ``folder``, ended with the test; it does not run as root, so a user of Debian's package owns it."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, Path("/tmp") / f"pg-{os.getpid()}"

    def __enter__(self) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.folder.mkdir()
        self._who: dict[str, Any] = {}
        if os.getuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self._who = {"user": "postgres", "cwd": "/"}
        run = dict(check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._who)
        subprocess.run([self.binaries / "initdb", "-D", self.folder / "data", "-U", "reader", "-A", "trust", "-E", "UTF8"], **run)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        subprocess.run([self.binaries / "pg_ctl", "-D", self.folder / "data", "-w", "-o", options, "-l", self.folder / "log", "start"], **run)
        return f"postgresql+pg8000://reader:s3cr3t@127.0.0.1:{port}/postgres"

    def __exit__(self, *_: object) -> None:
        subprocess.run([self.binaries / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop"], stdout=subprocess.DEVNULL, **self._who)
        shutil.rmtree(self.folder)


def test_a_query_gives_documents_and_shows_when_there_is_news(url: str, tmp_path: Path) -> None:
    fill(url)
    mine = source(kind="sql", url="${REVIEWS_DB}", query=QUERY, columns=COLUMNS, cursor="number")
    whole = mine.model_copy(update={"cursor": None})
    (piece,) = read(mine, tmp_path)
    assert [(row["text"], row["label"], row["id"], row["line"]) for row in piece.documents.to_pylist()] == [
        (f"评论{n}", "positive", str(n), n + 1) for n in range(3)
    ]
    seen = observe(mine), observe(whole)
    assert seen[0] == {"rows": 3, "cursor": "2"} and seen == (observe(mine), observe(whole))
    fill(url, 1)
    assert observe(mine)["cursor"] == "3" and observe(whole)["sha256"] != seen[1]["sha256"]


def test_what_is_wrong_with_a_query_is_said_without_the_password(url: str, tmp_path: Path) -> None:
    fill(url)
    for wrong in ("SELECT nothing FROM reviews", "SELEC"):
        with pytest.raises(SourceError, match="source mine: the database at REVIEWS_DB does not answer this query") as caught:
            list(read(source(kind="sql", url="${REVIEWS_DB}", query=wrong), tmp_path))
        assert "s3cr3t" not in str(caught.value) and caught.value.__cause__ is None
    with pytest.raises(SourceError, match="line 1 has no column text; it has number, body, mood"):
        list(read(source(kind="sql", url="${REVIEWS_DB}", query=QUERY), tmp_path))


def test_an_address_stands_in_the_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError):
        source(kind="sql", url="postgresql://me:s3cr3t@host/db", query=QUERY)
    with pytest.raises(SourceError, match="the environment variable ABSENT_DB is not set"):
        list(read(source(kind="sql", url="${ABSENT_DB}", query=QUERY), tmp_path))
    monkeypatch.setenv("ABSENT_DB", "mysql+nothing://me:s3cr3t@host/db")
    with pytest.raises(SourceError, match="ABSENT_DB holds no URL of a database that is installed here") as caught:
        list(read(source(kind="sql", url="${ABSENT_DB}", query=QUERY), tmp_path))
    assert "s3cr3t" not in str(caught.value)
