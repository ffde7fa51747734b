"""The commands of a chain in service: serve it, ask it, approve and take back releases, keys, labels by hand."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.store.home import data_root, prepare_environment
from llm_assets.terminal.chain_commands import Chain, Preset, materialize
from llm_assets.terminal.feedback_commands import feedback
from llm_assets.terminal.settings import UsageError, spec_of, specs

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.spec import Settings

File = Annotated[Path, typer.Argument(help="JSON file.", dir_okay=False)]
Port = Annotated[int, typer.Option(min=1, max=65535)]

keys = typer.Typer(no_args_is_help=True, help="API keys of the gateway: without any, clients of other machines may ask and vote, nothing more.")
annotate = typer.Typer(no_args_is_help=True, help="Label answers by hand: on the gateway's page, or in Label Studio and back.")


def register(app: typer.Typer) -> None:
    """Add the commands to `llm-assets`."""
    for command in (up, serve, ask, chat, approve, rollback):
        app.command()(command)
    app.add_typer(keys, name="keys")
    app.add_typer(annotate, name="annotate")
    app.add_typer(feedback, name="feedback")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; anything but loopback serves your network.")] = "127.0.0.1", port: Port = 8000
) -> None:
    """Run the gateway: it serves the release that each chain's endpoint asset names."""
    from llm_assets.serving.server import serve as serve_gateway

    serve_gateway(host, port, prepare_environment())


def up(dagster_port: Port = 3000, mlflow_port: Port = 5000, gateway_port: Port = 8000) -> None:
    """Run the Dagster UI and daemon, the MLflow UI and the gateway under one supervisor until Ctrl-C."""
    from datetime import UTC, datetime

    from dagster.components.core.component_tree import ComponentTreeException

    from llm_assets.components.llm_chain.agenda import agenda
    from llm_assets.components.llm_chain.runs import open_instance, settle_dead_runs
    from llm_assets.serving.services import default_services
    from llm_assets.serving.supervisor import supervise

    home = prepare_environment()
    with open_instance(home) as instance:
        settle_dead_runs(instance, home)
        try:
            for line in agenda(instance, specs(), datetime.now(UTC)):
                typer.echo(line)
        except ComponentTreeException as error:  # the gateway needs no YAML, and Dagster's UI shows what is wrong with one
            typer.secho(str(error.__cause__ or error), err=True, fg="red")
    supervise(default_services(home, dagster_port, mlflow_port, gateway_port), home / "logs")


def ask(
    chain: Chain,
    texts: Annotated[list[str], typer.Argument(help="Sentences to classify.")],
    port: Annotated[int, typer.Option(help="Port of a free or running gateway.")] = 8000,
) -> None:
    """Ask the gateway; one is started for the question where none is running, and ended after it."""
    from llm_assets.serving.client import classify

    for answer in classify(prepare_environment(), chain, texts, port):
        typer.echo(f"{answer.label:<10} {answer.probability:6.1%}  {answer.text}   ({answer.release})")


def chat(
    chain: Chain,
    system: Annotated[str, typer.Option(help="A first turn that says how to answer.")] = "",
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the likeliest tokens that are drawn from.")] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens an answer.")] = 256,
    seed: Annotated[int | None, typer.Option(help="The same answers to the same conversation.")] = None,
) -> None:
    """Talk to a chain whose model generates, at the gateway that runs; answers appear as they are written.

    An empty line or the end of input ends the conversation, /new begins another, Ctrl-C breaks an answer off. Lines may come from a pipe: each is a
    turn of the user. The older turns are left out when the conversation outgrows the model's context. The key of
    LLM_ASSETS_KEY is used where the gateway asks for one.
    """
    from llm_assets.terminal.chat import converse

    settings = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, **({} if seed is None else {"seed": seed})}
    converse(prepare_environment(), chain, system, settings)


def approve(
    chain: Chain,
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who approves; recorded as claimed.")],
    release: Annotated[str, typer.Argument(metavar="[RELEASE]", help="The release; default: the newest that waits.")] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept with the release.")] = "",
    preset: Preset = "",
) -> None:
    """Make a release that waits for approval the champion, and ask the gateway for it: materializes `release` and `endpoint`."""
    from llm_assets.serving.releases import release_journal, standing

    waiting = standing(release_journal(prepare_environment(), chain)).candidate
    if not release and waiting is None:
        raise UsageError(f"no release of {chain} waits for approval; one that was rolled back is approved by its name")
    name = release or (waiting or {})["release"]
    materialize(spec_of(chain, preset), {"release": {"approved_by": by, "candidate": name, "note": note}}, ["release", "endpoint"])
    typer.echo(f"{name} is the champion of {chain}")


def rollback(
    chain: Chain,
    to: Annotated[str, typer.Option("--to", metavar="RELEASE", help="Default: the release before the champion.")] = "",
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who rolls back; default: the user's name.")] = "",
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why; kept in the release journal.")] = "",
) -> None:
    """Serve an older release again, at once: a new entry in the release journal that points at the old files."""
    from getpass import getuser

    from llm_assets.serving.rollback import roll_back_by_hand

    found = roll_back_by_hand(prepare_environment(), chain, to, by or getuser(), note)
    typer.echo(f"{found['release']} is the champion of {chain}: {found['detail']}")
    _mirror(chain)
    if found["state"] in ("refused", "late"):
        raise typer.Exit(1)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Who uses it; the request log and the feedback name it.")],
    role: Annotated[list[str], typer.Option("--role", help="What it opens: ask, feedback or operate; repeatable.")],
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute; default: no limit.")] = None,
    votes_per_day: Annotated[int, typer.Option(min=0, help="Feedback that is taken from it in one UTC day.")] = 1000,
) -> None:
    """Make a key and print it, this once."""
    from llm_assets.serving.keys import add_key as make_key

    typer.echo(make_key(prepare_environment(), name, role, per_minute, votes_per_day))  # type: ignore[arg-type]
    typer.secho("keep it: it cannot be shown again", err=True)


@keys.command("list")
def list_keys() -> None:
    """Print the keys' names, roles and limits."""
    from llm_assets.serving.keys import read_keys

    for key in read_keys(prepare_environment()) or []:
        rate = f"{key.per_minute} a minute" if key.per_minute else "no limit"
        typer.echo(f"{key.name:<20} {', '.join(key.roles):<24} {rate:<14} {key.votes_per_day} votes a day   made {key.made[:10]}")


@keys.command("remove")
def remove_key(name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """Take a key back; a running gateway notices within a second."""
    from llm_assets.serving.keys import keys_path
    from llm_assets.serving.keys import remove_key as take_back

    home = prepare_environment()
    if not take_back(home, name):
        typer.echo(f"no key is left, so the gateway serves nobody; delete {keys_path(home)} to ask for none")


@annotate.command("export")
def annotate_export(chain: Chain, file: File) -> None:
    """Write the answers worth labelling as Label Studio's tasks, and beside them the configuration of a project, FILE.xml."""
    from llm_assets.operation.annotation import export
    from llm_assets.store.files import write_atomic, write_json

    spec = _labelling(chain)
    tasks, project = export(data_root(), chain, spec.annotation, spec.drift)  # type: ignore[attr-defined]
    write_json(file, tasks)
    write_atomic(file.with_name(f"{file.name}.xml"), project)
    typer.echo(f"{len(tasks)} texts in {file} ({_counted(task['data']['reason'] for task in tasks)}); project in {file}.xml")


@annotate.command("queue")
def annotate_queue(chain: Chain) -> None:
    """Put the answers worth labelling on the gateway's page `/label`, behind those that wait there."""
    from llm_assets.operation.annotation import put_on_page
    from llm_assets.serving.state import service_url

    spec = _labelling(chain)
    tasks = put_on_page(data_root(), chain, spec.annotation, spec.drift)  # type: ignore[attr-defined]
    typer.echo(f"{len(tasks)} texts at {service_url(data_root())}/label ({_counted(task.reason for task in tasks)})")


@annotate.command("import")
def annotate_import(
    chain: Chain,
    file: Annotated[Path | None, typer.Argument(help="A JSON export of Label Studio; default: what was labelled on the gateway's page.")] = None,
) -> None:
    """Take in what was labelled: a batch that labelled_examples reads, and how far the annotators agree."""
    from llm_assets.operation.annotation import AnnotationError, take_from_page, take_in

    spec = _labelling(chain)
    if file is None:
        found = take_from_page(data_root(), chain, spec.annotation)
    else:
        try:
            exported = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise AnnotationError(f"{file} is no JSON ({error})") from error
        found = take_in(data_root(), chain, exported, spec.annotation)
    for one in found.agreements:
        typer.echo(f"{one.annotators[0]} and {one.annotators[1]} on {one.texts} texts: Cohen's kappa {one.kappa:.2f}")
    left_out = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in found.left_out.items() if count)
    typer.echo(f"{found.rows} texts in batch {found.batch or '(none)'}{f'; left out: {left_out}' if left_out else ''}")


def _labelling(chain: str) -> Settings:
    """The spec of a chain whose answers are labels. Raises ``UsageError`` for one that talks."""
    from llm_assets.components.llm_chain.spec import GenerationSpec

    spec = spec_of(chain)
    if isinstance(spec, GenerationSpec):
        raise UsageError(f"{chain} talks, and only answers that are labels are annotated: name a chain of type llm_assets.LlmChain")
    return spec


def _counted(reasons: Iterable[str]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in Counter(reasons).items())


def _mirror(chain: str) -> None:
    """Bring MLflow's aliases in line with the release journal, or say why not."""
    from llm_assets.components.llm_chain.registry import mirror_releases
    from llm_assets.components.llm_chain.resources import ChainResource

    spec = _labelling(chain)
    resource = ChainResource(store_root=spec.store, mlflow_uri=spec.mlflow)
    if warning := mirror_releases(resource.store(), resource.tracker(), chain):
        typer.secho(warning, err=True, fg="yellow")
