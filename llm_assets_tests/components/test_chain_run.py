"""What a whole run leaves behind; the chain runs once for all of these tests, with the preset tiny."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from llm_assets.components.llm_chain.spec import PRESET_TAG
from llm_assets.links.chain import AUDITED, CHAIN, LINKS
from llm_assets.serving.releases import champion, releases
from llm_assets.store.store import Store
from llm_assets_tests.running import ROOT, environment, llm_assets, processes_of, succeed

MADE = [link.name for link in CHAIN if not link.act]


@contextmanager
def instance_of(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    for name in ("LLM_ASSETS_HOME", "LLM_ASSETS_DAGSTER", "DAGSTER_HOME"):
        monkeypatch.setenv(name, environment(home)[name])
    with dg.DagsterInstance.get() as instance:
        yield instance


def materializations(instance: dg.DagsterInstance, link: str) -> list[dg.AssetMaterialization]:
    records = instance.fetch_materializations(dg.AssetKey(["reviews", link]), limit=20).records
    return [record.asset_materialization for record in records if record.asset_materialization]


def test_every_link_is_materialized_with_cost_path_and_lineage(tiny_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_of(tiny_chain, monkeypatch) as instance:
        for link in CHAIN:
            newest = materializations(instance, link.name)[0]
            assert {"cost_seconds", "cost_core_seconds", "cost_peak_memory_bytes", "path"} <= newest.metadata.keys(), link.name
            for name in link.inputs:
                version = newest.tags[f"dagster/input_data_version/reviews/{name}"]
                made = materializations(instance, name)
                assert version in {materialization.tags["dagster/data_version"] for materialization in made}, (link.name, name)
            if not link.act:
                assert "mlflow_run" in newest.metadata, link.name


def test_a_release_shows_a_page_of_all_that_it_stands_on(tiny_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with instance_of(tiny_chain, monkeypatch) as instance:
        metadata = materializations(instance, "release")[0].metadata
    assert str(metadata["page_lineage"].value).endswith("/pages/lineage.html")
    page = (Path(str(metadata["path"].value)) / "pages" / "lineage.html").read_text(encoding="utf-8")
    for name, fingerprint in Store(tiny_chain).names():
        assert (f'id="{name}-{fingerprint}"' in page) == (name in MADE), name


def test_every_materialization_is_told_in_openlineages_words(tiny_chain: Path) -> None:
    told = [json.loads(line) for path in (tiny_chain / "openlineage" / "reviews").glob("*.jsonl") for line in path.read_text().splitlines()]
    runs = {event["run"]["runId"]: event["job"]["name"] for event in told}
    for link in CHAIN:
        kinds = [event["eventType"] for event in told if runs[event["run"]["runId"]] == f"reviews.{link.name}"]
        assert kinds[:2] == ["START", "COMPLETE"], link.name
    done = {event["job"]["name"]: event for event in told if event["eventType"] == "COMPLETE"}
    read = {name.rpartition("/")[2]: done[f"reviews.{name.rpartition('/')[2]}"] for name in [one["name"] for one in done["reviews.tokens"]["inputs"]]}
    for one in done["reviews.tokens"]["inputs"]:
        (made,) = read[one["name"].rpartition("/")[2]]["outputs"]
        assert (made["name"], made["facets"]["version"]["datasetVersion"]) == (one["name"], one["facets"]["version"]["datasetVersion"])


def test_every_check_ran_and_is_kept_beside_its_artifact(tiny_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tiny_chain)
    with instance_of(tiny_chain, monkeypatch) as instance:
        for link in CHAIN:
            for check in link.checks:
                key = dg.AssetCheckKey(dg.AssetKey(["reviews", link.name]), check.name)
                record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
                judged = {"SUCCEEDED"} if check.blocking else {"SUCCEEDED", "FAILED"}  # a warning may stand: half-trained labels look noisy
                assert record.status.value in judged, key
        for name in AUDITED:
            key = dg.AssetCheckKey(dg.AssetKey(["reviews", name]), "lineage")
            assert instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key].status.value == "SUCCEEDED", key
    for manifest in store.manifests():
        verdicts = store.verdicts(manifest.link, manifest.fingerprint)
        assert verdicts is not None
        assert {verdict.check for verdict in verdicts} == {check.name for check in LINKS[manifest.link].checks}


def test_manifests_name_their_inputs_exactly(tiny_chain: Path) -> None:
    store = Store(tiny_chain)
    for manifest in store.manifests():
        assert manifest.code["hash"] and manifest.dagster_run_id and manifest.host
        for name, entry in manifest.inputs.items():
            upstream = store.open(name, entry.fingerprint)
            assert upstream.data_version == entry.data_version == manifest.recipe["inputs"][name]
        store.open(manifest.link, manifest.fingerprint).verify()


def test_a_second_run_reuses_everything(tiny_chain: Path) -> None:
    before = {manifest.fingerprint: manifest.started for manifest in Store(tiny_chain).manifests()}
    succeed(tiny_chain, "run", "reviews", "--preset", "tiny")
    assert {manifest.fingerprint: manifest.started for manifest in Store(tiny_chain).manifests()} == before
    assert len(releases(Store(tiny_chain).journal("reviews", "release"))) == 1
    assert processes_of(tiny_chain) == []


def test_plan_says_what_would_run_and_why(tiny_chain: Path) -> None:
    calm = succeed(tiny_chain, "plan", "reviews", "--preset", "tiny", COLUMNS="200")
    assert calm.count("its recipe is unchanged") == len(MADE)
    changed = succeed(tiny_chain, "plan", "reviews", "--preset", "tiny", "--set", "tokens.context=32", COLUMNS="200")
    rows = {line.split()[0]: line for line in changed.splitlines() if len(line.split()) > 2}
    assert "make" in rows["tokens"] and "config.context" in rows["tokens"]
    assert "maybe" in rows["quantized_model"]
    assert "reuse" in rows["tokenizer"]


def test_scorecard_json_has_the_promised_shape(tiny_chain: Path) -> None:
    card = json.loads(succeed(tiny_chain, "scorecard", "reviews", "--json"))
    assert (card["chain"], card["release"]) == ("reviews", "reviews-1")
    names = [model["name"] for model in card["models"]]
    assert {"majority", "tfidf_logistic_regression", "finetuned", "quantized"} <= set(names)
    for model in card["models"]:
        assert 0 <= model["test_accuracy"] <= 1 and 0 <= model["test_macro_f1"] <= 1 and model["bytes"] >= 0
        assert 0 <= model["p50_ms"] <= model["p99_ms"]
    assert all(card["split"][part] > 0 for part in ("train", "validation", "test"))
    assert card["seconds"] > 0 and card["seeds"] == 1
    assert "| quantized |" in succeed(tiny_chain, "scorecard", "reviews", "--markdown")


def test_a_trial_is_recorded_and_moves_no_release(tiny_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Store(tiny_chain).journal("reviews", "release")
    before = list(journal.entries())
    desired = (tiny_chain / "serving" / "desired" / "reviews.json").read_text()
    succeed(tiny_chain, "run", "reviews", "--preset", "tiny", "--set", "scorecard.latency_calls=5",
            "--select", "scorecard", "--select", "release", "--select", "endpoint")  # fmt: skip
    assert list(journal.entries()) == before
    assert (tiny_chain / "serving" / "desired" / "reviews.json").read_text() == desired
    with instance_of(tiny_chain, monkeypatch) as instance:
        assert materializations(instance, "scorecard")[0].metadata["trial"].value is True
    recorded = [json.loads(path.read_text()) for path in (tiny_chain / "trials").glob("*.json")]
    assert [(trial["changed"], list(trial["outcomes"])) for trial in recorded] == [({"scorecard.latency_calls": 5}, ["scorecard"])]


def test_an_approval_is_a_materialization_and_no_trial(tiny_chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _copy(tiny_chain, tmp_path)
    journal = Store(home).journal("reviews", "release")
    journal.path.write_text(journal.path.read_text().replace('"state": "champion"', '"state": "candidate"'))  # as `approval: by_hand` had left it
    (home / "serving" / "desired" / "reviews.json").unlink()
    said = succeed(home, "approve", "reviews", "--by", "Ann", "--note", "read the scorecard", "--preset", "tiny")
    assert "reviews-1 is the champion of reviews" in said
    newest = champion(journal)
    assert newest and (newest["approved_by"], newest["note"]) == ("Ann", "read the scorecard")
    assert json.loads((home / "serving" / "desired" / "reviews.json").read_text())["release"] == "reviews-1"
    with instance_of(home, monkeypatch) as instance:
        materialization = materializations(instance, "release")[0]
        assert materialization.metadata["approved_by"].value == "Ann" and materialization.metadata["trial"].value is False
        assert instance.get_runs(limit=1)[0].tags[PRESET_TAG] == "tiny"  # the YAML's own choice is another


def test_a_refused_input_stays_refused_in_a_later_run(tiny_chain: Path, tmp_path: Path) -> None:
    home = _copy(tiny_chain, tmp_path)
    store = Store(home)
    manifest = store.newest("clean_corpus")
    assert manifest is not None
    verdicts = store.verdicts("clean_corpus", manifest.fingerprint)
    assert verdicts
    blocking = next(verdict for verdict in verdicts if verdict.blocking)
    store.judge(store.open("clean_corpus", manifest.fingerprint), [blocking.model_copy(update={"passed": False, "description": "planted"})])
    ended = llm_assets(home, "run", "reviews", "--preset", "tiny", "--select", "labelled_examples")
    assert ended.returncode == 1
    assert "labelled_examples" in ended.stderr and "failed a blocking check" in ended.stderr and "planted" in ended.stderr


def test_a_flipped_bit_stops_what_would_build_on_it(tiny_chain: Path, tmp_path: Path) -> None:
    home = _copy(tiny_chain, tmp_path)
    store = Store(home)
    for link in ("labelled_examples", "tokenizer", "tokens"):
        for manifest in list(store.manifests()):
            if manifest.link == link:
                store.remove(link, manifest.fingerprint, "by a test")
    manifest = store.newest("clean_corpus")
    assert manifest is not None
    path = store.open("clean_corpus", manifest.fingerprint).path("documents.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    ended = llm_assets(home, "run", "reviews", "--preset", "tiny", "--select", "labelled_examples")
    assert ended.returncode == 1
    assert "documents.parquet does not have the hash" in ended.stderr
    assert llm_assets(home, "verify").returncode == 1
    assert "quarantine" in succeed(home, "verify", "--discard")
    succeed(home, "verify")
    succeed(home, "run", "reviews", "--preset", "tiny", "--select", "clean_corpus", "--select", "labelled_examples")


def test_gc_keeps_what_the_champion_stands_on(tiny_chain: Path, tmp_path: Path) -> None:
    home = _copy(tiny_chain, tmp_path)
    stands = {manifest.fingerprint for manifest in Store(home).manifests()}
    succeed(home, "run", "reviews", "--preset", "tiny", "--set", "labelled_examples.minimum_share=0.2", "--select", "labelled_examples")
    extra = {manifest.fingerprint for manifest in Store(home).manifests()} - stands
    listed = succeed(home, "gc", "--keep-days", "0")
    (day,) = (home / "openlineage" / "reviews").glob("*.jsonl")
    assert "nothing was deleted" in listed and f"old trace openlineage/reviews/{day.name}" in listed
    succeed(home, "gc", "--keep-days", "0", "--yes")
    left = {manifest.fingerprint for manifest in Store(home).manifests()}
    assert extra and not extra & left
    assert left == stands and not day.exists()


def test_the_artifact_opens_in_a_notebook(tiny_chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llm_assets as package

    for name in ("LLM_ASSETS_HOME", "LLM_ASSETS_DAGSTER", "DAGSTER_HOME"):
        monkeypatch.setenv(name, environment(tiny_chain)[name])
    model = package.open("reviews", "finetuned_model")
    assert model.path("model.safetensors").stat().st_size > 0
    with pytest.raises(LookupError, match="is an act"):
        package.open("reviews", "scorecard")


def test_unknown_names_are_answered_with_the_known_ones(tiny_chain: Path) -> None:
    assert "no chain 'review'; there are: assistant, imdb, reviews" in llm_assets(tiny_chain, "run", "review").stderr
    assert "labelled_examples" in llm_assets(tiny_chain, "run", "reviews", "--select", "labels").stderr
    wrong = llm_assets(tiny_chain, "run", "reviews", "--set", "tokens.contxt=3")
    assert wrong.returncode == 1 and "tokens.contxt" in wrong.stderr and "context" in wrong.stderr
    assert "unknown preset 'tinny'" in llm_assets(tiny_chain, "plan", "reviews", "--preset", "tinny").stderr


def test_a_run_writes_only_into_its_data_root(tiny_chain: Path, tmp_path: Path) -> None:
    """Neither the checkout nor the working directory gets a file; git's own list of untracked and ignored ones is compared."""

    def listed() -> str:
        command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"]
        lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return "\n".join(line for line in lines if "__pycache__" not in line and "_cache/" not in line)

    before = listed()
    succeed(_copy(tiny_chain, tmp_path), "run", "reviews", "--preset", "tiny", "--select", "compute", "--select", "raw_corpus")
    assert listed() == before


def _copy(home: Path, tmp_path: Path) -> Path:
    """A data root of its own with the same artifacts and history."""
    copy = tmp_path / "home"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("logs", "progress"))
    return copy
