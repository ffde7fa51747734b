"""The commands of what users said: the batches that are learned from and who voted, and taking back what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from getpass import getuser
from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.store.home import prepare_environment
from llm_assets.terminal.chain_commands import Chain
from llm_assets.terminal.settings import UsageError, spec_of, store_of

if TYPE_CHECKING:
    from llm_assets.operation.withdrawal import Withdrawal
    from llm_assets.store.store import Store

feedback = typer.Typer(no_args_is_help=True, help="What users said of answers: the batches that are learned from, and taking back what is wrong.")

Moment = Annotated[str, typer.Option(metavar="TIME", help="ISO 8601, such as 2026-11-26T09:30; without a time zone UTC.")]


@feedback.command("list")
def list_feedback(chain: Chain) -> None:
    """Print the batches of a chain, and who voted how often, without what was withdrawn."""
    from llm_assets.corpus.batches import batch_files, batch_folder, standing_rows, verdict, withdrawals
    from llm_assets.operation.votes import votes

    home = prepare_environment()
    folder = batch_folder(home, chain)
    for path in batch_files(folder):
        rows = standing_rows(path)
        span = f"{min(rows['at'].to_pylist())[:16]} to {max(rows['at'].to_pylist())[:16]}" if len(rows) else "all withdrawn"
        typer.echo(f"{path.stem}  {len(rows):>6} texts  {span}  {_counted(map(verdict, rows.to_pylist()))}")
    cast = votes(home, chain)
    for client, count in Counter(vote.client for vote in cast).most_common():
        typer.echo(f"{client:<20} {count:>6} votes")
    for entry in withdrawals(folder).entries():
        typer.echo(f"{entry['at'][:16]}  {entry['by']} withdrew {len(entry['votes'])} votes and {len(entry['rows'])} texts: {entry['reason']}")


@feedback.command("withdraw")
def withdraw_feedback(
    chain: Chain,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it goes into the records, personal data masked.")],
    client: Annotated[str, typer.Option("--client", metavar="NAME", help="The votes of this key; without a key clients are `anonymous`.")] = "",
    since: Moment = "",
    until: Moment = "",
    batch: Annotated[str, typer.Option("--batch", metavar="NAME", help="A batch as a whole, annotators' labels included; or its beginning.")] = "",
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who withdraws; default: the user's name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it the plan is only printed.")] = False,
) -> None:
    """Take wrong votes back, so that the next run does not learn from them: of a client, of a span of time, or a batch. Nothing is deleted."""
    from llm_assets.operation.withdrawal import Wanted, plan_withdrawal, withdraw

    home = prepare_environment()
    wanted = Wanted(batch, client, _moment(since), _moment(until))
    planned = plan_withdrawal(home, chain, wanted)
    store = store_of(spec_of(chain))
    _show(store, planned)
    if not yes:
        typer.echo("nothing was done; --yes does it")
        return
    done = withdraw(store, chain, wanted, by or getuser(), reason)
    typer.echo(f"{len(done.votes)} votes and {done.texts} labelled texts no longer count; the next run learns without them:")
    typer.echo(f'llm-assets retrain {chain} --reason "{len(done.votes)} votes withdrawn"')


def _show(store: Store, planned: Withdrawal) -> None:
    from llm_assets.audit.index import Index
    from llm_assets.audit.taught import taught_by
    from llm_assets.corpus.batches import verdict

    clients = Counter(vote.client for vote in planned.votes)
    typer.echo(f"{len(planned.votes)} votes ({_counted(clients.elements())})")
    for name, rows in planned.rows.items():
        typer.echo(f"{len(rows)} labelled texts of batch {name}, which keeps {planned.left[name]}: {_counted(map(verdict, rows))}")
    with closing(Index(store)) as index:
        index.refresh()
        learned = taught_by(index, planned.rows)
    for one in learned:
        typer.echo(f"{one.release} ({one.standing}) learned from a batch that holds them: it stays until it is rolled back or another takes over")


def _moment(text: str) -> datetime | None:
    """A time with its zone. Raises ``UsageError``."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        raise UsageError(f"{text} is no time: write it as 2026-11-26T09:30") from None
    return found.replace(tzinfo=UTC) if found and found.tzinfo is None else found


def _counted(values: Iterable[str]) -> str:
    return ", ".join(f"{value} {count}" for value, count in Counter(values).most_common()) or "none"
