"""The page `/label` in a browser: two annotators, by keyboard alone and on a phone; what they say is on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_assets.serving.keys import add_key
from llm_assets.serving.labelling import Queue, Task, enqueue, read_labels
from llm_assets_tests.serving.browsing import PHONE, Listener, check, tab_to
from llm_assets_tests.serving.conftest import gateway


def fill(home: Path, count: int, chain: str = "tiny", problem: str = "single_label") -> None:
    tasks = [Task(f"classify-{number}", 0, f"text number {number}", "positive", "tiny-1", "uncertainty") for number in range(count)]
    enqueue(home, chain, Queue(tasks, ["negative", "positive"], problem))


def said(home: Path, annotator: str, chain: str = "tiny") -> list[str | None]:
    return [found.labels[annotator] for _, found in sorted(read_labels(home, chain).items()) if annotator in found.labels]


def test_labels_by_keyboard_alone(browser: Any, tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB", viewport=PHONE)
        heard = Listener(page)
        page.goto(f"{client.base_url}/label")
        page.get_by_text("ready", exact=True).wait_for()
        tab_to(page, "#annotator")
        page.keyboard.type("Ann 12s")  # no key of a name is a label
        page.keyboard.press("Enter")
        page.get_by_text("text number 0").wait_for()
        check(page)
        page.keyboard.press("1")
        page.get_by_text("text number 1").wait_for()
        page.keyboard.press("s")
        page.get_by_text("text number 2").wait_for()
        page.keyboard.press("b")  # back to the one that was skipped
        page.get_by_text("text number 1").wait_for()
        page.keyboard.press("2")
        page.get_by_text("text number 2").wait_for()
        assert page.get_by_text("1 left").count() == 1 and page.get_by_text("Ann 12s: 2 labelled").count() == 1
        tab_to(page, "#task button:nth-of-type(2)")
        page.keyboard.press("Enter")
        page.get_by_text("Nothing is left to label").wait_for()
        check(page)
        page.close()
    assert said(tmp_path, "Ann 12s") == ["negative", "positive", "positive"] and not heard.complaints


def test_a_second_annotator_sees_the_same_texts_and_the_kappa(browser: Any, tmp_path: Path) -> None:
    fill(tmp_path, 2)
    key = add_key(tmp_path, "desk", ["operate"])
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="zh-CN")
        page.goto(f"{client.base_url}/label")
        page.fill("#key", key)
        page.press("#key", "Tab")
        page.get_by_text("就绪").wait_for()
        for annotator, labels in (("Ann", ("negative", "positive")), ("李", ("negative", "positive"))):
            page.fill("#annotator", annotator)
            page.press("#annotator", "Enter")
            for number, label in enumerate(labels):
                page.get_by_text(f"text number {number}").wait_for()
                page.get_by_role("button", name=label).click()
            page.get_by_text("没有待标注的文本了").wait_for()
        page.get_by_text("Cohen κ 系数 Ann / 李: 1.00 (2 条文本)").wait_for()
        page.reload()
        page.get_by_text("就绪").wait_for()  # the key and the name are kept
        assert page.input_value("#annotator") == "李"
        page.close()
    assert said(tmp_path, "Ann") == said(tmp_path, "李") == ["negative", "positive"]


def test_several_labels_and_a_number(browser: Any, tmp_path: Path) -> None:
    with gateway(tmp_path) as (client, _):
        page = browser.new_page(locale="en-GB")
        page.goto(f"{client.base_url}/label")
        page.get_by_text("no chain has a queue").wait_for()
        fill(tmp_path, 1, "several", "multi_label")
        fill(tmp_path, 1, "number", "regression")
        page.fill("#annotator", "Ann")
        page.get_by_label("Chain").select_option("several")
        page.press("#annotator", "Enter")
        page.get_by_text("text number 0").wait_for()
        for key in ("1", "2", "Enter"):
            page.keyboard.press(key)
        page.get_by_text("Nothing is left to label").wait_for()
        page.get_by_label("Chain").select_option("number")
        page.press("#annotator", "Enter")
        page.fill("#task input", "2.5")
        check(page)
        page.press("#task input", "Enter")
        page.get_by_text("Nothing is left to label").wait_for()
        page.close()
    assert said(tmp_path, "Ann", "several") == ["negative|positive"] and said(tmp_path, "Ann", "number") == ["2.5"]
