"""`llm-assets`: the chain from the command line. Thin: every command calls a function that tests call too."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from llm_assets.store.home import data_root, prepare_environment
from llm_assets.terminal import audit_commands
from llm_assets.terminal.settings import UsageError, known_links, overrides, sections, spec_of, store_of

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.spec import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown", help=__doc__)

audit_commands.register(app)

Chain = Annotated[str, typer.Argument(help="Name of a chain: a folder below llm_assets/defs/.")]
Preset = Annotated[str, typer.Option("--preset", help="Overlay of the chain's YAML, such as tiny, demo or full; default: the YAML's own choice.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="LINK.KEY=VALUE", help="Change a setting for this run only, which makes it a trial: it never moves a release. Repeatable."
    ),
]
Port = Annotated[int, typer.Option(min=1, max=65535)]


@app.command()
def run(
    chain: Chain,
    preset: Preset = "",
    set_: Set = None,
    select: Annotated[list[str] | None, typer.Option("--select", metavar="LINK", help="Materialize only this link; repeatable.")] = None,
) -> None:
    """Materialize a chain through Dagster, into the instance the UI shows; what stands already is reused."""
    import uuid

    from rich.console import Console

    from llm_assets.components.llm_chain.runs import open_instance, run_chain
    from llm_assets.store.progress import ProgressFile
    from llm_assets.terminal.bars import progress_bars

    spec = spec_of(chain, preset)
    changes = overrides(spec, set_ or [])
    links = known_links(select or [])
    run_id, console = str(uuid.uuid4()), Console(stderr=True)
    progress = ProgressFile(data_root() / "work" / "progress" / f"{run_id}.jsonl")
    with open_instance(data_root()) as instance, progress_bars(progress, console):
        report = run_chain(instance, data_root(), spec, run_id, links, changes)
    if report.cancelled:
        typer.secho(f"run {run_id} was cancelled; run the same command to go on from what is made", err=True, fg="yellow")
        raise typer.Exit(130)
    if not report.succeeded:
        for failure in report.failures:
            typer.secho(f"failed: {failure}", err=True, fg="red")
        typer.secho(f"run {run_id} failed; its log is in the Dagster UI (llm-assets up)", err=True, fg="red")
        raise typer.Exit(1)
    typer.echo(f"run {run_id} succeeded")


@app.command()
def plan(chain: Chain, preset: Preset = "", set_: Set = None) -> None:
    """Print which links would be reused and which made, why, and what that costs; starts nothing."""
    from rich.console import Console

    from llm_assets.audit.plan import plan as make_plan
    from llm_assets.terminal.tables import plan_table

    spec = spec_of(chain, preset)
    changes = overrides(spec, set_ or [])
    Console().print(plan_table(chain, make_plan(store_of(spec), sections(spec, changes), spec.seed)))


@app.command()
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
        _fail(
            f"the scorecard of {chain} is an earlier release's and has no intervals: llm-assets run {chain} makes it anew; --json prints it as it is"
        )
    if markdown:
        from llm_assets.links.scorecard_page import as_markdown

        typer.echo(as_markdown(record), nl=False)
        return
    from rich.console import Console

    from llm_assets.terminal.tables import scorecard_table

    Console().print(scorecard_table(record))


@app.command()
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


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; anything but loopback serves your network.")] = "127.0.0.1", port: Port = 8000
) -> None:
    """Run the gateway: it serves the release that each chain's endpoint asset names."""
    from llm_assets.serving.gateway import serve as serve_gateway

    serve_gateway(host, port, prepare_environment())


@app.command()
def up(dagster_port: Port = 3000, mlflow_port: Port = 5000, gateway_port: Port = 8000) -> None:
    """Run the Dagster UI and daemon, the MLflow UI and the gateway under one supervisor until Ctrl-C."""
    from llm_assets.components.llm_chain.runs import open_instance, settle_dead_runs
    from llm_assets.serving.services import default_services
    from llm_assets.serving.supervisor import supervise

    home = prepare_environment()
    with open_instance(home) as instance:
        settle_dead_runs(instance, home)
    supervise(default_services(home, dagster_port, mlflow_port, gateway_port), home / "logs")


@app.command()
def ask(
    chain: Chain,
    texts: Annotated[list[str], typer.Argument(help="Sentences to classify.")],
    port: Annotated[int, typer.Option(help="Port of a free or running gateway.")] = 8000,
) -> None:
    """Ask the gateway; one is started for the question where none is running, and ended after it."""
    from llm_assets.serving.client import classify

    for answer in classify(prepare_environment(), chain, texts, port):
        typer.echo(f"{answer.label:<10} {answer.probability:6.1%}  {answer.text}   ({answer.release})")


@app.command()
def gc(
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was made in the last so many days.")] = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the list is only printed.")] = False,
) -> None:
    """Delete artifacts that no champion or previous release, no chain's settings and no recent run stands on."""
    from llm_assets.audit.plan import current_fingerprints
    from llm_assets.audit.retention import collect, find_garbage
    from llm_assets.definitions import chains
    from llm_assets.terminal.tables import megabytes

    prepare_environment()
    by_root: dict[str, list[Settings]] = {}
    for spec in chains().values():
        by_root.setdefault(spec.store, []).append(spec)
    for specs in by_root.values():
        store = store_of(specs[0])
        current = {spec.name: current_fingerprints(store, sections(spec, {}), spec.seed) for spec in specs}
        garbage = find_garbage(store, current, keep_days)
        for manifest in garbage.artifacts:
            typer.echo(f"{manifest.link} {manifest.fingerprint}  {megabytes(manifest.size)}")
        for path in garbage.work:
            typer.echo(f"old trace {path.relative_to(store.home)}")
        typer.echo(f"{store.root}: {len(garbage.kept)} artifacts kept, {len(garbage.artifacts)} to delete ({megabytes(garbage.size)})")
        if yes:
            collect(store, garbage)
    if not yes:
        typer.echo("nothing was deleted; --yes deletes")


@app.command()
def doctor() -> None:
    """Check what a run needs: versions, processors, memory, disk, ports, and that the chains' YAML files load."""
    from llm_assets.terminal.doctor import examine

    prepare_environment()
    findings = examine(data_root())
    for finding in findings:
        typer.secho(f"{'ok     ' if finding.fine else 'problem'} {finding.text}", fg=None if finding.fine else "red")
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point: errors that name a remedy are printed as they are, anything else with its traceback."""
    from dagster import Failure
    from dagster.components.core.component_tree import ComponentTreeException

    from llm_assets.audit.bom import BomError
    from llm_assets.audit.card import CardError
    from llm_assets.audit.current import NothingUsableError
    from llm_assets.audit.documents import UnknownRuleError
    from llm_assets.audit.forget import ForgetError
    from llm_assets.audit.ids import UnknownIdError
    from llm_assets.audit.provenance import CycleError
    from llm_assets.audit.reproduce import NotReproducibleError
    from llm_assets.corpus.archives import SourceError
    from llm_assets.links.making import SourceChangedError
    from llm_assets.serving.client import GatewayRefusedError
    from llm_assets.serving.gateway import GatewayRunningError
    from llm_assets.serving.ports import PortError
    from llm_assets.serving.supervisor import ServiceError
    from llm_assets.store.manifest import ArtifactError
    from llm_assets.store.verdict import RefusedError

    expected = (
        ArtifactError, BomError, CardError, ComponentTreeException, CycleError, Failure, ForgetError, GatewayRefusedError, GatewayRunningError,
        NotReproducibleError, NothingUsableError, OSError, PortError, RefusedError, ServiceError, SourceChangedError, SourceError, UnknownIdError,
        UnknownRuleError, UsageError,
    )  # fmt: skip
    try:
        app()
    except expected as error:
        if os.environ.get("LLM_ASSETS_DEBUG"):
            raise
        cause = error.__cause__ if isinstance(error, ComponentTreeException) else None
        _fail(str(getattr(error, "description", None) or cause or error))


def _fail(message: str) -> NoReturn:
    typer.secho(message, err=True, fg="red")
    raise SystemExit(1)


def _newest_scorecard(spec: Settings) -> dict[str, Any]:
    from llm_assets.audit.cost import seconds_to_make
    from llm_assets.serving.releases import champion

    store = store_of(spec)
    entry = store.journal(spec.name, "scorecard").newest(lambda entry: not entry["trial"])
    if entry is None:
        _fail(f"{spec.name} has no scorecard yet: llm-assets run {spec.name}")
    release = champion(store.journal(spec.name, "release"))
    seconds = seconds_to_make(store, entry["inputs"].items())
    return {**entry["record"], "release": release["release"] if release else None, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
