"""Making an artifact again from its recipe, in a clean folder, and comparing: equal bytes for data, equal figures for what was trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llm_assets.audit.diff import numbers
from llm_assets.audit.index import Index
from llm_assets.audit.lineage import Name
from llm_assets.links.chain import LINKS, link_of
from llm_assets.links.link import Input, Launch, Link, Section
from llm_assets.links.making import make, recipe_of
from llm_assets.links.sources import code_hash
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import PLOTS, Manifest, library_versions
from llm_assets.store.progress import Progress, silent
from llm_assets.store.store import Store

TOLERANCE = 0.01  # what a figure of a trained link may differ by: of its own size, or of one where that is smaller


class NotReproducibleError(RuntimeError):
    """An artifact cannot be made again as it was; the message says what stands in the way."""


@dataclass(frozen=True)
class Reproduction:
    """How the second making compares with the first."""

    link: str
    fingerprint: str
    equal: bool  # in bytes for data, within the tolerance for what was trained
    trained: bool
    tolerance: float | None
    files: dict[str, bool]  # name -> same bytes; pictures are not compared
    figures: list[dict[str, Any]]  # of a trained link: name, before, after, within
    seconds: tuple[float, float]  # the first making took, and the second
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """The whole of it for programs."""
        return asdict(self)


def reproduce(
    index: Index, name: Name, folder: Path, launch: Launch, tolerance: float = TOLERANCE, progress: Progress = silent
) -> tuple[Reproduction, Artifact]:
    """Make an artifact again in ``folder``, an empty data root, from its own inputs. Returns the comparison and the second artifact.

    Raises ``NotReproducibleError`` where code, inputs or sources are not what they were, before anything is made.
    """
    store = index.store
    original = store.open(*name)
    manifest = original.manifest
    link = link_of(name[0], manifest.recipe.get("variant", ""))
    if link is None:
        raise NotReproducibleError(f"{' '.join(name)}: no link of that name makes artifacts here")
    if reasons := list(_code_stands_in_the_way(link, manifest)):
        raise NotReproducibleError(f"{' '.join(name)} cannot be made again: {'; '.join(reasons)}")
    config, inputs = _config(link, manifest), _inputs(index, link, manifest)
    recipe, seed = Recipe(**manifest.recipe), int(manifest.recipe["seed"])
    if changes := recipe_of(link, config, inputs, seed).differences(recipe.stated()):
        raise NotReproducibleError(f"{' '.join(name)} cannot be made again, its recipe would be another now: {'; '.join(changes[:3])}")
    again = make(Store(folder), link, config, inputs, seed=seed, launch=launch, progress=progress).artifact
    return _compare(link, original, again, tolerance, list(_other_libraries(manifest))), again


def _code_stands_in_the_way(link: Link, manifest: Manifest) -> Iterator[str]:
    recorded, present = manifest.code.get("hash"), code_hash(link.make.__module__)
    if manifest.code.get("dirty"):
        yield "it was made from code with uncommitted changes, which nobody has any more"
    if manifest.recipe.get("version") != link.version:
        yield f"version {manifest.recipe.get('version')} of {link.name} made it, this code is version {link.version}"
    elif recorded != present:
        yield f"code of hash {recorded} made it, this code has {present}"
    else:
        return
    if commit := manifest.code.get("commit"):
        yield f"its commit is {commit}: run there (git worktree add DIRECTORY {commit[:12]})"


def _config(link: Link, manifest: Manifest) -> Section:
    """The section that the recipe was made of; how the work was laid out is no part of a recipe, and chosen so that its batch is the same."""
    recorded: Mapping[str, Any] = manifest.recipe["config"]
    if _names_asset(recorded):
        raise NotReproducibleError(f"{link.name} {manifest.fingerprint} cannot be made again alone: its config names another asset")
    values = {key: value for key, value in recorded.items() if key in link.config.model_fields}
    if "batch" in recorded and "batch" not in values:
        processes = int(manifest.metrics.get("world_size", 1))
        processes = processes if recorded["batch"] % processes == 0 else 1
        values |= {"processes": processes, "micro_batch": recorded["batch"] // processes}
    return link.config.model_validate(values)


def _names_asset(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "asset" in value or any(map(_names_asset, value.values()))
    return isinstance(value, list) and any(map(_names_asset, value))


def _inputs(index: Index, link: Link, manifest: Manifest) -> dict[str, Input]:
    """The very artifacts it was made from, and of acts the newest record: they shape no result."""
    found: dict[str, Input] = {}
    for key in link.inputs:
        if LINKS[key].act:
            acted = index.newest_act(key)
            if acted is None:
                raise NotReproducibleError(f"{link.name} {manifest.fingerprint} needs {key}, which no journal here has: run the chain's {key} once")
            found[key] = acted["record"]
            continue
        if LINKS[key].optional and key not in manifest.inputs:
            continue
        entry = manifest.inputs[key]
        row = index.artifact((entry.link, entry.fingerprint))
        if row is None or row.state != "present":
            why = row.why if row else "not in the store"
            raise NotReproducibleError(f"{link.name} {manifest.fingerprint} cannot be made again: its input {key} {entry.fingerprint} is {why}")
        found[key] = index.store.open(*row.name)
    return found


def _other_libraries(manifest: Manifest) -> Iterator[str]:
    present = library_versions(tuple(name for name in manifest.libraries if name != "python"))
    for name, version in present.items():
        if version != manifest.libraries[name]:
            yield f"{name} was {manifest.libraries[name]} and is {version}"


def _compare(link: Link, original: Artifact, again: Artifact, tolerance: float, notes: list[str]) -> Reproduction:
    before, after = original.manifest, again.manifest
    names = sorted(name for name in {*before.files, *after.files} if not name.startswith(PLOTS))
    files = {name: name in before.files and name in after.files and before.files[name].sha256 == after.files[name].sha256 for name in names}
    figures = list(_figures(before, after, tolerance)) if link.trained else []
    return Reproduction(
        link.name,
        original.fingerprint,
        equal=all(one["within"] for one in figures) if link.trained else all(files.values()),
        trained=link.trained,
        tolerance=tolerance if link.trained else None,
        files=files,
        figures=figures,
        seconds=(before.seconds, after.seconds),
        notes=notes,
    )


def _figures(before: Manifest, after: Manifest, tolerance: float) -> Iterator[dict[str, Any]]:
    first, second = numbers(before.metrics), numbers(after.metrics)
    for name in sorted({*first, *second}):
        one, two = first.get(name), second.get(name)
        within = one is not None and two is not None and abs(one - two) <= tolerance * max(1.0, abs(one))
        yield {"name": name, "before": one, "after": two, "within": within}
