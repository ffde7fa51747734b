from __future__ import annotations

import numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from llm_assets.training.causal import trained_decoder
from llm_assets.training.chat import Chat
from llm_assets.training.conversation import CollateConversations, PackedConversations, pack, read_conversations
from llm_assets.training.heads import IGNORED
from llm_assets_tests.links.trained import root
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, encoded, table, tokenizer


@given(st.lists(st.integers(1, 50), max_size=80), st.integers(0, 9))
def test_every_sequence_stands_in_one_block_whole(lengths: list[int], seed: int) -> None:
    blocks = pack(lengths, 50, seed)
    assert sorted(index for block in blocks for index in block) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in block) <= 50 for block in blocks)
    assert all(sum(lengths[index] for index in [*one, *other]) > 50 for one, other in zip(blocks, blocks[1:], strict=False)) or len(blocks) > 1


def test_packing_leaves_little_padding_and_follows_the_seed() -> None:
    lengths = numpy.random.default_rng(0).integers(5, 120, 2000).tolist()
    blocks = pack(lengths, 256, 1)
    assert sum(lengths) / (256 * len(blocks)) > 0.97
    assert blocks == pack(lengths, 256, 1) != pack(lengths, 256, 2)


def test_the_loss_is_that_of_each_conversation_alone_on_the_assistants_tokens() -> None:
    """Worked by hand: transformers' own logits of each conversation by itself, and the mean over the tokens that the assistant says."""
    conversations = encoded(dialogues(5))
    plain = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()
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
        packed = trained_decoder(AutoModelForCausalLM.from_pretrained(checkpoint())).eval()(**batch).loss
    assert abs(float(packed) - sum(losses) / len(losses)) < 1e-5


def test_long_conversations_are_cut_and_rows_keep_their_number() -> None:
    texts = dialogues(4)
    path = table(root() / "cut.parquet", texts)
    cut = read_conversations(path, Chat(tokenizer()), 20)
    assert [one.ids for one in cut] == [one.ids[:20] for one in encoded(texts)]
    dataset = PackedConversations(cut, [[0, 2], [1, 3]], numpy.array([1, 0, 1]))
    assert len(dataset) == 3 and dataset[1] == [cut[0], cut[2]] and dataset.members[dataset.order[0]] == [1, 3]
