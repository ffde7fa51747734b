"""The LLM value chain as a Dagster asset graph: raw text to a served, watched and retrained model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_assets.components.llm_chain.component import GenerationChain, LlmChain
    from llm_assets.store.artifact import Artifact

__all__ = ["GenerationChain", "LlmChain", "__version__", "open"]
__version__ = "0.1.0"


def open(chain: str, link: str) -> Artifact:
    """The artifact a chain stands on now, for a notebook: ``llm_assets.open("reviews", "finetuned_model")``.

    Raises ``LookupError`` naming the command that makes it when the link was never materialized.
    """
    from llm_assets.audit.current import current_artifact
    from llm_assets.definitions import chains

    return current_artifact(chain, link, chains()[chain].store or None)


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """The types that a chain's YAML names, imported when asked for: a training worker needs no Dagster."""
    if name not in ("GenerationChain", "LlmChain"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llm_assets.components.llm_chain import component

    return getattr(component, name)
