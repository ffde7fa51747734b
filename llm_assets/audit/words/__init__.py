"""Answers in words: drawn on the terminal, Markdown in Dagster, pages on the gateway."""
