"""What an assistant's answers are worth: translation by chrF and BLEU, titles by ROUGE, replies by their rank among others.

Each has a baseline that learns nothing: a translation is copied from its source, a title is the text's first sentence, a reply is found by BM25.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

CANDIDATES = 10  # the true reply and nine of other conversations
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
WORD = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
Figures = dict[str, float]


class Words:
    """What BM25 and ROUGE count: each Han character, and each run of other letters and digits, case forgotten."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text."""
        return WORD.findall(text.casefold())


def translation(answers: Sequence[str], references: Sequence[str]) -> Figures:
    """chrF (Popović 2015) and BLEU (Papineni et al. 2002) of all answers together, 0 to 100, as sacrebleu has them (Post 2018).

    BLEU counts Han characters one by one where the references hold any (its tokenizer ``zh``), else words (``13a``).
    """
    import sacrebleu

    tokenizer = "zh" if any(re.search(f"[{HAN}]", reference) for reference in references) else "13a"
    chrf = sacrebleu.corpus_chrf(list(answers), [list(references)]).score
    bleu = sacrebleu.corpus_bleu(list(answers), [list(references)], tokenize=tokenizer).score
    return {"chrf": round(chrf, 4), "bleu": round(bleu, 4)}


def titles(answers: Sequence[str], references: Sequence[str]) -> Figures:
    """ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004): the F-measures' means over the texts, 0 to 1, as rouge-score has them, of ``Words``."""
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(list(kinds), tokenizer=Words())
    found = [scorer.score(reference, answer) for answer, reference in zip(answers, references, strict=True)]
    return {kind.lower(): round(sum(one[kind].fmeasure for one in found) / len(found), 4) for kind in kinds}


def copied(ask: str) -> str:
    """The baseline of a translation: the source itself."""
    return ask


def lead_sentence(ask: str) -> str:
    """The baseline of a title: the text's first sentence."""
    return SENTENCE_END.split(ask.strip(), maxsplit=1)[0]


MEASURES: dict[str, tuple[Callable[[Sequence[str], Sequence[str]], Figures], str, Callable[[str], str]]] = {
    "translation": (translation, "copy", copied),  # the measure of a task's answers, and its baseline's name and answer
    "title": (titles, "lead_sentence", lead_sentence),
}


def candidates(replies: Sequence[str], names: Sequence[str], asked: int) -> list[list[int]]:
    """For each of the first ``asked`` conversations the places of ``CANDIDATES`` replies in ``replies``: its own first, then nine other texts.

    Which nine is a hash's choice: of the conversation's name and the other's, the smallest; so they stay when the order changes.
    Fewer where there are not so many different replies.
    """
    found = []
    for own, name in enumerate(names[:asked]):
        order = sorted(range(len(replies)), key=lambda place: hashlib.sha256(f"{name}:{names[place]}".encode()).digest())
        chosen, texts = [own], {replies[own]}
        for place in order:
            if len(chosen) == CANDIDATES:
                break
            if replies[place] not in texts:
                chosen.append(place)
                texts.add(replies[place])
        found.append(chosen)
    return found


def bm25(contexts: Sequence[str], replies: Sequence[str], chosen: Sequence[Sequence[int]]) -> list[list[float]]:
    """For each conversation the BM25 score (Robertson et al. 1995) of its candidates for all that was said before, in ``Words``."""
    from bm25s import BM25

    words = Words()
    index = BM25()
    index.index([words.tokenize(reply) or [""] for reply in replies], show_progress=False)
    known = set(index.vocab_dict)
    found = []
    for context, places in zip(contexts, chosen, strict=True):
        asked = [word for word in words.tokenize(context) if word in known]
        scores = index.get_scores(asked) if asked else [0.0] * len(replies)
        found.append([float(scores[place]) for place in places])
    return found


def ranking(scores: Sequence[Sequence[float]]) -> Figures:
    """How often the true reply, the first of each row, has the highest score, and the mean of 1 / its rank; chance is what a die gives.

    Replies with the true one's score share the places they take together: of two at the top each is first by half.
    """
    first = reciprocal = chance = 0.0
    for row in scores:
        above = sum(score > row[0] for score in row[1:])
        alike = sum(score == row[0] for score in row)
        first += 1 / alike if above == 0 else 0.0
        reciprocal += sum(1 / (above + place) for place in range(1, alike + 1)) / alike
        chance += 1 / len(row)
    return {name: round(value / len(scores), 4) for name, value in (("first_of_10", first), ("reciprocal_rank", reciprocal), ("chance", chance))}
