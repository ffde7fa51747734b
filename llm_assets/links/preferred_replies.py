"""What aligned_model does by pairs: the job, and which of two replies to held-out prompts is likelier before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.evaluation.predictions import SPLITS
from llm_assets.links import plots
from llm_assets.links.link import Bench
from llm_assets.links.preference_pairs import TRAIN
from llm_assets.links.training import draw_loss
from llm_assets.training.job import Preference, TrainingJob
from llm_assets.training.pairs import Pair, encode, replied, write

if TYPE_CHECKING:
    from llm_assets.evaluation.assistant import Assistant
    from llm_assets.links.aligned_model import AlignedModelConfig

CHANCE = 0.5


def preference_job(bench: Bench, config: AlignedModelConfig, pairs: Sequence[Pair], longest: int, start_from: Path) -> TrainingJob:
    """The job that aligns the decoder of ``start_from``; its examples are written in tokens beside it."""
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.chat import Chat

    assert config.method != "grpo"  # which has no pairs
    chat = Chat(PreTrainedTokenizerFast.from_pretrained(start_from, local_files_only=True))
    sizes = {
        split: write(
            bench.scratch / f"{split}.parquet", encode([pair for pair in pairs if pair.split == split], chat, longest), config.method, bench.seed
        )
        for split in (TRAIN, SPLITS[0])
    }
    if not all(sizes.values()):
        raise ValueError(f"aligned_model: no pair of some split fits into {longest} tokens ({sizes}): raise finetuned_model.max_length")
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
        **config.updates(sizes[TRAIN]),
        seed=bench.seed,
        **config.optimization(),
    )


def likelihoods(model: Assistant, held_out: Sequence[Pair], bench: Bench) -> list[dict[str, Any]]:
    """A row a held-out pair: how likely the model finds both replies."""
    replies = [replied(pair.prompt, reply) for pair in held_out for reply in pair.replies]
    found = iter(model.likelihoods(replies, last=True, progress=bench.progress))
    rows = []
    for pair in held_out:
        sides = {f"{side}_{key}": value for side in ("chosen", "rejected") for key, value in next(found)._asdict().items()}
        rows.append({"split": pair.split, "doc_id": pair.doc_id, **sides})
    return rows


def preferred_figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of one model's rows: the shares of pairs whose true reply is likelier; nothing where no row is a pair's."""
    pairs = _pairs(rows)
    if not pairs:
        return {}
    return {
        "preferred": _share([(row["chosen_nats"], row["rejected_nats"]) for row in pairs]),
        "preferred_per_byte": _share(list(map(_per_byte, pairs))),
        "pairs": len(pairs),
    }


def preferences(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The share of each held-out dialogue's pairs whose true reply is likelier, byte for byte."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for row in _pairs(rows):
        found.setdefault(row["doc_id"], []).append(_per_byte(row))
    return {doc_id: _share(costs) for doc_id, costs in found.items()}


def _pairs(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("chosen_nats") is not None]


def _per_byte(row: Mapping[str, Any]) -> tuple[float, ...]:
    return tuple(row[f"{side}_nats"] / max(1, row[f"{side}_bytes"]) for side in ("chosen", "rejected"))


def shorter(held_out: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """What taking the reply of fewer bytes would prefer, by split."""
    return {
        split: {"preferred": _share([tuple(len(reply.encode()) for reply in one.replies) for one in held_out if one.split == split])}
        for split in SPLITS
    }


def _share(costs: Sequence[tuple[float, ...]]) -> float:
    """The share of pairs whose first costs less than the second; a tie counts half. No pair is no share at all: 0."""
    won = sum((chosen < rejected) + (chosen == rejected) / 2 for chosen, rejected in costs)
    return round(won / max(1, len(costs)), 5)


def draw_preferred(bench: Bench, models: Mapping[str, Any]) -> None:
    """The loss over the updates, and the share of pairs and the bits per byte side by side."""
    draw_loss(bench, "Loss of the preferences", "nats an example")
    preferred = {name: splits["test"]["preferred"] for name, splits in models.items()}
    plots.bars(bench.directory, "preferred", {**preferred, "chance": CHANCE}, "Test pairs with the true reply likelier", "share")
    bits = {name: splits["test"]["bits_per_byte"] for name, splits in models.items() if "bits_per_byte" in splits["test"]}
    plots.bars(bench.directory, "bits_per_byte", bits, "Test answers", "bits per byte")
