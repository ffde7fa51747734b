"""Telling MLflow: one run a made artifact, in batches, and never at the cost of the chain when no server answers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from llm_assets.store.files import write_atomic
from llm_assets.tracking.record import RunRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

METRIC_BATCH = 1000  # metrics a request, MLflow's limit; one request a metric costs 20 ms
BATCH = 100  # parameters or inputs a request, MLflow's limit
PAGE = 1000  # runs a request
COPY = "model"  # the artifact path of a trained model's copy
REGISTRY_ALIASES = {"candidate", "champion", "previous"}
# Unreachable: two retries of five seconds, then the record waits on the disk.
IMPATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


@dataclass(frozen=True)
class Sent:
    """Where a record arrived, or why it, or another one, waits."""

    run_id: str | None
    url: str | None
    warning: str | None = None


class Tracker:
    """MLflow for one data root. ``uri`` is a tracking URI; by default the database below the data root."""

    def __init__(self, home: Path, uri: str | None = None, ui: str = "http://127.0.0.1:5000") -> None:
        self.folder = home / "mlflow"
        self.uri = uri or f"sqlite:///{self.folder / 'mlflow.db'}"
        self.ui = self._place.rstrip("/") if self.is_remote else ui

    @property
    def is_remote(self) -> bool:
        """Whether a server of the user's is told, which then gets a copy of each trained model."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def _place(self) -> str:
        return _without_secrets(self.uri)

    @property
    def pending(self) -> Path:
        """Records that wait for the server."""
        return self.folder / "pending"

    def send(self, record: RunRecord) -> Sent:
        """Send a record, after those still waiting; on failure keep it for later and say so in ``warning``."""
        try:
            refused = self.flush()
            return replace(self._send(record), warning="; ".join(refused) or None)
        except Exception as error:
            write_atomic(self.pending / f"{record.chain}-{record.fingerprint}.json", record.model_dump_json())
            return Sent(None, None, f"MLflow at {self._place} did not take the record ({reason_of(error)}); it is sent with the next one")

    def flush(self) -> list[str]:
        """Send what waits, oldest first; returns a warning for each record that could not be sent and goes on waiting.

        Where another process flushes, that is left to it. Raises what the client raises when no server answers.
        """
        waiting = sorted(self.pending.glob("*.json"), key=_modified)
        if not waiting:
            return []
        self._client().search_experiments(max_results=1)  # no server: found out once, not once a record
        try:
            with FileLock(self.folder / "pending.lock", timeout=0):
                return [warning for path in waiting if (warning := self._send_waiting(path))]
        except Timeout:
            return []

    def _send_waiting(self, path: Path) -> str | None:
        try:
            record = path.read_bytes()
        except FileNotFoundError:
            return None  # another process has sent it
        try:
            self._send(RunRecord.model_validate_json(record))
        except Exception as error:
            return f"MLflow at {self._place} did not take the waiting record {path} ({reason_of(error)}); it is kept and tried again"
        path.unlink(missing_ok=True)
        return None

    def mirror_release(self, chain: str, release: str, directory: str, fingerprint: str, aliases: Mapping[str, str | None]) -> str | None:
        """Register a release's model and set the registry's aliases; ``aliases`` maps alias to release name, or to None, which takes it away.

        The release journal stays the truth: returns a warning instead of raising when the registry does not answer.
        """
        try:
            self.flush()  # the model's own run may be among what waits
            client = self._client()
            if not client.search_registered_models(filter_string=f"name = '{chain}'"):
                client.create_registered_model(chain)
            versions = {version.tags.get("release"): version for version in client.search_model_versions(f"name = '{chain}'")}
            if release not in versions:
                run = self._find_run(client, chain, fingerprint)
                tags = {"release": release, "llm_assets.fingerprint": fingerprint}
                versions[release] = client.create_model_version(chain, source=self._source(run, directory, fingerprint), run_id=run, tags=tags)
            for alias in REGISTRY_ALIASES & aliases.keys():
                if aliases[alias] is None:
                    client.delete_registered_model_alias(chain, alias)
                elif named := versions.get(aliases[alias]):
                    client.set_registered_model_alias(chain, alias, named.version)
        except Exception as error:
            return f"MLflow's registry at {self._place} was not updated ({reason_of(error)})"
        return None

    def missing(self, run_ids: Iterable[str]) -> list[str]:
        """Those of the runs that MLflow does not have, or has deleted. Raises what the client raises when no server answers."""
        client = self._client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        known: set[str] = set()
        token: str | None = None
        while experiments and token != "":
            page = client.search_runs(experiments, max_results=PAGE, page_token=token)
            known |= {run.info.run_id for run in page}
            token = page.token or ""
        return [run for run in run_ids if run not in known]

    def _source(self, run: str | None, directory: str, fingerprint: str) -> str:
        """Where the registry finds a model: a server takes no path of this machine, only the copy that the model's run holds."""
        if not self.is_remote:
            return directory
        if run is None:
            raise LookupError(f"it has no run of model {fingerprint} yet; materialize release again once that is sent")
        return f"runs:/{run}/{COPY}"

    def _client(self) -> MlflowClient:
        for name, value in IMPATIENCE.items():
            os.environ.setdefault(name, value)
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # it prints each run's URL with the password it may carry
        self.folder.mkdir(parents=True, exist_ok=True)
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _experiment(self, client: MlflowClient, chain: str) -> str:
        found = client.get_experiment_by_name(chain)
        if found:
            return str(found.experiment_id)
        location = None if self.is_remote else (self.folder / "artifacts" / chain).as_uri()
        return str(client.create_experiment(chain, artifact_location=location))

    def _find_run(self, client: MlflowClient, chain: str, fingerprint: str) -> str | None:
        runs = client.search_runs(
            [self._experiment(client, chain)],
            f"tags.`llm_assets.fingerprint` = '{fingerprint}' and tags.`llm_assets.complete` = 'true'",
            max_results=1,
        )
        return runs[0].info.run_id if runs else None

    def _send(self, record: RunRecord) -> Sent:
        client = self._client()
        experiment = self._experiment(client, record.chain)
        run_id = self._find_run(client, record.chain, record.fingerprint) or self._write_run(client, experiment, record)
        return Sent(run_id, f"{self.ui}/#/experiments/{experiment}/runs/{run_id}")

    def _write_run(self, client: MlflowClient, experiment: str, record: RunRecord) -> str:
        """Write a whole run; one cut off half-way lacks the tag ``llm_assets.complete`` and is written anew next time."""
        run_id = str(client.create_run(experiment, start_time=record.started_ms, tags=record.tags).info.run_id)
        try:
            self._fill_run(client, run_id, record)
        except Exception:  # whatever it was, it is raised again once the half-written run is out of the way
            with suppress(Exception):  # what is not complete stands in nobody's way
                client.delete_run(run_id)
            raise
        return run_id

    def _fill_run(self, client: MlflowClient, run_id: str, record: RunRecord) -> None:
        from mlflow.entities import Metric, Param

        metrics = [Metric(name, value, record.ended_ms, 0) for name, value in record.metrics.items()]
        metrics += [Metric(name, value, record.ended_ms, step) for step, name, value in record.curve]
        for metric_batch in _batches(metrics, METRIC_BATCH):
            client.log_batch(run_id, metrics=metric_batch)
        for param_batch in _batches([Param(name[:250], value[:6000]) for name, value in record.params.items()], BATCH):
            client.log_batch(run_id, params=param_batch)
        for input_batch in _batches(_dataset_inputs(record), BATCH):
            client.log_inputs(run_id, input_batch)
        if self.is_remote and record.trained:
            client.set_tag(run_id, "llm_assets.copy", _copy(client, run_id, Path(record.directory)))
        client.set_tag(run_id, "llm_assets.complete", "true")
        client.set_terminated(run_id, "FINISHED", end_time=record.ended_ms)


def _copy(client: MlflowClient, run_id: str, directory: Path) -> str:
    """Copy a model into its run; returns the copy's artifact path, or that there is none since the artifact was collected meanwhile."""
    try:
        if not directory.is_dir():  # the client would log nothing and say nothing
            raise FileNotFoundError(directory)
        client.log_artifacts(run_id, str(directory), COPY)
    except FileNotFoundError:
        return f"none: {directory} was gone when the run was logged"
    return COPY


def _dataset_inputs(record: RunRecord) -> list[Any]:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    context = [InputTag("mlflow.data.context", "input")]
    return [DatasetInput(Dataset(name, digest[:36], "llm_assets", source), context) for name, digest, source in record.inputs]


def _batches(values: list[Any], size: int) -> Iterator[list[Any]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _modified(path: Path) -> float:
    """When a file was written; zero for one that is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def reason_of(error: Exception) -> str:
    """What an error says, in short and without the password that an address in it may carry."""
    return f"{type(error).__name__}: {_without_secrets(str(error))[:160]}"


def _without_secrets(text: str) -> str:
    """A URI or message without the user and password a URL may carry; what is left of an address still opens."""
    return re.sub(r"//[^/\s]*@", "//", text)
