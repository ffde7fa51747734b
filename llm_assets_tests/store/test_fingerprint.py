from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_assets.store.fingerprint import Recipe, digest, flatten

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
RECIPE = Recipe("tokens", 1, {"context": 128}, {"clean_corpus": "abc"}, 17, {"archive": "sha"})


@given(st.dictionaries(st.text(), JSON))
def test_order_of_keys_does_not_matter(value: dict) -> None:  # type: ignore[type-arg]
    assert digest(value) == digest(dict(reversed(value.items())))


@pytest.mark.parametrize(
    "changed",
    [
        replace(RECIPE, link="tokenizer"),
        replace(RECIPE, version=2),
        replace(RECIPE, config={"context": 256}),
        replace(RECIPE, inputs={"clean_corpus": "abd"}),
        replace(RECIPE, seed=18),
        replace(RECIPE, observed={"archive": "other"}),
        replace(RECIPE, variant="generation"),
    ],
)
def test_every_part_of_the_recipe_counts(changed: Recipe) -> None:
    assert changed.fingerprint != RECIPE.fingerprint
    assert len(changed.differences(asdict(RECIPE))) == (0 if (changed.link, changed.variant) != (RECIPE.link, RECIPE.variant) else 1)


def test_a_link_without_a_variant_has_the_fingerprint_it_had_before_there_were_any() -> None:
    assert "variant" not in RECIPE.stated()
    assert RECIPE.fingerprint == "286726bf87fb4594d609e087"


def test_same_in_another_process() -> None:
    script = f"from llm_assets.store.fingerprint import Recipe; print(Recipe(**{asdict(RECIPE)!r}).fingerprint)"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert printed.stdout.strip() == RECIPE.fingerprint


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError):
        digest({"rate": float("nan")})


def test_flatten_names_every_leaf() -> None:
    assert flatten({"a": {"b": [1, {"c": 2}]}, "d": None}) == {"a.b.0": 1, "a.b.1.c": 2, "d": None}
