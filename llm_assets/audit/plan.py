"""What a run would do: which links stand already, which would be made, and why, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llm_assets.links.chain import upstream
from llm_assets.links.link import Link, Section
from llm_assets.links.making import recipe_of
from llm_assets.store.artifact import Artifact
from llm_assets.store.fingerprint import Recipe
from llm_assets.store.manifest import ArtifactError, Manifest
from llm_assets.store.store import Store
from llm_assets.store.verdict import failed


@dataclass(frozen=True)
class Step:
    """One link of a plan.

    ``state`` is "reuse", "refused" (it stands, and is damaged or failed a blocking check, which a run judges again), "make",
    "maybe" (made unless what it waits for comes out as before) or "act" (always runs).
    """

    link: str
    state: str
    why: str
    fingerprint: str | None
    seconds: float | None  # from the newest artifact of this link; None when there is none
    size: int | None  # bytes, likewise


def plan(store: Store, chain: Sequence[Link], sections: Mapping[str, Section], seed: int) -> list[Step]:
    """Every link of a chain in order, with what would happen to it now. Starts nothing and makes nothing."""
    known: dict[str, Artifact] = {}
    steps: dict[str, Step] = {}
    for link in chain:
        past = store.newest(link.name)
        if link.act:
            steps[link.name] = Step(link.name, "act", "acts always run", None, None, None)
        elif waits := _waits_for(link, steps, chain):
            steps[link.name] = Step(link.name, "maybe", waits, None, *_cost(past))
        else:
            recipe = recipe_of(link, sections[link.name], {name: known[name] for name in link.inputs if name in known}, seed)
            steps[link.name] = _step(store, recipe, past, known)
    return list(steps.values())


def current_fingerprints(store: Store, chain: Sequence[Link], sections: Mapping[str, Section], seed: int) -> dict[str, str]:
    """The artifacts a chain would reuse now, by link; a refused one counts, since a run judges it again."""
    return {step.link: step.fingerprint for step in plan(store, chain, sections, seed) if step.state in ("reuse", "refused") and step.fingerprint}


def _waits_for(link: Link, steps: Mapping[str, Step], chain: Sequence[Link]) -> str:
    """Why nothing can be said of a link yet; empty when all it is made from is known."""
    unsettled = [name for name in link.inputs if steps[name].state not in ("act", "reuse")]
    refused = sorted(name for name in upstream(link.name, chain) - {link.name} if steps[name].state == "refused")
    if unsettled and refused:
        return f"{', '.join(refused)} is refused"
    return f"{', '.join(unsettled)} would be made anew" if unsettled else ""


def _step(store: Store, recipe: Recipe, past: Manifest | None, known: dict[str, Artifact]) -> Step:
    """A made link whose inputs are all known; it joins them where it may be built on."""
    try:
        found = store.find(recipe.link, recipe.fingerprint)
    except ArtifactError as error:
        return Step(recipe.link, "refused", str(error), recipe.fingerprint, *_cost(past))
    if found is None:
        why = _reason(recipe.differences(past.recipe) if past else None, past)
        return Step(recipe.link, "make", why, recipe.fingerprint, *_cost(past))
    if bad := failed(store.verdicts(recipe.link, recipe.fingerprint) or []):
        why = f"failed {'; '.join(f'{verdict.check}: {verdict.description}' for verdict in bad)}; a run judges it again"
        return Step(recipe.link, "refused", why, recipe.fingerprint, *_cost(found.manifest))
    known[recipe.link] = found
    return Step(recipe.link, "reuse", "its recipe is unchanged", recipe.fingerprint, *_cost(found.manifest))


def _cost(manifest: Manifest | None) -> tuple[float | None, int | None]:
    return (manifest.seconds, manifest.size) if manifest else (None, None)


def _reason(changes: list[str] | None, past: Manifest | None) -> str:
    if changes is None or past is None:
        return "never made"
    shown = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    return shown or f"{past.fingerprint} is gone"
