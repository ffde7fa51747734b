"""The page in a browser: ask, vote, correct, in two languages, by keyboard and on a phone; and the gateway stores it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llm_assets.serving.feedback import read_votes
from llm_assets.serving.keys import add_key
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import deploy

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@pytest.fixture
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def test_ask_vote_and_correct(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    complaints: list[str] = []
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB")
        page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(str(client.base_url))
        page.get_by_text("ready", exact=True).wait_for()
        page.fill("#text", "good\nbad")
        page.press("#text", "Control+Enter")
        first, second = page.locator(".answer").nth(0), page.locator(".answer").nth(1)
        first.get_by_text("positive").first.wait_for()
        first.get_by_label("The answer is right").focus()
        page.keyboard.press("Enter")
        first.get_by_text("stored, thank you").wait_for()
        assert first.get_by_label("The answer is right").get_attribute("aria-pressed") == "true"
        second.get_by_label("The right label …").select_option("positive")
        second.get_by_text("stored, thank you").wait_for()
        page.close()
    votes = [(vote["index"], vote["rating"], vote["label"]) for vote in read_votes(tmp_path, "tiny")]
    assert votes == [(0, "up", None), (1, "down", "positive")]
    assert not complaints  # such as one of the content security policy


def test_chinese_on_a_phone_and_with_a_key(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    key = add_key(tmp_path, "phone", ["ask", "feedback"])
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="zh-CN", viewport={"width": 360, "height": 640})
        page.goto(str(client.base_url))
        page.get_by_text("需要 API 密钥").wait_for()
        page.fill("#key", key)
        page.press("#key", "Tab")
        page.get_by_text("就绪").wait_for()
        page.fill("#text", "喜欢")
        page.click("#send")
        page.get_by_label("答案错误").click()
        page.get_by_text("已保存，谢谢").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.click("#language")
        page.get_by_label("The answer is wrong").wait_for()
        assert page.get_by_label("The answer is wrong").get_attribute("aria-pressed") == "true"
        page.close()
    [vote] = eventually(lambda: read_votes(tmp_path, "tiny"))  # type: ignore[misc]
    assert (vote["rating"], vote["client"]) == ("down", "phone")
