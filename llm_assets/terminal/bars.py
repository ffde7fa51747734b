"""A progress bar a link, drawn from the run's progress file."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from llm_assets.store.progress import ProgressFile

LOOK_SECONDS = 0.2
ENDED = ("made", "reused", "done", "failed")


class Figures(ProgressColumn):
    """The live figures of a link: loss, tokens a second, or how it ended."""

    def render(self, task: Task) -> Text:
        """The text of one row."""
        return Text(task.fields.get("figures", ""), style="dim")


@contextmanager
def progress_bars(file: ProgressFile, console: Console) -> Iterator[None]:
    """Draw the run's progress while the block runs; without a terminal, one line a finished link."""
    stop = threading.Event()
    bars = Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<22}"),
        BarColumn(24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        Figures(),
        console=console,
    )
    view = _Bars(bars) if console.is_terminal else _Lines(console)

    def draw() -> None:
        position = 0
        while True:
            last = stop.wait(LOOK_SECONDS)
            for after, event in file.follow(position):
                position = after
                view.show(event)
            if last:
                return

    thread = threading.Thread(target=draw, daemon=True)
    with bars if console.is_terminal else _nothing():
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}

    def show(self, event: dict[str, Any]) -> None:
        link = event["link"]
        if link not in self.tasks:
            self.tasks[link] = self.bars.add_task(link, total=None)
        task = self.tasks[link]
        if event["state"] in ENDED:
            self.bars.update(task, total=1, completed=1, figures=_ending(event))
        elif event["state"] == "working":
            self.bars.update(task, total=event["total"], completed=event["done"], figures=_figures(event))


class _Lines:
    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, event: dict[str, Any]) -> None:
        if event["state"] in ENDED:
            self.console.print(f"{event['link']:<22} {_ending(event)}", highlight=False)


def _ending(event: dict[str, Any]) -> str:
    if event["state"] == "reused":
        return "reused"
    return f"{event['state']} in {event['seconds']:.1f} s" if "seconds" in event else str(event["state"])


def _figures(event: dict[str, Any]) -> str:
    figures = [f"{name.replace('_', ' ')} {value:,.4g}" for name, value in event["values"].items() if value is not None]
    return " · ".join([f"{event['done']:,.0f}/{event['total']:,.0f} {event['unit']}", *figures])
