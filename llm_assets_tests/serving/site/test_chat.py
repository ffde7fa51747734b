"""The page that chats, in a browser: streams, votes, stops, begins anew, in two languages and with a key; and the other page leads there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llm_assets.serving.dated_files import dated_files
from llm_assets.serving.feedback import read_votes
from llm_assets.serving.keys import add_key
from llm_assets.serving.request_log import log_folder
from llm_assets_tests.serving.browsing import PHONE, Listener, check
from llm_assets_tests.serving.conftest import eventually, gateway
from llm_assets_tests.serving.talking import deploy
from llm_assets_tests.serving.tiny import deploy as deploy_classifier


def test_it_talks_votes_and_begins_anew(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB")
        heard = Listener(page)
        page.goto(str(client.base_url))
        page.wait_for_url("**/chat")  # nothing but a model that talks is served
        page.get_by_text("ready", exact=True).wait_for()
        page.fill("#text", "hello")
        page.press("#text", "Enter")
        page.get_by_text("release talk-1").wait_for()
        page.get_by_label("A good answer").click()
        page.get_by_text("stored, thank you").wait_for()
        assert not page.get_by_label("What it should have said").is_visible()
        page.get_by_label("A bad answer").click()
        page.fill("[aria-label='What it should have said']", "Hello, call 13812345678!")
        page.get_by_text("Send correction").click()
        eventually(lambda: [vote["label"] for vote in read_votes(tmp_path, "talk")] == ["Hello, call [PHONE]!"])
        check(page)
        [path] = eventually(lambda: list(dated_files(log_folder(tmp_path), "talk")))  # type: ignore[misc]
        [line] = [json.loads(line) for line in path.read_text().splitlines()]
        assert line["texts"][1]["masked"] == "hello" and page.locator(".turn.assistant span").text_content() == line["texts"][0]["masked"]
        page.click("#fresh")
        assert page.locator(".turn").count() == 0
        page.fill("#text", "again")
        page.press("#text", "Enter")
        page.locator(".turn.assistant footer").wait_for()
        assert page.locator(".turn").count() == 2
        page.close()
    assert [(vote["id"], vote["rating"]) for vote in read_votes(tmp_path, "talk")] == [(line["id"], "down")]
    assert not heard.complaints


def test_in_chinese_with_a_key_from_the_page_of_a_classifier(browser: Any, tmp_path: Path) -> None:
    deploy(tmp_path, 1)
    deploy_classifier(tmp_path, 1)
    key = add_key(tmp_path, "phone", ["ask", "feedback"])
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="zh-CN", viewport=PHONE)
        page.goto(str(client.base_url))
        page.get_by_text("需要 API 密钥").wait_for()
        page.fill("#key", key)
        page.press("#key", "Tab")
        page.get_by_role("link", name="对话").click()
        page.wait_for_url("**/chat")
        page.get_by_text("就绪").wait_for()  # the key came along
        page.fill("#text", "长" * 400)
        page.click("#send")
        page.get_by_text("the context of talk is 128").wait_for()
        page.fill("#text", "您好")
        page.click("#send")
        page.get_by_label("回答得好").wait_for()
        check(page)
        page.close()
