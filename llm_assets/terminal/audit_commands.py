"""The commands of an audit: who made what from what, what became of a document, and whether the records are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.terminal.answers import Page, indexes, keep_page
from llm_assets.terminal.erasure_commands import forget
from llm_assets.terminal.settings import UsageError, trackers

if TYPE_CHECKING:
    from llm_assets.audit.provenance import Lineage

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Release = Annotated[str, typer.Argument(metavar="RELEASE", help="A release, such as reviews-1.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to a file; default: print.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `llm-assets`."""
    for command in (lineage, trace, diff, verify, reproduce, bom, card, forget):
        app.command()(command)


def lineage(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="An answer's id, a release, a run, or an artifact's fingerprint or its beginning.")],
    as_json: Json = False,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Write the graph as a picture.")] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write one page on which each node opens.")] = None,
) -> None:
    """Show all that an answer, a release or an artifact stands on, down to the sources; exits 1 where it cannot be followed."""
    from rich.console import Console

    from llm_assets.audit.ids import find
    from llm_assets.audit.page import lineage_page, lineage_svg
    from llm_assets.audit.provenance import trace_back
    from llm_assets.store.files import write_atomic
    from llm_assets.terminal.lineage import lineage_tree

    with indexes() as known:
        found = trace_back(find(known, wanted), wanted)
    for path, draw in ((svg, lineage_svg), (html, lineage_page)):
        if path is not None:
            write_atomic(path, draw(found))
            typer.echo(f"wrote {path}", err=True)
    if as_json:
        typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        Console().print(lineage_tree(found))
    if found.breaks:
        raise typer.Exit(1)


def trace(
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="A document's id or its beginning.")] = "",
    text: Annotated[str, typer.Option("--text", metavar="T", help="Trace the document with this text, else up to five that hold it.")] = "",
    as_json: Json = False,
    page: Page = False,
) -> None:
    """Show where a document came from, what became of it, and every model and release that learned from it. Texts are shown masked."""
    from rich.console import Console

    from llm_assets.audit.questions import trace_documents
    from llm_assets.audit.words.trace import traced

    if bool(document) == bool(text):
        raise UsageError("name a document by its DOC_ID or by --text, one of the two")
    with indexes() as known:
        found = trace_documents(known, document, text)
    reply = traced(found)
    if as_json:
        typer.echo(json.dumps([one.as_json() for one in found], ensure_ascii=False, indent=2))
    else:
        for tree in reply.parts:
            Console().print(tree)
    if page:
        keep_page(reply)


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A release, a run or an artifact.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    as_json: Json = False,
    page: Page = False,
) -> None:
    """Show what changed from A to B: sources, rules, rows, config, code, figures with intervals, and answers on the same test documents."""
    from rich.console import Console

    from llm_assets.audit.questions import compare
    from llm_assets.audit.words.diff import diff_tree, diffed

    with indexes() as known:
        found = compare(known, before, after)
    typer.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2)) if as_json else Console().print(diff_tree(found))
    if page:
        keep_page(diffed(found))


def verify(
    wanted: Annotated[str, typer.Argument(metavar="[RELEASE]", help="Only what a release (or another id) stands on; default: everything.")] = "",
    discard: Annotated[bool, typer.Option("--discard", help="Move damaged artifacts out of the store, to data/quarantine/.")] = False,
    sign: Annotated[bool, typer.Option("--sign", help="Sign the ledger with your Ed25519 key; one is made where you have none.")] = False,
    as_json: Json = False,
    page: Page = False,
) -> None:
    """Hold every file, manifest, journal and the ledger against each other, Dagster, MLflow and git; exits 1 when anything is damaged."""
    from dataclasses import asdict

    import dagster as dg

    from llm_assets.audit.integrity import quarantine
    from llm_assets.audit.questions import verify as verify_records
    from llm_assets.audit.signature import sign as sign_ledger
    from llm_assets.audit.words.verify import summary, verified

    with indexes() as known, dg.DagsterInstance.get() as instance:
        report = verify_records(known, instance, trackers(), wanted)
        damages = report.damages
        spoiled = {(damage.link, damage.fingerprint): damage for damage in damages if damage.is_spoiled}
        if as_json:
            value = {"artifacts": report.artifacts, "damages": [asdict(damage) for damage in damages], "notes": report.notes}
            typer.echo(json.dumps(value, ensure_ascii=False, indent=2))
        for damage in () if as_json else damages:
            typer.secho(f"{damage.kind}: {damage.reason}", err=True, fg="red")
        for note in () if as_json else report.notes:
            typer.secho(f"note: {note}", err=True, fg="yellow")
        for name, damage in spoiled.items() if discard else ():
            store = next(index.store for index in known if index.artifact(name))
            typer.echo(f"moved to {quarantine(store, damage)}", err=as_json)
        left = [damage for damage in damages if not (discard and (damage.link, damage.fingerprint) in spoiled)]
        if sign and not left:
            typer.echo(f"signed with key {sign_ledger(known[0].store.ledger)}", err=as_json)
    if not as_json:
        typer.echo(summary(report))
    if page:
        keep_page(verified(report, wanted))
    if left:
        raise typer.Exit(1)


def reproduce(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An artifact's fingerprint or its beginning, or link/fingerprint.")],
    tolerance: Annotated[float, typer.Option(min=0, help="What figures of a trained link may differ by, as a share.")] = 0.01,
    keep: Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Make it in this new folder and keep it.")] = None,
    as_json: Json = False,
    page: Page = False,
) -> None:
    """Make an artifact again from its recipe in a clean folder and compare: bytes of data, figures of what was trained; exits 1 where they differ."""
    import tempfile

    from llm_assets.audit.questions import reproduce as make_again
    from llm_assets.audit.words.reproduce import reproduced, summary
    from llm_assets.training.launch import launch

    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise UsageError(f"{keep} is not empty: name a new folder")
    with indexes() as known, tempfile.TemporaryDirectory(prefix="llm-assets-") as scratch:
        outcome = make_again(known, artifact, launch, keep or Path(scratch), tolerance)
    typer.echo(json.dumps(outcome.as_json(), ensure_ascii=False, indent=2) if as_json else "\n".join(summary(outcome)))
    if page:
        keep_page(reproduced(outcome, artifact))
    if not outcome.equal:
        raise typer.Exit(1)


def bom(release: Release, out: Out = None) -> None:
    """Write the bill of materials of a release: CycloneDX (ML-BOM), validated against its schema."""
    from llm_assets.audit.bom import bill_of_materials

    _write(json.dumps(bill_of_materials(_lineage(release)), ensure_ascii=False, indent=2) + "\n", out)


def card(
    release: Release,
    out: Out = None,
    html: Annotated[bool, typer.Option("--html", help="One HTML page that stands alone; default: Markdown.")] = False,
) -> None:
    """Write the model card of a release: Markdown in Hugging Face's format, with measured limits and a summary of the training content."""
    from llm_assets.audit.card import model_card, model_card_page

    _write((model_card_page if html else model_card)(_lineage(release)), out)


def _lineage(wanted: str) -> Lineage:
    from llm_assets.audit.ids import find
    from llm_assets.audit.provenance import trace_back

    with indexes() as known:
        return trace_back(find(known, wanted), wanted)


def _write(content: str, out: Path | None) -> None:
    from llm_assets.store.files import write_atomic

    if out is None:
        typer.echo(content, nl=False)
    else:
        write_atomic(out, content)
        typer.echo(f"wrote {out}", err=True)
