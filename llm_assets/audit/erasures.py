"""What somebody asks to be forgotten, found in every store of a data root, and what of it nobody here can reach."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dagster as dg

from llm_assets.audit.forget import ForgetError, Plan, plan_erasure, was_erased
from llm_assets.audit.index import Index
from llm_assets.audit.matching import Matching, matching, recorded
from llm_assets.audit.places import Places
from llm_assets.audit.trace import UnknownDocumentError, find_documents
from llm_assets.corpus.documents import doc_id
from llm_assets.tracking.tracker import Tracker


@dataclass(frozen=True)
class Erasure:
    """What forgetting means, a plan a store; none where nothing holds a phrase."""

    plans: list[Plan]
    matched: list[Matching]  # what holds the phrase, a store each


def erasure(indexes: Sequence[Index], document: str = "", text: str = "", phrase: str = "") -> Erasure:
    """What is named by the beginning of a doc_id, by its text or by a phrase that it holds; one of the three.

    Raises ``UnknownDocumentError`` for a document that no store has, and ``ForgetError`` for one that was erased, or where several
    documents hold a text.
    """
    if phrase:
        found = [(index, matching(index, phrase)) for index in indexes]
        held = [(index, one) for index, one in found if one.documents or one.records]
        return Erasure([plan_erasure(index, Places(index.store), list(one.documents), one.records) for index, one in held], [one for _, one in held])
    home = indexes[0].store.home
    plans: list[Plan] = []
    unknown: list[str] = []
    for index in indexes:
        places = Places(index.store)
        try:
            documents = find_documents(index, places, document, text)
        except UnknownDocumentError as error:
            unknown.append(str(error))
            continue
        if len(documents) > 1:
            raise ForgetError(f"{len(documents)} documents hold this text: {', '.join(documents)}; name one, or --matching for all")
        plans.append(plan_erasure(index, places, documents))
    if text and not plans and (was_erased(home, doc_id(text)) or any(text in one for one in recorded(home))):
        plans = [plan_erasure(index, Places(index.store), [], [text]) for index in indexes]
    if document and not plans and was_erased(home, document):
        raise ForgetError(f"document {document} was erased; what holds it again is found by its text alone: llm-assets forget --text")
    if not plans:
        raise UnknownDocumentError("; ".join(unknown))
    return Erasure(plans, [])


def elsewhere(home: Path, instance: dg.DagsterInstance, trackers: Sequence[Tracker]) -> list[str]:
    """What is not below the data root, so that nobody here can search it."""
    found = []
    for tracker in trackers:
        if tracker.is_remote:
            found.append(f"MLflow at {tracker.ui}: not searched")
        elif not Path(urlsplit(tracker.uri).path.replace("//", "/", 1)).is_relative_to(home):  # sqlite:////absolute/path
            found.append("MLflow's database, which is not below the data root: not searched")
    storage = type(instance.event_log_storage).__name__
    if "Sqlite" not in storage or not Path(os.environ["LLM_ASSETS_DAGSTER"]).is_relative_to(home):
        found.append(f"Dagster's event log, {storage}, which is not below the data root: not searched")
    return found
