"""The page `/` in a browser: ask, see which words carried the answer, vote, correct, in two languages, by keyboard and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_assets.serving.feedback import read_votes
from llm_assets.serving.keys import add_key
from llm_assets_tests.serving.browsing import PHONE, Listener, check, tab_to
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.tiny import deploy


def test_ask_vote_and_correct(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB")
        heard = Listener(page)
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
    assert not heard.complaints


def test_the_words_that_carried_an_answer_are_marked_and_said(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB", viewport=PHONE)
        heard = Listener(page)
        page.goto(str(client.base_url))
        page.get_by_text("ready", exact=True).wait_for()
        page.fill("#text", "good rooms and good food, bad view\nnothing known here\n" + "w " * 1001)
        tab_to(page, "#send")
        page.keyboard.press("Enter")
        first, second, third = (page.locator(".answer").nth(place) for place in range(3))
        first.locator("mark").first.wait_for()
        assert first.locator("mark.for3").all_inner_texts() == ["good", "good"]
        assert first.locator("mark.against3, mark.against2").all_inner_texts() == ["bad"]
        assert first.locator("p").first.inner_text() == "good rooms and good food, bad view"
        assert first.locator(".carried").inner_text().startswith("Carried by (positive): good +") and "against it: bad −" in first.inner_text()
        second.get_by_text("No word alone carried it").wait_for()
        assert third.locator("mark").count() == 0 and third.get_by_text("release tiny-1").count() == 1  # too long, so it is only answered
        check(page)
        page.click("#language")
        first.get_by_text("依据 (positive)").wait_for()
        check(page)
        page.close()
    assert not heard.complaints


def test_chinese_on_a_phone_and_with_a_key(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    key = add_key(tmp_path, "phone", ["ask", "feedback"])
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="zh-CN", viewport=PHONE)
        page.goto(str(client.base_url))
        page.get_by_text("需要 API 密钥").wait_for()
        check(page)
        page.fill("#key", key)
        page.press("#key", "Tab")
        page.get_by_text("就绪").wait_for()
        page.fill("#text", "喜欢")
        page.click("#send")
        page.get_by_label("答案错误").click()
        page.get_by_text("已保存，谢谢").wait_for()
        page.click("#language")
        page.get_by_label("The answer is wrong").wait_for()
        assert page.get_by_label("The answer is wrong").get_attribute("aria-pressed") == "true"
        page.get_by_role("link", name="Status").click()  # the key goes along, and is not an operator's
        page.get_by_text("has not the role operate").wait_for()
        page.close()
    [vote] = eventually(lambda: read_votes(tmp_path, "tiny"))  # type: ignore[misc]
    assert (vote["rating"], vote["client"]) == ("down", "phone")
