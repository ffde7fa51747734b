"""Whether the answers of a chain in service all lead back to their documents' sources, none by guess."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import dagster as dg

from benchmarks.chain import CHAIN, first_run
from benchmarks.gateways import gateway
from benchmarks.result import Result
from llm_assets.audit.ids import answers, find
from llm_assets.audit.provenance import Lineage, Node, trace_back
from llm_assets.components.llm_chain.component import chain_definitions
from llm_assets.components.llm_chain.runs import QUIET, open_instance
from llm_assets.components.llm_chain.spec import Settings, merge
from llm_assets.serving.releases import champion, release_journal
from llm_assets.serving.state import newest_rollout
from llm_assets.store.home import prepare_environment
from llm_assets.store.store import Store
from llm_assets.terminal.answers import indexes
from llm_assets.terminal.settings import spec_of, store_of

DRAWN, ASKED = 1_000, 1_500  # answers
BATCH = 100  # requests between two looks at the rollout
AT_ONCE = 8  # requests
SECONDS = 60.0  # that an answer may take
PATIENCE = 10  # times ASKED after which a rollout should have ended
OTHER = {"dynamic": "static", "static": "dynamic"}
ROLLOUT = {"rollout": "canary", "steps": [25, 100], "step_seconds": 1, "step_requests": 100, "max_p99_ms": 5000}
AGAIN = ("quantized_model", "scorecard", "release", "endpoint")  # the links of which a second release is made


def completeness(preset: str, home: Path) -> Result:
    """1,000 answers drawn at random from the traffic of a chain in --home that rolled a release out: how many lead to their documents' sources.

    An answer counts when its lineage names the release that the client was told, every artifact under it is there or its removal is
    recorded, and each raw corpus counts every document of its own under a source whose licence and hash are stated. Where the logs hold
    fewer answers than are drawn, traffic is made: the gateway runs over the data root, 1,500 reviews of the test set are asked by HTTP, and
    after a third of them the chain's own links release the model again, rounded by the other method, which takes over by a canary.
    A data root without a release gets one first, by `llm-assets run reviews`.
    """
    os.environ |= {"LLM_ASSETS_HOME": str(home), "LLM_ASSETS_DAGSTER": str(home / "dagster")}
    prepare_environment()
    told = {answer.id: answer.release for answer in answers(home, CHAIN, limit=10**9)}
    if len(told) < DRAWN:
        heard = _traffic(preset, home)
        told = {answer.id: answer.release for answer in answers(home, CHAIN, limit=10**9)}
        if lost := heard.keys() - told.keys():
            raise RuntimeError(f"{len(lost)} answers that clients had are not in the request log, such as {min(lost)}")
        told |= heard
    drawn = random.Random(0).sample(sorted(told), min(DRAWN, len(told)))
    with indexes() as known:
        complete = sum(leads_to_sources(trace_back(find(known, one), one), told[one]) for one in drawn)
    for release, count in sorted(Counter(told[one] for one in drawn).items()):
        print(f"  {release:<26}{count:8,} answers")
    print(f"{complete:,} of {len(drawn):,} answers, drawn from {len(told):,}, lead to their documents' sources")
    holds = complete == len(drawn) == DRAWN
    return Result("completeness", complete / len(drawn), "share of the answers", f"1, of {DRAWN:,} answers", holds)


def leads_to_sources(lineage: Lineage, told: str) -> bool:
    """Whether a lineage is that of the release ``told``, breaks nowhere, and ends in sources for every document."""
    corpora = [node for node in lineage.nodes.values() if node.link == "raw_corpus"]
    is_told = lineage.release is not None and lineage.release.release == told
    return is_told and not lineage.breaks and bool(corpora) and all(map(_is_accounted_for, corpora))


def _is_accounted_for(corpus: Node) -> bool:
    """Whether each document of a raw corpus is counted under one of its sources, and these say what they are."""
    counted = sum(source.documents for source in corpus.sources)
    stated = all(source.license and source.hash for source in corpus.sources if source.documents)
    return corpus.manifest is not None and counted == corpus.manifest.metrics["documents"] > 0 and stated


def _traffic(preset: str, home: Path) -> dict[str, str]:
    """The answers of a first release, of the rollout of a second one and of what follows: id by id, which release the client was told."""
    from llm_assets.evaluation.predictions import Examples

    if champion(release_journal(home, CHAIN)) is None:
        first_run(home, preset)
    spec = spec_of(CHAIN, preset)
    store = store_of(spec)
    sets = store.newest("evaluation_sets")
    assert sets
    texts = cycle(Examples.read(store.open("evaluation_sets", sets.fingerprint)).of("test").texts)
    with gateway(home) as (url, _):
        heard = _ask(url, islice(texts, ASKED // 3))
        _release_again(home, store, spec)
        while len(heard) < ASKED or not _is_rolled_out(home):
            if len(heard) > PATIENCE * ASKED:
                raise TimeoutError(f"after {len(heard):,} requests the rollout is not over: {home / 'serving' / 'rollout'} tells more")
            heard |= _ask(url, islice(texts, BATCH))
    return heard


def _ask(url: str, texts: Iterator[str]) -> dict[str, str]:
    """One request a text; the id of each answer, with the release that gave it."""
    import httpx2

    with httpx2.Client(base_url=url, timeout=SECONDS, trust_env=False) as client, ThreadPoolExecutor(AT_ONCE) as threads:

        def one(text: str) -> tuple[str, str]:
            answer = client.post("/v1/classify", json={"model": CHAIN, "input": text}).raise_for_status().json()
            return answer["id"], answer["release"]

        return dict(threads.map(one, texts))


def _release_again(home: Path, store: Store, spec: Settings) -> None:
    """The champion's model, rounded by the method that was not taken, through the links from there to the endpoint, in Dagster."""
    served = champion(release_journal(home, CHAIN))
    assert served
    model = store.open("quantized_model", served["quantized_model"])
    changes = {"quantized_model": {"method": OTHER[model.manifest.metrics["method"]]}, "endpoint": ROLLOUT}
    changed = type(spec).model_validate(merge(spec.model_dump(exclude_unset=True, mode="json"), changes))
    job = chain_definitions(changed).resolve_job_def(CHAIN)
    keys: Sequence[dg.AssetKey] = [dg.AssetKey([CHAIN, link]) for link in AGAIN]
    config: Mapping[str, object] = QUIET
    with open_instance(home) as instance:
        job.execute_in_process(instance=instance, asset_selection=keys, run_config=config)


def _is_rolled_out(home: Path) -> bool:
    """Whether the second release answers everything. Raises ``RuntimeError`` where it was taken back."""
    rollout = newest_rollout(home, CHAIN)
    if rollout and rollout.stage == "rolled_back":
        raise RuntimeError(f"{rollout.release} was rolled back, so no release was rolled out: {rollout.reason}")
    return rollout is not None and rollout.stage == "full"
