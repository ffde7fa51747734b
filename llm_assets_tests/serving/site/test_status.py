"""The page `/status` in a browser: traffic, split, drift and alerts, in two languages and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving.events import alerts_path, append_event
from llm_assets.serving.rollout import Plan
from llm_assets.store.files import write_json
from llm_assets.store.journal import Journal
from llm_assets_tests.serving.browsing import PHONE, Listener, check
from llm_assets_tests.serving.conftest import ask, eventually, gateway
from llm_assets_tests.serving.tiny import deploy, roll_out


def test_what_serves_what_is_asked_and_what_is_wrong(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB", viewport=PHONE)
        heard = Listener(page)
        page.goto(f"{client.base_url}/status")
        page.get_by_text("in full service · release tiny-1 · Split: tiny-1 100 %").wait_for()
        assert page.get_by_text("nobody has looked yet").count() == 1 and page.locator("li").count() == 0
        for text in ("good", "good", "good", "bad"):
            ask(client, text)
        roll_out(tmp_path, 2, Plan(steps=(25.0, 100.0), step_seconds=600))
        record = {"release": "tiny-1", "judged": True, "drifted": ["length"], "reason": "length differ from the training distribution"}
        Journal(tmp_path / "journal" / "tiny" / "drift.jsonl").append({"trial": False, "record": record})
        rule = {"since": "2026-11-20T12:00:00+00:00", "role": "operations_engineer", "team": "night-watch"}
        write_json(alerts_path(tmp_path, "tiny"), {"firing": {"negative_share > 0.2 over 15m": rule}, "waiting": []})
        append_event(tmp_path, "tiny", "alert", "tiny alert: negative_share > 0.2 over 15m: 0.25", "tiny-1")
        page.get_by_text("tiny-1 → tiny-2: canary, 25 % (steps: 25 %, 100 %)").wait_for()  # it looks again by itself
        page.get_by_text("Split: tiny-1 75 % · tiny-2 25 %").wait_for()
        assert "for night-watch" in page.locator("li", has_text="negative_share > 0.2 over 15m since").inner_text()
        assert page.get_by_text("length differ from the training distribution").count() == 1
        assert page.get_by_text("Of the newest requests: 4, p50").count() == 1
        assert page.locator(".prob", has_text="positive").inner_text().split() == ["positive", "75", "%"]
        bar = page.locator(".prob", has_text="positive").locator(".track i")
        assert bar.evaluate("(bar) => bar.offsetWidth / bar.parentElement.clientWidth") == pytest.approx(0.75, abs=0.02)
        assert "4 in this minute" in page.locator(".chart").get_attribute("aria-label") or eventually(lambda: page.locator(".chart i").count() > 1)
        assert page.get_by_text("tiny-2 answers 25% beside tiny-1").count() == 1
        check(page)
        page.click("#language")
        page.get_by_text("灰度 · 版本 tiny-1").wait_for()
        check(page)
        page.close()
    assert not heard.complaints
