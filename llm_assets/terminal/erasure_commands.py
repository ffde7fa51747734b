"""The command that erases: documents and recorded texts, by id, by text or by a phrase that they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.terminal.audit_commands import indexes
from llm_assets.terminal.settings import UsageError, trackers

if TYPE_CHECKING:
    from llm_assets.audit.forget import Plan
    from llm_assets.audit.index import Index

SAMPLES = 5  # of the texts that hold a phrase


def forget(
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the records, personal data masked.")],
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="A document's id or its beginning.")] = "",
    text: Annotated[str, typer.Option("--text", metavar="T", help="The document or recorded text that is this; of one erased before, again.")] = "",
    phrase: Annotated[str, typer.Option("--matching", metavar="P", help="Every document and recorded text that holds this, normalised.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Erase texts: purge and clean what holds them, keep them from ever being read again, search every file; exits 1 where something holds them."""
    from llm_assets.audit.forget import erase
    from llm_assets.terminal.forget import certificate_lines, plan_lines

    if sum(map(bool, (document, text, phrase))) != 1:
        raise UsageError("say what to forget by its DOC_ID, by --text or by --matching, one of the three")
    with indexes() as known:
        plans = _erasures(known, document, text, phrase)
        if not plans:
            typer.echo("no document and no text of the service holds it: nothing is left to forget")
            return
        typer.echo("\n".join(line for plan in plans for line in plan_lines(plan)))
        if not (yes or _agreed()):
            typer.echo("nothing was done; --yes does it")
            return
        certificate, path = erase(plans, reason, _elsewhere(known[0].store.home))
    typer.echo("\n".join(certificate_lines(certificate)))
    typer.echo(f"certificate: {path}")
    if not certificate.is_clean:
        raise typer.Exit(1)


def _erasures(known: Sequence[Index], document: str, text: str, phrase: str) -> list[Plan]:
    """What forgetting means in each store; none where nothing holds the phrase. Raises ``UsageError`` for a document that nothing has."""
    from llm_assets.audit.forget import plan_erasure, was_erased
    from llm_assets.audit.matching import matching, recorded
    from llm_assets.audit.places import Places
    from llm_assets.audit.trace import UnknownDocumentError, find_documents
    from llm_assets.terminal.forget import matching_lines

    home, plans, unknown = known[0].store.home, [], []
    for index in known:
        places = Places(index.store)
        if phrase:
            held = matching(index, phrase)
            if held.documents or held.records:
                typer.echo("\n".join(matching_lines(len(held.documents), len(held.records), list(held.samples(SAMPLES)))))
                plans.append(plan_erasure(index, places, list(held.documents), held.records))
            continue
        try:
            found = find_documents(index, places, document, text)
        except UnknownDocumentError as error:
            unknown.append(str(error))
            continue
        if len(found) > 1:
            raise UsageError(f"{len(found)} documents hold this text: {', '.join(found)}; name one, or --matching for all")
        plans.append(plan_erasure(index, places, found))
    if text and not plans and (was_erased(home, text) or any(text in one for one in recorded(home))):
        return [plan_erasure(index, Places(index.store), [], [text]) for index in known]
    if unknown and not plans:
        raise UsageError("; ".join(unknown))
    return plans


def _agreed() -> bool:
    try:
        return typer.confirm("Erase it?")
    except typer.Abort:  # nobody is there to ask
        typer.echo()
        return False


def _elsewhere(home: Path) -> list[str]:
    """What is not below the data root, so that nobody here can search it."""
    import dagster as dg

    found = []
    for tracker in trackers():
        if tracker.is_remote:
            found.append(f"MLflow at {tracker.ui}: not searched")
        elif str(home) not in tracker.uri:
            found.append("MLflow's database, which is not below the data root: not searched")
    with dg.DagsterInstance.get() as instance:
        storage = type(instance.event_log_storage).__name__
    if "Sqlite" not in storage or not Path(os.environ["LLM_ASSETS_DAGSTER"]).is_relative_to(home):
        found.append(f"Dagster's event log, {storage}, which is not below the data root: not searched")
    return found
