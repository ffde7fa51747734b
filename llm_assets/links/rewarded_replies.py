"""What aligned_model does by rewards: which prompts are replied to, the job, and what replies to held-out prompts earn before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llm_assets.corpus.documents import text_key
from llm_assets.evaluation.predictions import SPLITS, Examples
from llm_assets.links import plots
from llm_assets.links.assistant_scores import Asked
from llm_assets.links.link import Bench
from llm_assets.links.preference_pairs import TRAIN, Replied, held_out, trained_on
from llm_assets.store.artifact import Artifact
from llm_assets.training.job import Rewarded, TrainingJob
from llm_assets.training.rewards import REWARD, rewarded

if TYPE_CHECKING:
    from llm_assets.evaluation.assistant import Assistant
    from llm_assets.links.aligned_model import AlignedModelConfig

REPLIES = 4  # drawn to each held-out prompt: their mean has half the noise of one
BATCH = 64  # of them drawn at once
Rows = Sequence[Mapping[str, Any]]


def reward_prompts(
    sources: Sequence[str], labelled_examples: Artifact, evaluation_sets: Artifact, asked: Asked
) -> tuple[list[Replied], list[Replied], dict[str, int]]:
    """The dialogues to train on, each beginning once and none that of a held-out one; the held-out ones; how many are left out, by reason.

    Turns are equal where they differ in punctuation, spaces and case alone (``text_key``). Raises ``ValueError`` for a split without any.
    """
    documents = Examples.read(evaluation_sets)
    source = dict(zip(documents.doc_ids, documents.labels, strict=True))
    held_back = [one for one in held_out(asked) if source[one.doc_id] in sources]
    held, seen = {_said_before(one) for one in held_out(asked)}, set()
    found, left_out = [], dict.fromkeys(("shared_with_held_out", "asked_twice"), 0)
    for one in trained_on(labelled_examples, sources):
        key = _said_before(one)
        if key in held or key in seen:
            left_out["shared_with_held_out" if key in held else "asked_twice"] += 1
        else:
            found.append(one)
            seen.add(key)
    if missing := [split for split in (TRAIN, *SPLITS) if split not in {one.split for one in [*found, *held_back]}]:
        raise ValueError(
            f"aligned_model: no dialogue of {', '.join(sources)} in split {', '.join(missing)} to reply to ({left_out}): "
            "labelled_examples and evaluation_sets must name the source too, or draw larger sets"
        )
    return found, held_back, left_out


def _said_before(dialogue: Replied) -> tuple[str, ...]:
    return tuple(map(text_key, dialogue.context))


def reward_job(
    bench: Bench, config: AlignedModelConfig, train: Sequence[Replied], held_out: Sequence[Replied], longest: int, start: Path
) -> TrainingJob:
    """The job that raises what replies of the decoder in ``start`` earn; its prompts are written beside it."""
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.chat import Chat

    begins = len(Chat(PreTrainedTokenizerFast.from_pretrained(start, local_files_only=True)).virtual)
    if begins + config.answer_tokens >= longest:
        raise ValueError(f"aligned_model: answer_tokens ({config.answer_tokens}) leave no room for a prompt in {longest} tokens: lower them")
    chosen = {TRAIN: train, SPLITS[0]: [one for one in held_out if one.split == SPLITS[0]][: config.measured]}
    for split, prompts in chosen.items():
        _write_prompts(bench.scratch / f"{split}.parquet", prompts)
    return TrainingJob(
        objective=Rewarded(
            train=bench.scratch / f"{TRAIN}.parquet",
            evaluation=bench.scratch / f"{SPLITS[0]}.parquet",
            rewards=tuple(config.rewards),
            group=config.group,
            answer_tokens=config.answer_tokens,
            beta=config.beta,
            max_length=longest,
        ),
        tokenizer=start,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=start,
        **config.updates(len(train) * config.group),
        seed=bench.seed,
        **config.optimization(),
    )


def _write_prompts(path: Path, prompts: Sequence[Replied]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"doc_id": one.doc_id, "messages": one.prompt} for one in prompts]), path)


def earned(model: Assistant, config: AlignedModelConfig, held_out: Sequence[Replied], bench: Bench) -> list[dict[str, Any]]:
    """A row a held-out prompt, of each split the first ``measured``: the means of ``reward`` and its parts over ``REPLIES`` drawn replies.

    Every model is asked with the same numbers; they are others than those its training drew with.
    """
    from llm_assets.training.grpo import MEASURED
    from llm_assets.training.rollouts import Rollouts, numbers

    asked = [one for split in SPLITS for one in [two for two in held_out if two.split == split][: config.measured]]
    rollouts = Rollouts(model.tokenizer, config.answer_tokens, model.max_length)
    prompts = rollouts.encode([one.prompt for one in asked])
    given = numbers(bench.seed, MEASURED, range(REPLIES * len(asked)), config.answer_tokens)
    found: dict[int, dict[str, float]] = {}
    order = sorted(range(len(given)), key=lambda place: len(prompts[place // REPLIES]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        replies = rollouts.draw(model.model, [prompts[place // REPLIES] for place in chosen], given[chosen])
        found |= {
            place: rewarded(config.rewards, asked[place // REPLIES].prompt, rollouts.reply(ids)) for place, ids in zip(chosen, replies, strict=True)
        }
        bench.progress(start + len(chosen), len(order), "replies drawn")
    groups = [[found[number * REPLIES + again] for again in range(REPLIES)] for number in range(len(asked))]
    return [
        {"split": one.split, "doc_id": one.doc_id} | {name: sum(reply[name] for reply in group) / REPLIES for name in group[0]}
        for one, group in zip(asked, groups, strict=True)
    ]


def reward_figures(rows: Rows) -> dict[str, float]:
    """Of one model's rows: the means of ``reward`` and its parts, and how many prompts they are of; nothing where no row is a prompt's."""
    replied = [row for row in rows if row.get(REWARD) is not None]
    if not replied:
        return {}
    return {
        **{name: round(sum(row[name] for row in replied) / len(replied), 5) for name in replied[0] if name.startswith(REWARD)},
        "prompts": len(replied),
    }


def earnings(rows: Rows) -> dict[str, float]:
    """What the replies to each held-out prompt earn, by its dialogue."""
    return {row["doc_id"]: row[REWARD] for row in rows if row.get(REWARD) is not None}


def draw_reward(bench: Bench) -> None:
    """What replies earned over the updates, as ``plots/reward.png``."""
    import pyarrow.parquet

    curve = pyarrow.parquet.read_table(bench.directory / "curve.parquet").to_pylist()
    series = {
        name: ([row["step"] for row in curve if row.get(column) is not None], [row[column] for row in curve if row.get(column) is not None])
        for name, column in (("training", REWARD), ("validation", f"validation_{REWARD}"))
    }
    plots.curves(bench.directory, REWARD, series, "Reward of the replies", "step", "reward")
