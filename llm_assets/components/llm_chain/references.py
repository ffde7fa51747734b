"""Settings that name another Dagster asset: which those are, and where what it made stands when a link runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from llm_assets.audit.current import NothingUsableError, newest_usable
from llm_assets.corpus.sources import AssetSource
from llm_assets.links.chain import LINKS
from llm_assets.links.link import AssetReference, Section
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store


def referenced_assets(section: Section) -> list[list[str]]:
    """The keys of the assets that a section names, as sources or as a checkpoint to continue from."""
    values = [value for name in type(section).model_fields for value in _items(getattr(section, name))]
    return [value.key if isinstance(value, AssetSource) else value.asset for value in values if isinstance(value, AssetSource | AssetReference)]


def with_places(instance: dg.DagsterInstance, store: Store, values: Mapping[str, Any]) -> dict[str, Any]:
    """A step's config with the path of every asset it names. Raises ``dg.Failure`` when one states none."""
    return {name: _placed(instance, store, value) for name, value in values.items()}


def _placed(instance: dg.DagsterInstance, store: Store, value: Any) -> Any:
    if isinstance(value, list):
        return [_placed(instance, store, item) for item in value]
    if not isinstance(value, Mapping):
        return value
    key = value.get("asset") or (value.get("key") if value.get("kind") == "asset" else None)
    return {**value, "path": _place(instance, store, list(key))} if key else value


def _place(instance: dg.DagsterInstance, store: Store, key: list[str]) -> str:
    """Where an asset's newest result stands: a link's artifact that passed its checks, else the path its metadata states."""
    if len(key) == 2 and key[1] in LINKS:
        try:
            value = newest_usable(instance, store, *key).value
        except NothingUsableError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        if isinstance(value, Artifact):
            return str(value.directory)
    event = instance.get_latest_materialization_event(dg.AssetKey(key))
    materialization = event.asset_materialization if event else None
    if materialization is None or "path" not in materialization.metadata:
        name = "/".join(key)
        raise dg.Failure(f"{name} states no path: materialize it, and let it return MaterializeResult(metadata={{'path': ...}})", allow_retries=False)
    return str(materialization.metadata["path"].value)


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]
