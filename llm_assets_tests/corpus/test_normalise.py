from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.normalise import normalise

CASES = {
    "ＡＢＣ１２３，。！": "ABC123,。!",
    "  两个　空格\t和制表 ": "两个 空格 和制表",
    "first<br />second<BR>third": "first\nsecond\nthird",
    "<p>一段</p>\r\n\r\n<b>粗</b>": "一段\n粗",
    "零\u200b宽\ufeff字\x00符": "零宽字符",
    "a &amp;amp; b &lt;br&gt; c": "a & b\nc",
    "<b\u200br>x": "x",
    "3 < 5 and 7 > 2": "3 < 5 and 7 > 2",
    "<!-- 注释 -->正文": "正文",
    "": "",
}


@pytest.mark.parametrize(("raw", "expected"), CASES.items())
def test_one_spelling(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("<>/&;brp \n\u200b＜＞")), max_size=60))
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert once == once.strip()
    assert "\x00" not in once and "  " not in once


def test_it_imports_nothing_heavy() -> None:
    """Serving and the code location import it."""
    code = "import sys, llm_assets.corpus.normalise; print([m for m in ('pyarrow', 'numpy', 'pandas', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
