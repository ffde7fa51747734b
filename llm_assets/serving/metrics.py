"""What the gateway tells Prometheus at ``/metrics``; ``docs/grafana.json`` draws it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The figures of one gateway, in a registry of its own. Labels take known values only, so that no client can add one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("llm_assets_requests", "Questions by their answer", ["chain", "release", "status"], registry=self.registry)
        self.seconds = Histogram("llm_assets_request_seconds", "From question to answer", ["chain"], buckets=SECONDS, registry=self.registry)
        self.tokens = Counter("llm_assets_tokens", "Tokens read by the models", ["chain"], registry=self.registry)
        self.batch = Histogram("llm_assets_batch_windows", "Windows of text a batch", buckets=SIZES, registry=self.registry)
        self.batch_seconds = Histogram("llm_assets_batch_seconds", "Time of a batch in the engine", buckets=SECONDS, registry=self.registry)
        self.queue = Gauge("llm_assets_queue_characters", "Characters that wait for an engine", registry=self.registry)
        self.log_group = Histogram("llm_assets_log_group_requests", "Requests written to the log together", buckets=SIZES, registry=self.registry)
        self.votes = Counter("llm_assets_votes", "Feedback stored", ["chain", "rating"], registry=self.registry)

    def answered(self, chain: str, release: str, status: int, seconds: float, tokens: int) -> None:
        """Count one question; ``chain`` and ``release`` are empty where none was found."""
        self.requests.labels(chain, release, str(status)).inc()
        self.seconds.labels(chain).observe(seconds)
        if tokens:
            self.tokens.labels(chain).inc(tokens)

    def batched(self, windows: int, seconds: float) -> None:
        """Count one batch of an engine."""
        self.batch.observe(windows)
        self.batch_seconds.observe(seconds)

    def text(self) -> tuple[bytes, str]:
        """Prometheus' text format 0.0.4, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
