from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.licenses import LicensePolicy
from llm_assets.links.raw_corpus import RawCorpusConfig
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import run
from llm_assets_tests.corpus.test_sources import source


@pytest.mark.parametrize(("policy", "licence", "admitted"), [
    ({}, "anything", True),
    ({"forbid": ["*-NC-*"]}, "CC-BY-NC-4.0", False), ({"forbid": ["*-nc-*"]}, "CC-BY-NC-4.0", False), ({"forbid": ["*-NC-*"]}, "CC-BY-4.0", True),
    ({"use": "commercial"}, "MIT", True), ({"use": "commercial"}, "CC-BY-NC-4.0", False), ({"use": "research"}, "CC-BY-NC-4.0", True),
    ({"use": "commercial"}, "MIT (IMDB: research)", False), ({"use": "research"}, "MIT (IMDB: research)", True),
    ({"use": "research"}, "Free For Educational Use", False), ({"use": "education"}, "free for educational use", True),
    ({"use": "research"}, "whatever", False), ({"use": "research", "allow": ["whatever"]}, "whatever", True), ({"use": "commercial"}, "yours", True),
    ({"use": "commercial", "allow": ["research"]}, "research", False),
    ({"allow": ["MIT", "CC-BY-*"]}, "mit", True), ({"allow": ["MIT"]}, "Apache-2.0", False), ({"allow": ["*"], "forbid": ["GPL*"]}, "GPL-3.0", False),
])  # fmt: skip
def test_patterns_decide(policy: dict[str, Any], licence: str, admitted: bool) -> None:
    sources = [source(kind="files", path="x", license=licence)]
    if admitted:
        LicensePolicy.model_validate(policy).refuse(sources)
    else:
        with pytest.raises(SourceError, match=r"source mine: its licence .* is not admitted"):
            LicensePolicy.model_validate(policy).refuse(sources)


def test_a_forbidden_licence_stops_before_anything_is_opened(tmp_path: Path) -> None:
    gone = {"kind": "files", "name": "mine", "path": str(tmp_path / "gone.txt"), "license": "CC-BY-NC-4.0"}
    with pytest.raises(SourceError, match=r"nothing of it was read.*raw_corpus\.licenses\.forbid"):
        run(Store(tmp_path / "home"), "raw_corpus", {"sources": [gone], "licenses": {"forbid": ["*-NC-*"]}}, {})


def test_what_a_model_is_for_is_no_part_of_the_recipe() -> None:
    """Text that both uses admit is not read twice."""
    sources = [{"kind": "files", "name": "mine", "path": "a.txt", "license": "MIT"}]
    plain, used = (RawCorpusConfig.model_validate({"sources": sources, "licenses": licenses}) for licenses in ({}, {"use": "commercial"}))
    assert used.recipe() == plain.recipe() and set(plain.recipe()["licenses"]) == {"allow", "forbid"}
