from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from llm_assets.evaluation.assistant import Assistant
from llm_assets.evaluation.encoder_decoder import EncoderDecoder, assistant
from llm_assets.training.chat import answers_of
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, messages, reading_checkpoint, tokenizer, tokenizer_folder


def reader() -> EncoderDecoder:
    return EncoderDecoder(reading_checkpoint(), tokenizer_folder(), LONGEST)


def test_the_folder_says_which_it_is() -> None:
    found = [type(assistant(folder, tokenizer_folder(), LONGEST)) for folder in (checkpoint(), reading_checkpoint())]
    assert found == [Assistant, EncoderDecoder]


def test_likelihoods_are_the_logits_of_each_answer_to_what_was_said_before() -> None:
    mine = reader()
    texts = [*dialogues(20), "a\nb\nc\ndd"]
    every, last = mine.likelihoods([messages(text) for text in texts]), mine.likelihoods([messages(text) for text in texts], last=True)
    (one,) = mine.chat.encode([messages(texts[-1])])
    costs = []
    for answer in answers_of(one):
        given = torch.tensor([[mine.model.config.decoder_start_token_id, *answer.target[:-1]]])
        with torch.no_grad():
            logits = mine.model(input_ids=torch.tensor([answer.source]), decoder_input_ids=given).logits[0]
        costs.append(float(cross_entropy(logits, torch.tensor(answer.target), reduction="sum")))
    assert len(costs) == 2 and every[-1].nats == pytest.approx(sum(costs), rel=1e-5) and every[-1].bytes == 3
    assert last[-1].nats == pytest.approx(costs[1], rel=1e-5) and last[-1].bytes == 2
    assert mine.likelihoods([messages("x" * 500 + "\nyes")], last=True)[0].bytes == 3
    assert mine.likelihoods([messages("nobody answers")]) == [(0.0, 0, 0)]


def test_answers_are_greedy_whatever_the_batch_and_follow_the_source() -> None:
    mine = reader()
    prompts = [messages(text.split("\n")[0]) for text in dialogues(20)]
    together = mine.answers(prompts, 8)
    assert together == [mine.answers([prompt], 8)[0] for prompt in prompts]
    assert len(set(together)) > 1 and all(answer for answer in together)


def test_where_an_answer_looked_is_in_whole_characters_and_a_row_adds_up_to_one() -> None:
    mine = reader()
    looked = mine.looked(messages("what colour has the 天空?"), 8)
    assert looked.weights.shape == (len(looked.answer), len(looked.source))
    assert looked.weights.sum(1).tolist() == pytest.approx([1.0] * len(looked.answer))
    assert "天" in looked.source and "空" in looked.source and "\N{REPLACEMENT CHARACTER}" not in "".join(looked.source)
    (prompt,) = mine.chat.encode([messages("what colour has the 天空?")], prompt=True)
    assert "".join(looked.source) == tokenizer().decode(prompt.ids)


def test_an_answers_attention_is_that_of_a_calculation_by_hand() -> None:
    """The last layer's queries times its keys, unscaled as T5 has them, and the mean of the heads."""
    mine = reader()
    asked = messages("what colour has the sky?")
    (prompt,) = mine.chat.encode([asked], prompt=True)
    kept: dict[str, torch.Tensor] = {}
    attention = mine.model.decoder.block[-1].layer[1].EncDecAttention
    hooks = [getattr(attention, name).register_forward_hook(lambda _, __, out, name=name: kept.setdefault(name, out)) for name in "qk"]
    start = torch.tensor([[mine.model.config.decoder_start_token_id]])
    with torch.no_grad():
        mine.model(input_ids=torch.tensor([prompt.ids]), decoder_input_ids=start)
    for hook in hooks:
        hook.remove()
    queries, keys = (kept[name][0].unflatten(-1, (2, 16)).transpose(0, 1) for name in "qk")  # [heads, tokens, 16]
    first = (queries @ keys.transpose(1, 2)).softmax(-1).mean(0)[0]
    assert mine.looked(asked, 8).weights[0].tolist() == pytest.approx(first.tolist(), abs=1e-5)  # every token a piece of its own
