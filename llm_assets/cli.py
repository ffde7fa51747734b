"""`llm-assets`: the chain from the command line. Thin: every command calls a function that tests call too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from llm_assets.store.home import data_root, prepare_environment
from llm_assets.terminal import audit_commands, chain_commands, service_commands
from llm_assets.terminal.environment_commands import env
from llm_assets.terminal.settings import UsageError, sections, specs, store_of

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.spec import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown", help=__doc__)

chain_commands.register(app)
service_commands.register(app)
audit_commands.register(app)
app.command()(env)


@app.command()
def gc(
    keep_days: Annotated[float, typer.Option(min=0, help="Keep what was made in the last so many days.")] = 7.0,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it the list is only printed.")] = False,
) -> None:
    """Delete artifacts that no champion or previous release, no chain's settings and no recent run stands on."""
    from llm_assets.audit.plan import current_fingerprints
    from llm_assets.audit.retention import collect, find_garbage
    from llm_assets.terminal.tables import megabytes

    prepare_environment()
    by_root: dict[str, list[Settings]] = {}
    for spec in specs():
        by_root.setdefault(spec.store, []).append(spec)
    for chains in by_root.values():
        store = store_of(chains[0])
        current = {spec.name: current_fingerprints(store, spec.links, sections(spec, {}), spec.seed) for spec in chains}
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
    try:
        app()
    except Exception as error:
        if os.environ.get("LLM_ASSETS_DEBUG") or not isinstance(error, _expected()):
            raise
        _fail(_message(error))


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose message is all that a user needs; looked up when one occurs, since their modules take seconds to load."""
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
    from llm_assets.audit.trace import UnknownDocumentError
    from llm_assets.corpus.archives import SourceError
    from llm_assets.environments.environment import EnvironmentFailedError, MissingEnvironmentError
    from llm_assets.links.making import SourceChangedError
    from llm_assets.operation.annotation import AnnotationError
    from llm_assets.operation.withdrawal import WithdrawalError
    from llm_assets.serving.client import GatewayRefusedError
    from llm_assets.serving.keys import KeysError
    from llm_assets.serving.ports import PortError
    from llm_assets.serving.releases import ReleaseError
    from llm_assets.serving.server import GatewayRunningError
    from llm_assets.serving.supervisor import ServiceError
    from llm_assets.store.manifest import ArtifactError
    from llm_assets.store.verdict import RefusedError

    return (
        AnnotationError, ArtifactError, BomError, CardError, ComponentTreeException, CycleError, EnvironmentFailedError, Failure, ForgetError,
        GatewayRefusedError, GatewayRunningError, KeysError, MissingEnvironmentError, NotReproducibleError, NothingUsableError, OSError, PortError,
        RefusedError, ReleaseError, ServiceError, SourceChangedError, SourceError, UnknownDocumentError, UnknownIdError, UnknownRuleError, UsageError,
        WithdrawalError,
    )  # fmt: skip


def _message(error: Exception) -> str:
    from dagster.components.core.component_tree import ComponentTreeException

    cause = error.__cause__ if isinstance(error, ComponentTreeException) else None
    return str(getattr(error, "description", None) or cause or error)


def _fail(message: str) -> NoReturn:
    typer.secho(message, err=True, fg="red")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
