"""What every step reaches for: the artifact store, MLflow, and who is told in OpenLineage's words."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from llm_assets.audit.emitter import Emitter
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.store.home import prepare_environment
from llm_assets.store.store import Store
from llm_assets.tracking.tracker import Tracker


def resource_key(chain: str) -> str:
    """The key under which a chain's store and tracker are provided; chains may differ in both."""
    return f"llm_assets_{chain}"


class ChainResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens the store, the tracker and the emitter that a chain's YAML names, below the data root."""

    store_root: str = ""
    mlflow_uri: str = ""
    openlineage_url: str = ""

    def store(self) -> Store:
        """The artifact store."""
        return Store(prepare_environment(), self.store_root or None)

    def tracker(self) -> Tracker:
        """MLflow, or the user's tracking server."""
        return Tracker(prepare_environment(), self.mlflow_uri or None)

    def emitter(self, chain: str) -> Emitter:
        """OpenLineage's events of a chain: files in the data root, and a server where one is named."""
        return Emitter(prepare_environment(), chain, self.openlineage_url)


def stores_of(home: Path, specs: Iterable[Settings]) -> list[Store]:
    """Every store there is: the data root's own, and each other root that a chain names."""
    by_root = {store.root: store for store in (Store(home, root or None) for root in ("", *(spec.store for spec in specs)))}
    return list(by_root.values())


def trackers_of(home: Path, specs: Iterable[Settings]) -> list[Tracker]:
    """Every MLflow that a chain tells: the data root's own, and each other that a chain names."""
    return [Tracker(home, uri or None) for uri in dict.fromkeys(["", *(spec.mlflow for spec in specs)])]
