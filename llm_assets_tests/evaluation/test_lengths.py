from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from llm_assets.evaluation.lengths import reading
from llm_assets_tests.links import trained


def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(trained.corpus()["tokenizer"].path("tokenizer.json")))


def test_what_is_cut_and_read_in_windows_by_hand() -> None:
    texts = ["好" * 4, "好" * 8, "好" * 20]  # 6, 10 and 22 tokens with [CLS] and [SEP]
    common = {"documents": 3, "tokens": 38, "longer": 1}
    assert reading(tokenizer(), texts, 10, None) == {**common, "tokens_cut": 12, "samples": 3}
    # 8 places a window; each after the first has 6 new ones: 8 + 6 + 6 hold the 20.
    assert reading(tokenizer(), texts, 10, 2) == {**common, "windows": 3, "samples": 5}


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=8), max_length=st.integers(8, 20), overlap=st.integers(0, 4))
def test_windows_are_as_many_as_the_tokenizer_makes(lengths: list[int], max_length: int, overlap: int) -> None:
    texts = ["好" * length for length in lengths]
    found = reading(tokenizer(), texts, max_length, overlap)
    made = tokenizer()
    made.enable_truncation(max_length, stride=overlap)
    assert found["samples"] == sum(1 + len(encoding.overflowing) for encoding in made.encode_batch(texts))
