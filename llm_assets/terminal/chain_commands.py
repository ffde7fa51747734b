"""The commands of a chain: run it, plan it, and look at what came of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llm_assets.store.home import data_root
from llm_assets.terminal.settings import UsageError, known_links, overrides, sections, spec_of, store_of

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.spec import Settings

Chain = Annotated[str, typer.Argument(help="Name of a chain: a folder below llm_assets/defs/.")]
Preset = Annotated[str, typer.Option("--preset", help="Overlay of the chain's YAML, such as tiny, demo or full; default: the YAML's own choice.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="LINK.KEY=VALUE", help="Change a setting for this run only, which makes it a trial: it never moves a release. Repeatable."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `llm-assets`."""
    for command in (run, retrain, plan, scorecard, docs):
        app.command()(command)


def run(
    chain: Chain,
    preset: Preset = "",
    set_: Set = None,
    select: Annotated[list[str] | None, typer.Option("--select", metavar="LINK", help="Materialize only this link; repeatable.")] = None,
) -> None:
    """Materialize a chain through Dagster, into the instance the UI shows; what stands already is reused."""
    spec = spec_of(chain, preset)
    materialize(spec, overrides(spec, set_ or []), known_links(select or []))


def retrain(
    chain: Chain,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept as the run's tag, like the reasons of the policy sensor.")],
    preset: Preset = "",
) -> None:
    """Run a whole chain by hand for a reason, whatever its retraining policy waits for; the policy counts its interval from here."""
    materialize(spec_of(chain, preset), {}, [], reason)


def plan(chain: Chain, preset: Preset = "", set_: Set = None) -> None:
    """Print which links would be reused and which made, why, and what that costs; starts nothing."""
    from rich.console import Console

    from llm_assets.audit.plan import plan as make_plan
    from llm_assets.terminal.tables import plan_table

    spec = spec_of(chain, preset)
    changes = overrides(spec, set_ or [])
    Console().print(plan_table(chain, make_plan(store_of(spec), spec.links, sections(spec, changes), spec.seed)))


def scorecard(
    chain: Chain,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print all its tables as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Print the newest scorecard: every model beside the baselines, on the same test set."""
    record = _newest_scorecard(spec_of(chain))
    if as_json:
        typer.echo(json.dumps(record, ensure_ascii=False, indent=2))
        return
    if "seeds" not in record:
        raise UsageError(
            f"the scorecard of {chain} is an earlier release's and has no intervals: llm-assets run {chain} makes it anew; --json prints it as it is"
        )
    if markdown:
        from llm_assets.links.scorecard_page import as_markdown

        typer.echo(as_markdown(record), nl=False)
        return
    from rich.console import Console

    from llm_assets.terminal.tables import scorecard_table

    Console().print(scorecard_table(record))


def docs(
    chain: Chain,
    rule: Annotated[str, typer.Option("--rule", metavar="R", help="Show documents that this rule dropped.")] = "",
    search: Annotated[str, typer.Option("--search", metavar="T", help="Show documents that hold this text, and what became of them.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Documents to show.")] = 20,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table by rule and source as Markdown.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Show what became of the documents: how many each rule dropped, which ones, and where those that hold a text are now.

    Texts are shown masked, in pieces.
    """
    from dataclasses import asdict

    from rich.console import Console

    from llm_assets.audit import documents
    from llm_assets.terminal import documents as tables

    corpus = documents.current_corpus(chain, store_of(spec_of(chain)))
    if search:
        fates = documents.search(corpus, search, limit, rule or None)
        shown, table = [asdict(fate) for fate in fates], tables.fates_table(search, fates)
    elif rule:
        shown = documents.rejected(corpus, rule, limit)
        table = tables.rejected_table(rule, shown)
    elif markdown:
        typer.echo(tables.corpus_markdown(chain, corpus), nl=False)
        return
    else:
        shown, table = documents.dropped(corpus), tables.dropped_table(chain, corpus)
    typer.echo(json.dumps(shown, ensure_ascii=False, indent=2)) if as_json else Console().print(table)


def materialize(spec: Settings, changes: dict[str, dict[str, Any]], links: list[str], reason: str = "") -> None:
    """Run a chain, or some of its links, through Dagster, with bars; exits 130 when cancelled and 1 when it failed."""
    import uuid

    from rich.console import Console

    from llm_assets.components.llm_chain.runs import open_instance, run_chain
    from llm_assets.store.priority import yield_to_others
    from llm_assets.store.progress import ProgressFile
    from llm_assets.terminal.bars import progress_bars

    yield_to_others()
    run_id, console = str(uuid.uuid4()), Console(stderr=True)
    progress = ProgressFile(data_root() / "work" / "progress" / f"{run_id}.jsonl")
    with open_instance(data_root()) as instance, progress_bars(progress, console):
        report = run_chain(instance, data_root(), spec, run_id, links, changes, reason)
    if report.cancelled:
        typer.secho(f"run {run_id} was cancelled; run the same command to go on from what is made", err=True, fg="yellow")
        raise typer.Exit(130)
    if not report.succeeded:
        for failure in report.failures:
            typer.secho(f"failed: {failure}", err=True, fg="red")
        typer.secho(f"run {run_id} failed; its log is in the Dagster UI (llm-assets up)", err=True, fg="red")
        raise typer.Exit(1)
    typer.echo(f"run {run_id} succeeded")


def _newest_scorecard(spec: Settings) -> dict[str, Any]:
    from llm_assets.audit.cost import seconds_to_make
    from llm_assets.serving.releases import champion

    store = store_of(spec)
    entry = store.journal(spec.name, "scorecard").newest(lambda entry: not entry["trial"])
    if entry is None:
        raise UsageError(f"{spec.name} has no scorecard yet: llm-assets run {spec.name}")
    release = champion(store.journal(spec.name, "release"))
    seconds = seconds_to_make(store, entry["inputs"].items())
    return {**entry["record"], "release": release["release"] if release else None, "seconds": round(seconds, 1)}
