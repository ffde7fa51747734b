"""What a model that talks is compared with: what users say in its training conversations, and what it says itself on the validation split."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from llm_assets.evaluation.predictions import SPLITS
from llm_assets.links.assistant_scores import Asked
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.operation.champion import Released
from llm_assets.serving.generation import Generator
from llm_assets.store.artifact import Artifact

REPLIES = 200  # validation conversations that it is asked, once a release


def turns_of_users(examples: Artifact) -> Iterator[tuple[str, str]]:
    """What users say in the training conversations, each turn with a name of its own."""
    for batch in examples.batches("train.parquet", ["doc_id", "messages"]):
        for row in batch.to_pylist():
            for place, turn in enumerate(row["messages"]):
                if turn["role"] == "user":
                    yield f"{row['doc_id']}:{place}", turn["content"]


def validation_replies(released: Released) -> list[tuple[str, str]]:
    """What a release replies to the validation conversations, each with how it ended, asked as a client asks who sets nothing.

    At most ``REPLIES`` conversations, those of the smallest hash, each up to its last turn of the user's; one that the context does not
    hold is left out. It takes a process of llama.cpp of its own, for as long as that fills the context ``REPLIES`` times at most: a limit of its own
    would make the reference's replies end as no client's do.
    """
    config = ConversationsConfig.model_validate(released.input("labelled_examples").manifest.recipe["config"])
    asked = Asked.read(released.input("evaluation_sets"), config)
    places = [place for place, split in enumerate(asked.splits) if split == SPLITS[0]]
    places.sort(key=lambda place: hashlib.sha256(f"drift:{asked.doc_ids[place]}".encode()).digest())
    with closing(Generator(released.model.directory)) as engine:
        return asyncio.run(_replies(engine, released.name, [asked.messages[place][:-1] for place in places[:REPLIES]]))


async def _replies(engine: Generator, release: str, prompts: Sequence[Sequence[Mapping[str, str]]]) -> list[tuple[str, str]]:
    from llm_assets.serving.answer import written  # imports FastAPI
    from llm_assets.serving.completion_wire import ChatRequest
    from llm_assets.serving.errors import ApiError

    slots = asyncio.Semaphore(engine.slots)

    async def reply(number: int, messages: Sequence[Mapping[str, str]]) -> tuple[str, str] | None:
        request = ChatRequest.model_validate({"model": release, "messages": messages, "seed": number})
        async with slots:
            try:
                answer = await written(request, release, engine)
            except ApiError:
                return None  # longer than the context
        return answer.text, answer.finish

    found = await asyncio.gather(*(reply(number, messages) for number, messages in enumerate(prompts)))
    return [one for one in found if one is not None]
