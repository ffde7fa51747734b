from __future__ import annotations

from dataclasses import replace

import pytest

from llm_assets.links import sources, versions
from llm_assets.links.chain import CHAIN


def test_no_link_changed_without_a_version_or_an_exemption() -> None:
    assert versions.changed_links(versions.read_recorded()) == []


def test_a_change_of_behaviour_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = versions.read_recorded()
    monkeypatch.setattr(versions, "code_hash", lambda module: "changed" if module.endswith(".tokens") else sources.code_hash(module))
    tokens = next(link for link in CHAIN if link.name == "tokens")
    assert versions.changed_links(recorded) == [f"tokens: its sources changed and its version is still {tokens.version}"]
    with pytest.raises(ValueError, match=f"keeps version {tokens.version}"):
        versions.accept(recorded, tokens, None)
    excused = versions.accept(recorded, tokens, "a function moved")
    assert versions.changed_links(excused) == []
    assert excused["tokens"]["exemptions"][-1]["because"] == "a function moved"
    assert versions.changed_links(versions.accept(recorded, following := replace(tokens, version=tokens.version + 1), None), [following]) == []


def test_comments_and_docstrings_do_not_count(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "llm_assets")
    module = tmp_path / "llm_assets" / "links" / "x.py"
    module.parent.mkdir(parents=True)

    def hash_of(text: str) -> str:
        module.write_text(text)
        sources.source_files.cache_clear()
        sources.code_hash.cache_clear()
        return sources.code_hash("llm_assets.links.x")

    base = hash_of("def f(a):\n    return a + 1\n")
    assert hash_of('"""Doc."""\n\n# why\ndef f(a):\n    """More."""\n    return a + 1\n') == base
    assert hash_of("def f(a):\n    return a + 2\n") != base
    sources.source_files.cache_clear()
    sources.code_hash.cache_clear()


def test_what_a_link_calls_counts() -> None:
    names = {path.name for path in sources.source_files("llm_assets.links.pretrained_checkpoint")}
    assert "worker.py" in names
