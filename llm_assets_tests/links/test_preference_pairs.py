"""Which replies make pairs, and which are left out with a reason."""

from __future__ import annotations

from llm_assets.links.preference_pairs import Replied, apart, leaking, marked, pair_up
from llm_assets.training.pairs import Pair


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]


def dialogue(doc_id: str, split: str, *turns: str) -> Replied:
    return Replied(doc_id, split, said(*turns[:-1]), turns[-1])


DIALOGUES = [
    dialogue("a", "train", "when?", "tomorrow"),
    dialogue("b", "train", "how much?", "ten"),
    dialogue("c", "test", "which colour?", "red"),
    dialogue("d", "validation", "hello", "hi", "and you?", "fine"),
]


def test_a_wrong_reply_makes_a_pair_with_the_true_one_to_the_same_turns() -> None:
    wrong = {("when?",): ["plastic", "Tomorrow !", "Plastic."], ("which colour?",): ["Monday"], ("hello", "hi", "and you?"): ["4"], ("else",): ["x"]}
    found, left_out = pair_up(DIALOGUES, wrong, 2)
    assert [(one.doc_id, one.split, one.chosen) for one in found] == [("a", "train", "tomorrow"), ("c", "test", "red"), ("d", "validation", "fine")]
    assert found[0].prompt == said("when?") and found[0].rejected == "Plastic."  # of what differs in no more than a point the last
    assert left_out == {
        "dialogue_not_in_corpus": 1,  # `else`
        "also_replied": 1,  # `Tomorrow !`
        "over_limit": 0,
        "without_wrong_reply": 1,  # b
        "shared_with_held_out": 0,
    }


def test_the_same_words_are_no_wrong_reply() -> None:
    found, left_out = pair_up(DIALOGUES[:1], {("when?",): ["tomorrow!"]}, 2)
    assert found == [] and left_out["also_replied"] == 1 and left_out["without_wrong_reply"] == 1


def test_of_many_wrong_replies_some_are_drawn_whatever_their_order() -> None:
    many = [f"reply {number}" for number in range(9)]
    found, left_out = pair_up(DIALOGUES[:1], {("when?",): many}, 4)
    again, _ = pair_up(DIALOGUES[:1], {("when?",): many[::-1]}, 4)
    assert len(found) == 4 and left_out["over_limit"] == 5 and found == again


def test_no_training_pair_has_anything_of_a_held_out_one() -> None:
    held = Pair("h", "test", said("when?"), "tomorrow", "plastic")
    good = Pair("a", "train", said("how much?"), "ten", "Monday")
    same_turns = good._replace(prompt=said("When ?"))
    for bad in (same_turns, good._replace(chosen="plastic"), good._replace(rejected="tomorrow."), good._replace(rejected="plastic")):
        assert apart([held, good, bad]) == [held, good]
    wrong = {("when?",): ["red", "plastic"], ("which colour?",): ["Monday"]}
    found, left_out = pair_up(DIALOGUES, wrong, 2)
    assert left_out["shared_with_held_out"] == 1 and [pair.rejected for pair in found if pair.split == "train"] == ["plastic"]


def test_a_held_out_dialogue_without_a_wrong_reply_is_kept_apart_too() -> None:
    found, left_out = pair_up(DIALOGUES, {("when?",): ["Fine!", "plastic"], ("which colour?",): ["Monday"]}, 2)
    assert left_out["shared_with_held_out"] == 1 and [pair.rejected for pair in found if pair.split == "train"] == ["plastic"]
    leak = found[0]._replace(rejected="fine")
    assert {mark.doc_id for mark in leaking(marked([leak, *found[1:]], DIALOGUES))} == {"a"}
    assert not leaking(marked(found, DIALOGUES))


def test_marks_of_another_run_are_others() -> None:
    found, _ = pair_up(DIALOGUES, {("when?",): ["plastic"]}, 2)
    assert not set(marked(found, DIALOGUES)) & set(marked(found, DIALOGUES))
