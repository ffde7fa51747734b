from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from llm_assets.corpus.documents import doc_id
from llm_assets.training.causal import trained_decoder
from llm_assets.training.chat import Chat
from llm_assets.training.conversation import CollateConversations, PackedConversations, pack, read_conversations
from llm_assets.training.decoders import ALIKE, ARCHITECTURES
from llm_assets.training.faults import documents
from llm_assets.training.heads import IGNORED
from llm_assets.training.job import SUMMARY, Conversation, TrainingJob
from llm_assets.training.trainer import Worker
from llm_assets_tests.links.trained import launch_quietly, root, silent
from llm_assets_tests.training.room import launch_in_room
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, encoded, table, tokenizer, tokenizer_folder


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(0, 9))
def test_every_sequence_stands_in_one_block_whole(lengths: list[int], seed: int) -> None:
    blocks = pack(lengths, 50, seed)
    assert sorted(index for block in blocks for index in block) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in block) <= 50 for block in blocks)
    filled = [sum(lengths[index] for index in block) for block in blocks]
    assert all(one + other > 50 for one, other in combinations(filled, 2))  # no two could have been one


def test_packing_leaves_little_padding_and_follows_the_seed() -> None:
    lengths = numpy.random.default_rng(0).integers(5, 120, 2000).tolist()
    blocks = pack(lengths, 256, 1)
    assert sum(lengths) / (256 * len(blocks)) > 0.97
    assert blocks == pack(lengths, 256, 1) != pack(lengths, 256, 2)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, *ALIKE])
def test_the_loss_is_that_of_each_conversation_alone_on_the_assistants_tokens(kind: str) -> None:
    """Worked by hand: transformers' own logits of each conversation by itself, and the mean over the tokens that the assistant says."""
    conversations = encoded(dialogues(5))
    sizes = {"vocab_size": len(tokenizer()), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, num_key_value_heads=1, head_dim=16, pad_token_id=0)).eval()
    losses = []
    for one in conversations:
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([one.ids])).logits[0]
        asked = [place for place in range(len(one.ids) - 1) if one.answers[place + 1]]
        losses += cross_entropy(logits[asked], torch.tensor([one.ids[place + 1] for place in asked]), reduction="none").tolist()
    collate = CollateConversations(tokenizer().pad_token_id, 2 * LONGEST)
    batch = collate([conversations[:3], conversations[3:]])
    assert int((batch["labels"] != IGNORED).sum()) == len(losses) == sum(sum(one.answers) for one in conversations)
    with torch.no_grad():
        packed = trained_decoder(plain)(**batch).loss
    assert abs(float(packed) - sum(losses) / len(losses)) < 1e-5


def test_long_conversations_are_cut_and_rows_keep_their_number() -> None:
    texts = dialogues(4)
    path = table(root() / "cut.parquet", texts)
    cut = read_conversations(path, Chat(tokenizer()), 20)
    whole = encoded(texts)
    assert all(len(one.ids) == 20 for one in cut) and cut[0].ids[:6] == whole[0].ids[:6]
    dataset = PackedConversations(cut, [[0, 2], [1, 3]], numpy.array([1, 0, 1]))
    assert len(dataset) == 3 and dataset[1] == [cut[0], cut[2]] and dataset.members[dataset.order[0]] == [1, 3]


def test_a_fault_names_the_documents_of_its_blocks() -> None:
    """What ``Worker.rows`` gives for packed conversations are rows of the examples, whose doc_ids the message names."""
    texts = dialogues(4)
    path = table(root() / "faulty.parquet", texts)
    dataset = PackedConversations(encoded(texts), [[0, 2], [1], [3]], numpy.array([2, 0, 1, 0]))
    arguments = SimpleNamespace(per_device_train_batch_size=1, gradient_accumulation_steps=1, world_size=2, process_index=1)
    worker = SimpleNamespace(args=arguments, state=SimpleNamespace(global_step=0), train_dataset=dataset)
    rows = Worker.rows(worker, [0])  # type: ignore[arg-type]
    assert rows == [0, 2]  # the second process reads the second block of the order
    assert documents(Conversation(train=path, evaluation=path), rows) == sorted(doc_id(texts[row]) for row in rows)


@pytest.mark.slow
def test_two_processes_go_on_from_saved_weights_under_zero_3(tmp_path: Path) -> None:
    """transformers spreads a saved model while it loads it, before DeepSpeed would look how many processes there are."""
    found = {}
    for name, launch, processes, settings in (("one", launch_in_room, 1, {"micro_batch": 8}), ("two", launch_quietly, 2, {"zero_stage": 3})):
        folder = tmp_path / name
        folder.mkdir()
        texts = dialogues(120)
        places = {"train": table(folder / "train.parquet", texts[:100]), "evaluation": table(folder / "evaluation.parquet", texts[100:])}
        common = {"steps": 4, "evaluate_every": 4, "seed": 1, "micro_batch": 4, "learning_rate": 1e-2, "zero_stage": 2, **settings}
        job = TrainingJob(
            objective=Conversation(max_length=LONGEST, **places), tokenizer=tokenizer_folder(), output=folder / "out", scratch=folder,
            start_from=checkpoint(), **common,
        )  # fmt: skip
        launch(job.write(folder / "job.json"), processes, silent)
        found[name] = json.loads((folder / SUMMARY).read_text())
    assert found["two"]["world_size"] == 2 and found["two"]["deepspeed"]["zero_optimization"]["stage"] == 3
    assert found["two"]["best"]["loss"] == pytest.approx(found["one"]["best"]["loss"], rel=1e-3)
