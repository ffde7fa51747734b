"""Front door of the Dagster code location: the chains below ``defs/`` and where they run."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import dagster as dg

import llm_assets.defs
from llm_assets.components.llm_chain.automation import executor
from llm_assets.components.llm_chain.component import LlmChain
from llm_assets.components.llm_chain.spec import Settings
from llm_assets.store.home import prepare_environment


@cache
def component_tree() -> dg.ComponentTree:
    """The folders below ``defs/``, each a chain; found from the package, so an installed wheel has them too."""
    return dg.ComponentTree.from_module(defs_module=llm_assets.defs, project_root=Path(__file__).parents[1])


def chains() -> dict[str, Settings]:
    """Every chain's spec by name, its preset laid over it."""
    return {chain.spec.name: chain.spec for chain in component_tree().get_all_components(of_type=LlmChain)}


@dg.definitions
def defs() -> dg.Definitions:
    """Every chain, and the executor that `Materialize` in the UI uses."""
    prepare_environment()
    with warnings.catch_warnings():
        for category in (dg.BetaWarning, dg.PreviewWarning):  # of Dagster about its own way to load components
            warnings.simplefilter("ignore", category)
        return dg.Definitions.merge(component_tree().build_defs(), dg.Definitions(executor=executor(*chains().values())))
