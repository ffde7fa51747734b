"""How a second making compares with the first, in words."""

from __future__ import annotations

from collections.abc import Iterator

from llm_assets.audit.reproduce import Reproduction
from llm_assets.audit.words.reply import Reply
from llm_assets.store.verdict import Verdict


def reproduced(found: Reproduction, wanted: str) -> Reply:
    """The outcome; ``wanted`` is what the artifact was called when it was asked about."""
    lines = summary(found)
    return Reply(
        "reproduce",
        wanted,
        lines,
        {
            "files": len(found.files),
            "files_same": sum(found.files.values()),
            "figures": len(found.figures),
            "figures_within": sum(one["within"] for one in found.figures),
            "seconds_first": found.seconds[0],
            "seconds_again": found.seconds[1],
        },
        Verdict(check="same", passed=found.equal, description="; ".join(lines)),
    )


def summary(found: Reproduction) -> list[str]:
    """The outcome in words, a line each."""
    shown = f"{found.link} {found.fingerprint}"
    same = sum(found.files.values())
    lines = [f"{shown}: made again in {found.seconds[1]:,.1f} s, the first time took {found.seconds[0]:,.1f} s"]
    lines.append(f"{same} of {len(found.files)} files have the same bytes" + _but(name for name, equal in found.files.items() if not equal))
    if found.trained:
        within = sum(one["within"] for one in found.figures)
        apart = (f"{one['name']} {one['before']} -> {one['after']}" for one in found.figures if not one["within"])
        lines.append(f"{within} of {len(found.figures)} figures agree within {found.tolerance}" + _but(apart))
    lines += [f"note: {note}" for note in found.notes]
    return [*lines, "it is the same" if found.equal else "it is NOT the same"]


def _but(names: Iterator[str]) -> str:
    listed = list(names)
    return f", not {', '.join(listed[:5])}" + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") if listed else ""
