from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from llm_assets.evaluation.assistant import Assistant
from llm_assets.evaluation.encoder_decoder import EncoderDecoder
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, messages, reading_checkpoint, said, tokenizer, tokenizer_folder


def test_likelihoods_are_the_logits_at_the_assistants_tokens() -> None:
    mine = Assistant(checkpoint(), tokenizer_folder(), LONGEST)
    texts = [*dialogues(20), "a\nb\nc\ndd"]
    every, last = mine.likelihoods([messages(text) for text in texts]), mine.likelihoods([messages(text) for text in texts], last=True)
    (one,) = mine.chat.encode([messages(texts[-1])])
    with torch.no_grad():
        logits = mine.model(input_ids=torch.tensor([one.ids])).logits[0]
    costs = {place: float(cross_entropy(logits[place - 1], torch.tensor(one.ids[place]))) for place, answered in enumerate(one.answers) if answered}
    assert every[-1].nats == pytest.approx(sum(costs.values()), rel=1e-5) and every[-1].tokens == len(costs) and every[-1].bytes == 3
    ends = tokenizer().convert_tokens_to_ids("<|im_end|>")
    after = one.ids.index(ends, one.ids.index(ends) + 1)  # of the assistant's first turn
    assert last[-1].nats == pytest.approx(sum(cost for place, cost in costs.items() if place > after), rel=1e-5) and last[-1].bytes == 2
    long = mine.likelihoods([messages("x" * 500 + "\nyes")], last=True)[0]
    assert long.bytes == 3  # the end is what is kept


def test_a_long_prompt_leaves_room_for_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the model is: a decoder would write beyond its context, and an encoder-decoder read more than it was taught with."""
    long = [{"role": "user", "content": "Title? " + "sky " * 200}]
    for mine in (Assistant(checkpoint(), tokenizer_folder(), LONGEST), EncoderDecoder(reading_checkpoint(), tokenizer_folder(), LONGEST)):
        seen: list[list[int]] = []
        monkeypatch.setattr(mine, "_said", lambda prompts, tokens, seen=seen: seen.extend(prompts) or [[5]] * len(prompts))
        mine.answers([long], 8)
        (prompt,) = seen
        shown = mine.tokenizer.decode(prompt)
        assert len(prompt) == LONGEST - 8 and shown.startswith("[CLS]<|im_start|>user\nTitle? sky") and shown.endswith("<|im_start|>assistant\n")
        taught = mine.chat.encode([[*long, {"role": "assistant", "content": "blue"}]], longest=LONGEST)[0].ids
        assert taught[: len(prompt) - 12] == prompt[:-12]  # the same end of the article is left out where it is learnt from


def test_answers_are_greedy_whatever_the_batch() -> None:
    mine = Assistant(checkpoint(), tokenizer_folder(), LONGEST)
    prompts = [text.split("\n")[0] for text in dialogues(20)]
    together = mine.answers([messages(prompt) for prompt in prompts], 8)
    assert together == [tokenizer().decode(ids, skip_special_tokens=True).strip() for prompt in prompts for ids in said(mine.model, [prompt], 8)]
