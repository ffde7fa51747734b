from __future__ import annotations

import pytest

from llm_assets.corpus.obligations import CHANGES, CREDIT, NOTICE, SAME, SAME_LIBRARY, TABLE, UNCHANGED, UNSHARED, USES, terms, terms_of


@pytest.mark.parametrize(("licence", "uses", "demands"), [
    ("MIT", USES, (NOTICE,)), ("mit", USES, (NOTICE,)), ("Apache-2.0", USES, (NOTICE, "keep its NOTICE file", CHANGES)), ("CC0-1.0", USES, ()),
    ("CC-BY-4.0", USES, (CREDIT, CHANGES)), ("CC-BY-SA-3.0", USES, (CREDIT, CHANGES, SAME)),
    ("CC-BY-NC-SA-4.0", ("research", "education"), (CREDIT, CHANGES, SAME)), ("Free For Educational Use", ("education",), ()),
])  # fmt: skip
def test_the_table_answers(licence: str, uses: tuple[str, ...], demands: tuple[str, ...]) -> None:
    (one,) = terms_of(licence)
    assert (one.is_known, one.uses, one.demands) == (True, uses, demands)


def test_a_statement_may_name_several_licences() -> None:
    assert [(one.licence, one.uses) for one in terms_of("MIT (IMDB: research)")] == [("MIT", USES), ("IMDB: research", ("research",))]
    assert [one.licence for one in terms_of("MIT AND CC-BY-4.0")] == ["MIT", "CC-BY-4.0"]


def test_what_may_not_be_adapted_differs_by_version() -> None:
    """Before 4.0 a no-derivatives licence permits no adaptation at all; 4.0 permits making one, and not passing it on."""
    for kind in ("CC-BY-ND", "CC-BY-NC-ND"):
        (old,), (new,) = terms_of(f"{kind}-3.0"), terms_of(f"{kind}-4.0")
        assert old.demands == (CREDIT, UNCHANGED) and new.demands == (CREDIT, CHANGES, UNSHARED) and old.uses == new.uses


def test_what_only_uses_a_library_may_have_another_licence() -> None:
    (library,), (program,) = terms_of("LGPL-3.0-only"), terms_of("GPL-3.0-only")
    assert SAME in program.demands and SAME not in library.demands and SAME_LIBRARY in library.demands


def test_an_unknown_licence_is_said_to_be_unknown() -> None:
    first, second = terms_of("MIT (corpus: PFR, People's Daily of January 1998)")
    assert first.is_known and not second.is_known and not second.uses
    assert str(second) == "corpus: PFR, People's Daily of January 1998: unknown, so nobody here can say what it permits or demands"
    assert not terms_of("GPLv3 or so")[0].is_known and not terms_of("MIT OR Apache-2.0")[0].is_known


def test_terms_are_listed_once_and_read_as_sentences() -> None:
    assert [str(one) for one in terms(["MIT", "MIT (IMDB: research)", "CC0-1.0"])] == [
        f"MIT: {NOTICE}",
        "IMDB: research: for research only",
        "CC0-1.0: nothing",
    ]


def test_no_pattern_hides_another() -> None:
    """Each name of the table, its stars filled, is answered by its own line; a version with a line of its own is another one."""
    for pattern, uses, demands in TABLE:
        (one,) = terms_of(pattern.replace("*", "3.0"))
        assert (one.uses, one.demands) == (uses, demands), pattern
