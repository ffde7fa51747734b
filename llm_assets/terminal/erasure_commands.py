"""The command that erases: documents and recorded texts, by id, by text or by a phrase that they hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.terminal.answers import Page, indexes, keep_page
from llm_assets.terminal.settings import UsageError, trackers

if TYPE_CHECKING:
    from llm_assets.audit.erasures import Erasure

SAMPLES = 5  # of the texts that hold a phrase


def forget(
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the records, personal data masked.")],
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="A document's id or its beginning.")] = "",
    text: Annotated[str, typer.Option("--text", metavar="T", help="The document or recorded text that is this; of one erased before, again.")] = "",
    phrase: Annotated[str, typer.Option("--matching", metavar="P", help="Every document and recorded text that holds this, normalised.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    page: Page = False,
) -> None:
    """Erase texts: purge and clean what holds them, keep them from ever being read again, search every file; exits 1 where something holds them."""
    import dagster as dg

    from llm_assets.audit.erasures import elsewhere, erasure
    from llm_assets.audit.forget import erase, stated
    from llm_assets.audit.words.forget import certificate_lines, forgotten

    if sum(map(bool, (document, text, phrase))) != 1:
        raise UsageError("say what to forget by its DOC_ID, by --text or by --matching, one of the three")
    with indexes() as known:
        asked, done = erasure(known, document, text, phrase), None
        if not asked.plans:
            typer.echo("no document and no text of the service holds it: nothing is left to forget")
            return
        typer.echo("\n".join(_shown(asked)))
        if yes or _agreed():
            with dg.DagsterInstance.get() as instance:
                unsearched = elsewhere(known[0].store.home, instance, trackers())
            done = erase(asked.plans, reason, unsearched)
    if done:
        typer.echo("\n".join([*certificate_lines(done[0]), f"certificate: {done[1]}"]))
    else:
        typer.echo("nothing was done; --yes does it")
    if page:
        keep_page(forgotten(asked.plans, stated(asked.plans, reason), done))
    if done and not done[0].is_clean:
        raise typer.Exit(1)


def _shown(asked: Erasure) -> Iterator[str]:
    """What holds the phrase, and the plans."""
    from llm_assets.audit.words.forget import matching_lines, plan_lines

    for held in asked.matched:
        yield from matching_lines(len(held.documents), len(held.records), list(held.samples(SAMPLES)))
    for plan in asked.plans:
        yield from plan_lines(plan)


def _agreed() -> bool:
    try:
        return typer.confirm("Erase it?")
    except typer.Abort:  # nobody is there to ask
        typer.echo()
        return False
