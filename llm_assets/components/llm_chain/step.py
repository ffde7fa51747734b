"""One step of a run: chooses a link's inputs, runs it, reports what came of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from llm_assets.audit.card import model_card_page
from llm_assets.audit.ids import UnknownIdError, find
from llm_assets.audit.index import Index
from llm_assets.audit.openlineage import Materializing
from llm_assets.audit.page import lineage_page
from llm_assets.audit.provenance import CycleError, trace_back
from llm_assets.components.llm_chain.inputs import ancestry, choose_inputs, version_tags
from llm_assets.components.llm_chain.launcher import pipes_launch
from llm_assets.components.llm_chain.references import resolve, with_places
from llm_assets.components.llm_chain.registry import mirror_releases
from llm_assets.components.llm_chain.report import RECORDS, act_metadata, artifact_metadata, check_pages, check_results
from llm_assets.components.llm_chain.resources import ChainResource, resource_key
from llm_assets.components.llm_chain.spec import PRESET_TAG, Settings
from llm_assets.components.llm_chain.trial import overrides, record_trial
from llm_assets.links.link import Link, Section
from llm_assets.links.making import act, make
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_atomic
from llm_assets.store.progress import ProgressFile
from llm_assets.store.records import keeping_records, seconds_on_records
from llm_assets.store.verdict import Verdict, failed
from llm_assets.tracking.record import TRACKING, record_of
from llm_assets.tracking.tracker import Sent

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent


class Step:
    """A link within a run of its chain."""

    def __init__(self, context: dg.AssetExecutionContext, spec: Settings, link: Link) -> None:
        self.context, self.spec, self.link = context, spec, link
        self.team = spec.team_of(link.role)
        resource: ChainResource = getattr(context.resources, resource_key(spec.name))
        self.store, self.tracker, self.emitter = resource.store(), resource.tracker(), resource.emitter(spec.name)
        self.progress = ProgressFile(self.store.home / "work" / "progress" / f"{context.run_id}.jsonl")
        self._kept_before = seconds_on_records()
        self._refuse_another_preset()

    @cached_property
    def changed(self) -> dict[str, Any]:
        """What this run, or one it re-executes, changes from the chain's YAML."""
        return overrides(self.spec, (run.run_config for run in ancestry(self.context.instance, self.context.run)))

    @property
    def is_trial(self) -> bool:
        """Whether anything is changed."""
        return bool(self.changed)

    def run(self) -> dg.MaterializeResult[Any]:
        """Run the link and report it."""
        chosen = choose_inputs(self.context.instance, self.context.run, self.store, self.spec.name, self.link)
        values = self.context.op_execution_context.op_config
        places = resolve(self.context.instance, self.store, values)
        config = type(getattr(self.spec, self.link.name)).model_validate(with_places(values, places))
        inputs = {name: choice.value for name, choice in chosen.items()}
        read = {(self.spec.name, name): choice for name, choice in chosen.items()} | places
        references = {"/".join(key): place.value for key, place in places.items() if isinstance(place.value, Artifact)}
        told = self._materializing({key: choice.data_version for key, choice in read.items()})
        self.progress.event(self.link.name, "start")
        self._tell(told.started)
        try:
            if self.link.act:
                return self._act(config, inputs, version_tags(read), told)
            return self._make(config, inputs, references, version_tags(read), told)
        except BaseException as error:
            self._tell(partial(told.failed, error))
            raise

    def _make(
        self, config: Section, inputs: dict[str, Any], references: dict[str, Artifact], tags: dict[str, str], told: Materializing
    ) -> dg.MaterializeResult[Any]:
        outcome = make(
            self.store,
            self.link,
            config,
            inputs,
            seed=self.spec.seed,
            launch=pipes_launch(self.context),
            progress=self.progress.for_link(self.link.name),
            run_id=self.context.run_id,
            references=references,
        )
        artifact = outcome.artifact
        sent = self._track(artifact)
        if sent.warning:
            self.context.log.warning(sent.warning)
        self.context.log.info(f"{artifact.link} {artifact.fingerprint} {'reused' if outcome.reused else 'made'} at {artifact.directory}")
        self._tell(lambda: told.made(artifact, outcome.reused, {"mlflow_run": sent.run_id or "none", **_failed(outcome.verdicts)}))
        self._record_trial(artifact.fingerprint)
        self.progress.event(self.link.name, "reused" if outcome.reused else "made", seconds=artifact.manifest.seconds)
        return dg.MaterializeResult(
            metadata={**artifact_metadata(artifact, self.store.home, outcome.reused, self.is_trial, sent), **self._records()},
            data_version=dg.DataVersion(artifact.data_version),
            tags=tags,
            check_results=check_results(outcome.verdicts, self.team, check_pages(artifact, self.store.home)),
        )

    def _act(self, config: Section, inputs: dict[str, Any], tags: dict[str, str], told: Materializing) -> dg.MaterializeResult[Any]:
        entry, directory = act(
            self.store,
            self.link,
            config,
            inputs,
            chain=self.spec.name,
            run_id=self.context.run_id,
            trial=self.is_trial,
            progress=self.progress.for_link(self.link.name),
            day=self.context.partition_key if self.context.has_partition_key else None,
            teams=self.spec.roles,
        )
        verdicts = [Verdict.model_validate(verdict) for verdict in entry["verdicts"]]
        demanded: dict[str, Any] = {}
        is_released = self.link.name == "release" and not failed(verdicts)
        if is_released and (warning := mirror_releases(self.store, self.tracker, self.spec.name)):
            self.context.log.warning(warning)
        if is_released:
            demanded = self._draw_lineage(entry["record"]["release"], directory / "pages" / "lineage.html")
        self._tell(lambda: told.done(entry, _failed(verdicts)))
        self._record_trial(entry["at"])
        self.progress.event(self.link.name, "done", seconds=entry["seconds"])
        return dg.MaterializeResult(
            metadata={**act_metadata(entry, directory, self.store.home, self.is_trial), **demanded, **self._records()},
            data_version=dg.DataVersion(entry["data_version"]),
            tags=tags,
            check_results=check_results(verdicts, self.team),
        )

    def _materializing(self, inputs: dict[tuple[str, ...], str]) -> Materializing:
        context, partition = self.context, self.context.partition_key if self.context.has_partition_key else ""
        part = f"{partition}/{context.retry_number}" if partition or context.retry_number else ""
        tags = {"preset": self.spec.preset or "none", "trial": self.is_trial}
        return Materializing(self.spec.name, self.link, self.spec.team_of(self.link.role), context.run_id, inputs, part, tags)

    def _records(self) -> dict[str, float]:
        """What this step spent on records, for whoever asks what lineage costs."""
        return {RECORDS: round(seconds_on_records() - self._kept_before, 4)}

    @keeping_records()
    def _tell(self, event: Callable[[], RunEvent]) -> None:
        """Emit an OpenLineage event; whatever goes wrong with it is a warning and stops no run."""
        try:
            warning = self.emitter.emit(event())
        except Exception as error:
            warning = f"no OpenLineage event of {self.link.name}: {error}"
        if warning:
            self.context.log.warning(warning)

    @keeping_records()
    def _draw_lineage(self, release: str, page: Path) -> dict[str, Any]:
        """Pages of all that a release stands on and of its model card, which the gateway shows; a store that cannot answer stops no release.

        Returns what its licences demand, as metadata.
        """
        with closing(Index(self.store)) as index:
            index.refresh()
            try:
                lineage = trace_back(find([index], release), release)
            except (UnknownIdError, CycleError) as error:
                self.context.log.warning(f"no page of the lineage of {release}: {error}")
                return {}
        write_atomic(page, lineage_page(lineage))
        write_atomic(page.with_name("card.html"), model_card_page(lineage))
        return {"licences_demand": dg.MetadataValue.md("\n".join(f"- {one}" for one in lineage.obligations))}

    @keeping_records()
    def _track(self, artifact: Artifact) -> Sent:
        """The artifact's MLflow run: found in its sidecar, else written now."""
        known = self.store.read_sidecar(artifact.link, artifact.fingerprint, TRACKING)
        if isinstance(known, dict):
            return Sent(known["run_id"], known["url"])
        sent = self.tracker.send(record_of(self.spec.name, artifact))
        if sent.run_id:
            self.store.write_sidecar(artifact.link, artifact.fingerprint, TRACKING, {"run_id": sent.run_id, "url": sent.url})
        return sent

    def _record_trial(self, outcome: str) -> None:
        if self.is_trial:
            record_trial(self.store.home, self.context.run_id, self.spec.name, self.changed, self.link.name, outcome)

    def _refuse_another_preset(self) -> None:
        """A run keeps its preset: re-executed where another is loaded, it would go on from inputs of different settings."""
        asked, loaded = self.context.run.tags.get(PRESET_TAG), self.spec.preset or "none"
        if asked not in (None, loaded):
            raise dg.Failure(
                f"this run was started with preset {asked}, and this code location has loaded {loaded}. Remedy: start a new run, "
                f"or set LLM_ASSETS_PRESET={asked} and reload",
                allow_retries=False,
            )


def _failed(verdicts: list[Verdict]) -> dict[str, str]:
    bad = ", ".join(verdict.check for verdict in failed(verdicts))
    return {"failed_checks": bad} if bad else {}
