"""Environments of their own for what pins other versions than this project does."""
