"""The LLM value chain as a Dagster asset graph: raw text to a served, watched and retrained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_assets.store.artifact import Artifact

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def open(chain: str, link: str) -> Artifact:
    """The artifact a chain stands on now, for a notebook: ``llm_assets.open("reviews", "finetuned_model")``.

    Raises ``LookupError`` naming the command that makes it when the link was never materialized.
    """
    from llm_assets.audit.current import current_artifact

    return current_artifact(chain, link)
