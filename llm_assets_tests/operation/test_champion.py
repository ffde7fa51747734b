from __future__ import annotations

from pathlib import Path

from llm_assets.operation.champion import released
from llm_assets.serving.releases import roll_back
from llm_assets_tests.serving.tiny import release


def test_after_a_rollback_it_is_the_older_release(tmp_path: Path) -> None:
    assert released(tmp_path, "tiny") is None
    for number in (1, 2):
        release(tmp_path, number)
    roll_back(tmp_path, "tiny", "tiny-1", by="Ann", note="")
    found = [released(tmp_path, "tiny", name) for name in (None, "tiny-2", "tiny-3")]
    assert [each and each.name for each in found] == ["tiny-1", "tiny-2", None]
