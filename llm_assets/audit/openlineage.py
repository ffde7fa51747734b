"""A materialization as OpenLineage events: what began, what it read, what it made or why it failed, in the specification's own facets.

A job is a link of a chain (``reviews.tokens``), its parent the chain; a run is one materialization within a Dagster run; a data set is an asset
(``reviews/tokens``) at a data version, or a source. Nothing here is a facet of our own: what was reused, and what it cost, are tags of the run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from llm_assets.audit.provenance import sources_of
from llm_assets.links.link import Link
from llm_assets.links.sources import git_remote, git_state
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import flatten
from llm_assets.store.manifest import Manifest, library_versions

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

NAMESPACE = "llm_assets"
RUNS = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")  # for object ids (RFC 4122), from which the ids of our runs are derived
LONGEST = 1000  # characters of an error's message or of one parameter
TABLE = ".parquet"

Key = tuple[str, ...]


@dataclass(frozen=True)
class Materializing:
    """One link within one Dagster run, and the events that tell of it."""

    chain: str
    link: Link
    team: str
    dagster_run: str
    inputs: Mapping[Key, str]  # asset key -> data version
    part: str = ""  # the partition, and which attempt it is where a step is retried
    tags: Mapping[str, Any] = field(default_factory=dict)

    def started(self) -> RunEvent:
        """It began, and reads these inputs."""
        return self._event("START")

    def made(self, artifact: Artifact, reused: bool, tags: Mapping[str, Any]) -> RunEvent:
        """It made an artifact, or found it: with columns, rows, bytes, version, licences and what it cost when it was made."""
        manifest = artifact.manifest
        cost = _cost(manifest.model_dump())
        told = {"reused": reused, "fingerprint": artifact.fingerprint, **cost, **tags}
        return self._event("COMPLETE", told, self._output(artifact), dict(manifest.recipe["config"]), manifest)

    def done(self, entry: Mapping[str, Any], tags: Mapping[str, Any]) -> RunEvent:
        """An act was done; ``entry`` is what its journal has of it."""
        cost = _cost(entry)
        return self._event("COMPLETE", {"reused": False, "journal_entry": entry["at"], **cost, **tags}, self._outcome(entry["data_version"]))

    def failed(self, error: BaseException) -> RunEvent:
        """It failed, or was stopped."""
        stopped = not isinstance(error, Exception)
        return self._event("ABORT" if stopped else "FAIL", error=error)

    # --- the parts of an event -------------------------------------------------------------------------------------

    def _event(
        self,
        kind: str,
        tags: Mapping[str, Any] | None = None,
        output: OutputDataset | None = None,
        parameters: Mapping[str, Any] | None = None,
        manifest: Manifest | None = None,
        error: BaseException | None = None,
    ) -> RunEvent:
        from openlineage.client import event_v2 as events
        from openlineage.client.facet_v2 import set_producer

        set_producer(_producer())
        facets = {**self._parents(), **_engine(), **_tags({**self.tags, **(tags or {})}), **_parameters(parameters or {}), **_error(error)}
        return events.RunEvent(
            eventTime=datetime.now(UTC).isoformat(),
            producer=_producer(),
            eventType=events.RunState[kind],
            run=events.Run(self.run_id, facets),
            job=events.Job(NAMESPACE, f"{self.chain}.{self.link.name}", self._job()),
            inputs=[*self._inputs(), *_sources(manifest)],
            outputs=[output] if output else [],
        )

    @property
    def run_id(self) -> str:
        """The same in all events of this materialization, and in no other."""
        return str(uuid.uuid5(RUNS, "/".join((self.dagster_run, self.chain, self.link.name, self.part))))

    def _parents(self) -> dict[str, Any]:
        from openlineage.client.facet_v2 import parent_run

        return {"parent": parent_run.ParentRunFacet(run=parent_run.Run(self.dagster_run), job=parent_run.Job(NAMESPACE, self.chain))}

    def _job(self) -> dict[str, Any]:
        from openlineage.client.facet_v2 import documentation_job, job_type_job, ownership_job, source_code_location_job

        code, path = git_state(), f"{self.link.make.__module__.replace('.', '/')}.py"
        facets: dict[str, Any] = {
            "documentation": documentation_job.DocumentationJobFacet(self.link.description),
            "ownership": ownership_job.OwnershipJobFacet([ownership_job.Owner(f"team:{self.team}", "OWNER")]),
            "jobType": job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DAGSTER", jobType="ASSET"),
        }
        if code["commit"]:
            where = git_remote()
            facets["sourceCodeLocation"] = source_code_location_job.SourceCodeLocationJobFacet(
                type="git", url=where, repoUrl=where, path=path, version=str(code["commit"])
            )
        return facets

    def _inputs(self) -> Iterator[InputDataset]:
        from openlineage.client.event_v2 import InputDataset

        for key, version in self.inputs.items():
            yield InputDataset(NAMESPACE, "/".join(key), facets=_version(version))

    def _output(self, artifact: Artifact) -> OutputDataset:
        from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics
        from openlineage.client.facet_v2 import schema_dataset, symlinks_dataset, tags_dataset

        manifest, outcome = artifact.manifest, self._outcome(artifact.data_version)
        tables, rows = _tables(artifact)
        assert outcome.facets is not None
        if tables:
            outcome.facets["schema"] = schema_dataset.SchemaDatasetFacet(tables)
        outcome.facets["tags"] = tags_dataset.TagsDatasetFacet(
            [tags_dataset.TagsDatasetFacetFields("licence", licence) for licence in manifest.licenses]
        )
        place = symlinks_dataset.Identifier("file", str(artifact.directory), "LOCATION")
        outcome.facets["symlinks"] = symlinks_dataset.SymlinksDatasetFacet([place])
        figures = statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=manifest.size, fileCount=len(manifest.files))
        outcome.outputFacets = {"outputStatistics": figures}
        return outcome

    def _outcome(self, version: str) -> OutputDataset:
        from openlineage.client.event_v2 import OutputDataset
        from openlineage.client.facet_v2 import dataset_type_dataset, documentation_dataset, ownership_dataset

        kind = "MODEL" if self.link.trained else "JOB_OUTPUT" if self.link.act else "FILE"
        facets = {
            **_version(version),
            "documentation": documentation_dataset.DocumentationDatasetFacet(self.link.description),
            "ownership": ownership_dataset.OwnershipDatasetFacet([ownership_dataset.Owner(f"team:{self.team}", "OWNER")]),
            "datasetType": dataset_type_dataset.DatasetTypeDatasetFacet(kind, self.link.name),
        }
        return OutputDataset(NAMESPACE, f"{self.chain}/{self.link.name}", facets=facets)


def _version(version: str) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(version)}


def _sources(manifest: Manifest | None) -> Iterator[InputDataset]:
    """What a raw corpus was read from, each with its licence and, where it has one, its hash as the version."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.facet_v2 import tags_dataset

    for source in sources_of(manifest) if manifest else ():
        licence = tags_dataset.TagsDatasetFacetFields("licence", source.license)
        yield InputDataset(
            source.kind, source.place, facets={**(_version(source.hash) if source.hash else {}), "tags": tags_dataset.TagsDatasetFacet([licence])}
        )


def _tables(artifact: Artifact) -> tuple[list[Any], int | None]:
    """The columns of each Parquet table, and the rows of the longest one; both from the files' own metadata."""
    import pyarrow.parquet
    from openlineage.client.facet_v2 import schema_dataset

    fields, rows = [], []
    for name in artifact.manifest.files:
        if name.endswith(TABLE):
            table = pyarrow.parquet.read_metadata(artifact.path(name))
            columns = [schema_dataset.SchemaDatasetFacetFields(column.name, str(column.type)) for column in table.schema.to_arrow_schema()]
            fields.append(schema_dataset.SchemaDatasetFacetFields(name, "table", fields=columns))
            rows.append(table.num_rows)
    return fields, max(rows, default=None)


def _engine() -> dict[str, Any]:
    import dagster as dg
    from openlineage.client.facet_v2 import processing_engine_run

    return {"processing_engine": processing_engine_run.ProcessingEngineRunFacet(dg.__version__, "dagster", _version_here())}


def _cost(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest or an entry of a journal says that it cost; one of an older release says nothing of energy."""
    keys = ("seconds", "core_seconds", "peak_memory_bytes", "energy_joules")
    return {key: values[key] for key in keys if values.get(key) is not None}


def _tags(tags: Mapping[str, Any]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import tags_run

    fields = [tags_run.TagsRunFacetFields(key, str(value).lower() if isinstance(value, bool) else str(value)) for key, value in tags.items()]
    return {"tags": tags_run.TagsRunFacet(fields)}


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    from openlineage.client.facet_v2 import execution_parameters_run as parameters

    listed = [parameters.ExecutionParameter(key, value=str(value)[:LONGEST]) for key, value in flatten(dict(config)).items()]
    return {"executionParameters": parameters.ExecutionParametersRunFacet(listed)} if listed else {}


def _error(error: BaseException | None) -> dict[str, Any]:
    """Its message, personal data masked: an error may quote the text that it stumbled over. No stack: it would quote more."""
    if error is None:
        return {}
    from openlineage.client.facet_v2 import error_message_run

    from llm_assets.corpus.pii import mask

    return {"errorMessage": error_message_run.ErrorMessageRunFacet(f"{type(error).__name__}: {mask(str(error))[0][:LONGEST]}", "PYTHON")}


@cache
def _version_here() -> str:
    return library_versions(("llm-assets",))["llm-assets"]


def _producer() -> str:
    return f"pkg:pypi/llm-assets@{_version_here()}"
