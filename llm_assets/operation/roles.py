"""Which links and questions each role answers for, and which checks are its gate: `python -m llm_assets.operation.roles` prints docs/roles.md."""

from __future__ import annotations

from llm_assets.audit.questions import QUESTIONS
from llm_assets.links.chain import AUDITED, EVERY
from llm_assets.links.link import Link
from llm_assets.links.roles import ROLES
from llm_assets.operation.acts import OPERATION

ALL = (*EVERY, *OPERATION)


def links_of(role: str) -> list[Link]:
    """The links that a role answers for, in the chain's order, those in service last."""
    return [link for link in ALL if link.role == role]


def blocking_checks(link: Link) -> list[str]:
    """The checks that must pass before anything is built on a link, in the order in which they run."""
    return [*(check.name for check in link.checks if check.blocking), *(["lineage"] if link.name in AUDITED else [])]


def as_markdown() -> str:
    """The page docs/roles.md."""
    lines = [
        "# Who answers for what",
        "",
        "Printed by `python -m llm_assets.operation.roles`; a test holds this page to it. Each asset and each of its checks has exactly one role",
        "that answers for it: the asset's owner in the Dagster UI (`team:data_engineer`), the check's `role` in its metadata. A chain renames or",
        "merges roles under `roles` in its YAML, such as `roles: {programmer: platform, software_architect: platform}`.",
        "",
        "| role | duties | answers for | its gate: checks that must pass | which says |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, role in ROLES.items():
        links = links_of(name)
        gates = {link.identity: blocking_checks(link) for link in links}
        asked = [question for question in QUESTIONS if question.role == name]
        gates |= {question.name: [question.check[0]] for question in asked if question.check}
        checks = [f"{link}: {', '.join(names)}" for link, names in gates.items() if names]
        answers = ", ".join(f"`{one}`" for one in (*(link.identity for link in links), *(question.name for question in asked)))
        lines.append(f"| **{role.title}** (`{name}`) | {role.duties} | {answers} | {'; '.join(checks)} | {role.signs} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(as_markdown(), end="")
