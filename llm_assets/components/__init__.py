"""Dagster components; `llm_assets.LlmChain` is their public name."""
