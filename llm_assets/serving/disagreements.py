"""Texts on which the two releases of a rollout differed: who labels them decides which one is right."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm_assets.store.journal import Journal


def note_disagreements(home: Path, chain: str, texts: Sequence[str], answers: Mapping[str, Sequence[str]]) -> None:
    """Record the texts of one request on which two releases differ, by SHA-256 and never as they are; ``answers`` maps release to labels."""
    said = [{release: labels[index] for release, labels in answers.items()} for index in range(len(texts))]
    differing = {hashlib.sha256(text.encode()).hexdigest(): labels for text, labels in zip(texts, said, strict=True) if len(set(labels.values())) > 1}
    if differing:
        _journal(home, chain).append({"texts": differing})


def disagreements(home: Path, chain: str) -> dict[str, Mapping[str, str]]:
    """Label by release of each text on which releases differed, by the text's SHA-256."""
    return {text: labels for entry in _journal(home, chain).entries() for text, labels in entry["texts"].items()}


def _journal(home: Path, chain: str) -> Journal:
    return Journal(home / "serving" / "disagreements" / f"{chain}.jsonl")
