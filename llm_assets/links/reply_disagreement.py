"""How far a candidate's replies and the champion's will be apart, foretold on the test conversations and on what users ask now.

As for labels (``links/disagreement.py``) a canary's traffic is taken for a mixture: of both kinds of conversation, and of clients who
draw answers (temperature 1) and who take the likeliest (0). Each part is measured with either release as the writer, since the stable
release reads what a canary wrote, and in a shadow stage it is the other way round. Of any mixture the mean is at most that of the part
where it is largest, so that is what the canary is held against: the upper end of its 95% interval, since a part is a few dozen replies.
Both measure alike: all bits over all bytes (``serving/apart.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from llm_assets.links.link import Office
from llm_assets.serving.engine import EngineError
from llm_assets.serving.generation import Generator
from llm_assets.serving.llama import LlamaError, RefusedError
from llm_assets.serving.request_log import newest_conversations
from llm_assets.serving.rollout import Apart
from llm_assets.store.artifact import Artifact

UNIT = "bits per byte"  # of the disagreement of replies; that of labels is a share of the answers
CONVERSATIONS = 40  # of the test split, and of the log: each is answered four times, and each answer read twice
MINIMUM = 20  # of the log; fewer say too little
ANSWER = 48  # tokens of an answer at most
DEVIATIONS = 1.96  # that the upper end of a 95% interval lies above its middle
MOST = 1.0  # bits per byte on the log, foretold from it: beyond that a canary that expected it would expect nearly anything
RANKED = 4  # replies, of which the true one is one, that both are to choose from

Messages = Sequence[Mapping[str, str]]


def foretold(office: Office, candidate: Artifact, champion: Artifact, conversations: Sequence[Messages]) -> dict[str, Any]:
    """``disagreement`` in ``unit``, what a canary is to expect, with what it is the larger of, and in words as ``prediction``.

    ``conversations`` are the test split's, each with its true reply. With fewer than ``MINIMUM`` conversations in the request log, or where the
    two are more than ``MOST`` apart on them, the test split alone counts, and ``prediction`` says why; nothing does where a model cannot be
    asked. ``disagreement_in_ranking`` is the share of test conversations for which they find another of ``RANKED`` replies likeliest, byte for byte.
    """
    asked = conversations[:CONVERSATIONS]
    newest = newest_conversations(office.home, office.chain, CONVERSATIONS)
    stated: dict[str, Any] = {"unit": UNIT, "disagreement": None, "disagreement_on_test": None, "disagreement_on_traffic": None}
    stated |= {"disagreement_in_ranking": None, "traffic_texts": len(newest)}
    try:
        with closing(Generator(candidate.directory)) as mine, closing(Generator(champion.directory)) as theirs:
            on_test = asyncio.run(_largest(mine, theirs, [messages[:-1] for messages in asked]))
            on_traffic = asyncio.run(_largest(mine, theirs, newest)) if len(newest) >= MINIMUM else None
            ranking = asyncio.run(_ranked_otherwise(mine, theirs, asked))
    except (EngineError, LlamaError, RefusedError) as error:
        return {**stated, "prediction": f"nothing is foretold, as the models could not be asked: {error}"}
    stated |= {"disagreement_on_test": on_test, "disagreement_on_traffic": on_traffic, "disagreement_in_ranking": ranking}
    if on_test is None:
        return {**stated, "prediction": "nothing is foretold, as no test conversation could be answered and read"}
    tested = f"at most {on_test:.3f} {UNIT} on {len(asked)} test conversations"
    if on_traffic is None:
        return {**stated, "disagreement": on_test, "prediction": f"{tested}; the request log holds {len(newest)} conversations, {MINIMUM} are needed"}
    logged = f"{on_traffic:.3f} on the newest {len(newest)} conversations of the request log"
    if on_traffic > MOST:
        return {**stated, "disagreement": on_test, "prediction": f"{tested}; {logged}, more than a gate foretells ({MOST:g})"}
    return {**stated, "disagreement": max(on_test, on_traffic), "prediction": f"{tested}, {logged}"}


async def _largest(mine: Generator, theirs: Generator, prompts: Sequence[Messages]) -> float | None:
    """The largest upper end of the parts; None where no two prompts could be answered and read."""
    from llm_assets.serving.apart import pooled

    ends = []
    for temperature in (1.0, 0.0):
        for writer, reader in ((mine, theirs), (theirs, mine)):
            slots = asyncio.Semaphore(writer.slots)
            every = (_apart(writer, reader, messages, temperature, seed, slots) for seed, messages in enumerate(prompts))
            known = [found for found in await asyncio.gather(*every) if found is not None]
            if len(known) > 1:
                middle, error = pooled(known)
                ends.append(middle + DEVIATIONS * error)
    return max(ends, default=None)


async def _apart(writer: Generator, reader: Generator, messages: Messages, temperature: float, seed: int, slots: asyncio.Semaphore) -> Apart | None:
    from llm_assets.serving.answer import written  # imports FastAPI
    from llm_assets.serving.apart import apart
    from llm_assets.serving.completion_wire import ChatRequest
    from llm_assets.serving.errors import ApiError

    asked = {"model": "gate", "messages": messages, "max_tokens": ANSWER, "temperature": temperature, "seed": seed}
    async with slots:
        try:
            return await apart(await written(ChatRequest.model_validate(asked), "gate", writer), reader)
        except ApiError:
            return None  # longer than the context


async def _ranked_otherwise(mine: Generator, theirs: Generator, conversations: Sequence[Messages]) -> float | None:
    """The share of conversations for which two models choose another reply, among the true one and those of the conversations that follow."""
    replies = [messages[-1]["content"] for messages in conversations]
    choices = []
    for place, messages in enumerate(conversations if len(replies) >= RANKED else ()):
        offered = [replies[(place + step) % len(replies)] for step in range(RANKED)]
        choices.append([await _likeliest(engine, messages[:-1], offered) for engine in (mine, theirs)])
    known = [(one, other) for one, other in choices if one is not None and other is not None]
    return sum(one != other for one, other in known) / len(known) if known else None


async def _likeliest(engine: Generator, before: Messages, replies: Sequence[str]) -> int | None:
    """The place of the reply of least bits per byte; None where one of them cannot be read."""
    from llm_assets.serving.apart import LONGEST_READ, bits_of
    from llm_assets.serving.templates import Message

    prompt = engine.chat([Message(role=turn["role"], content=turn["content"]) for turn in before])
    shown = [reply[:LONGEST_READ] for reply in replies]
    bits = [await bits_of(engine, prompt, text) for text in shown]
    each = [value / len(text.encode()) for value, text in zip(bits, shown, strict=True) if value is not None]
    return each.index(min(each)) if len(each) == len(replies) else None
