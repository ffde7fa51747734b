"""What a run would do: which links stand already, which would be made, and why, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llm_assets.links.chain import CHAIN, LINKS
from llm_assets.links.link import Input, Link, Section
from llm_assets.links.making import recipe_of
from llm_assets.store.manifest import Manifest
from llm_assets.store.store import Store


@dataclass(frozen=True)
class Step:
    """One link of a plan."""

    link: str
    state: str  # "reuse", "make", "maybe" (made unless an upstream result comes out equal) or "act" (always runs)
    why: str
    fingerprint: str | None
    seconds: float | None  # from the newest artifact of this link; None when there is none
    size: int | None  # bytes, likewise


def plan(store: Store, sections: Mapping[str, Section], seed: int) -> list[Step]:
    """Every link of a chain in order, with what would happen to it now. Starts nothing and writes nothing."""
    known: dict[str, Input] = {}
    steps = []
    for link in CHAIN:
        step = _step(store, link, sections[link.name], known, seed)
        if step.state == "reuse" and step.fingerprint:
            known[link.name] = store.open(link.name, step.fingerprint)
        steps.append(step)
    return steps


def current_fingerprints(store: Store, sections: Mapping[str, Section], seed: int) -> dict[str, str]:
    """The artifacts a chain would reuse now, by link."""
    return {step.link: step.fingerprint for step in plan(store, sections, seed) if step.state == "reuse" and step.fingerprint}


def _step(store: Store, link: Link, config: Section, known: Mapping[str, Input], seed: int) -> Step:
    past = store.newest(link.name)
    seconds, size = (past.seconds, past.size) if past else (None, None)
    if link.act:
        return Step(link.name, "act", "acts always run", None, None, None)
    missing = [name for name in link.inputs if not LINKS[name].act and name not in known]
    if missing:
        return Step(link.name, "maybe", f"{', '.join(missing)} would be made anew", None, seconds, size)
    recipe = recipe_of(link, config, {name: known[name] for name in link.inputs if name in known}, seed)
    found = store.find(link.name, recipe.fingerprint)
    if found:
        return Step(link.name, "reuse", "its recipe is unchanged", found.fingerprint, found.manifest.seconds, found.manifest.size)
    return Step(link.name, "make", _reason(recipe.differences(past.recipe) if past else None, past), recipe.fingerprint, seconds, size)


def _reason(changes: list[str] | None, past: Manifest | None) -> str:
    if changes is None or past is None:
        return "never made"
    shown = "; ".join(changes[:3]) + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
    return shown or f"{past.fingerprint} is gone"
