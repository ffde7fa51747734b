from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.links import sources
from llm_assets.training import job, launch


@pytest.mark.parametrize("link", ["pretrained_checkpoint", "finetuned_model"])
def test_the_code_that_trains_is_among_the_sources_of_a_trained_link(link: str) -> None:
    found = {path.relative_to(sources.PACKAGE).as_posix() for path in sources.source_files(f"llm_assets.links.{link}")}
    assert found >= {f"training/{name}.py" for name in ("worker", "batches", "models", "zero", "callbacks", "checkpoints", "job")}
    assert launch.WORKER == job.WORKER


def test_serving_shapes_no_result_but_for_the_engine_that_scores() -> None:
    found = {path.relative_to(sources.PACKAGE).as_posix() for path in sources.source_files("llm_assets.links.quantized_model")}
    assert {name for name in found if name.startswith("serving/")} == {"serving/engine.py"}
    assert not [name for name in found if name.startswith("store/")]


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("https://user:secret@example.org/a/b.git", "https://example.org/a/b.git"),
        ("git@example.org:a/b.git", "ssh://example.org/a/b.git"),
        ("example.org:/a/b.git", "ssh://example.org/a/b.git"),
        ("/srv/a b", "file:///srv/a%20b"),
        ("../b", "file:///srv/b"),
    ],
)
def test_a_remote_is_told_as_a_url_without_a_password(remote: str, url: str) -> None:
    assert sources.as_url(remote, Path("/srv/a")) == url
