"""Dagster components; `llm_assets.LlmChain` and `llm_assets.GenerationChain` are their public names."""
