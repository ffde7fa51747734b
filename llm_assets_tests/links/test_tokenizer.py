from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.pii import MASKS
from llm_assets.corpus.vocabulary import SPECIAL, TURNS, bytes_of_tokens, train
from llm_assets.links.making import Outcome
from llm_assets.links.tokenizer import TokenizerConfig, _lossy, observe_existing
from llm_assets.store.store import Store
from llm_assets_tests.corpus.material import SECTIONS, altered, judge, run

TEXTS = ["这家酒店的早餐很好", "酒店的位置不错,早餐一般", "the hotel was fine, 3 stars", "酒店酒店酒店"] * 5
CONFIG = TokenizerConfig(vocabulary=600, alphabet=60)
TRAINED = train(CONFIG, TEXTS)
IN_BYTES = train(CONFIG.model_copy(update={"kind": "byte_bpe"}), TEXTS)


def test_the_slice_gives_a_tokenizer_that_transformers_loads_offline(corpus: dict[str, Outcome]) -> None:
    from transformers import PreTrainedTokenizerFast

    outcome = corpus["tokenizer"]
    assert all(verdict.passed for verdict in outcome.verdicts)
    loaded = PreTrainedTokenizerFast.from_pretrained(outcome.artifact.directory)
    assert len(loaded) == outcome.artifact.metrics["vocabulary"] == SECTIONS["tokenizer"]["vocabulary"]
    assert {role: getattr(loaded, role) for role in SPECIAL} == SPECIAL
    assert loaded.convert_ids_to_tokens(loaded("好").input_ids)[:: len(loaded("好").input_ids) - 1] == ["[CLS]", "[SEP]"]
    text = "电话[PHONE],3 < 5 的🎉生僻字龘\n"
    assert loaded.decode(loaded(text).input_ids, skip_special_tokens=True) == text
    assert outcome.artifact.metrics["unknown_share"] == 0


@pytest.mark.parametrize("kind, first", [("bpe", TRAINED), ("byte_bpe", IN_BYTES)])
def test_the_same_texts_give_the_same_tokenizer(kind: str, first: Tokenizer) -> None:
    assert train(CONFIG.model_copy(update={"kind": kind}), TEXTS).to_str() == first.to_str()


@pytest.mark.parametrize("kind", ["bpe", "words"])
def test_lowercase_forgets_case_and_leaves_masks_alone(kind: str) -> None:
    texts = ["The Hotel was FINE, thank you [NAME]", "the hotel was fine, thank you [NAME]"] * 5
    small = train(CONFIG.model_copy(update={"kind": kind, "lowercase": True}), texts)
    assert small.encode(texts[0]).ids == small.encode(texts[1]).ids
    assert small.decode(small.encode(texts[0], add_special_tokens=False).ids, skip_special_tokens=False) == texts[1]
    assert _lossy(small, texts) == 0
    large = train(CONFIG.model_copy(update={"kind": kind}), texts)
    assert large.encode(texts[0]).ids != large.encode(texts[1]).ids


def test_masks_of_personal_data_are_never_split_and_their_letters_are_no_words() -> None:
    for token in MASKS.values():
        assert TRAINED.encode(f"打{token}找", add_special_tokens=False).tokens.count(token) == 1
    masked = train(CONFIG, [*TEXTS, *["[NAME]的[ADDRESS]"] * 50])
    assert masked.get_vocab_size() == train(CONFIG, [*TEXTS, *["的"] * 50]).get_vocab_size()
    assert not {"NAME", "[NAM", "ADDRESS"} & set(masked.get_vocab())


@pytest.mark.parametrize("encoder", [TRAINED, IN_BYTES], ids=["bpe", "byte_bpe"])
@given(text=st.text(max_size=40))
def test_decoding_gives_any_text_back_without_unknowns_and_its_tokens_write_its_bytes(encoder: Tokenizer, text: str) -> None:
    if any(token in text for token in (*SPECIAL.values(), *TURNS)):
        return
    encoding = encoder.encode(text, add_special_tokens=False)
    assert encoder.decode(encoding.ids, skip_special_tokens=False) == text
    assert "[UNK]" not in encoding.tokens
    lengths = bytes_of_tokens(encoder)
    assert sum(lengths[number] for number in encoding.ids) == len(text.encode())


def test_a_decoders_vocabulary_is_of_bytes_in_qwen2s_pieces_with_the_turns_of_a_conversation() -> None:
    assert IN_BYTES.encode("酒店").tokens == ["[CLS]", "éħĴåºĹ", "[SEP]"]  # GPT-2's letters for the six bytes
    assert IN_BYTES.encode("It's 12\n\nok", add_special_tokens=False).offsets[1:6] == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]
    pieces = IN_BYTES.pre_tokenizer.pre_tokenize_str("It's 12\n\nok 了")
    assert [place for _, place in pieces] == [(0, 2), (2, 4), (4, 5), (5, 6), (6, 7), (7, 9), (9, 11), (11, 13)]  # digits one by one
    assert IN_BYTES.normalizer is None
    lengths = bytes_of_tokens(IN_BYTES)
    for token in (*SPECIAL.values(), *TURNS):
        assert lengths[IN_BYTES.token_to_id(token)] == 0  # stands for no text
    for mask in MASKS.values():
        assert IN_BYTES.encode(f"打{mask}找", add_special_tokens=False).tokens.count(mask) == 1
        assert lengths[IN_BYTES.token_to_id(mask)] == len(mask)


def test_a_decoders_tokenizer_opens_loads_and_passes_its_checks(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    from transformers import AutoTokenizer

    outcome = run(Store(tmp_path), "tokenizer", {"kind": "byte_bpe", "vocabulary": 700}, {"clean_corpus": corpus["clean_corpus"].artifact})
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    assert outcome.artifact.metrics["vocabulary"] == 700 and 0 < outcome.artifact.metrics["byte_share"] < 1
    loaded = AutoTokenizer.from_pretrained(outcome.artifact.directory)
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("[CLS]", "[SEP]", "[PAD]")
    assert loaded.extra_special_tokens == list(TURNS) and len(loaded) == 700
    assert loaded.decode(loaded("好的[PHONE]<|im_end|>").input_ids, skip_special_tokens=True) == "好的[PHONE]"


@pytest.mark.parametrize("kind", ["bpe", "byte_bpe"])
def test_sentinels_are_special_the_last_entries_and_no_part_of_a_recipe_without_them(kind: str) -> None:
    plain, config = (TokenizerConfig(kind=kind, vocabulary=700, alphabet=60, sentinels=count) for count in (0, 3))
    encoder = train(config, TEXTS)
    names = [f"<extra_id_{number}>" for number in range(3)]
    last = encoder.get_vocab_size()
    assert [encoder.token_to_id(name) for name in names] == [last - 3, last - 2, last - 1] and last <= 700
    assert encoder.encode("酒<extra_id_1>店", add_special_tokens=False).tokens.count("<extra_id_1>") == 1
    assert encoder.decode(encoder.encode("酒<extra_id_1>店").ids, skip_special_tokens=True) == "酒店"
    assert bytes_of_tokens(encoder)[-3:] == [0, 0, 0]
    assert "sentinels" not in plain.recipe() and config.recipe() == {**plain.recipe(), "sentinels": 3}
    assert config.settings()["extra_special_tokens"][-3:] == names
    assert plain.settings().get("extra_special_tokens") == (list(TURNS) if kind == "byte_bpe" else None)


def test_an_existing_tokenizer_is_taken_over_and_hashed_in(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    clean, own = corpus["clean_corpus"].artifact, corpus["tokenizer"].artifact
    store, folder = Store(tmp_path / "home"), tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(SourceError, match=r"tokenizer\.json.* is not there"):
        run(store, "tokenizer", {"existing": str(folder)}, {"clean_corpus": clean})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(own.path(name).read_bytes())
    outcome = run(store, "tokenizer", {"existing": str(folder)}, {"clean_corpus": clean})
    assert outcome.artifact.path("tokenizer.json").read_bytes() == own.path("tokenizer.json").read_bytes()
    assert all(verdict.passed for verdict in outcome.verdicts)
    (folder / "tokenizer.json").write_text(TRAINED.to_str())
    assert run(store, "tokenizer", {"existing": str(folder)}, {"clean_corpus": clean}).artifact.fingerprint != outcome.artifact.fingerprint


def test_a_relative_existing_tokenizer_is_looked_up_in_the_data_root(
    tmp_path: Path, corpus: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_ASSETS_HOME", str(tmp_path))
    shutil.copytree(corpus["tokenizer"].artifact.directory, tmp_path / "tokenizers" / "mine")
    assert set(observe_existing(TokenizerConfig(existing="tokenizers/mine"))) == {"tokenizer.json", "tokenizer_config.json"}


def test_checks_fail(tmp_path: Path, corpus: dict[str, Outcome]) -> None:
    clean, own = corpus["clean_corpus"].artifact, corpus["tokenizer"].artifact

    def check(name: str, description: dict) -> bool:  # type: ignore[type-arg]
        broken = altered(own, tmp_path / name, "tokenizer", tokenizer__json=description)
        return judge("tokenizer", name, broken, clean_corpus=clean).passed

    described = json.loads(own.path("tokenizer.json").read_text())
    assert not check("special_tokens", {**described, "post_processor": None})
    unknown = {**described, "model": {**described["model"], "byte_fallback": False}}
    assert not check("round_trip", unknown)
    assert not check("few_unknown", unknown)
    without_mask = json.loads(own.path("tokenizer_config.json").read_text()) | {"mask_token": "[HIDE]"}
    broken = altered(own, tmp_path / "mask", "tokenizer", tokenizer_config__json=without_mask)
    assert not judge("tokenizer", "special_tokens", broken, clean_corpus=clean).passed


@pytest.mark.parametrize("kind", ["unigram", "words"])
def test_every_kind_gives_any_text_back_without_unknowns(kind: str) -> None:
    trained = train(TokenizerConfig(kind=kind, vocabulary=600, alphabet=60), TEXTS)
    assert trained.get_vocab_size() <= 600 and set(SPECIAL.values()) <= set(trained.get_vocab())
    for text in (*TEXTS[:4], "", "好", "电话[PHONE],3 < 5 的🎉生僻字龘\n", " 空 格 "):
        encoding = trained.encode(text, add_special_tokens=False)
        assert trained.decode(encoding.ids, skip_special_tokens=False) == text and "[UNK]" not in encoding.tokens
    assert trained.encode("好").tokens == ["[CLS]", "好", "[SEP]"]
    assert "酒店" in trained.encode("这家酒店", add_special_tokens=False).tokens[-1]


def test_a_stop_word_has_no_entry_and_keeps_its_characters() -> None:
    settings = {"kind": "words", "vocabulary": 600, "alphabet": 60}
    assert "酒店" in train(TokenizerConfig(**settings), TEXTS).get_vocab()
    without = train(TokenizerConfig(**settings, stop_words=["酒店"]), TEXTS)
    assert "酒店" not in without.get_vocab() and without.encode("酒店", add_special_tokens=False).tokens == ["酒", "店"]
