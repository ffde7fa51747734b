"""Rows of a database, read in pieces; what connects to it stands in the environment and is never repeated."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

PIECE = 5_000  # rows fetched at once


class DatabaseError(RuntimeError):
    """A database does not answer, or not this query; the message names the variable and no secret."""


def query_rows(url: str, query: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a query by column. ``url`` names an environment variable, as ``${NAME}``. Raises ``DatabaseError``."""
    from sqlalchemy import text

    with _connected(url) as connection:
        result = connection.execution_options(stream_results=True, yield_per=PIECE).execute(text(query))
        for row in result.mappings():
            yield dict(row)


def observe_query(url: str, query: str, cursor: str | None) -> dict[str, Any]:
    """What a query shows now: the cursor column's maximum and the count, or without one a digest of all its rows.

    Raises ``DatabaseError``.
    """
    from sqlalchemy import text

    if cursor is None:
        digest, count = hashlib.sha256(), 0
        for row in query_rows(url, query):
            digest.update(json.dumps(row, default=str, sort_keys=True).encode())
            count += 1
        return {"rows": count, "sha256": digest.hexdigest()}
    with _connected(url) as connection:
        column = connection.dialect.identifier_preparer.quote(cursor)
        rows, newest = connection.execute(text(f"SELECT COUNT(*), MAX(q.{column}) FROM ({query.rstrip().rstrip(';')}) AS q")).one()
    return {"rows": int(rows), "cursor": str(newest)}


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    name = url.removeprefix("${").removesuffix("}")
    if name not in os.environ:
        raise DatabaseError(f"the environment variable {name} is not set; it holds the SQLAlchemy URL of the database")
    try:
        engine = create_engine(os.environ[name])
    except (ArgumentError, ModuleNotFoundError, SQLAlchemyError) as error:
        raise DatabaseError(f"{name} holds no URL of a database that is installed here ({type(error).__name__})") from None
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", "") or type(error).__name__).splitlines()[0][:200]
        raise DatabaseError(f"the database at {name} does not answer this query ({_without(os.environ[name], reason)})") from None
    finally:
        engine.dispose()


def _without(url: str, text: str) -> str:
    """A message without the URL and the password it holds."""
    from sqlalchemy import make_url

    password = make_url(url).password
    for secret in filter(None, (url, str(password) if password else None)):
        text = text.replace(secret, "***")
    return text
