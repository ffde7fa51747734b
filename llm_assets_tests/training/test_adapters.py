from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm_assets.training.adapters import FOLDER, Adapter, Kind, adapted, merge, save, unmerged
from llm_assets.training.causal import trained_decoder
from llm_assets.training.conversation import CollateConversations
from llm_assets_tests.training.talking import LONGEST, checkpoint, dialogues, encoded, learn, said, tokenizer

PROMPTS = [text.split("\n")[0] for text in dialogues(100)]


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora", "pissa", "ia3"])
def test_a_merged_adapter_says_what_it_said_unmerged(kind: Kind, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = adapted(trained_decoder(AutoModelForCausalLM.from_pretrained(checkpoint())), Adapter(kind=kind, rank=4), 40, len(tokenizer()))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert 0 < sum(map(torch.numel, trained)) < 0.3 * sum(map(torch.numel, model.parameters()))
    batch = CollateConversations(tokenizer().pad_token_id, LONGEST * 4)([encoded(dialogues(8))[:4], encoded(dialogues(8))[4:]])
    learn(model, batch, 2e-2)
    with torch.no_grad():
        learnt = float(model.eval()(**batch).loss)
    save(model, tmp_path)
    assert "/" not in (tmp_path / FOLDER / "adapter_config.json").read_text()  # no path of this machine
    merge(checkpoint(), tmp_path)

    merged, apart = AutoModelForCausalLM.from_pretrained(tmp_path).eval(), unmerged(checkpoint(), tmp_path / FOLDER)
    assert said(merged, PROMPTS) == said(apart, PROMPTS)
    with torch.no_grad():  # a model of so few steps answers many prompts alike, so what it thinks of them is compared, too
        for prompt in PROMPTS[:10]:
            ids = torch.tensor([tokenizer().encode(prompt)])
            assert torch.allclose(merged(ids).logits, apart(ids).logits, atol=1e-3)
    assert said(merged, PROMPTS[:10]) != said(AutoModelForCausalLM.from_pretrained(checkpoint()).eval(), PROMPTS[:10])
    with torch.no_grad():  # what was saved is what was trained
        assert float(trained_decoder(merged)(**batch).loss) == pytest.approx(learnt, abs=1e-4)
