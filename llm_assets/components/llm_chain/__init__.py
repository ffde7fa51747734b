"""Dagster's edge: what a chain's YAML may say, and the assets, checks, jobs, schedule and sensor it becomes."""
