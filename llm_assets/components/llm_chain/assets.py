"""Each link as a Dagster asset."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from llm_assets.components.llm_chain.references import referenced_assets
from llm_assets.components.llm_chain.resources import resource_key
from llm_assets.components.llm_chain.run_config import config_schema
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.components.llm_chain.step import Step
from llm_assets.components.llm_chain.trial import op_name
from llm_assets.components.llm_chain.watching import freshness
from llm_assets.links.link import Link, Section
from llm_assets.operation.traffic import TrafficConfig
from llm_assets.serving.request_log import MASKED_LENGTH
from llm_assets.store.fingerprint import digest

# Acts that move what users are served, what the chain learns from, or whom it calls; a trial never does.
OUTWARD = ("release", "endpoint", "feedback_batch", "alerts")


def chain_assets(spec: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """One asset a link, the request log that the gateway writes, and one asset for each act that reads it."""
    return [*(link_asset(spec, link) for link in (*spec.links, *spec.OPERATION)), request_log(spec)]


def link_asset(spec: Settings, link: Link) -> dg.AssetsDefinition:
    """The asset of one link."""
    key = dg.AssetKey([spec.name, link.name])
    section: Section = getattr(spec, link.name)
    outward, role = link.name in OUTWARD, spec.team_of(link.role)
    asset = dg.AssetSpec(
        key=key,
        deps=[dg.AssetDep([spec.name, name]) for name in (*link.inputs, *link.reads)]
        + [dg.AssetDep(dg.AssetKey(reference)) for reference in referenced_assets(section)],
        group_name=f"{spec.name}_{link.stage}",
        owners=[f"team:{role}"],
        kinds=set(link.kinds),
        code_version=f"{link.version}-{digest(section.recipe())[:12]}",
        description=link.description,
        tags={"llm_assets/kind": "act" if link.act else "made"},
        skippable=outward,
        freshness_policy=freshness(spec, link.name),
        partitions_def=daily(section.first_day) if isinstance(section, TrafficConfig) else None,
    )

    @dg.multi_asset(
        name=op_name(spec.name, link.name),
        specs=[asset],
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=key, description=check.description, blocking=check.blocking, metadata={"role": role})
            for check in link.checks
        ],
        config_schema=config_schema(section),
        required_resource_keys={resource_key(spec.name)},
        can_subset=outward,  # which lets it yield neither asset nor checks
    )
    def materialize(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
        step = Step(context, spec, link)
        if outward and step.is_trial:
            context.log.warning(f"{link.name} skipped: this run is a trial ({', '.join(step.changed)} changed) and a trial moves no release")
        else:
            yield step.run()

    return materialize


def daily(first_day: str) -> dg.DailyPartitionsDefinition:
    """The UTC days from the first one to today, which is a partition while it lasts."""
    return dg.DailyPartitionsDefinition(start_date=first_day, end_offset=1)


def request_log(spec: Settings) -> dg.AssetSpec:
    """The answers given, an external asset: the gateway writes it and nothing upstream is made from it.

    A scorecard looks into it, as into the release journal, for what users sent so far; what it makes is served only after that.
    """
    return dg.AssetSpec(
        key=[spec.name, "request_log"],
        deps=[[spec.name, "endpoint"]],
        group_name=f"{spec.name}_service",
        owners=[f"team:{spec.team_of('operations_engineer')}"],
        kinds={"fastapi", "json"},
        description=f"Every answer of the gateway, one JSON object a line, in data/serving/log/{spec.name}/: "
        "id, time, chain, release, client, latency, what was answered (label and probabilities, or the answer that was generated), and of each "
        f"text its length, its SHA-256 and its first {MASKED_LENGTH:,} characters with personal data masked; never as it came.",
    )
