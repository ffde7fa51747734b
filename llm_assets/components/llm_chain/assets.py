"""Each link as a Dagster asset: chooses its inputs, runs the link, reports what came of it."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from llm_assets.components.llm_chain.inputs import choose_inputs, version_tags
from llm_assets.components.llm_chain.launcher import pipes_launch
from llm_assets.components.llm_chain.references import referenced_assets, with_places
from llm_assets.components.llm_chain.report import act_metadata, artifact_metadata, check_results
from llm_assets.components.llm_chain.resources import ChainResource
from llm_assets.components.llm_chain.run_config import config_schema
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.components.llm_chain.trial import op_name, overrides, record_trial
from llm_assets.links.chain import CHAIN
from llm_assets.links.link import Link, Section
from llm_assets.links.making import act, make
from llm_assets.store.fingerprint import digest
from llm_assets.store.progress import ProgressFile
from llm_assets.store.store import Store
from llm_assets.tracking.record import record_of
from llm_assets.tracking.tracker import Sent

TRACKING = "tracking.json"  # sidecar: the MLflow run of a made artifact
OUTWARD = ("release", "endpoint")  # acts that move what users are served; a trial never does
RESOURCE = "llm_assets"  # prefix of the resource's key; the chain's name follows, so chains may differ in store and server


def resource_key(chain: str) -> str:
    """The key under which a chain's store and tracker are provided."""
    return f"{RESOURCE}_{chain}"


def chain_assets(spec: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """One asset a link, and the request log that the gateway writes."""
    return [*(link_asset(spec, link) for link in CHAIN), request_log(spec)]


def link_asset(spec: Settings, link: Link) -> dg.AssetsDefinition:
    """The asset of one link."""
    key = dg.AssetKey([spec.name, link.name])
    section: Section = getattr(spec, link.name)

    outward = link.name in OUTWARD
    asset = dg.AssetSpec(
        key=key,
        deps=[dg.AssetDep([spec.name, name]) for name in link.inputs]
        + [dg.AssetDep(dg.AssetKey(reference)) for reference in referenced_assets(section)],
        group_name=f"{spec.name}_{link.stage}",
        owners=[f"team:{link.role}"],
        kinds=set(link.kinds),
        code_version=f"{link.version}-{digest(section.model_dump(mode='json'))[:12]}",
        description=link.description,
        tags={"llm_assets/kind": "act" if link.act else "made"},
        skippable=outward,
    )

    @dg.multi_asset(
        name=op_name(spec.name, link.name),
        specs=[asset],
        check_specs=[dg.AssetCheckSpec(check.name, asset=key, description=check.description, blocking=check.blocking) for check in link.checks],
        config_schema=config_schema(section),
        required_resource_keys={resource_key(spec.name)},
        can_subset=outward,  # which lets it yield neither asset nor checks
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        changed = overrides(spec, context.run.run_config)
        if changed and outward:
            context.log.warning(f"{link.name} skipped: this run is a trial ({', '.join(changed)} changed) and a trial moves no release")
            return
        resource: ChainResource = getattr(context.resources, resource_key(spec.name))
        config = type(section).model_validate(with_places(context.instance, resource.store(), context.op_execution_context.op_config))
        yield (_act if link.act else _make)(context, spec, link, config, changed)

    return materialize


def request_log(spec: Settings) -> dg.AssetSpec:
    """The answers given, an external asset: the gateway writes it and nothing upstream depends on it."""
    return dg.AssetSpec(
        key=[spec.name, "request_log"],
        deps=[[spec.name, "endpoint"]],
        group_name=f"{spec.name}_service",
        owners=["team:operations"],
        kinds={"fastapi", "json"},
        description=f"Every answer of the gateway, one JSON object a line, in data/serving/log/{spec.name}/: "
        "id, time, release, label, probabilities, latency; no text.",
    )


def _make(context: dg.AssetExecutionContext, spec: Settings, link: Link, config: Section, changed: Mapping[str, Any]) -> dg.MaterializeResult[Any]:
    resource: ChainResource = getattr(context.resources, resource_key(spec.name))
    store = resource.store()
    chosen = choose_inputs(context.instance, context.run, store, spec.name, link.name)
    progress = ProgressFile(store.home / "work" / "progress" / f"{context.run_id}.jsonl")
    progress.event(link.name, "start")
    outcome = make(
        store,
        link,
        config,
        {name: choice.value for name, choice in chosen.items()},
        seed=spec.seed,
        launch=pipes_launch(context),
        progress=progress.for_link(link.name),
        run_id=context.run_id,
    )
    sent = _track(resource, store, spec.name, link, outcome.artifact.fingerprint)
    if sent.warning:
        context.log.warning(sent.warning)
    artifact = outcome.artifact
    context.log.info(f"{link.name} {artifact.fingerprint} {'reused' if outcome.reused else 'made'} at {artifact.directory}")
    if changed:
        record_trial(store.home, context.run_id, spec.name, changed, link.name, artifact.fingerprint)
    progress.event(link.name, "reused" if outcome.reused else "made", seconds=artifact.manifest.seconds)
    return dg.MaterializeResult(
        metadata=artifact_metadata(artifact, outcome.reused, bool(changed), sent),
        data_version=dg.DataVersion(artifact.data_version),
        tags=version_tags(spec.name, chosen),
        check_results=check_results(outcome.verdicts),
    )


def _act(context: dg.AssetExecutionContext, spec: Settings, link: Link, config: Section, changed: Mapping[str, Any]) -> dg.MaterializeResult[Any]:
    resource: ChainResource = getattr(context.resources, resource_key(spec.name))
    store = resource.store()
    chosen = choose_inputs(context.instance, context.run, store, spec.name, link.name)
    progress = ProgressFile(store.home / "work" / "progress" / f"{context.run_id}.jsonl")
    progress.event(link.name, "start")
    entry, directory = act(
        store,
        link,
        config,
        {name: choice.value for name, choice in chosen.items()},
        chain=spec.name,
        run_id=context.run_id,
        trial=bool(changed),
        progress=progress.for_link(link.name),
    )
    if link.name == "release":
        _mirror_release(context, resource, spec.name, entry["record"])
    progress.event(link.name, "done", seconds=entry["seconds"])
    return dg.MaterializeResult(
        metadata=act_metadata(entry, directory, bool(changed)),
        data_version=dg.DataVersion(entry["data_version"]),
        tags=version_tags(spec.name, chosen),
        check_results=check_results(entry["verdicts"]),
    )


def _track(resource: ChainResource, store: Store, chain: str, link: Link, fingerprint: str) -> Sent:
    """The artifact's MLflow run: found in its sidecar, else written now."""
    known = store.read_sidecar(link.name, fingerprint, TRACKING)
    if isinstance(known, dict):
        return Sent(known["run_id"], known["url"])
    sent = resource.tracker().send(record_of(chain, store.open(link.name, fingerprint)))
    if sent.run_id:
        store.write_sidecar(link.name, fingerprint, TRACKING, {"run_id": sent.run_id, "url": sent.url})
    return sent


def _mirror_release(context: dg.AssetExecutionContext, resource: ChainResource, chain: str, record: Mapping[str, Any]) -> None:
    store = resource.store()
    known = store.read_sidecar("quantized_model", record["quantized_model"], f"registry-{chain}.json")
    if known == record["aliases"]:
        return
    directory = store.open("quantized_model", record["quantized_model"]).directory
    warning = resource.tracker().mirror_release(chain, record["release"], str(directory), record["quantized_model"], record["aliases"])
    if warning:
        context.log.warning(warning)
    else:
        store.write_sidecar("quantized_model", record["quantized_model"], f"registry-{chain}.json", record["aliases"])
