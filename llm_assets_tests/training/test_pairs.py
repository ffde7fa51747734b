from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet

from llm_assets.training.chat import Chat
from llm_assets.training.heads import IGNORED
from llm_assets.training.pairs import Encoded, encode, replied, write
from llm_assets_tests.training.preferring import pairs
from llm_assets_tests.training.talking import LONGEST, tokenizer


def test_prompt_and_reply_are_what_the_template_writes_and_the_reply_ends_its_turn() -> None:
    chat = Chat(tokenizer())
    for pair, one in zip(pairs(5), encode(pairs(5), chat, LONGEST), strict=True):
        for reply, ids in ((pair.chosen, one.chosen), (pair.rejected, one.rejected)):
            (whole,) = chat.encode([replied(pair.prompt, reply)])
            assert [*one.prompt, *ids, *chat.after] == whole.ids and ids[-1] == chat.end
            assert sum(whole.answers) == len(ids)


def test_of_what_is_too_long_the_prompts_beginning_goes_and_a_pair_without_a_prompt_is_left_out() -> None:
    chat, given = Chat(tokenizer()), pairs(3)
    whole = encode(given, chat, LONGEST)
    longer = max(len(whole[0].chosen), len(whole[0].rejected))
    cut = encode(given[:1], chat, longer + 4)[0]
    assert cut.prompt == whole[0].prompt[-4:] and cut.chosen == whole[0].chosen
    assert encode(given[:1], chat, longer) == []


def rows(tmp_path: Path, method: Any) -> list[dict[str, Any]]:
    encoded = [Encoded(str(number), [1, number], [2, number], [3]) for number in range(4)]
    count = write(tmp_path / "rows.parquet", encoded, method, 1)
    found: list[dict[str, Any]] = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert count == len(found)
    return found


def test_each_method_reads_the_pairs_in_its_own_columns(tmp_path: Path) -> None:
    assert rows(tmp_path, "dpo")[3] == {"doc_id": "3", "prompt_ids": [1, 3], "chosen_ids": [2, 3], "rejected_ids": [3]}
    joined = rows(tmp_path, "orpo")[3]
    assert joined["chosen_input_ids"] == [1, 3, 2, 3] and joined["chosen_labels"] == [IGNORED, IGNORED, 2, 3]
    assert joined["rejected_input_ids"] == [1, 3, 3] and joined["rejected_attention_mask"] == [1, 1, 1]


def test_kto_reads_each_reply_by_itself_and_beside_it_another_examples(tmp_path: Path) -> None:
    judged = rows(tmp_path, "kto")
    assert sorted((row["doc_id"], row["label"]) for row in judged) == [(str(number), label) for number in range(4) for label in (False, True)]
    assert [row["KL_completion_ids"] for row in judged] == [judged[place - 1]["completion_ids"] for place in range(len(judged))]
    assert [row["doc_id"] for row in judged] != sorted(row["doc_id"] for row in judged)  # neighbours are of different dialogues


def test_a_reply_that_was_judged_alone_is_an_example_of_kto(tmp_path: Path) -> None:
    chat, (pair, *_) = Chat(tokenizer()), pairs(1)
    (whole,) = encode([pair], chat, LONGEST)
    right, wrong = encode([pair._replace(rejected=None), pair._replace(chosen=None)], chat, LONGEST)
    assert (right.prompt, right.chosen, right.rejected) == (whole.prompt, whole.chosen, [])
    assert (wrong.prompt, wrong.chosen, wrong.rejected) == (whole.prompt, [], whole.rejected)
    assert write(tmp_path / "rows.parquet", [right, wrong, whole], "kto", 1) == 4
    found = pyarrow.parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert sorted((row["completion_ids"], row["label"]) for row in found) == sorted([(whole.chosen, True), (whole.rejected, False)] * 2)


def test_a_file_that_holds_the_same_examples_is_left_alone_and_another_is_replaced(tmp_path: Path) -> None:
    path, encoded = tmp_path / "rows.parquet", [Encoded(str(number), [1], [2, number], [3]) for number in range(4)]
    write(path, encoded, "kto", 1)
    first = path.stat()
    write(path, encoded, "kto", 1)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    write(path, encoded[1:], "kto", 1)
    assert pyarrow.parquet.read_metadata(path).num_rows == 6
