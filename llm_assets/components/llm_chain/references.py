"""Settings that name another Dagster asset: which those are, and where what it made stands when a link runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from llm_assets.audit.current import NothingUsableError, Usable, newest_usable
from llm_assets.corpus.sources import AssetSource
from llm_assets.links.chain import LINKS
from llm_assets.links.link import AssetReference, Input, Section
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store

Key = tuple[str, ...]


def referenced_assets(section: Section) -> list[list[str]]:
    """The keys of the assets that a section names, as sources or as a checkpoint to continue from."""
    values = [value for name in type(section).model_fields for value in _items(getattr(section, name))]
    return [value.key if isinstance(value, AssetSource) else value.asset for value in values if isinstance(value, AssetSource | AssetReference)]


def resolve(instance: dg.DagsterInstance, store: Store, values: Mapping[str, Any]) -> dict[Key, Usable]:
    """What every asset named in a step's config made last. Raises ``dg.Failure`` when one made nothing that may be used."""
    return {key: _resolve(instance, store, key) for key in _keys(values)}


def with_places(values: Any, places: Mapping[Key, Usable]) -> Any:
    """A step's config with the path of every asset it names."""
    if isinstance(values, list):
        return [with_places(item, places) for item in values]
    if not isinstance(values, Mapping):
        return values
    filled = {name: with_places(value, places) for name, value in values.items()}
    key = _key(values)
    return {**filled, "path": _path(places[key].value)} if key else filled


def _keys(values: Any) -> Iterator[Key]:
    items = values if isinstance(values, list) else list(values.values()) if isinstance(values, Mapping) else []
    for item in items:
        key = _key(item)
        yield from [key] if key else _keys(item)


def _key(value: Any) -> Key | None:
    """The asset key that a piece of config names: ``{asset: [...]}``, or a source ``{kind: asset, key: [...]}``."""
    if not isinstance(value, Mapping):
        return None
    named = value.get("asset") or (value.get("key") if value.get("kind") == "asset" else None)
    return tuple(named) if named else None


def _resolve(instance: dg.DagsterInstance, store: Store, key: Key) -> Usable:
    """A link's artifact that passed its checks, or the newest materialization of the user's own asset."""
    if len(key) == 2 and key[1] in LINKS:
        try:
            return newest_usable(instance, store, *key)
        except NothingUsableError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
    records = instance.fetch_materializations(dg.AssetKey(key), limit=1).records
    made = records[0].asset_materialization if records else None
    if made is None or "path" not in made.metadata:
        name = "/".join(key)
        raise dg.Failure(f"{name} states no path: materialize it, and let it return MaterializeResult(metadata={{'path': ...}})", allow_retries=False)
    return Usable({"path": str(made.metadata["path"].value)}, (made.tags or {}).get(DATA_VERSION_TAG, ""), records[0].storage_id)


def _path(value: Input) -> str:
    return str(value.directory if isinstance(value, Artifact) else value["path"])


def _items(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else [value]
