from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from llm_assets.corpus.cleaning import clean_texts, normalise_all
from llm_assets.corpus.normalise import normalise
from llm_assets_tests.corpus.test_normalise import CASES

ODD = st.one_of(st.characters(), st.sampled_from("<>/&;brp \n\u200b＜＞ａ，e\u0301가\u1100\u1161\u11a8\u3099か"))


def test_all_at_once_is_one_by_one() -> None:
    assert normalise_all(list(CASES)) == list(CASES.values())


@given(st.lists(st.text(ODD, max_size=30), max_size=6))
def test_all_at_once_is_one_by_one_for_any_text(texts: list[str]) -> None:
    assert normalise_all(texts) == [normalise(text) for text in texts]


def test_damaged_encoding_is_repaired_and_nothing_else_is_touched() -> None:
    texts = ["It’s the café’s fault".encode().decode("cp1252"), "这家酒店很好", "Âge and naïve words stay", "它说“好”".encode().decode("latin-1")]
    cleaned = clean_texts(texts)
    assert cleaned.texts == ["It’s the café’s fault", "这家酒店很好", "Âge and naïve words stay", "它说“好”"]
    assert cleaned.repaired == [0, 3]


def test_masks_stand_where_the_normalised_text_had_them() -> None:
    cleaned = clean_texts(["无", "电话１３８００１３８０００ 找我"])
    assert cleaned.texts[1] == "电话[PHONE] 找我"
    assert {index: [(span.rule, span.start, span.end) for span in spans] for index, spans in cleaned.masks.items()} == {1: [("phone", 2, 13)]}


@example(["Â\x08¡", "&Acirc;¡"])
@given(st.lists(st.text(ODD, max_size=30), max_size=4))
def test_cleaning_twice_changes_nothing_more(texts: list[str]) -> None:
    once = clean_texts([text.encode("utf-8", "replace").decode() for text in texts]).texts
    again = clean_texts(once)
    assert again.texts == once
