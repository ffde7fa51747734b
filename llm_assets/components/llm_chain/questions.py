"""The questions of an audit as assets of a chain: materialized by hand with what is asked about, in no job, on no schedule."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dagster as dg

from llm_assets.audit.questions import QUESTIONS, Desk, Question, opened, refusals
from llm_assets.components.llm_chain.launcher import pipes_launch
from llm_assets.components.llm_chain.report import check_results
from llm_assets.components.llm_chain.resources import stores_of, trackers_of
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.components.llm_chain.trial import op_name
from llm_assets.store.home import prepare_environment

Peers = Callable[[], Iterable[Settings]]


def question_assets(spec: Settings, peers: Peers) -> list[dg.AssetsDefinition]:
    """One asset a question. ``peers`` gives all chains of the project: an answer about a data root needs the stores of each."""
    return [_question_asset(spec, question, peers) for question in QUESTIONS]


def _question_asset(spec: Settings, question: Question, peers: Peers) -> dg.AssetsDefinition:
    key, role = dg.AssetKey([spec.name, question.name]), spec.team_of(question.role)
    checks = [question.check] if question.check else []

    @dg.multi_asset(
        name=op_name(spec.name, question.name),
        specs=[
            dg.AssetSpec(
                key,
                group_name=f"{spec.name}_audit",
                owners=[f"team:{role}"],
                kinds={"markdown"},
                description=question.description,
                tags={"llm_assets/kind": "question"},
            )
        ],
        check_specs=[dg.AssetCheckSpec(name, asset=key, description=says, blocking=True, metadata={"role": role}) for name, says in checks],
        config_schema=question.config.to_fields_dict(),
    )
    def ask(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        from llm_assets.audit.words.reply import write_page

        home, chains = prepare_environment(), list(peers())
        try:
            with opened(stores_of(home, chains)) as indexes:
                desk = Desk(spec.name, indexes, context.instance, trackers_of(home, chains), pipes_launch(context))
                reply = question.ask(desk, question.config(**context.op_execution_context.op_config))
        except refusals() as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        yield dg.MaterializeResult(
            metadata={
                "answer": dg.MetadataValue.md(reply.markdown),
                "page": dg.MetadataValue.url(write_page(home, reply)),
                **reply.figures,
            },
            check_results=check_results([reply.verdict] if reply.verdict else [], role),
        )

    return ask
