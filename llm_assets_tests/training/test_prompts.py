"""A tuned prompt: PEFT's vectors before a conversation say what the merged model says to the tokens that its template begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from llm_assets.evaluation.assistant import Assistant
from llm_assets.training.adapters import FOLDER, Adapter, adapted, save, unmerged
from llm_assets.training.causal import trained_decoder
from llm_assets.training.chat import Chat, write_template
from llm_assets.training.conversation import CollateConversations
from llm_assets.training.decoders import Architecture, DecoderShape, new_decoder
from llm_assets.training.pairs import Pair, encode
from llm_assets.training.prompts import extend, merge
from llm_assets.training.rollouts import Rollouts
from llm_assets_tests.training.talking import LONGEST, SHAPE, checkpoint, dialogues, encoded, learn, messages, tokenizer, tokenizer_folder

ADAPTER = Adapter(kind="prompt", tokens=5)
PROMPTS = [text.split("\n")[0] for text in dialogues(100)]


def extended(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(extend(tokenizer_folder(), folder, ADAPTER.tokens), local_files_only=True)


def tuned(base: Path, folder: Path, chat: Chat) -> tuple[Any, Any]:
    """A model whose prompt learnt something, saved in ``folder``; and what it learnt from."""
    torch.manual_seed(1)
    model = adapted(trained_decoder(AutoModelForCausalLM.from_pretrained(base)), ADAPTER, 40, len(tokenizer()))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [tuple(parameter.shape) for parameter in trained] == [(5, SHAPE.hidden)]
    conversations = chat.encode([messages(text) for text in dialogues(8)])
    batch = CollateConversations(tokenizer().pad_token_id, LONGEST * 5)([conversations[:4], conversations[4:]])
    learn(model, batch, 0.1)
    save(model, folder)
    return model.eval(), batch


def answers(model: Any, chat: Chat, prompts: list[str], **settings: Any) -> list[list[int]]:
    """What is said greedily to each prompt by itself."""
    found = []
    for one in chat.encode([messages(prompt) for prompt in prompts], prompt=True):
        ids = torch.tensor([one.ids])
        given = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": chat.end, "pad_token_id": 0, **settings}
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **given)[0].tolist()
        found.append(out[len(one.ids) :])
    return found


def test_the_merged_model_says_to_its_tokens_what_peft_says_to_its_vectors(tmp_path: Path) -> None:
    mine = extended(tmp_path)
    chat, plain = Chat(mine), Chat(tokenizer())
    model, batch = tuned(checkpoint(), tmp_path, chat)
    with torch.no_grad():
        learnt = float(model(**batch).loss)
    merge(checkpoint(), tmp_path / FOLDER, tmp_path, chat)
    merged, apart = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), unmerged(checkpoint(), tmp_path / FOLDER)
    said = answers(merged, chat, PROMPTS)
    assert said == answers(apart, plain, PROMPTS) != answers(AutoModelForCausalLM.from_pretrained(checkpoint()).eval(), plain, PROMPTS)
    assert not {token for answer in said for token in answer} & set(chat.virtual)
    ids = torch.tensor([plain.encode([messages(PROMPTS[0])], prompt=True)[0].ids])
    with torch.no_grad():
        logits = merged(torch.cat([torch.tensor([chat.virtual]), ids], 1)).logits[:, 5:]
        assert torch.allclose(logits[..., : len(tokenizer())], apart(ids).logits[:, 5:], atol=1e-4)
        assert torch.equal(logits[..., chat.virtual], logits[..., [chat.opening]].expand(-1, -1, 5))
        assert float(trained_decoder(merged)(**batch).loss) == pytest.approx(learnt, abs=0.02)  # all but what the opening token takes, five times


def test_the_template_begins_with_the_tokens_and_no_text_can_write_them(tmp_path: Path) -> None:
    mine = extended(tmp_path)
    chat = Chat(mine)
    assert chat.virtual == list(range(len(tokenizer()), len(tokenizer()) + 5)) and Chat(tokenizer()).virtual == []
    write_template(tmp_path, chat)
    template = (tmp_path / "chat_template.jinja").read_text()
    for text in dialogues(3):
        whole = mine.apply_chat_template(messages(text), chat_template=template, tokenize=False)
        (spoken,) = chat.encode([messages(text)])
        assert spoken.ids == mine(whole, add_special_tokens=False)["input_ids"] and spoken.ids[:6] == [*chat.virtual, chat.opening]
        assert spoken.ids[5:] == encoded([text])[0].ids and not any(spoken.answers[:6])
    (spoken,) = chat.encode([messages("<|prompt_0|> hi\nho")])
    assert spoken.ids.count(chat.virtual[0]) == 1


def test_whatever_is_cut_off_the_prompt_stands_at_the_beginning(tmp_path: Path) -> None:
    mine = extended(tmp_path)
    chat, long, room = Chat(mine), messages("sky " * 200), 3
    (pair,) = encode([Pair("1", "train", long, "yes", "no")], chat, LONGEST)
    assert pair.prompt[:5] == chat.virtual != pair.prompt[5:10] and len(pair.prompt) + max(map(len, pair[2:])) == LONGEST
    longer = max(map(len, pair[2:]))
    (least,) = encode([Pair("1", "train", long, "yes", "no")], chat, longer + 5 + room)
    assert least.prompt == [*chat.virtual, *pair.prompt[-room:]]
    assert encode([Pair("1", "train", long, "yes", "no")], chat, longer + 5) == []
    (asked,) = Rollouts(mine, 12, LONGEST).encode([long])
    assert asked[:5] == chat.virtual and len(asked) == LONGEST - 12 and asked[-room:] == pair.prompt[-room:]
    (short,) = Rollouts(mine, 12, LONGEST).encode([messages("sky")])
    assert short[:6] == [*chat.virtual, chat.opening]


def test_replies_are_ranked_behind_the_prompt(tmp_path: Path) -> None:
    chat = Chat(extended(tmp_path))
    tuned(checkpoint(), tmp_path, chat)
    merge(checkpoint(), tmp_path / FOLDER, tmp_path, chat)
    scorer = Assistant(tmp_path, tmp_path, LONGEST)
    (found,) = scorer.likelihoods([messages("sky " * 200 + "\nblue")], last=True)
    (whole,) = chat.encode([messages("sky " * 200 + "\nblue")])
    end = whole.ids[: -len(chat.after)]
    ids = torch.tensor([[*chat.virtual, *end[5 - LONGEST :]]])
    with torch.no_grad():
        scores = scorer.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])
    assert found.nats == pytest.approx(-float(scores[-found.tokens :].sum()), rel=1e-4) and found.bytes == 4


@pytest.mark.parametrize(("architecture", "tied"), [("gemma", True), ("qwen3", False)])
def test_other_shapes_are_merged_alike(architecture: Architecture, tied: bool, tmp_path: Path) -> None:
    """Gemma multiplies its embeddings when it looks them up; a head of its own is kept."""
    torch.manual_seed(2)
    shape = DecoderShape.model_validate({**SHAPE.model_dump(), "architecture": architecture, "tied": tied})
    base = tmp_path / "base"
    new_decoder(shape, tokenizer(), len(tokenizer()), LONGEST).save_pretrained(base)
    chat = Chat(extended(tmp_path))
    tuned(base, tmp_path, chat)
    merge(base, tmp_path / FOLDER, tmp_path, chat)
    merged, apart = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), unmerged(base, tmp_path / FOLDER)
    ids = torch.tensor([Chat(tokenizer()).encode([messages(PROMPTS[0])], prompt=True)[0].ids])
    with torch.no_grad():
        logits = merged(torch.cat([torch.tensor([chat.virtual]), ids], 1)).logits[:, 5:]
        assert torch.allclose(logits[..., : len(tokenizer())], apart(ids).logits[:, 5:], atol=1e-4)
