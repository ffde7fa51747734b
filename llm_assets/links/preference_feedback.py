"""What users said of replies, as pairs to learn preferences from beside those of the archive."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from llm_assets.corpus.conversations import turns
from llm_assets.corpus.documents import text_key
from llm_assets.links.feedback_examples import Feedback, batched, room_for
from llm_assets.links.preference_pairs import TRAIN, Context, Replied, apart, distinct, pair_up
from llm_assets.training.job import Method
from llm_assets.training.pairs import Pair

ALONE: tuple[Method, ...] = ("kto",)  # that learn from a reply without another one beside it
REASONS = ("over_share", "contradictory", "over_limit", "unpaired", "repeated", "shared_with_held_out")


def with_votes(
    pairs: Sequence[Pair], held_out: Sequence[Replied], feedback: Feedback, method: Method, most: int
) -> tuple[list[Pair], dict[str, Any]]:
    """The pairs with those from votes after them, which are to train on alone, and the metrics of these.

    A corrected reply is preferred to what was answered, and a reply that users called right to one that they called wrong, after the same
    turns; ``most`` wrong ones of a right reply. A reply that was judged without another beside it is an example of kto's. Out go the
    oldest above the share, replies that are right to some and wrong to others, wrong ones above ``most``, what stands already, and what
    shares turns or a reply with held-out dialogues.
    """
    if not feedback.folder:
        return list(pairs), {}
    rows = [row for row in batched(feedback) if row["answered"] is not None]
    room = room_for(feedback, sum(pair.split == TRAIN for pair in pairs), len(rows))
    tally = Counter(dict.fromkeys(REASONS, 0))
    tally["over_share"] = max(0, len(rows) - room)
    found, tally["contradictory"], tally["over_limit"] = voted(rows[tally["over_share"] :], most)
    fit = [pair for pair in found if len(pair.replies) == 2 or method in ALONE]
    tally["unpaired"] = len(found) - len(fit)
    fresh = distinct(fit, pairs)
    tally["repeated"] = len(fit) - len(fresh)
    joined = apart([*pairs, *fresh], held_out)
    tally["shared_with_held_out"] = len(pairs) + len(fresh) - len(joined)
    return joined, {"feedback": {"pairs": len(joined) - len(pairs), "left_out": dict(tally)}}


def voted(rows: Sequence[dict[str, Any]], most: int) -> tuple[list[Pair], int, int]:
    """The pairs of rows of feedback, and after them the replies that were judged alone.

    And how many rows say the contrary of others, and how many wrong replies are more than the ``most`` of their right one.
    """
    said: dict[tuple[str, str], set[bool]] = defaultdict(set)
    for row in rows:
        for reply, is_right in _verdicts(row):
            said[_key(row, reply)].add(is_right)
    agreed = [row for row in rows if all(len(said[_key(row, reply)]) == 1 for reply, _ in _verdicts(row))]
    right: dict[tuple[str, str], Replied] = {}
    wrong: dict[tuple[str, str], Replied] = {}
    for row in agreed:
        for reply, is_right in _verdicts(row):
            prompt = [turn._asdict() for turn in turns(row["text"])]
            (right if is_right else wrong)[_key(row, reply)] = Replied(row["doc_id"], TRAIN, prompt, reply)
    beside: dict[Context, list[str]] = defaultdict(list)
    for one in wrong.values():
        beside[one.context].append(one.reply)
    pairs, left_out = pair_up([*right.values()], beside, most)
    known = {one.context for one in right.values()}
    alone = [Pair(*one, None) for one in right.values() if one.context not in beside]
    alone += [Pair(one.doc_id, TRAIN, one.prompt, None, one.reply) for one in wrong.values() if one.context not in known]
    return [*pairs, *alone], len(rows) - len(agreed), left_out["over_limit"]


def _key(row: dict[str, Any], reply: str) -> tuple[str, str]:
    return text_key(row["text"]), text_key(reply)


def _verdicts(row: dict[str, Any]) -> list[tuple[str, bool]]:
    """Each reply that a row speaks of, and whether it calls it right."""
    if row["label"] == row["answered"]:
        return [(row["answered"], True)]
    return [(reply, is_right) for reply, is_right in ((row["label"], True), (row["answered"], False)) if reply]
