"""What users said of replies as pairs, and what of it is left out with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm_assets.corpus.batches import write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.links.feedback_examples import Feedback
from llm_assets.links.preference_feedback import voted, with_votes
from llm_assets.links.preference_pairs import leaking, marked
from llm_assets.training.pairs import Pair
from llm_assets_tests.links.test_preference_pairs import DIALOGUES, dialogue, said

CORPUS = [Pair("a", "train", said("when?"), "tomorrow", "plastic"), Pair("c", "test", said("which colour?"), "red", "Monday")]


def row(number: int, text: str, answered: str, label: str) -> dict[str, Any]:
    return {
        "doc_id": doc_id(f"{text}\n{label or answered}"), "id": f"chatcmpl-{number:04}", "index": 0, "at": f"2026-11-{number + 1:02}", "text": text,
        "label": label, "answered": answered, "votes": 1, "provenance": "feedback",
    }  # fmt: skip


def joined(folder: Path, *rows: dict[str, Any], method: Any = "dpo", share: float = 0.9) -> tuple[list[Any], dict[str, int]]:
    """The replies of the pairs that come from rows, and what was left out, where anything was."""
    write_batch(folder, rows)
    pairs, metrics = with_votes(CORPUS, DIALOGUES, Feedback(folder=str(folder), share=share), method, 2)
    assert pairs[:2] == CORPUS and all(pair.split == "train" for pair in pairs[2:]) and metrics["feedback"]["pairs"] == len(pairs) - 2
    left_out = {reason: count for reason, count in metrics["feedback"]["left_out"].items() if count}
    return [(pair.chosen, pair.rejected) for pair in pairs[2:]], left_out


def test_a_correction_is_preferred_to_the_answer_and_a_praised_reply_to_a_blamed_one(tmp_path: Path) -> None:
    rows = [
        row(0, "hello\nyes?\nwhere is it?", "who knows", "on its way"),
        row(1, "how much?", "ten euros", "ten euros"), row(2, "How much?", "go away", ""), row(3, "how much?", "a lot", ""),
    ]  # fmt: skip
    found, contrary, above = voted(rows, 2)
    assert contrary == above == 0 and found[0].prompt == said("hello", "yes?", "where is it?") and found[0].doc_id == rows[0]["doc_id"]
    assert [(pair.chosen, pair.rejected) for pair in found] == [("on its way", "who knows"), ("ten euros", "a lot"), (None, "go away")]
    assert joined(tmp_path / "dpo", *rows) == ([("on its way", "who knows"), ("ten euros", "a lot")], {"unpaired": 1})


@pytest.mark.parametrize(("method", "kept"), [("dpo", 0), ("orpo", 0), ("kto", 2)])
def test_a_reply_judged_alone_is_for_kto(tmp_path: Path, method: str, kept: int) -> None:
    found, left_out = joined(tmp_path, row(0, "where?", "here", "here"), row(1, "who?", "nobody", ""), method=method)
    assert found == [("here", None), (None, "nobody")][:kept] and left_out == ({} if kept else {"unpaired": 2})


def test_what_is_right_to_some_and_wrong_to_others_is_neither(tmp_path: Path) -> None:
    rows = [row(0, "where?", "here", "here"), row(1, "where?", "Here.", "there"), row(2, "who?", "nobody", "")]
    assert joined(tmp_path, *rows, method="kto") == ([(None, "nobody")], {"contradictory": 2})


def test_nothing_of_a_held_out_dialogue_is_learned_from_votes(tmp_path: Path) -> None:
    rows = [
        row(0, "Which colour?", "blue", "green"), row(1, "what is it like?", "green", "Red!"), row(2, "what is it like?", "fine", ""),
        row(3, "how much?", "no", "five"),
    ]  # fmt: skip
    found, left_out = joined(tmp_path, *rows)  # the turns of a held-out dialogue, its reply, and that of one without a pair
    assert found == [("five", "no")] and left_out == {"shared_with_held_out": 3}
    pairs, _ = with_votes(CORPUS, DIALOGUES, Feedback(folder=str(tmp_path), share=0.9), "dpo", 2)
    assert not leaking(marked(pairs, DIALOGUES))


def test_a_held_out_answer_in_the_middle_of_a_voted_conversation_is_not_learned(tmp_path: Path) -> None:
    """ORPO's loss is of prompt and reply; the held-out dialogue may have given it in the middle, too."""
    rows = [row(0, "so?\nRed.\nand then?", "no", "blue"), row(1, "so?\nno idea\nand then?", "Hi", "blue"), row(2, "so?\nhm\nand then?", "no", "blue")]
    assert joined(tmp_path, *rows, method="orpo") == ([("blue", "no")], {"shared_with_held_out": 2})


def test_wrong_replies_above_the_limit_are_counted(tmp_path: Path) -> None:
    rows = [row(number, "where?", f"nowhere {number}", "here") for number in range(5)]
    found, left_out = joined(tmp_path, *rows)
    assert len(found) == 2 and left_out == {"over_limit": 3}


def test_what_stands_already_is_not_learned_twice_and_the_share_keeps_the_newest(tmp_path: Path) -> None:
    same = row(0, "when?", "Plastic", "Tomorrow!")
    assert joined(tmp_path / "same", same, row(1, "who?", "no", "me")) == ([("me", "no")], {"repeated": 1})
    many = [row(number, f"question {number}", "no", f"answer {number}") for number in range(5)]
    assert joined(tmp_path / "many", *many, share=0.75) == ([(f"answer {number}", "no") for number in (2, 3, 4)], {"over_share": 2})


def test_without_a_folder_nothing_is_read_and_the_metrics_are_what_they_were() -> None:
    assert with_votes(CORPUS, [dialogue("c", "test", "which colour?", "red")], Feedback(), "dpo", 2) == (CORPUS, {})
