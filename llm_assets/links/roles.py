"""The seven roles of the industry chain: what each does, which links it answers for, which checks are its gate.

`python -m llm_assets.links.roles` prints the table that stands in docs/roles.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_assets.links.chain import CHAIN
from llm_assets.links.link import Link


@dataclass(frozen=True)
class Role:
    """One role; a link names it by its key in ``ROLES``."""

    title: str
    duties: str
    signs: str  # what its gate says when it is passed


ROLES: dict[str, Role] = {
    "product_manager": Role(
        "Product manager",
        "decides what the product answers and how good is good enough; weighs quality against cost and licences",
        "this model may be released",
    ),
    "software_architect": Role(
        "Software architect",
        "chooses devices, stores and services; keeps the parts apart and the chain within its budget",
        "the machine can carry what the chain asks of it",
    ),
    "data_engineer": Role(
        "Data engineer",
        "brings sources in under their licences; screens, masks, deduplicates and decontaminates; answers for every dropped document",
        "this text may be learned from",
    ),
    "technical_expert": Role(
        "Technical expert",
        "knows the field: says what a label means, annotates and corrects, and keeps the documents that models are tested on",
        "the labels are right, and the tests are apart from the training",
    ),
    "programmer": Role(
        "Programmer",
        "turns text into tokens and models into what runs fast; answers for the code that neither may change silently",
        "what is encoded and what is served are what was meant",
    ),
    "data_scientist": Role(
        "Data scientist",
        "designs models and training, compares with baselines, and says with intervals what a model is worth",
        "the model learned, and is better than what is simpler",
    ),
    "operations_engineer": Role(
        "Operations engineer",
        "serves releases, watches traffic, answers alerts, rolls back",
        "the release answers",
    ),
}


def links_of(role: str) -> list[Link]:
    """The links that a role answers for, in the chain's order."""
    return [link for link in CHAIN if link.role == role]


def as_markdown() -> str:
    """The page docs/roles.md."""
    lines = [
        "# Who answers for what",
        "",
        "Printed by `python -m llm_assets.links.roles`; a test holds this page to it. Each asset and each of its checks has exactly one role that",
        "answers for it: the asset's owner in the Dagster UI (`team:data_engineer`), the check's `role` in its metadata. A chain renames or merges",
        "roles under `roles` in its YAML, such as `roles: {programmer: platform, software_architect: platform}`.",
        "",
        "| role | duties | answers for | its gate: checks that must pass | which says |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, role in ROLES.items():
        links = links_of(name)
        checks = [f"{link.name}: {', '.join(check.name for check in link.checks if check.blocking)}" for link in links]
        answers = ", ".join(f"`{link.name}`" for link in links)
        lines.append(f"| **{role.title}** (`{name}`) | {role.duties} | {answers} | {'; '.join(checks)} | {role.signs} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(as_markdown(), end="")
