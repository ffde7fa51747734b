from __future__ import annotations

from pathlib import Path

import pytest

from llm_assets.corpus.places import local


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A data root and a project root, and a working directory elsewhere in the project that holds the same names."""
    home, project = tmp_path / "home", tmp_path / "project"
    here = project / "here"
    for folder in (home, here):
        folder.mkdir(parents=True)
    (project / "dagster.yaml").touch()
    (here / "weights").mkdir()
    monkeypatch.setenv("LLM_ASSETS_HOME", str(home))
    monkeypatch.chdir(here)
    return home, project


def test_a_relative_path_is_looked_up_in_the_data_root_then_the_project_and_never_in_the_working_directory(roots: tuple[Path, Path]) -> None:
    home, project = roots
    assert local("weights") is None
    (project / "weights").mkdir()
    assert local("weights") == project / "weights"
    (home / "weights").mkdir()
    assert local("weights") == home / "weights"


def test_an_absolute_path_is_itself(roots: tuple[Path, Path]) -> None:
    assert local(str(roots[1] / "here" / "weights")) == roots[1] / "here" / "weights"
    assert local(str(roots[1] / "gone")) is None
