import warnings

import dagster as dg

from llm_assets.components.llm_chain.launcher import _without_note_on_readers


def open_pipes(context: dg.OpExecutionContext) -> None:
    with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()) as session:
        session.get_bootstrap_env_vars()
        warnings.warn("something else is in preview", dg.PreviewWarning, stacklevel=1)


@dg.op
def as_dagster_does(context: dg.OpExecutionContext) -> None:
    open_pipes(context)


@dg.op
def as_the_launcher_does(context: dg.OpExecutionContext) -> None:
    with _without_note_on_readers():
        open_pipes(context)


def notes(op: dg.OpDefinition) -> list[str]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        dg.GraphDefinition(name="one", node_defs=[op]).to_job().execute_in_process()
    return [str(note.message) for note in heard if issubclass(note.category, dg.PreviewWarning)]


def test_one_note_of_dagster_is_silenced_and_no_other() -> None:
    told, other = notes(as_dagster_does)
    assert "PipesMessageReader.expected_writer_count" in told and other == "something else is in preview"
    assert notes(as_the_launcher_does) == [other]
