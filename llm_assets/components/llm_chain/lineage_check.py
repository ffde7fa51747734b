"""The check `lineage`: after a release and after its endpoint, Dagster's graph and the store must tell the same of all they stand on."""

import time
from contextlib import closing

import dagster as dg

from llm_assets.audit.agreement import compare
from llm_assets.audit.index import Index
from llm_assets.components.llm_chain.report import RECORDS
from llm_assets.components.llm_chain.resources import ChainResource, resource_key
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.links.chain import AUDITED, LINKS

SHOWN = 10  # disagreements in the check's description; its metadata has all


def lineage_checks(spec: Settings) -> list[dg.AssetChecksDefinition]:
    """One check for each link of ``AUDITED``, a step of its own: it can be asked again at any time without a new release."""
    return [_lineage_check(spec, link) for link in AUDITED]


def _lineage_check(spec: Settings, link: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey([spec.name, link]),
        name="lineage",
        blocking=True,
        required_resource_keys={resource_key(spec.name)},
        metadata={"role": spec.team_of(LINKS[link].role)},
        description="What Dagster recorded of this and of everything before it - artifacts, data versions, inputs - is what manifests, journals "
        "and the ledger say.",
    )
    def lineage(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        started = time.perf_counter()
        resource: ChainResource = getattr(context.resources, resource_key(spec.name))
        with closing(Index(resource.store())) as index:
            index.refresh()
            found = compare(context.instance, index, spec.name, link)
        fine = f"Dagster and the store agree on {found.materializations} materializations"
        return dg.AssetCheckResult(
            passed=not found.breaks,
            description="; ".join(found.breaks[:SHOWN]) or fine,
            metadata={
                "materializations": found.materializations,
                "disagreements": len(found.breaks),
                "all": found.breaks,
                RECORDS: time.perf_counter() - started,
            },
        )

    return lineage
