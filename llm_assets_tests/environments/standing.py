"""Environments apart whose interpreter is another program of the tests."""

from __future__ import annotations

import sys

from llm_assets.environments.environment import RECORD, Environment


def stand_in(environment: Environment, program: str | None) -> None:
    """Have an environment, which is not there, start ``program`` instead of its own."""
    python = environment.folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
    python.chmod(0o755)
    (environment.folder / RECORD).write_text("{}")
