"""Whether the records are true, a line each damage."""

from __future__ import annotations

from llm_assets.audit.verify import Report
from llm_assets.audit.words.reply import Reply
from llm_assets.store.verdict import Verdict

NAMED = 10  # damages in the verdict; the lines have all


def verified(report: Report, wanted: str) -> Reply:
    """What was found in everything, or in what ``wanted`` stands on."""
    damages = [f"{damage.kind}: {damage.reason}" for damage in report.damages]
    said = "; ".join([*damages[:NAMED], summary(report)])
    return Reply(
        "verify",
        wanted,
        [*damages, *(f"note: {note}" for note in report.notes), summary(report)],
        {"artifacts": report.artifacts, "damages": len(damages), "notes": len(report.notes)},
        Verdict(check="whole", passed=not damages, description=said),
    )


def summary(report: Report) -> str:
    """The outcome in one line."""
    if damages := len(report.damages):
        return f"{damages} damage{'s' * (damages > 1)} in {report.artifacts} artifacts"
    return f"{report.artifacts} artifacts are what every record says"
