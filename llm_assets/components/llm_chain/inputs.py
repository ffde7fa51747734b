"""What a step reads, and how its materialization states it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import dagster as dg
from dagster._core.definitions.data_version import get_input_data_version_tag, get_input_event_pointer_tag

from llm_assets.audit.current import NothingUsableError, Usable, newest_usable
from llm_assets.links.link import Link
from llm_assets.store.store import Store


def choose_inputs(instance: dg.DagsterInstance, run: dg.DagsterRun, store: Store, chain: str, link: Link) -> dict[str, Usable]:
    """Every input of a link. Raises ``dg.Failure`` naming the input and the remedy when none may be used."""
    runs = {each.run_id for each in ancestry(instance, run)}
    try:
        return {name: newest_usable(instance, store, chain, name, runs) for name in link.inputs}
    except NothingUsableError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def version_tags(chosen: Mapping[tuple[str, ...], Usable]) -> dict[str, str]:
    """The tags by which a materialization states what it read, by asset key; without them Dagster records the newest of each."""
    tags = {}
    for path, choice in chosen.items():
        key = dg.AssetKey(path)
        tags[get_input_data_version_tag(key)] = choice.data_version
        tags[get_input_event_pointer_tag(key)] = str(choice.storage_id)
    return tags


def ancestry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.DagsterRun]:
    """The run and those it re-executes: what they made counts as made in the same run."""
    current: dg.DagsterRun | None = run
    while current is not None:
        yield current
        current = instance.get_run_by_id(current.parent_run_id) if current.parent_run_id else None
