"""The service of the experiment `loop`: a project with one chain in a folder of its own, Dagster's daemon and the gateway over it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.loop_texts import Review, Sizes

CHAIN = "loop"
CHECKOUT = Path(__file__).parents[1]
REVIEWS = CHECKOUT / "llm_assets" / "defs" / "reviews" / "defs.yaml"
PROJECT = """
[project]
name = "loop"
version = "1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "loop_project"
code_location_name = "loop"
"""
DEFINITIONS = """
from pathlib import Path
import dagster as dg
from llm_assets.store.home import prepare_environment

@dg.definitions
def defs():
    prepare_environment()
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
WORKSPACE = {"load_from": [{"python_module": {"module_name": "loop_project.definitions", "location_name": CHAIN}}]}


@dataclass(frozen=True)
class Place:
    """Where the experiment stands."""

    folder: Path

    @property
    def home(self) -> Path:
        """The data root."""
        return self.folder / "data"

    @property
    def project(self) -> Path:
        """The Dagster project."""
        return self.folder / "project"


def changes(sizes: Sizes) -> dict[str, Any]:
    """What the chain's YAML says otherwise than that of `reviews`."""
    books = {
        "name": "books",
        "kind": "files",
        "path": "texts/books.jsonl",
        "license": "MIT",
        "language": "zh",
        "columns": {"text": "text", "label": "label"},
        "metadata": {"domain": "books"},
    }
    return {
        "automation": True,  # every sensor and the watching schedule run from the start
        "watching": "* * * * *",
        "inbox_seconds": 10,
        # It never ran, so `every` starts the first run; each batch of feedback is a reason for another, and so is drift with one.
        "retraining": {"every": "7d", "documents": 0, "feedback": sizes.batch, "drift": True, "minimum_interval": "30s"},
        "evaluation_sets": {"sources": ["books"], "test_share": 0.3, "validation_share": 0.06},
        # One key votes here for all users, so that nobody is outvoted; what a share of service examples does to the old is measured.
        "labelled_examples": {"feedback": {"folder": f"feedback/{CHAIN}", "share": 0.6}},
        "feedback_batch": {"minimum": sizes.batch, "client_share": 1.0, "client_rows": 1_000_000},
        "alerts": {"rules": ["drift", "rollback"], "seconds": 10},
        "endpoint": {"rollout": "canary", "steps": [25, 100], "step_seconds": 5, "step_requests": 20, "max_p99_ms": 2000},
        "pretrained_checkpoint": {"tokens_budget": 600_000},
        "finetuned_model": {"epochs": 3, "evaluations_per_epoch": 1},
        "raw_corpus": {"sources": [books]},
    }  # fmt: skip


def write_project(place: Place, preset: str, sizes: Sizes, learnt: Sequence[Review]) -> None:
    """The project, its YAML, and the book reviews that the chain learns from. Raises ``FileExistsError`` where an experiment stands already."""
    import yaml

    from llm_assets.components.llm_chain.spec import merge

    values = yaml.safe_load(REVIEWS.read_text(encoding="utf-8"))
    news = next(source for source in values["attributes"]["raw_corpus"]["sources"] if source["name"] == "news")
    attributes = merge(values["attributes"], changes(sizes))
    attributes["raw_corpus"]["sources"].append(news)  # pretrained on, not labelled
    package, texts = place.project / "loop_project", place.home / "texts"
    texts.mkdir(parents=True)
    rows = (json.dumps(review._asdict(), ensure_ascii=False) for review in learnt)
    (texts / "books.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    chain = package / "defs" / CHAIN
    chain.mkdir(parents=True)
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    shutil.copyfile(CHECKOUT / "dagster.yaml", place.project / "dagster.yaml")
    (place.project / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    (place.project / "workspace.yaml").write_text(yaml.safe_dump(WORKSPACE), encoding="utf-8")
    (package / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    text = yaml.safe_dump({"type": values["type"], "attributes": {**attributes, "preset": preset}}, allow_unicode=True, sort_keys=False)
    (chain / "defs.yaml").write_text(text, encoding="utf-8")


def environment(place: Place, preset: str) -> dict[str, str]:
    """What every process of the experiment finds in its environment."""
    return {
        "LLM_ASSETS_HOME": str(place.home),
        "LLM_ASSETS_DAGSTER": str(place.home / "dagster"),
        "LLM_ASSETS_PRESET": preset,
        "DAGSTER_HOME": str(place.project),
        "PYTHONPATH": os.pathsep.join((str(place.project), str(CHECKOUT))),
    }


@contextmanager
def services(place: Place, variables: Mapping[str, str]) -> Iterator[None]:
    """Dagster's daemon, which runs the sensors, the schedule and the chain, and the gateway; both end with the block."""
    from llm_assets.components.llm_chain.runs import open_instance
    from llm_assets.serving.supervisor import Service, start

    with open_instance(place.home):
        pass  # its tables are made before two processes would both make them
    daemon = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", str(place.project / "workspace.yaml")]
    gateway = [sys.executable, "-m", "llm_assets.serving", "--port", "0", "--home", str(place.home)]
    with ExitStack() as stack:
        for name, command in (("daemon", daemon), ("gateway", gateway)):
            service = Service(name, command, environment=variables, directory=place.project)
            stack.enter_context(start(service, place.home / "logs" / f"{name}.log"))
        yield
