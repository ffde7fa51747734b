from __future__ import annotations

import pytest

from llm_assets.corpus.recogniser import sources
from llm_assets.corpus.recogniser.examples import Example

LINE = "总书记/n  江/nr  建华/nr  说/v  。/w  [新华社/nt  记者/n]nt  欧阳/nr  小/nr  、/w  克林顿/nr  １９/m"


def test_names_are_read_from_the_tags() -> None:
    first, second = sources.tagged_sentences(LINE)
    assert first == Example("总书记江建华说。", ((3, 6),), ())
    assert second.text == "新华社记者欧阳小、克林顿19"
    assert [second.text[start:end] for start, end in second.names] == ["欧阳小"]
    assert [second.text[start:end] for start, end in second.unknown] == ["克林顿"]


def test_persons_of_the_other_corpora_are_names_or_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = "记 O\n者 O\n李 B-PER\n明 E-PER\n\n克 B-PER\n林 M-PER\n顿 E-PER\n王 B-PER\n１ O"
    monkeypatch.setattr(sources, "_content", lambda pin, member: tagged.encode())
    assert sources.msra("train") == [Example("记者李明", ((2, 4),), ()), Example("克林顿王1", (), ((0, 3), (3, 4)))]
    rows = '{"text": "叶老桂说", "label": {"name": {"叶老桂": [[0, 2]]}}}\n{"text": "㌢变长", "label": {}}'
    monkeypatch.setattr(sources, "_content", lambda pin, member: rows.encode())
    assert sources.finance() == [Example("叶老桂说", ((0, 3),), ())]


def test_everyday_text_is_read_once_and_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_content", lambda pin, member: "1\t这 款 湿 巾 有 货 吗 亲\t好的\n1\t这 款 湿 巾 有 货 吗 亲".encode())
    assert sources.dialogues() == ["1", "这款湿巾有货吗亲", "好的"][1:2]
    monkeypatch.setattr(sources, "_content", lambda pin, member: ('{"train": {"neg": ["' + "问" * 301 + '", "短"]}}').encode())
    assert [len(text) for text in sources.answers()] == [300, 1]


@pytest.mark.parametrize(
    ("text", "expected"), [("李明", True), ("欧阳建国", True), ("欧阳", True), ("李", False), ("李建国人", False), ("克林顿", False)]
)
def test_the_form_of_a_name(text: str, expected: bool) -> None:
    assert sources.is_name(text) == expected
