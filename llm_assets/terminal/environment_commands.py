"""`llm-assets env`: what is installed apart, made and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from llm_assets.terminal.settings import UsageError

if TYPE_CHECKING:
    from llm_assets.environments.environment import Environment


def env(
    name: Annotated[str, typer.Argument(help="Which one to make; without a name they are listed.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Delete it, whatever release made it.")] = False,
) -> None:
    """Environments of their own for what pins other versions: list them, make one (NAME), or delete it."""
    from rich.console import Console

    from llm_assets.environments import environment
    from llm_assets.terminal.tables import environment_table, megabytes

    if not name:
        if remove:
            raise UsageError(f"--remove takes a name: {', '.join(environment.ENVIRONMENTS)}")
        Console().print(environment_table(environment.ENVIRONMENTS.values()))
        return
    if name not in environment.ENVIRONMENTS:
        raise UsageError(f"no environment {name!r}; there are: {', '.join(environment.ENVIRONMENTS)}")
    chosen = environment.ENVIRONMENTS[name]
    if remove:
        for folder in environment.remove(chosen):
            typer.echo(f"removed {folder}")
        return
    if not chosen.is_made:
        _make(chosen)
    typer.echo(f"{name} is made: {chosen.folder} ({megabytes(chosen.size)})")


def _make(chosen: Environment) -> None:
    """Make it under a bar of the packages that pip has got."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from llm_assets.environments import environment

    with Progress(TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()) as bars:
        task = bars.add_task(f"packages of {chosen.name}, {chosen.download / 1e9:.1f} GB", total=len(chosen.pins))

        def show(done: float, total: float, unit: str, **values: float) -> None:
            bars.update(task, completed=done)

        environment.make(chosen, show)
        bars.update(task, completed=len(chosen.pins))
