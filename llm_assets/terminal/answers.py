"""What the commands of an audit share: the stores that they ask, and an answer kept as a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.store.home import data_root
from llm_assets.terminal.settings import stores

if TYPE_CHECKING:
    from llm_assets.audit.index import Index
    from llm_assets.audit.words.reply import Reply

Page = Annotated[bool, typer.Option("--page", help="Keep the answer as a page, too, which the gateway shows to operators.")]


@contextmanager
def indexes() -> Iterator[list[Index]]:
    """The index of every store that a chain uses, brought up to date."""
    from llm_assets.audit.questions import opened

    with opened(stores()) as known:
        yield known


def keep_page(reply: Reply) -> None:
    """Keep an answer as a page, and say where the gateway shows it."""
    from llm_assets.audit.words.reply import write_page

    typer.echo(f"page: {write_page(data_root(), reply)}", err=True)
