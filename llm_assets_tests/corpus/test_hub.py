from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from llm_assets.corpus import hub


class Api:
    """A hub whose branch moves with every question."""

    asked = 0

    def repo_info(self, name: str, *, repo_type: str, revision: str | None) -> Any:
        type(self).asked += 1
        return SimpleNamespace(sha=f"{self.asked:040x}")


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> type[Api]:
    monkeypatch.setattr(Api, "asked", 0)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(hub, "_observed", {})
    return Api


def test_what_is_read_is_the_commit_observed_last_though_the_branch_moved(api: type[Api]) -> None:
    observed = hub.observe_commit("dataset", "some/set", "main")
    assert hub.observed_commit("dataset", "some/set", "main") == observed and api.asked == 1
    later = hub.observe_commit("dataset", "some/set", "main")
    assert later != observed and hub.observed_commit("dataset", "some/set", "main") == later
    assert hub.observed_commit("model", "some/set", "main") not in (observed, later)


def test_a_commit_is_not_asked_for(api: type[Api]) -> None:
    assert hub.observe_commit("model", "some/model", "a" * 40) == hub.observed_commit("model", "some/model", "a" * 40) == "a" * 40
    assert api.asked == 0


def test_a_hub_that_does_not_answer_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Api, "repo_info", lambda *_, **__: 1 / 0)
    with pytest.raises(hub.HubError, match=r"revision of the model some/model \(ZeroDivisionError\); set `revision` to a 40-digit commit"):
        hub.observe_commit("model", "some/model", "main")
