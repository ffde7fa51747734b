from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from llm_assets.serving.metrics import Metrics
from llm_assets_tests.running import ROOT


def exported() -> dict[str, set[str]]:
    """Every series that a gateway shows once each thing has happened, and the labels of each."""
    metrics = Metrics()
    metrics.answered("tiny", "tiny-1", 200, 0.01, 12)
    metrics.batched(4, 0.002)
    metrics.log_group.observe(3)
    metrics.votes.labels("tiny", "up").inc()
    text, kind = metrics.text()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_query_of_the_dashboard_names_series_and_labels_that_exist() -> None:
    dashboard = json.loads((ROOT / "docs" / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    series, drawn = exported(), set()
    for query in queries:
        names = re.findall(r"llm_assets_\w+", query)
        assert names, query
        for name in names:
            assert name in series, f"{query} asks for {name}"
        drawn |= set(names)
        for name, selected in re.findall(r"(llm_assets_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)=", selected)) <= series[name], query
        for grouped in re.findall(r"by \(([^)]*)\)", query):
            assert set(grouped.split(", ")) <= set().union(*(series[name] for name in names)), query
    families = {re.sub(r"_(total|bucket|count|sum|created)$", "", name) for name in series}
    assert {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in drawn} == families, "a metric that nobody looks at"


def test_no_label_is_a_clients_to_choose() -> None:
    assert {label for labels in exported().values() for label in labels} == {"chain", "release", "status", "rating", "le"}
