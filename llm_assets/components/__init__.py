"""Components that Dagster's `dg` finds here."""

from llm_assets.components.llm_chain.component import LlmChain

__all__ = ["LlmChain"]
