"""The acts of a chain in service: each reads what the gateway wrote, and nothing that the gateway serves stands on one."""

from __future__ import annotations

from llm_assets.links.link import Link
from llm_assets.operation import alerts, drift, feedback_batch, traffic

OPERATION: tuple[Link, ...] = (traffic.LINK, drift.LINK, alerts.LINK, feedback_batch.LINK)
