from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from llm_assets.corpus.recogniser.examples import (
    Example,
    Inventor,
    contexts,
    inserted,
    introduced,
    joined,
    peopled,
    quoted,
    renamed,
    word_rows,
)

KNOWN = ["江建华", "欧阳小", "王伟", "李小明"]
CLAUSES = [("经理", "说,"), ("", "来了。")]


@given(st.text(alphabet="我们的酒店很好,。服务员", max_size=30), st.integers(0, 1000))
def test_planted_names_stand_where_they_are_said_to_stand(text: str, seed: int) -> None:
    rng = random.Random(seed)
    inventor = Inventor(KNOWN, rng)
    carrier = Example(text)
    made = [inserted(carrier, inventor, rng), introduced(carrier, inventor, rng), quoted(carrier, CLAUSES, inventor, rng)]
    for example in [*made, peopled(carrier, inventor, rng)]:
        assert all(2 <= end - start <= 4 for start, end in example.names)
    assert all(len(example.names) == 1 for example in made)
    ((start, end),) = made[0].names
    assert made[0].text[:start] + made[0].text[end:] == text


@given(st.integers(0, 1000))
def test_what_is_marked_keeps_its_place_beside_a_planted_name(seed: int) -> None:
    rng = random.Random(seed)
    carrier = joined([("经理", "text"), ("李明", "name"), ("和", "text"), ("克林顿", "unknown"), ("来了", "text")])
    example = inserted(carrier, Inventor(KNOWN, rng), rng)
    told = {example.text[start:end] for start, end in example.names + example.unknown}
    assert ("李明" in told) == ("李明" in example.text)
    assert sum(end - start for start, end in example.unknown) >= 3  # a marked name that is cut in two is unknown


def test_other_names_take_the_places_of_names() -> None:
    rng = random.Random(1)
    carrier = joined([("经理", "text"), ("李明", "name"), ("和", "text"), ("克林顿", "unknown")])
    again = renamed(carrier, Inventor(KNOWN, rng), rng)
    assert again.text.startswith("经理") and again.text.endswith("和克林顿") and len(again.unknown) == 1 and again.names


def test_contexts_are_short_clauses_with_one_name() -> None:
    one = joined([("昨天,记者", "text"), ("李明", "name"), ("报道,说", "text")])
    two = joined([("李明", "name"), ("和", "text"), ("王伟", "name"), ("来", "text")])
    assert contexts([one, two, joined([("," + "很" * 13, "text"), ("王伟", "name")])]) == [("记者", "报道,")]


def test_words_stand_in_rows_of_twenty() -> None:
    rng = random.Random(0)
    rows = list(word_rows(["高兴"] * 45, Inventor(KNOWN, rng), rng))
    assert len(rows) == 3 and any(row.names for row in rows) and all("高兴" in row.text for row in rows)
