from __future__ import annotations

from dataclasses import replace
from typing import Any

from llm_assets.audit.provenance import Lineage, Source
from llm_assets.audit.training_content import UNKNOWN, table, training_content

HEADINGS = [  # of the template, in its order
    "1. General information", "1.1 Provider identification", "1.2 Model identification",
    "1.3 Modalities, overall training data size and other characteristics", "2. List of data sources", "2.1 Publicly available datasets",
    "2.2 Private non-publicly available datasets obtained from third parties",
    "2.2.1 Datasets commercially licensed by rightsholders or their representatives", "2.2.2 Private datasets obtained from other third parties",
    "2.3 Data crawled and scraped from online sources", "2.4 User data",
    "2.5 Synthetic data", "2.6 Other sources of data", "3. Data processing aspects",
    "3.1 Respect of reservation of rights from text and data mining exception or limitation", "3.2 Removal of illegal content",
    "3.3 Other information (optional)",
]  # fmt: skip


def section(text: str, heading: str) -> str:
    return text.split(f"{heading}\n")[1].split("\n#")[0]


def metrics_of(lineage: Lineage, link: str) -> dict[str, Any]:
    (manifest,) = [node.manifest for node in lineage.nodes.values() if node.link == link]
    assert manifest
    return manifest.metrics


def test_every_heading_of_the_template_stands_in_its_order(released: Lineage) -> None:
    text = training_content(released)
    assert [line.lstrip("# ") for line in text.splitlines() if line.startswith("###")] == HEADINGS


def test_what_the_records_say_is_filled_in(released: Lineage) -> None:
    metrics_of(released, "tokens")["tokens"] = 2_000_000
    text = training_content(released)
    general = section(text, "other characteristics")
    assert "| Text | less than 1 billion tokens |" in general and "acquisition/collection for model training: 2026-01-01\n" in general
    assert "| test | pypi | MIT | p 1: test.txt |" in section(text, "2.1 Publicly available datasets")
    assert "to train the model?: Yes\n" in section(text, "2.1 Publicly available datasets")
    assert "on behalf of?: No\n" in section(text, "online sources") and "to train the model?: No\n" in section(text, "2.6 Other sources of data")
    assert "none: it was trained from random weights" in section(text, "1.2 Model identification")
    assert "too_short 1" in section(text, "3.3 Other information (optional)")


def test_what_nobody_recorded_is_unknown_and_not_invented(released: Lineage) -> None:
    text = training_content(released)
    for heading in ("1.1 Provider identification", "their representatives", "from other third parties", "2.5 Synthetic data"):
        assert UNKNOWN in section(text, heading), heading
    assert f"| Text | {UNKNOWN} |" in text  # these tokens state no count


def test_sources_stand_under_the_heading_of_their_kind(released: Lineage) -> None:
    (raw,) = [node for node in released.nodes.values() if node.link == "raw_corpus"]
    places = {"http": "https://example.org/a, https://example.net/b", "sql": "select", "files": "*.txt"}
    raw.sources.extend(Source(kind, kind, "MIT", place, None, 1) for kind, place in places.items())
    assert raw.manifest
    raw.manifest.metrics["passed_over_pages"] = {"robots": 3}
    text = training_content(released)
    crawled = section(text, "online sources")
    assert "| http |" in crawled and "identifier(s): llm-assets\n" in crawled and "domain names crawled: example.net, example.org\n" in crawled
    assert "| sql |" in section(text, "2.6 Other sources of data")
    assert "| files |" in section(text, "2.6 Other sources of data") and "robots 3" in section(text, "exception or limitation")


def test_user_data_is_what_feedback_taught(released: Lineage) -> None:
    assert "used to train the model?: No\n" in section(training_content(released), "2.4 User data")
    metrics_of(released, "labelled_examples")["feedback"] = {"examples": 12}
    assert "12 examples" in section(training_content(released), "2.4 User data")
    finetuned = next(node for node in released.nodes.values() if node.link == "finetuned_model")
    assert finetuned.manifest
    manifest = finetuned.manifest.model_copy(update={"link": "aligned_model", "metrics": {"feedback": {"pairs": 7}}})
    released.nodes[("aligned_model", "f")] = replace(finetuned, link="aligned_model", manifest=manifest)
    assert "12 examples, 7 replies that they judged" in section(training_content(released), "2.4 User data")


def test_a_cell_ends_no_row() -> None:
    assert table(("a",), [("x|y\nz",)]) == "| a |\n| --- |\n| x/y z |\n"
