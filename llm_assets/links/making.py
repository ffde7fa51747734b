"""Running one link: its recipe, its artifact made or found, its checks judged once for each version."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llm_assets.links.link import Acted, Bench, Entry, Input, Launch, Link, Made, Office, Section
from llm_assets.links.meter import Meter
from llm_assets.links.sources import code_hash, git_state
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.home import cache_root, host_name
from llm_assets.store.journal import now
from llm_assets.store.ledger import entry_hash
from llm_assets.store.manifest import InputEntry, Manifest, content_digest, describe_files, library_versions
from llm_assets.store.progress import Progress, silent
from llm_assets.store.records import keeping_records
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict, failed


class SourceChangedError(RuntimeError):
    """A source became another while it was read; nothing was committed."""


@dataclass(frozen=True)
class Outcome:
    """What running a made link gave."""

    artifact: Artifact
    reused: bool
    verdicts: list[Verdict]


def recipe_of(link: Link, config: Section, inputs: Mapping[str, Input], seed: int) -> Recipe:
    """The recipe of a made link with these inputs; a source is observed now. Acts among the inputs do not count:
    which machine computed something, and how fast, is no reason to make it again.
    """
    return Recipe(
        link=link.name,
        version=link.version,
        config=config.recipe(),
        inputs={name: value.data_version for name, value in inputs.items() if isinstance(value, Artifact) and name not in config.unread()},
        seed=seed,
        observed=link.observe(config) if link.observe else {},
        variant=link.variant,
    )


def make(
    store: Store,
    link: Link,
    config: Section,
    inputs: Mapping[str, Input],
    *,
    seed: int,
    launch: Launch,
    progress: Progress = silent,
    run_id: str | None = None,
    references: Mapping[str, Artifact] | None = None,
) -> Outcome:
    """Make a link's artifact or find it, then judge it unless its verdicts stand already.

    ``references`` are the artifacts that the config itself names, by asset key: their content is in the recipe already, and
    the manifest lists them among the inputs, so that lineage and garbage collection see them.
    They do not stand when the link's checks are others now, or when a blocking one failed: a mended check may pass it.
    Raises ``ArtifactError`` when an input's bytes are not what its manifest says: hashes are compared whenever
    something is made from them. Raises ``SourceChangedError`` when a source is not what was observed before it was read.
    """
    recipe = recipe_of(link, config, inputs, seed)
    read = {name: value for name, value in inputs.items() if name not in config.unread()}
    artifacts = {name: value for name, value in read.items() if isinstance(value, Artifact)} | dict(references or {})

    def build(directory: Path, scratch: Path) -> Manifest:
        with keeping_records():
            for artifact in artifacts.values():
                artifact.verify()
        bench = Bench(directory, scratch, seed, cache_root(), launch, progress)
        started = now()
        with Meter() as meter:
            made = link.make(bench, config, **inputs)
            assert isinstance(made, Made)
        _refuse_changed_source(link, config, recipe)
        return _manifest(link, recipe, artifacts, made, directory, started, meter, run_id)

    artifact, reused = store.make(recipe, build)
    verdicts = store.verdicts(link.name, artifact.fingerprint)
    if verdicts is None or not _stand(verdicts, link):
        verdicts = judge(link, artifact, inputs)
        store.judge(artifact, verdicts)
    return Outcome(artifact, reused, verdicts)


def act(
    store: Store,
    link: Link,
    config: Section,
    inputs: Mapping[str, Input],
    *,
    chain: str,
    run_id: str | None,
    trial: bool,
    progress: Progress = silent,
    day: str | None = None,
    teams: Mapping[str, str] = {},
) -> tuple[Entry, Path]:
    """Run an act, judge its record, append both to its journal; returns the entry and the folder of its files.

    A chain's runs take turns at an act: what one reads in the journal (the next release's number) stays true until it appends.
    """
    directory = store.home / "acts" / chain / link.name / (run_id or "unbound")
    journal = store.journal(chain, link.name)
    with store.act_lock(chain, link.name):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        office = Office(chain, store.home, journal, directory, run_id, progress, day, teams)
        with Meter() as meter:
            acted = link.make(office, config, **inputs)
            assert isinstance(acted, Acted)
        verdicts = judge(link, acted.record, inputs)
        entry = journal.append(
            {
                "run_id": run_id,
                "trial": trial,
                "data_version": acted.data_version,
                "inputs": {name: value.fingerprint for name, value in inputs.items() if isinstance(value, Artifact)},
                "seconds": round(meter.seconds, 3),
                "core_seconds": round(meter.core_seconds, 3),
                "peak_memory_bytes": meter.peak_memory_bytes,
                "energy_joules": meter.energy_joules,
                "verdicts": [verdict.model_dump(mode="json") for verdict in verdicts],
                "record": dict(acted.record),
            }
        )
    store.ledger.append("acted", link.name, entry["at"], chain=chain, entry=entry_hash(entry))
    return entry, directory


def judge(link: Link, outcome: Artifact | Mapping[str, Any], inputs: Mapping[str, Input]) -> list[Verdict]:
    """Every check's verdict on an outcome, with the check's own name and severity."""
    return [check.judge(outcome, inputs).model_copy(update={"check": check.name, "blocking": check.blocking}) for check in link.checks]


def _stand(verdicts: list[Verdict], link: Link) -> bool:
    """Whether verdicts answer the link's checks as they are declared now, and none forbids building on what they judged."""
    answered = {(verdict.check, verdict.blocking) for verdict in verdicts}
    return not failed(verdicts) and answered == {(check.name, check.blocking) for check in link.checks}


def _refuse_changed_source(link: Link, config: Section, recipe: Recipe) -> None:
    if link.observe is None:
        return
    changes = replace(recipe, observed=link.observe(config)).differences(recipe.stated())
    if changes:
        raise SourceChangedError(f"{link.name}: a source changed while it was read ({'; '.join(changes[:3])}); nothing was committed: run again")


def _manifest(
    link: Link, recipe: Recipe, inputs: Mapping[str, Artifact], made: Made, directory: Path, started: str, meter: Meter, run_id: str | None
) -> Manifest:
    with keeping_records():
        files = describe_files(directory)
    inherited = {licence for artifact in inputs.values() for licence in artifact.manifest.licenses}
    return Manifest(
        link=link.name,
        fingerprint=recipe.fingerprint,
        data_version=recipe.fingerprint if link.trained else content_digest(files),
        recipe=recipe.stated(),
        inputs={
            name: InputEntry(link=artifact.link, fingerprint=artifact.fingerprint, data_version=artifact.data_version)
            for name, artifact in inputs.items()
        },
        files=files,
        licenses=sorted(inherited | set(made.licenses)),
        metrics=dict(made.metrics),
        libraries={"python": platform.python_version(), **library_versions(("llm-assets", *link.libraries))},
        code={"hash": code_hash(link.make.__module__), **git_state()},
        dagster_run_id=run_id,
        host=host_name(),
        started=started,
        seconds=round(meter.seconds, 3),
        core_seconds=round(meter.core_seconds, 3),
        peak_memory_bytes=meter.peak_memory_bytes,
        energy_joules=meter.energy_joules,
    )
