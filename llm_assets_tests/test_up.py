"""`llm-assets up` over a finished chain: the UI in a browser, MLflow, the gateway, and what a person does in the UI."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from llm_assets.audit.questions import QUESTIONS
from llm_assets.links.chain import CHAIN
from llm_assets.operation.acts import OPERATION
from llm_assets_tests.running import ROOT, llm_assets, processes_of, start, succeed

CHROMIUM = shutil.which("chromium")
RUNS_OF = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status stepStats { stepKey status } } } }"
REEXECUTE = """mutation($id: String!) { launchRunReexecution(reexecutionParams: {parentRunId: $id, strategy: FROM_FAILURE}) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) { __typename
  ... on TerminateRunFailure { message } } }"""
LAUNCH = """mutation($config: RunConfigData!) { launchRun(executionParams: {runConfigData: $config, selector: {jobName: "reviews",
  repositoryName: "__repository__", repositoryLocationName: "llm_assets", assetSelection: [{path: ["reviews", "pretrained_checkpoint"]}]}})
  { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } } } }"""
ASSETS = "{ assetNodes { assetKey { path } groupName latestRun: assetMaterializations(limit: 1) { runId } } }"
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Up:
    """A running supervisor and the addresses of its services."""

    def __init__(self, home: Path, process: subprocess.Popen[str], ports: dict[str, int]) -> None:
        self.home, self.process = home, process
        self.dagster, self.mlflow, self.gateway = (f"http://127.0.0.1:{ports[name]}" for name in ("dagster", "mlflow", "gateway"))

    def ask_dagster(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = _post(f"{self.dagster}/graphql", {"query": query, "variables": variables})
        assert "errors" not in answer, answer
        return dict(answer["data"])

    def wait_for_run(self, run_id: str, seconds: float = 240) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            run = self.ask_dagster(RUNS_OF, id=run_id)["runOrError"]
            return run if run.get("status") in ("SUCCESS", "FAILURE", "CANCELED") else None

        return wait_until(ended, seconds)


def wait_until(condition: Callable[[], Any], seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"nothing after {seconds:g} s: {condition}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.read().decode()


def _post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _answers(url: str) -> bool:
    try:
        return _get(url)[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def up(tiny_chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("up") / "home"
    shutil.copytree(tiny_chain, home, ignore=shutil.ignore_patterns("logs", "progress"))
    with running_up(home, "readyz") as services:
        yield services


@contextmanager
def running_up(home: Path, gateway_path: str) -> Iterator[Up]:
    """`llm-assets up` on free ports until all of it answers, the gateway at a path of its own; nothing of it outlives the block."""
    ports = {name: _free_port() for name in ("dagster", "mlflow", "gateway")}
    options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
    process = start(home, "up", *options, LLM_ASSETS_PRESET="tiny")
    services = Up(home, process, ports)
    try:
        wait_until(
            lambda: (
                _answers(f"{services.dagster}/server_info")
                and _answers(f"{services.mlflow}/health")
                and _answers(f"{services.gateway}/{gateway_path}")
            ),
            120,
        )
        yield services
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
        assert wait_until(lambda: not processes_of(home), 30), "processes outlived the supervisor"


def test_the_ui_knows_what_the_command_line_made(up: Up) -> None:
    every = {"/".join(node["assetKey"]["path"]): node for node in up.ask_dagster(ASSETS)["assetNodes"]}
    assert {key.split("/")[0] for key in every} == {"assistant", "imdb", "reviews"}
    nodes = {key: node for key, node in every.items() if key.startswith("reviews/")}
    assert len(nodes) == len(CHAIN) + len(OPERATION) + 1 + len(QUESTIONS)  # one is the request log
    assert {key.split("/")[1] for key, node in nodes.items() if node["latestRun"]} == {link.name for link in CHAIN}
    assert {node["groupName"] for node in nodes.values()} == {"reviews_corpus", "reviews_model", "reviews_service", "reviews_audit"}


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_a_browser_finds_the_graph_materialized_with_its_checks(up: Up, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(f"{up.dagster}/assets/reviews/finetuned_model", wait_until="domcontentloaded")
        page.get_by_text("models.finetuned.test.accuracy").first.wait_for(timeout=60_000)
        overview = page.inner_text("body")
        page.goto(f"{up.dagster}/assets/reviews/finetuned_model?view=checks", wait_until="domcontentloaded")
        page.get_by_text("beats_majority").first.wait_for(timeout=60_000)
        page.get_by_text("Passed").first.wait_for(timeout=60_000)
        page.goto(f"{up.dagster}/asset-groups", wait_until="domcontentloaded")
        page.get_by_text("reviews_service").first.wait_for(timeout=60_000)
        page.wait_for_timeout(2_000)  # the graph is laid out before it takes keys
        page.keyboard.press("Alt+e")  # expands every group
        page.get_by_text("endpoint", exact=True).first.wait_for(timeout=60_000)
        graph = page.inner_text("body")
        page.screenshot(path=str(tmp_path / "graph.png"))
        browser.close()
    assert "Latest materialization" in overview and "Never materialized" not in overview
    assert all(link in graph for link in ("raw_corpus", "tokens", "finetuned_model", "quantized_model", "release"))  # longer names are cut


def test_mlflow_holds_a_run_for_every_made_link(up: Up) -> None:
    experiment = _post(f"{up.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 10, "filter": "name = 'reviews'"})["experiments"][0]
    runs = _post(f"{up.mlflow}/api/2.0/mlflow/runs/search", {"experiment_ids": [experiment["experiment_id"]], "max_results": 100})["runs"]
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
    assert {tag["dagster.asset_key"] for tag in tags} >= {"reviews/raw_corpus", "reviews/pretrained_checkpoint", "reviews/quantized_model"}
    trained = next(run for run, tag in zip(runs, tags, strict=True) if tag["dagster.asset_key"] == "reviews/finetuned_model")
    assert {value["dataset"]["name"] for value in trained["inputs"]["dataset_inputs"]} >= {"pretrained_checkpoint", "labelled_examples"}
    champion = _get(f"{up.mlflow}/api/2.0/mlflow/registered-models/alias?name=reviews&alias=champion")[1]
    assert json.loads(champion)["model_version"]["status"] == "READY"


def test_the_gateway_answers_in_the_classify_shape(up: Up) -> None:
    answer = _post(f"{up.gateway}/v1/classify", {"model": "reviews", "input": ["我非常喜欢这个产品", "太差了"]})
    assert answer["release"] == "reviews-1" and answer["model"] == "reviews"
    assert [item["index"] for item in answer["data"]] == [0, 1]
    for item in answer["data"]:
        assert item["label"] in ("negative", "positive") and item["num_classes"] == 2 and sum(item["probs"]) == pytest.approx(1, abs=1e-4)


def test_a_busy_port_is_named(up: Up, tmp_path: Path) -> None:
    port = up.dagster.rsplit(":", 1)[1]
    ended = llm_assets(tmp_path / "other", "up", "--dagster-port", port, "--mlflow-port", str(_free_port()), "--gateway-port", str(_free_port()))
    assert ended.returncode == 1
    assert port in ended.stderr and "--dagster-port" in ended.stderr
    assert processes_of(tmp_path / "other") == []


def test_a_failed_link_is_reexecuted_from_failure_in_the_ui(up: Up) -> None:
    """A run of the command line fails at one link; the UI's button finishes it with the links that were made."""
    place = up.home / "artifacts" / "labelled_examples"
    aside = place.with_name("labelled_examples.aside")
    place.rename(aside)
    place.write_text("a file where the folder belongs")
    failed = llm_assets(up.home, "run", "reviews", "--preset", "tiny", "--select", "clean_corpus", "--select", "labelled_examples")
    assert failed.returncode == 1 and "labelled_examples" in failed.stderr
    run_id = failed.stderr.split("run ")[-1].split()[0]
    place.unlink()
    aside.rename(place)

    answer = up.ask_dagster(REEXECUTE, id=run_id)["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run = up.wait_for_run(answer["run"]["runId"])
    assert run["status"] == "SUCCESS"
    assert [step["stepKey"] for step in run["stepStats"]] == ["reviews__labelled_examples"]


def _pretraining_again(up: Up) -> subprocess.Popen[str]:
    """A run that pretrains for long, with the workers already going."""
    changed = ["--set", "pretrained_checkpoint.steps=5000"]
    process = start(up.home, "run", "reviews", "--preset", "tiny", *changed, "--select", "pretrained_checkpoint")
    wait_until(lambda: _workers(up.home) >= 2 or process.poll() is not None, 90)
    assert process.poll() is None, process.communicate()
    return process


def _workers(home: Path) -> int:
    commands = list[str]()
    for process in processes_of(home):
        with suppress(psutil.Error):  # it has ended since
            commands.append(" ".join(process.cmdline()))
    return sum("llm_assets.training.worker" in command for command in commands)


@pytest.mark.slow
def test_terminating_a_run_in_the_ui_leaves_no_process(up: Up) -> None:
    process = _pretraining_again(up)
    started = [run for run in up.ask_dagster(RUNS)["runsOrError"]["results"] if run["status"] == "STARTED"]
    assert len(started) == 1
    up.ask_dagster(TERMINATE, id=started[0]["runId"])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "cancelled" in err
    assert up.wait_for_run(started[0]["runId"])["status"] == "CANCELED"
    wait_until(lambda: _workers(up.home) == 0, 20)


@pytest.mark.slow
def test_a_training_launched_in_the_ui_is_terminated_there(up: Up) -> None:
    steps = {"ops": {"reviews__pretrained_checkpoint": {"config": {"steps": 5001}}}}
    launched = up.ask_dagster(LAUNCH, config=steps)["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    wait_until(lambda: _workers(up.home) >= 2, 120)
    up.ask_dagster(TERMINATE, id=launched["run"]["runId"])
    assert up.wait_for_run(launched["run"]["runId"], 60)["status"] == "CANCELED"
    wait_until(lambda: _workers(up.home) == 0, 20)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_and_its_workers(up: Up) -> None:
    process = _pretraining_again(up)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "cancelled" in err
    wait_until(lambda: _workers(up.home) == 0, 20)


@pytest.mark.slow
def test_sigkill_of_a_run_leaves_no_worker_and_no_place_in_the_queue(up: Up) -> None:
    process = _pretraining_again(up)
    run_id = next(run["runId"] for run in up.ask_dagster(RUNS)["runsOrError"]["results"] if run["status"] == "STARTED")
    process.kill()
    process.communicate()
    wait_until(lambda: _workers(up.home) == 0, 30)
    succeed(up.home, "run", "reviews", "--preset", "tiny", "--select", "compute")  # notices the dead one on its way
    assert up.ask_dagster(RUNS_OF, id=run_id)["runOrError"]["status"] == "FAILURE"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_the_policy_sensor_is_switched_on_in_the_ui_and_starts_a_run(tmp_path: Path) -> None:
    """A chain that never ran, and a new document: the switch in the browser, the daemon's tick, the run with its reason on the page."""
    from playwright.sync_api import expect, sync_playwright

    home = tmp_path / "home"
    inbox = home / "inbox" / "reviews"
    inbox.mkdir(parents=True)
    (inbox / "new.txt").write_text("房间很干净，服务也很热情\n", encoding="utf-8")
    with running_up(home, "healthz") as services, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(f"{services.dagster}/automation", wait_until="domcontentloaded")
        switch = page.locator("//a[contains(@href, '/sensors/reviews_retraining')]/following-sibling::div//input[@type='checkbox']")
        switch.wait_for(state="attached", timeout=60_000)
        expect(switch).to_be_enabled(timeout=60_000)
        assert not switch.is_checked() and services.ask_dagster(RUNS)["runsOrError"]["results"] == []
        switch.locator("xpath=..").click()  # the box itself is hidden behind what is drawn
        run = wait_until(lambda: next(iter(services.ask_dagster(RUNS)["runsOrError"]["results"]), None), 120)
        assert {tag["key"]: tag["value"] for tag in run["tags"]}["llm_assets/reason"] == "new documents: 1 files in the inbox"
        page.goto(f"{services.dagster}/runs", wait_until="domcontentloaded")
        page.get_by_text(run["runId"][:8]).first.wait_for(timeout=60_000)
        services.ask_dagster(TERMINATE, id=run["runId"])
        browser.close()


@pytest.mark.slow
def test_dg_dev_shows_what_the_command_line_made(tiny_chain: Path, tmp_path: Path) -> None:
    """`dg dev` in the root of a checkout whose data/ the command line filled; only .env tells it where that is."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml", ".env", "llm_assets"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, checkout / name)
    shutil.copytree(tiny_chain, checkout / "data", ignore=shutil.ignore_patterns("logs", "progress"))
    port = _free_port()
    own = ("LLM_ASSETS_HOME", "LLM_ASSETS_DAGSTER", "DAGSTER_HOME")
    variables = {name: value for name, value in os.environ.items() if name not in own}
    command = [str(Path(sys.executable).with_name("dg")), "dev", "--port", str(port), "--host", "127.0.0.1"]
    with (tmp_path / "dg-dev.log").open("w") as log:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env={**variables, "PWD": str(checkout), "PYTHONPATH": str(checkout)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_until(lambda: _answers(f"http://127.0.0.1:{port}/server_info"), 120)
            nodes = _post(f"http://127.0.0.1:{port}/graphql", {"query": ASSETS})["data"]["assetNodes"]
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
    assert {node["assetKey"]["path"][-1] for node in nodes if node["latestRun"]} == {link.name for link in CHAIN}
