"""What was asked for on the command line: a chain, its store, its settings with the changes of one run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llm_assets.store.home import data_root, prepare_environment

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.spec import Settings
    from llm_assets.store.store import Store
    from llm_assets.tracking.tracker import Tracker


class UsageError(ValueError):
    """Something was asked for that there is not; the message names what there is."""


def spec_of(chain: str, preset: str = "") -> Settings:
    """A chain's spec. Raises ``UsageError`` with the known names for an unknown one, and with file and line for a faulty YAML."""
    prepare_environment()
    if preset:
        os.environ["LLM_ASSETS_PRESET"] = preset
    from llm_assets.definitions import chains

    known = chains()
    if chain not in known:
        raise UsageError(f"no chain {chain!r}; there are: {', '.join(known)}")
    return known[chain]


def specs() -> list[Settings]:
    """Every chain's spec."""
    from llm_assets.definitions import chains

    return list(chains().values())


def store_of(spec: Settings) -> Store:
    """The store a chain's artifacts stand in."""
    from llm_assets.store.store import Store

    return Store(data_root(), spec.store or None)


def stores() -> list[Store]:
    """Every store there is."""
    from llm_assets.components.llm_chain.resources import stores_of

    return stores_of(prepare_environment(), specs())


def trackers() -> list[Tracker]:
    """Every MLflow that a chain tells."""
    from llm_assets.components.llm_chain.resources import trackers_of

    return trackers_of(data_root(), specs())


def known_links(names: list[str]) -> list[str]:
    """The names as they are. Raises ``UsageError`` with the links there are for one that is none."""
    from llm_assets.links.chain import LINKS

    if unknown := [name for name in names if name not in LINKS]:
        raise UsageError(f"no link {unknown[0]!r}; the chain's links are: {', '.join(LINKS)}")
    return names


def overrides(spec: Settings, assignments: list[str]) -> dict[str, dict[str, Any]]:
    """``--set`` arguments as nested mappings a link; the values are YAML."""
    import yaml

    from llm_assets.components.llm_chain.spec import merge

    changes: dict[str, dict[str, Any]] = {}
    for assignment in assignments:
        path, separator, value = assignment.partition("=")
        keys = path.split(".")
        if not separator or len(keys) < 2:
            raise UsageError(f"--set {assignment}: write LINK.KEY=VALUE, such as finetuned_model.epochs=2")
        known_links(keys[:1])
        if keys[0] not in {link.name for link in spec.links}:
            raise UsageError(f"--set {assignment}: the chain {spec.name} has no {keys[0]}; write its section into the chain's YAML first")
        change: Any = yaml.safe_load(value)
        for key in reversed(keys[1:]):
            change = {key: change}
        changes[keys[0]] = merge(changes.get(keys[0], {}), change)
    sections(spec, changes)
    return changes


def sections(spec: Settings, changes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Every section with its overrides; raises ``UsageError`` naming the section, the key and what it allows when one does not fit."""
    import dagster as dg
    from pydantic import ValidationError

    from llm_assets.components.llm_chain.references import referenced_assets, resolve, with_places
    from llm_assets.components.llm_chain.spec import merge

    found = {}
    for link in spec.links:
        name = link.name
        values = merge(getattr(spec, name).model_dump(mode="json"), changes.get(name, {}))
        try:
            found[name] = link.config.model_validate(values)
            if referenced_assets(found[name]):
                with dg.DagsterInstance.get() as instance:
                    found[name] = link.config.model_validate(with_places(values, resolve(instance, store_of(spec), values)))
        except ValidationError as error:
            first = error.errors()[0]
            place, keys = ".".join((name, *map(str, first["loc"]))), ", ".join(link.config.model_fields)
            raise UsageError(f"{place}: {first['msg']}; keys of {name}: {keys}") from error
    return found
