"""A tuned prefix: each conversation of a packed block sees it and none of the others, as PEFT's cache shows it to one alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llm_assets.evaluation.assistant import Assistant
from llm_assets.evaluation.encoder_decoder import assistant
from llm_assets.training.adapters import FOLDER, Adapter, adapted, is_prefixed, save, unmerged
from llm_assets.training.causal import trained_decoder
from llm_assets.training.conversation import CollateConversations
from llm_assets.training.decoders import Architecture, DecoderShape, new_decoder
from llm_assets.training.prefixes import keep
from llm_assets_tests.training.talking import LONGEST, SHAPE, checkpoint, dialogues, encoded, learn, messages, said, tokenizer, tokenizer_folder

COUNT = 5
ADAPTER = Adapter(kind="prefix", tokens=COUNT)
PROMPTS = [text.split("\n")[0] for text in dialogues(40)]


def begun(base: Path) -> Any:
    torch.manual_seed(1)
    return adapted(trained_decoder(AutoModelForCausalLM.from_pretrained(base)), ADAPTER, 40, len(tokenizer()))


def packed(conversations: list[Any]) -> dict[str, Any]:
    """Two blocks of several conversations each."""
    half = len(conversations) // 2
    return CollateConversations(tokenizer().pad_token_id, LONGEST * half)([conversations[:half], conversations[half:]])


def alone(model: Any, conversations: list[Any]) -> float:
    """PEFT's mean loss of the assistant's tokens, a conversation at a time."""
    nats, tokens = 0.0, 0
    for one in conversations:
        scores = model(input_ids=torch.tensor([one.ids])).logits[0, :-1].log_softmax(-1)
        places = [place for place, answered in enumerate(one.answers[1:]) if answered]
        nats -= float(sum(scores[place, one.ids[place + 1]] for place in places))
        tokens += len(places)
    return nats / tokens


def tuned(base: Path, folder: Path) -> tuple[Any, dict[str, Any], list[Any]]:
    """A model whose prefix learnt something, saved in ``folder``; and what it learnt from."""
    model, conversations = begun(base), encoded(dialogues(8))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 1 and trained[0].shape[0] == COUNT
    batch = packed(conversations)
    learn(model, batch, 0.05)
    assert [name for name, parameter in model.named_parameters() if parameter.grad is not None and "prompt_encoder" not in name] == []
    save(model, folder)
    keep(base, folder)
    return model.eval(), batch, conversations


def test_each_packed_conversation_sees_the_prefix_and_no_other_as_in_pefts_cache(tmp_path: Path) -> None:
    model, batch, conversations = tuned(checkpoint(), tmp_path)
    apart = unmerged(checkpoint(), tmp_path / FOLDER)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        learnt = float(model(**batch).loss)
        assert learnt == pytest.approx(alone(apart, conversations), abs=1e-4)
        assert alone(plain, conversations) > learnt + 0.5  # what is learnt stands in the adapter and in no weight
        other = encoded(dialogues(60)[40:48])
        mixed = [conversations[0], *other[:3], conversations[1], *other[3:6]]
        own = CollateConversations(tokenizer().pad_token_id, LONGEST)([[conversations[0]], [conversations[1]]])
        hidden: list[torch.Tensor] = []
        hook = model.base_model.model.register_forward_hook(lambda _module, _given, out: hidden.append(out[0]))
        for blocks in (packed(mixed), own):
            model(**blocks)
        hook.remove()
        for row in (0, 1):  # whatever stands beside it
            length = len(conversations[row].ids)
            assert torch.allclose(hidden[0][row, :length], hidden[1][row, :length], atol=1e-5)


def test_a_prefix_begins_as_tokens_that_stand_before_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the keys, which the cache holds rotated, and the positions of the text are laid as the model itself would."""
    drawn: list[torch.Tensor] = []
    draw = torch.randint
    monkeypatch.setattr(torch, "randint", lambda *given: drawn.append(draw(*given)) or drawn[-1])
    model, conversations = begun(checkpoint()), encoded(dialogues(6))
    (ids,) = drawn
    assert ids.shape == (1, COUNT) and len(set(ids[0].tolist())) > 1
    base = AutoModelForCausalLM.from_pretrained(checkpoint()).eval()

    def after_tokens(input_ids: torch.Tensor) -> Any:
        out = base(torch.cat([ids, input_ids], 1))
        out.logits = out.logits[:, COUNT:]
        return out

    with torch.no_grad():
        assert float(model(**packed(conversations)).loss) == pytest.approx(alone(after_tokens, conversations), abs=1e-4)


@pytest.mark.parametrize("architecture", ["qwen3", "gemma", "glm"])
def test_other_shapes_see_it_alike(architecture: Architecture, tmp_path: Path) -> None:
    torch.manual_seed(2)
    shape = DecoderShape.model_validate({**SHAPE.model_dump(), "architecture": architecture})
    new_decoder(shape, tokenizer(), len(tokenizer()), LONGEST).save_pretrained(tmp_path / "base")
    model, batch, conversations = tuned(tmp_path / "base", tmp_path)
    with torch.no_grad():
        assert float(model(**batch).loss) == pytest.approx(alone(unmerged(tmp_path / "base", tmp_path / FOLDER), conversations), abs=1e-4)


def test_a_folder_is_scored_and_answers_with_its_prefix(tmp_path: Path) -> None:
    model, batch, _ = tuned(checkpoint(), tmp_path)
    assert is_prefixed(tmp_path) and not is_prefixed(checkpoint())
    mine, bare = assistant(tmp_path, tokenizer_folder(), LONGEST), Assistant(tmp_path, tokenizer_folder(), LONGEST)
    found, without = (one.likelihoods([messages(text) for text in dialogues(8)]) for one in (mine, bare))
    with torch.no_grad():
        assert sum(one.nats for one in found) / sum(one.tokens for one in found) == pytest.approx(float(model(**batch).loss), abs=1e-4)
    assert sum(one.nats for one in found) < sum(one.nats for one in without)
    answers = said(mine.model, PROMPTS)  # padded on the left, as they are asked
    assert answers != said(bare.model, PROMPTS)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        (one,) = said(mine.model, [prompt])
        assert answer[: len(one)] == one


def test_what_is_kept_is_pefts_form_and_the_checkpoints_weights(tmp_path: Path) -> None:
    tuned(checkpoint(), tmp_path)
    assert "/" not in (tmp_path / FOLDER / "adapter_config.json").read_text()  # no path of this machine
    (learnt,) = load_file(tmp_path / FOLDER / "adapter_model.safetensors").values()
    assert tuple(learnt.shape) == (COUNT, 2 * SHAPE.layers * SHAPE.key_value_heads * SHAPE.head)
    kept, base = (load_file(folder / "model.safetensors") for folder in (tmp_path, checkpoint()))
    assert kept.keys() == base.keys() and all(torch.equal(kept[name], base[name]) for name in base)
