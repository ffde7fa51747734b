"""The questions of an audit asked as in the Dagster UI: an asset materialized with a config, in an instance on the disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from llm_assets.audit import witnesses
from llm_assets.audit.questions import QUESTIONS
from llm_assets.audit.search import hashes, probes, search
from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.spec import GenerationSpec, Settings, with_preset
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.links.roles import ROLES
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets_tests.audit.conftest import flip, release, released_twice, rewrite
from llm_assets_tests.audit.material import KEPT, OTHER, REPEATED, raw_corpus
from llm_assets_tests.components.test_spec import TALKING, VALUES

Ask = Callable[..., "Asked"]


class Asked:
    """How the run of one question ended."""

    def __init__(self, run: dg.ExecuteInProcessResult, home: Path) -> None:
        self.succeeded, self.home = run.success, home
        made = run.get_asset_materialization_events()
        self.metadata = {name: value.value for name, value in made[0].materialization.metadata.items()} if made else {}
        self.checks = {evaluation.check_name: evaluation for evaluation in run.get_asset_check_evaluations()}
        failed = [event.step_failure_data for event in run.all_events if event.is_step_failure]
        self.said = str(failed[0].user_failure_data.description) if failed and failed[0].user_failure_data else ""

    @property
    def answer(self) -> str:
        return str(self.metadata["answer"])

    @property
    def page(self) -> str:
        return (self.home / "audit" / "pages" / str(self.metadata["page"]).rpartition("/")[2]).read_text(encoding="utf-8")


def spec(**changes: Any) -> Settings:
    return with_preset({**VALUES, **changes})


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    home = tmp_path / "home"
    for name, value in (("LLM_ASSETS_HOME", home), ("LLM_ASSETS_DAGSTER", home / "dagster"), ("DAGSTER_HOME", home / "dagster")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("LLM_ASSETS_PRESET", raising=False)
    (home / "dagster").mkdir(parents=True)
    return Store(home)


@pytest.fixture
def made(store: Store) -> dict[str, Artifact]:
    return released_twice(store)


@pytest.fixture
def instance(store: Store) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(store.home / "dagster"), overrides={"telemetry": {"enabled": False}}) as instance:
        yield instance


@functools.cache
def job_of(definitions: Callable[[], dg.Definitions]) -> dg.JobDefinition:
    """The job by which the UI materializes any asset."""
    return definitions().resolve_implicit_global_asset_job_def()


def alone() -> dg.Definitions:
    return chain_definitions(spec())


@pytest.fixture
def ask(store: Store, instance: dg.DagsterInstance) -> Ask:
    def materialize(question: str, definitions: Callable[[], dg.Definitions] = alone, chain: str = "reviews", **config: Any) -> Asked:
        run = job_of(definitions).execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey([chain, question])],
            run_config={"ops": {f"{chain}__{question}": {"config": config}}},
            raise_on_error=False,
        )
        return Asked(run, store.home)

    return materialize


@pytest.mark.parametrize("chain", [spec(), with_preset(TALKING, GenerationSpec)], ids=["labels", "talks"])
def test_each_chain_has_them_in_a_group_of_their_own_outside_its_jobs(chain: Settings) -> None:
    definitions = chain_definitions(chain)
    graph, names = definitions.resolve_asset_graph(), {question.name for question in QUESTIONS}
    assert names == {"trace", "diff", "verify", "forget", "reproduce"}
    for question in QUESTIONS:
        node = graph.get(dg.AssetKey([chain.name, question.name]))
        assert node.group_name == f"{chain.name}_audit" and node.owners == [f"team:{question.role}"] and question.role in ROLES
        assert [key.name for key in graph.get_check_keys_for_assets({node.key})] == ([question.check[0]] if question.check else [])
    for job in (chain.name, f"{chain.name}_watching"):
        assert not {node.name for node in definitions.resolve_job_def(job).nodes} & {f"{chain.name}__{name}" for name in names}


def test_trace_says_where_a_document_went_without_a_word_of_it(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    asked = ask("trace", document=doc_id(OTHER)[:8])
    assert asked.succeeded and "reviews-2 (champion)" in asked.answer and "test test.txt:5 kept" in asked.answer
    assert (asked.metadata["models"], asked.metadata["releases"], asked.metadata["dropped"]) == (2, 2, 0)
    assert OTHER[:24] in asked.page and "audit/pages/trace-" in str(search([store], probes(OTHER)).found)
    assert not [path for path in search([store], probes(OTHER)).found if path.startswith("dagster/")]
    assert f"(evidence: {doc_id(KEPT)})" in ask("trace", document=doc_id(REPEATED)).answer


def test_trace_of_an_unknown_one_fails_with_the_words_of_the_command(made: dict[str, Artifact], ask: Ask) -> None:
    asked = ask("trace", document=f"{doc_id(OTHER)[:8]}0000")
    assert not asked.succeeded and f"0000; near to it: {doc_id(OTHER)}" in asked.said and not asked.metadata


@pytest.mark.parametrize("question", ["trace", "forget"])
def test_a_text_in_the_place_of_an_id_is_refused_and_not_repeated(made: dict[str, Artifact], ask: Ask, question: str) -> None:
    asked = ask(question, document=OTHER, **({"reason": "asked to"} if question == "forget" else {}))
    assert not asked.succeeded and "`document` is no id" in asked.said and "delete this run" in asked.said and OTHER[:8] not in asked.said


def test_a_text_has_no_place_in_the_config_and_no_run_is_made_of_it(made: dict[str, Artifact], instance: dg.DagsterInstance, ask: Ask) -> None:
    for key in ("text", "matching"):
        with pytest.raises(dg.DagsterInvalidConfigError, match=f'unexpected config entry "{key}"') as refused:
            ask("forget", document=doc_id(OTHER), reason="asked to", **{key: OTHER})
        assert OTHER not in refused.value.message
    assert instance.get_runs() == []


def test_diff_compares_the_last_two_releases(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    asked = ask("diff")
    assert asked.succeeded and asked.answer.startswith("**reviews-1 -\\> reviews-2**") and "sources: no change" in asked.answer
    assert asked.metadata["links_changed"] == 0 and "<h1>llm-assets diff reviews-1 reviews-2</h1>" in asked.page
    assert ask("diff", before="reviews-2", after="reviews-1").answer.startswith("**reviews-2")
    for config, said in (
        ({"before": "reviews-1"}, "or neither"),
        ({"before": "reviews-1", "after": "reviews-3"}, "nothing here has the id 'reviews-3'"),
    ):
        refused = ask("diff", **config)
        assert not refused.succeeded and said in refused.said
    store.journal("reviews", "release").path.unlink()
    release(store, made["quantized_model"], files={})
    assert "reviews has 1 releases, and two are compared" in ask("diff").said


def test_verify_is_green_while_all_is_true_and_names_what_is_not(made: dict[str, Artifact], ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "code_hashes", lambda commit: None)  # seconds in a process of its own, which test_verify spends
    asked = ask("verify")
    assert asked.succeeded and asked.checks["whole"].passed and "9 artifacts are what every record says" in asked.answer
    path = made["tokens"].path("layout.json")
    path.write_bytes(flip(path.read_bytes()))
    asked = ask("verify", release="reviews-1")
    assert not asked.succeeded and not asked.checks["whole"].passed and asked.metadata["damages"] == 1
    said = str(asked.checks["whole"].description)
    assert said.startswith("bytes: tokens") and said.endswith("1 damage in 9 artifacts") and 'class="failed"' in asked.page
    assert "nothing here has the id 'reviews-9'" in ask("verify", release="reviews-9").said


def test_forget_makes_the_plan_alone_until_it_is_really_meant(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    asked = ask("forget", document=doc_id(OTHER), reason="asked by 13800138000")
    assert asked.succeeded and not asked.checks["gone"].passed and asked.checks["gone"].severity == dg.AssetCheckSeverity.WARN
    assert "nothing was done" in asked.answer and "asked for: \\[PHONE\\]" not in asked.answer
    assert "asked by \\[PHONE\\]" in asked.answer and "13800138000" not in asked.page
    assert asked.metadata["purge"] == 5 and store.read_manifest("raw_corpus", made["raw_corpus"].fingerprint)
    assert Tombstones.of(store.home).state is None
    salted = Tombstones.of(store.home).hash(doc_id(OTHER))
    done = ask("forget", document=doc_id(OTHER), reason="asked to", really=True)
    assert done.succeeded and done.checks["gone"].passed and Tombstones.of(store.home).standing([doc_id(OTHER)]) == [False]
    assert salted in done.answer and salted in asked.answer and done.metadata["page"] == asked.metadata["page"]


def test_what_was_forgotten_stands_nowhere_not_even_in_dagster(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    ask("trace", document=doc_id(OTHER))  # its page shows the text
    ask("trace", document=OTHER)  # a mistake: the run's config holds it
    before = search([store], probes(OTHER)).found
    assert any(path.startswith("dagster/") for path in before) and any(path.startswith("audit/pages/") for path in before)
    asked = ask("forget", document=doc_id(OTHER), reason="asked to", really=True)
    assert asked.succeeded and asked.checks["gone"].passed and "nothing else holds the text" in asked.answer
    assert (asked.metadata["found"], asked.metadata["to_retire"], asked.metadata["purged"]) == (0, 2, 5)
    assert search([store], [*probes(OTHER), *hashes(OTHER)]).found == []
    for hidden in (*probes(OTHER), *hashes(OTHER), doc_id(OTHER)):
        assert hidden not in asked.page and hidden not in asked.answer
    assert "was erased" in ask("forget", document=doc_id(OTHER), reason="asked to", really=True).said


def test_a_text_that_is_not_gone_fails_the_check_and_the_run(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    (store.home / "note.txt").write_text(OTHER)
    asked = ask("forget", document=doc_id(OTHER), reason="asked to", really=True)
    assert not asked.succeeded and asked.checks["gone"].description == "holds the text: note.txt; the text is NOT gone"
    assert "holds the text: note.txt" in asked.answer and asked.metadata["found"] == 1 and OTHER[:24] not in asked.page


def test_a_reason_that_quotes_the_text_is_refused_before_anything_is_done(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    for really in (False, True):
        asked = ask("forget", document=doc_id(OTHER), reason=f"she wrote {OTHER}", really=really)
        assert not asked.succeeded and "quotes the text" in asked.said and "delete this run" in asked.said and OTHER[:8] not in asked.said
    assert Tombstones.of(store.home).state is None and not (store.home / "audit" / "pages").exists()


def test_reproduce_makes_it_again_and_says_where_it_differs(made: dict[str, Artifact], store: Store, ask: Ask) -> None:
    clean = made["clean_corpus"]
    rewrite(clean, code={**clean.manifest.code, "dirty": False})
    asked = ask("reproduce", artifact=f"clean_corpus/{clean.fingerprint[:8]}")
    assert asked.succeeded and asked.checks["same"].passed and asked.answer.endswith("it is the same\n")
    assert asked.metadata["files"] == asked.metadata["files_same"] > 0 and "it is the same" in asked.page
    files = {**clean.manifest.files, "rejects.parquet": clean.manifest.files["documents.parquet"]}
    clean.path("rejects.parquet").write_bytes(clean.path("documents.parquet").read_bytes())
    rewrite(clean, code={**clean.manifest.code, "dirty": False}, files=files)
    asked = ask("reproduce", artifact=clean.fingerprint)
    assert not asked.succeeded and "not rejects.parquet" in str(asked.checks["same"].description)
    assert "cannot be made again" in ask("reproduce", artifact=made["tokens"].fingerprint).said
    assert "is a release: name one of its artifacts" in ask("reproduce", artifact="reviews-1").said


def test_an_answer_is_about_the_stores_of_all_chains(store: Store, tmp_path: Path, ask: Ask) -> None:
    raw_corpus(Store(store.home, str(tmp_path / "elsewhere")), KEPT)
    other = spec(name="other", store=str(tmp_path / "elsewhere"))
    assert "holds document" in ask("trace", document=doc_id(KEPT)).said
    assert ask("trace", lambda: chain_definitions(spec(), lambda: [spec(), other]), document=doc_id(KEPT)).succeeded


def test_the_code_location_knows_all_its_chains(store: Store, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    from llm_assets import definitions
    from llm_assets.components.llm_chain import questions

    seen: list[str] = []
    stores_of = questions.stores_of

    def noted(home: Path, specs: list[Settings]) -> list[Store]:
        seen.extend(one.name for one in specs)
        return stores_of(home, specs)

    monkeypatch.setattr(questions, "stores_of", noted)
    assert ask("verify", lambda: definitions.defs(), "assistant").answer == "0 artifacts are what every record says\n"
    assert sorted(seen) == ["assistant", "imdb", "reviews"]
