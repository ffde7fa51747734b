"""The link aligned_model: one real training by DPO on wrong replies from a file and one by rewards, then their checks and refusals."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter, ValidationError
from transformers import AutoModelForCausalLM

from llm_assets.corpus.archives import SourceError
from llm_assets.corpus.batches import write_batch
from llm_assets.corpus.documents import doc_id
from llm_assets.corpus.sources import Source, observe
from llm_assets.links.aligned_model import ALIGNED, LINK, SHORTER, AlignedModelConfig, figures_of
from llm_assets.links.assistant_scores import FINETUNED, Asked
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.feedback_examples import Feedback
from llm_assets.links.making import Outcome, make
from llm_assets.links.rewarded_replies import reward_prompts
from llm_assets.store.artifact import Artifact
from llm_assets.store.store import Store
from llm_assets.store.verdict import Verdict
from llm_assets.training.chat import Chat, write_template
from llm_assets.training.pairs import Pair, replied
from llm_assets_tests.links.trained import COMPUTE, artifact, changed, launch_quietly, root
from llm_assets_tests.training.preferring import pairs
from llm_assets_tests.training.room import launch_in_room
from llm_assets_tests.training.talking import LONGEST, checkpoint, tokenizer, tokenizer_folder

TRAIN, VALIDATION, TEST = pairs(64), pairs(16, "validation", first=64), pairs(8, "test", first=80)
VOTED = ("Anna asks: what colour has mud?", "mud is pink", "mud is brown")  # what was asked, answered, and should have been
CONFIG = AlignedModelConfig.model_validate({
    "method": "dpo", "feedback": {"folder": str(root() / "aligned-feedback")},
    "sources": ["shop"], "epochs": 2, "evaluations_per_epoch": 1, "micro_batch": 4, "learning_rate": 5e-3, "processes": 2,
})  # fmt: skip

REWARDED = AlignedModelConfig.model_validate({
    "method": "grpo", "sources": ["shop"], "rewards": [{"kind": "mentions", "words": ["blue"], "weight": 3}, {"kind": "length", "most": 20}],
    "group": 4, "answer_tokens": 16, "epochs": 5, "evaluations_per_epoch": 1, "micro_batch": 16, "learning_rate": 5e-3, "beta": 0.01, "processes": 1,
    "allowed_rise": 9,
})  # fmt: skip


def text(pair: Pair) -> str:
    return "\n".join(turn["content"] for turn in replied(pair.prompt, pair.chosen))


def source(path: Path, name: str = "shop") -> dict[str, Any]:
    return {"kind": "files", "name": name, "path": str(path), "format": "dialogbot", "encoding": "utf-8", "license": "MIT", "language": "en"}


def corpus(folder: Path, *sources: dict[str, Any]) -> Artifact:
    """A raw corpus that read these sources as they are now."""
    made = artifact(folder, "raw_corpus", config={"sources": list(sources)})
    made.manifest.recipe["observed"] = {one["name"]: observe(TypeAdapter[Source](Source).validate_python(one)) for one in sources}
    return made


@functools.cache
def inputs() -> dict[str, Artifact]:
    """The corpus of dialogues with a true reply, and the file that holds the wrong ones too."""
    folders = {name: root() / "aligned" / name for name in ("raw_corpus", "labelled_examples", "evaluation_sets", "finetuned_model")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    every = (*TRAIN, *VALIDATION, *TEST)
    lines = [(label, pair.prompt[0]["content"], reply) for pair in every for label, reply in (("1", pair.chosen), ("0", pair.rejected))]
    path = root() / "aligned" / "shop.txt"
    path.write_text("".join("\t".join(line) + "\n" for line in [*lines, ("0", "who?", "nobody")]), encoding="utf-8")
    examples = [{"doc_id": pair.doc_id, "messages": replied(pair.prompt, pair.chosen), "task": "conversation", "source": "shop"} for pair in TRAIN]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(examples), folders["labelled_examples"] / "train.parquet")
    rows = [{"doc_id": doc_id(text(pair)), "text": text(pair), "label": "shop", "split": pair.split} for pair in (*VALIDATION, *TEST)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folders["evaluation_sets"] / "evaluation.parquet")
    members = pyarrow.table({"doc_id": [row["doc_id"] for row in rows]})
    pyarrow.parquet.write_table(members, folders["evaluation_sets"] / "members.parquet")
    for file in (*checkpoint().iterdir(), *tokenizer_folder().iterdir()):
        (folders["finetuned_model"] / file.name).write_bytes(file.read_bytes())
    write_template(folders["finetuned_model"], Chat(tokenizer()))
    configs: dict[str, dict[str, Any]] = {
        "labelled_examples": ConversationsConfig(sources=["shop"]).recipe(),
        "finetuned_model": {"max_length": LONGEST},
    }
    made = {name: artifact(folder, name, config=configs.get(name)) for name, folder in folders.items()}
    return {**made, "raw_corpus": corpus(folders["raw_corpus"], source(path), source(path, "plain") | {"format": "lines"})}


@functools.cache
def aligned() -> Outcome:
    """One launch, with one correction by users."""
    asked, answered, label = VOTED
    row = {"doc_id": doc_id(f"{asked}\n{label}"), "id": "chatcmpl-1", "index": 0, "at": "2026-11-20", "text": asked, "label": label, "votes": 1}
    write_batch(root() / "aligned-feedback", [{**row, "answered": answered, "provenance": "feedback"}])
    return make(Store(root() / "data"), LINK, CONFIG, {**inputs(), "compute": COMPUTE}, seed=1, launch=launch_quietly)


@functools.cache
def rewarded() -> Outcome:
    """Another, in one process."""
    return make(Store(root() / "data"), LINK, REWARDED, {**inputs(), "compute": COMPUTE}, seed=1, launch=launch_in_room)


def judged(made: Artifact, check: str) -> Verdict:
    return next(one for one in LINK.checks if one.name == check).judge(made, inputs())


def test_the_true_reply_becomes_the_likelier_one() -> None:
    outcome = aligned()
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    metrics, models = outcome.artifact.metrics, outcome.artifact.metrics["models"]
    assert metrics["feedback"]["pairs"] == 1 and set(outcome.artifact.manifest.recipe["observed"]["feedback"].values())
    assert metrics["pairs"] == {"train": 65, "validation": 16, "test": 8} and metrics["left_out"]["dialogue_not_in_corpus"] == 1
    for split in ("validation", "test"):
        before, after = models[FINETUNED][split], models[ALIGNED][split]
        assert after["preferred"] > before["preferred"] + 0.5 and after["preferred_per_byte"] > before["preferred_per_byte"]
        assert after["bits_per_byte"] > 0 and models[SHORTER][split] == {"preferred": 0.0}  # every true reply is the longer one
    assert metrics["steps"] == 16 and metrics["training_examples"] == 65
    assert {"alpha", "trl"} & set(outcome.artifact.manifest.libraries) == {"trl"}


def test_the_folder_is_what_the_rounding_link_reads() -> None:
    folder, finetuned = aligned().artifact.directory, inputs()["finetuned_model"].directory
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (folder / name).read_bytes() == (finetuned / name).read_bytes()
    before, after = (AutoModelForCausalLM.from_pretrained(one).state_dict() for one in (finetuned, folder))
    assert before.keys() == after.keys() and any(not before[name].equal(after[name]) for name in before)
    assert not list(folder.glob("README*"))  # TRL's own card


@pytest.mark.parametrize("made", [aligned, rewarded])
def test_no_file_beside_the_weights_holds_a_text(made: Callable[[], Outcome]) -> None:
    kept = list(made().artifact.directory.rglob("*.parquet"))
    assert {"pairs.parquet", "predictions.parquet"} <= {path.name for path in kept}
    strings = {str(value) for path in kept for row in pyarrow.parquet.read_table(path).to_pylist() for value in row.values()}
    texts = [said for pair in (*TRAIN, *VALIDATION, *TEST) for said in (pair.prompt[0]["content"], *pair.replies)]
    for said in (*texts, *VOTED):
        assert not [value for value in strings if said in value]


def test_without_feedback_the_recipe_is_what_it_was() -> None:
    plain = CONFIG.model_copy(update={"feedback": Feedback()})
    assert "feedback" not in plain.recipe() and CONFIG.recipe() == plain.recipe() | {"feedback": {"share": 0.5}}
    assert LINK.observe is not None and LINK.observe(plain) == {}


def test_replies_to_held_out_prompts_earn_more() -> None:
    outcome = rewarded()
    assert all(verdict.passed for verdict in outcome.verdicts), outcome.verdicts
    metrics, models = outcome.artifact.metrics, outcome.artifact.metrics["models"]
    assert metrics["prompts"] == {"train": 64, "validation": 16, "test": 8} and metrics["left_out"] == {"shared_with_held_out": 0, "asked_twice": 0}
    assert metrics["steps"] == 80 and metrics["training_prompts"] == 64 and metrics["method"] == "grpo"
    for split, count in (("validation", 16), ("test", 8)):
        before, after = models[FINETUNED][split], models[ALIGNED][split]
        assert before["prompts"] == after["prompts"] == count and after["reward_mentions"] > before["reward_mentions"]
        assert after["reward"] == pytest.approx((3 * after["reward_mentions"] + after["reward_length"]) / 4, abs=1e-4)
        assert metrics["gain"][split]["difference"] == pytest.approx(after["reward"] - before["reward"], abs=1e-4)
    assert metrics["gain"]["validation"]["interval"][0] > 0
    assert before["bits_per_byte"] == aligned().artifact.metrics["models"][FINETUNED]["test"]["bits_per_byte"]


def test_a_reward_that_did_not_rise_and_a_prompt_that_is_held_out_fail(tmp_path: Path) -> None:
    made = rewarded().artifact
    assert judged(made, "prefers_right").passed and not judged(changed(made, config={"required_gain": 0.9}), "prefers_right").passed
    rows = made.table("predictions.parquet").to_pylist()
    turned = [{**row, "model": {ALIGNED: FINETUNED, FINETUNED: ALIGNED}[row["model"]]} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(turned), tmp_path / "predictions.parquet")
    marks = made.table("pairs.parquet").to_pylist()
    held = next(row for row in marks if row["split"] == "test")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*marks, {**marks[0], "before": held["before"]}]), tmp_path / "pairs.parquet")
    worse = changed(made, directory=tmp_path)
    assert not judged(worse, "prefers_right").passed and not judged(worse, "pairs_apart").passed and judged(made, "pairs_apart").passed
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*marks, {**marks[0], "doc_id": "other"}]), tmp_path / "pairs.parquet")
    assert not judged(worse, "pairs_apart").passed  # asked twice


def test_prompts_begin_once_and_none_is_that_of_a_held_out_dialogue() -> None:
    given, extra = inputs(), replied(TEST[0].prompt, "another reply")
    rows = given["labelled_examples"].table("train.parquet").to_pylist()
    folder = root() / "aligned" / "more"
    folder.mkdir()
    rows += [{**rows[0], "doc_id": "again"}, {**rows[0], "doc_id": "held", "messages": extra}, {**rows[0], "doc_id": "else", "source": "other"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "train.parquet")
    asked = Asked.read(given["evaluation_sets"], ConversationsConfig(sources=["shop"]))
    more = changed(given["labelled_examples"], directory=folder)
    train, held, left_out = reward_prompts(["shop"], more, given["evaluation_sets"], asked)
    assert len(train) == 64 and len(held) == 24 and left_out == {"shared_with_held_out": 1, "asked_twice": 1}
    with pytest.raises(ValueError, match="no dialogue of other in split validation, test to reply to"):
        reward_prompts(["other"], more, given["evaluation_sets"], asked)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rewards": []}, "rewards are what grpo learns from, and grpo alone: the method is grpo, with 0 of them"),
        ({"method": "orpo"}, "the method is orpo, with 2 of them"),
        ({"rewards": [{"kind": "ends"}, {"kind": "ends"}]}, "rewards name ends more than once"),
        ({"micro_batch": 6}, r"micro_batch \(6\) must be a multiple of group \(4\)"),
        ({"feedback": {"folder": "feedback/shop"}}, "feedback is learned from as pairs, and grpo reads none"),
        ({"rewards": [{"kind": "polite"}]}, "does not match any of the expected tags: 'ends', 'length', 'same_script'"),
    ],
)
def test_settings_that_do_not_go_with_rewards_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        AlignedModelConfig.model_validate(REWARDED.model_dump() | settings)


def test_rewards_need_no_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    assert AlignedModelConfig.model_validate(REWARDED.model_dump()).method == "grpo"
    with pytest.raises(ValidationError, match="which is not installed"):
        AlignedModelConfig.model_validate(CONFIG.model_dump())


def test_an_edited_reward_is_another_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "shop_manners.py").write_text("def polite(prompt, reply):\n    return 1.0\n", encoding="utf-8")
    own = {"kind": "own", "name": "polite", "function": "shop_manners:polite"}
    assert LINK.observe is not None
    seen = LINK.observe(AlignedModelConfig.model_validate(REWARDED.model_dump() | {"rewards": [own]}))
    assert seen.keys() == {"rewards"} and len(seen["rewards"]["polite"]) == 64 and LINK.observe(REWARDED) == {}


def test_shares_and_bits_by_hand() -> None:
    sides = [(1.0, 2, 4.0, 16), (3.0, 1, 2.0, 1), (2.0, 1, 2.0, 1)]  # nats and bytes of both replies: won and lost byte for byte, lost, a tie
    rows: list[dict[str, Any]] = [{"chosen_nats": a, "chosen_bytes": b, "rejected_nats": c, "rejected_bytes": d} for a, b, c, d in sides]
    rows += [{"nats": 0.6931472, "bytes": 1}, {"nats": 0.6931472, "bytes": 3}]
    assert figures_of(rows[3:]) == {"bits_per_byte": 0.5}
    assert figures_of(rows) == {"preferred": 0.5, "preferred_per_byte": pytest.approx(0.5 / 3, abs=1e-4), "pairs": 3, "bits_per_byte": 0.5}


def test_checks_fail(tmp_path: Path) -> None:
    made = aligned().artifact
    assert not judged(changed(made, config={"required_gain": 1.0}), "prefers_right").passed
    assert judged(made, "text_kept").passed
    rows = made.table("predictions.parquet").to_pylist()

    def kept(factor: float) -> bool:
        folder = tmp_path / str(factor)
        folder.mkdir()
        worse = [{**row, "nats": row["nats"] * (factor if row["model"] == ALIGNED else 1)} if row["nats"] is not None else row for row in rows]
        before = {row["doc_id"]: row["nats"] for row in rows if row["model"] == FINETUNED and row["nats"] is not None}
        worse = [{**row, "nats": before[row["doc_id"]] * factor} if row["model"] == ALIGNED and row["nats"] is not None else row for row in worse]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(worse), folder / "predictions.parquet")
        return judged(changed(made, config={"allowed_rise": 0.02}, directory=folder), "text_kept").passed

    assert kept(1.019) and not kept(1.021) and not kept(float("nan"))
    whole = made.table("pairs.parquet").to_pylist()

    def apart(rows: list[dict[str, Any]]) -> bool:
        folder = tmp_path / f"pairs-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "pairs.parquet")
        return judged(changed(made, directory=folder), "pairs_apart").passed

    held = next(row for row in whole if row["split"] == "validation")
    assert apart(whole) and not apart([*whole, whole[0]])
    assert not apart([{**whole[0], "rejected": held["chosen"]}, *whole[1:]])
    assert not apart([{**whole[0], "doc_id": doc_id(text(TEST[0]))}, *whole[1:]])


def test_a_gain_that_chance_explains_is_none(tmp_path: Path) -> None:
    made = aligned().artifact
    rows = made.table("predictions.parquet").to_pylist()
    pairs = {row["doc_id"]: row for row in rows if row["model"] == FINETUNED and row["chosen_nats"] is not None}
    wrong = [doc_id for doc_id, row in pairs.items() if row["split"] == "validation" and row["chosen_nats"] > row["rejected_nats"]]

    def prefers(won: Sequence[str]) -> bool:
        folder = tmp_path / str(len(won))
        folder.mkdir()
        after = [{**row, "model": ALIGNED, "chosen_nats": 0.0 if doc_id in won else row["chosen_nats"]} for doc_id, row in pairs.items()]
        kept = [row for row in rows if row["model"] == FINETUNED or row["chosen_nats"] is None]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([*kept, *after]), folder / "predictions.parquet")
        return judged(changed(made, directory=folder), "prefers_right").passed

    assert len(wrong) > 5 and prefers(wrong) and not prefers(wrong[:1]) and not prefers([])


def test_sources_that_give_no_pair_are_refused_before_training(tmp_path: Path) -> None:
    def refused(sources: list[str], **given: Artifact) -> None:
        config = CONFIG.model_copy(update={"sources": sources})
        make(Store(tmp_path), LINK, config, {**inputs(), "compute": COMPUTE, **given}, seed=1, launch=lambda *_: pytest.fail("launched"))

    with pytest.raises(ValueError, match="plain is no source of raw_corpus with wrong replies; these are: shop"):
        refused(["plain"])
    with pytest.raises(ValueError, match="elsewhere is no source"):
        refused(["elsewhere"])
    path = tmp_path / "right.txt"
    path.write_text("1\twho?\tme\n0\twho?\tnobody\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no dialogue of shop in split train, validation, test has a wrong reply"):
        refused(["shop"], raw_corpus=corpus(inputs()["raw_corpus"].directory, source(path)))
    known = corpus(inputs()["raw_corpus"].directory, source(path))
    path.write_text("1\twho?\tme\n0\twho?\tsomebody\n", encoding="utf-8")
    with pytest.raises(SourceError, match="source shop shows something else than what raw_corpus read: run the whole chain again"):
        refused(["shop"], raw_corpus=known)
    with pytest.raises(ValueError, match="no pair of some split fits into 8 tokens"):
        refused(["shop"], finetuned_model=changed(inputs()["finetuned_model"], config={"max_length": 8}))
