"""The seven roles of the industry chain: what each does, and what it says when its gate is passed."""

from __future__ import annotations

from dataclasses import dataclass


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
