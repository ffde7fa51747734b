"""When a chain runs by itself."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from llm_assets.components.llm_chain.automation import chain_job, nightly
from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.policy import retraining
from llm_assets.components.llm_chain.spec import Settings, with_preset
from llm_assets.links.roles import ROLES
from llm_assets_tests.components.test_spec import VALUES


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    folder = tmp_path / "inbox" / "reviews"
    folder.mkdir(parents=True)
    return folder


def spec(**changes: object) -> Settings:
    return with_preset({**VALUES, **changes})


def test_off_by_default_and_on_by_one_key(inbox: Path) -> None:
    for automation, schedule_status, sensor_status in (
        (False, dg.DefaultScheduleStatus.STOPPED, dg.DefaultSensorStatus.STOPPED),
        (True, dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING),
    ):
        chain = spec(automation=automation)
        assert nightly(chain, chain_job(chain)).default_status == schedule_status
        assert retraining(chain, chain_job(chain)).default_status == sensor_status
    assert spec().automation is False
    every = spec(automation=True, retraining={"every": "7d"})  # the policy then says when
    assert nightly(every, chain_job(every)).default_status == dg.DefaultScheduleStatus.STOPPED


def test_new_documents_ask_for_one_run_and_say_why_not_for_a_second(inbox: Path) -> None:
    chain = spec()
    definitions = chain_definitions(chain)
    sensor = retraining(chain, chain_job(chain))
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor: str | None) -> dg.SensorEvaluationContext:
            return dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions)

        empty = sensor.evaluate_tick(tick(None))
        assert empty.skip_message and "1 new or changed files in the inbox (there are 0)" in empty.skip_message
        (inbox / "new.txt").write_text("很好的一本书", encoding="utf-8")
        first = sensor.evaluate_tick(tick(None))
        assert len(first.run_requests or []) == 1
        again = sensor.evaluate_tick(tick(first.cursor))
        assert not again.run_requests and again.skip_message and "(there are 0)" in again.skip_message
        (inbox / "new.txt").write_text("很好的一本书，值得买", encoding="utf-8")
        changed = sensor.evaluate_tick(tick(first.cursor))
        assert changed.run_requests and first.run_requests
        assert changed.run_requests[0].run_key != first.run_requests[0].run_key


def test_the_executor_is_chosen_by_key(inbox: Path) -> None:
    assert chain_definitions(spec()).resolve_job_def("reviews").executor_def is dg.in_process_executor
    assert chain_definitions(spec(executor="processes")).resolve_job_def("reviews").executor_def.name == "processes"


def test_roles_groups_and_kinds_are_on_every_asset(inbox: Path) -> None:
    graph = chain_definitions(spec()).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert [owner.removeprefix("team:") in ROLES for owner in node.owners] == [True], key
        assert node.group_name in ("reviews_corpus", "reviews_model", "reviews_service", "reviews_audit"), key
        assert node.kinds, key
        assert node.description and len(node.description) > 60, key


def test_every_check_names_its_role_and_a_chain_may_rename_it(inbox: Path) -> None:
    graph = chain_definitions(spec(roles={"data_engineer": "corpus-team"})).resolve_asset_graph()
    for key in graph.asset_check_keys:
        (owner,) = graph.get(key.asset_key).owners
        assert graph.get_check_spec(key).metadata == {"role": owner.removeprefix("team:")}
    owners = {key.path[-1]: graph.get(key).owners for key in graph.get_all_asset_keys()}
    assert owners["raw_corpus"] == ["team:corpus-team"] and owners["request_log"] == ["team:operations_engineer"]
    for roles, said in (({"boss": "x"}, "no role boss; there are: product_manager"), ({"programmer": "a b"}, "is no team's name")):
        with pytest.raises(ValueError, match=said):
            spec(roles=roles)


def test_a_changed_yaml_shows_as_a_changed_code_version(inbox: Path) -> None:
    def versions(chain: Settings) -> dict[str, str | None]:
        graph = chain_definitions(chain).resolve_asset_graph()
        return {key.path[-1]: graph.get(key).code_version for key in graph.get_all_asset_keys()}

    before, after = versions(spec()), versions(spec(tokens={"context": 32}))
    assert {link for link in before if before[link] != after[link]} == {"tokens"}
