from __future__ import annotations

from llm_assets.corpus.recogniser.candidates import candidates, padded


def stretches(text: str) -> set[tuple[int, int, int]]:
    """Start, start of the given name and end of every candidate."""
    some = padded([text])
    first = int(some.starts[0])
    return {(int(start) - first, int(given) - first, int(end) - first) for start, given, end in zip(*candidates(some.values), strict=True)}


def test_a_candidate_is_a_surname_with_one_or_two_characters() -> None:
    expected = {(0, 1, 2), (0, 1, 3), (0, 2, 3), (0, 2, 4), (1, 2, 3), (1, 2, 4)}  # 欧, 欧阳 and 阳 are surnames
    assert stretches("欧阳明国的王先生") == expected  # no name before a title, none with 的


def test_digits_and_letters_are_told_from_nothing_else() -> None:
    one, other = padded(["7年A张"]), padded(["3年z张"])
    assert one.values.tolist() == other.values.tolist() and one.starts.tolist() == other.starts.tolist()
    assert padded(["年"]).values.tolist() != padded(["月"]).values.tolist()
