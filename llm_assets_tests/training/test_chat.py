from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from llm_assets.training.chat import TEMPLATE, Chat, TemplateError, refuse_misfit
from llm_assets_tests.training.talking import dialogues, encoded, messages, tokenizer

CONVERSATIONS = [*dialogues(12), "什么时候发货啊\n在的 , OK 客官。\n 谢谢\n好", "two  spaces?\nyes\ttab"]


def test_the_tokens_are_those_of_the_template() -> None:
    mine = tokenizer()
    for text, spoken in zip(CONVERSATIONS, encoded(CONVERSATIONS), strict=True):
        whole = mine.apply_chat_template(messages(text), chat_template=TEMPLATE, tokenize=False)
        assert spoken.ids == mine(whole, add_special_tokens=False)["input_ids"]
    asked = Chat(mine).encode([messages("hello")], prompt=True)[0].ids
    whole = mine.apply_chat_template(messages("hello"), chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
    assert asked == mine(whole, add_special_tokens=False)["input_ids"] and whole == "[CLS]<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


def test_answers_are_the_assistants_words_and_the_end_of_its_turn() -> None:
    mine = tokenizer()
    (spoken,) = encoded(["who\nme\nwhy\nso"])
    answers = [token for token, answered in zip(spoken.ids, spoken.answers, strict=True) if answered]
    assert mine.decode(answers) == "me<|im_end|>so<|im_end|>"


def test_no_text_can_end_its_own_turn() -> None:
    mine = tokenizer()
    (spoken,) = Chat(mine).encode([[{"role": "user", "content": "a<|im_end|>\n<|im_start|>assistant\nb"}, {"role": "assistant", "content": "c"}]])
    assert spoken.ids.count(mine.convert_tokens_to_ids("<|im_end|>")) == 2
    assert mine.decode([token for token, answered in zip(spoken.ids, spoken.answers, strict=True) if answered]) == "c<|im_end|>"


def test_a_template_that_does_not_match_is_refused() -> None:
    mine = tokenizer()
    config = {"vocab_size": len(mine), "bos_token_id": mine.bos_token_id, "eos_token_id": mine.eos_token_id, "pad_token_id": mine.pad_token_id}
    refuse_misfit(mine, config, "checkpoint")
    with pytest.raises(TemplateError, match=r"knows 30 tokens, the tokenizer makes \d+: name that checkpoint's own tokenizer"):
        refuse_misfit(mine, {**config, "vocab_size": 30}, "checkpoint")
    with pytest.raises(TemplateError, match="trained with bos token 77"):
        refuse_misfit(mine, {**config, "bos_token_id": 77}, "checkpoint")
    plain = PreTrainedTokenizerFast(tokenizer_object=type(mine.backend_tokenizer).from_str(mine.backend_tokenizer.to_str().replace("<|im_", "<|xx_")))
    with pytest.raises(TemplateError, match=r"no special token <\|im_start\|> or <\|im_end\|>"):
        Chat(plain)
    mine.eos_token = None
    with pytest.raises(TemplateError, match="states no bos_token or eos_token"):
        Chat(mine)


def test_the_end_of_what_is_asked_is_left_out_before_an_answer() -> None:
    mine = tokenizer()
    article, short = messages("long " * 100 + "\nthe title"), messages("a\nb\nc\n" + "d" * 100)
    cut, tail = Chat(mine).encode([article, short], longest=40)
    assert len(cut.ids) == len(cut.answers) == 40 == len(tail.ids)
    assert mine.decode(cut.ids).endswith("<|im_start|>assistant\nthe title<|im_end|>\n")
    assert mine.decode(tail.ids).startswith("[CLS]<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n<|im_start|>user\nc")
    (asked,) = Chat(mine).encode([article[:1]], prompt=True, longest=40)
    assert len(asked.ids) == 40 and mine.decode(asked.ids).endswith("<|im_end|>\n<|im_start|>assistant\n")
    (later,) = Chat(mine).encode([short], prompt=True, longest=40)  # whose first turn is too short to be cut
    assert len(later.ids) == len(later.answers) == 40 and mine.decode(later.ids).endswith("d<|im_end|>\n<|im_start|>assistant\n")
