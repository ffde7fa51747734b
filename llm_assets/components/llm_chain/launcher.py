"""Training processes under a Dagster step: the same launcher as everywhere, with Pipes opened for the worker's log."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from llm_assets.links.link import Launch
from llm_assets.store.progress import Progress


def pipes_launch(context: dg.AssetExecutionContext) -> Launch:
    """A ``launch`` whose rank-0 worker reports loss, speed and time left into the run's event log as it goes."""

    def launch(job: Path, processes: int, progress: Progress) -> None:
        from llm_assets.training.launch import launch as launch_workers

        with (
            _without_note_on_readers(),
            dg.open_pipes_session(
                context=context.op_execution_context,
                context_injector=dg.PipesTempFileContextInjector(),
                message_reader=dg.PipesTempFileMessageReader(),
            ) as session,
        ):
            launch_workers(job, processes, progress, environment=session.get_bootstrap_env_vars())

    return launch


@contextmanager
def _without_note_on_readers() -> Iterator[None]:
    """Dagster notes on each session that its own readers use a function of its own in preview; any other note is heard."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Function `PipesMessageReader\.expected_writer_count`", dg.PreviewWarning)
        yield
