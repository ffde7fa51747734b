"""Answers beside their sources: the tokens a decoder would be finetuned on, in blocks that hardly waste a place."""

from __future__ import annotations

from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.nn.functional import cross_entropy

from llm_assets.corpus.documents import doc_id
from llm_assets.training.answering import AnswerBlocks, Answers
from llm_assets.training.batches import sample_order
from llm_assets.training.chat import Chat, Spoken, answers_of
from llm_assets.training.denoising import CollateExamples, trained_encoder_decoder
from llm_assets.training.faults import documents
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import Answering
from llm_assets.training.trainer import Worker
from llm_assets_tests.links.trained import root
from llm_assets_tests.training.talking import LONGEST, dialogues, encoded, encoder_decoder, table, tokenizer


def test_each_turn_of_the_assistants_is_an_answer_to_all_before_it() -> None:
    spoken = Spoken([1, 2, 3, 4, 5, 6, 7], [False, False, True, True, False, True, False])
    assert [*answers_of(spoken)] == [([1, 2], [3, 4]), ([1, 2, 3, 4, 5], [6])]
    assert not [*answers_of(Spoken([1, 2], [False, False]))]
    for one in encoded(dialogues(6)):
        said = [token for answer in answers_of(one) for token in answer.target]
        assert said == [token for token, answered in zip(one.ids, one.answers, strict=True) if answered]
        assert all(one.ids[: len(answer.source) + len(answer.target)] == answer.source + answer.target for answer in answers_of(one))


def answers(count: int, name: str) -> Answers:
    return Answers.read(table(root() / f"answers-{name}.parquet", dialogues(count)), Chat(tokenizer()), 2 * LONGEST, 0)


def test_the_loss_is_that_of_each_answer_alone() -> None:
    """Worked by hand: transformers' own logits of each answer, its source read alone, and the mean over all their tokens."""
    torch.manual_seed(0)
    plain = encoder_decoder()
    found = answers(5, "loss")
    losses = []
    for one in found.answers:
        given = torch.tensor([[plain.config.decoder_start_token_id, *one.target[:-1]]])
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([one.source]), decoder_input_ids=given).logits[0]
        losses += cross_entropy(logits, torch.tensor(one.target), reduction="none").tolist()
    blocks = AnswerBlocks(found, numpy.arange(len(found.blocks)))
    assert len(found.answers) == 7 and len(blocks) < 7
    batch = CollateExamples(tokenizer().pad_token_id, tokenizer().cls_token_id)([blocks[place] for place in range(len(blocks))])
    assert int((batch["labels"] != IGNORED).sum()) == len(losses)
    with torch.no_grad():
        assert float(trained_encoder_decoder(plain)(**batch).loss) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_little_is_padded() -> None:
    found = answers(400, "padding")
    job = SimpleNamespace(steps=len(found.blocks) // 8, micro_batch=4, accumulation=1, seed=0)
    order = found.order_of(job, 2)  # type: ignore[arg-type]
    assert found.padding_share(order, 4) < 0.02 < 0.04 < found.padding_share(sample_order(len(found.blocks), job.steps, 8, 0), 4)
    by_hand = Answers([SimpleNamespace(source=[1] * size, target=[1]) for size in (9, 3)], [0, 1], 10, 0)  # type: ignore[list-item]
    assert by_hand.padding_share(numpy.array([0, 1]), 2) == pytest.approx(1 - (9 + 1 + 3 + 1) / (2 * 9 + 2 * 1))


def test_a_fault_names_the_documents_of_its_blocks() -> None:
    texts = dialogues(4)
    path = table(root() / "faulty-answers.parquet", texts)
    found = Answers.read(path, Chat(tokenizer()), LONGEST, 0)
    dataset = AnswerBlocks(found, numpy.array([1, 0, 1, 0]))
    arguments = SimpleNamespace(per_device_train_batch_size=1, gradient_accumulation_steps=1, world_size=2, process_index=1)
    worker = SimpleNamespace(args=arguments, state=SimpleNamespace(global_step=0), train_dataset=dataset)
    rows = Worker.rows(worker, [0])  # type: ignore[arg-type]
    assert rows == found.members[0] and rows
    assert documents(Answering(train=path, evaluation=path), rows) == sorted({doc_id(texts[row]) for row in rows})
