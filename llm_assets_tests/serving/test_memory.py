from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_assets.serving import memory
from llm_assets.serving.memory import own_folder


def test_the_folder_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_folder().is_relative_to(memory.MEMORY) or not memory.MEMORY.is_dir()
    monkeypatch.setattr(memory, "MEMORY", tmp_path)
    assert own_folder() == own_folder() and own_folder().stat().st_mode & 0o077 == 0
    own_folder().chmod(0o755)
    with pytest.raises(PermissionError, match="remove it"):
        own_folder()


def test_a_link_to_another_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MEMORY", tmp_path)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"llm_assets-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError):
        own_folder()
