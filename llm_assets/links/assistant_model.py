"""The link finetuned_model of a chain that generates: a pretrained decoder, or an encoder-decoder, taught to answer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from llm_assets.links import plots
from llm_assets.links.answer_attention import show_attention
from llm_assets.links.assistant_scores import FINETUNED, PRETRAINED, Asked, Limits, scored
from llm_assets.links.conversations import ConversationsConfig
from llm_assets.links.link import Bench, Check, Link, Made
from llm_assets.links.pretrained_checkpoint import weights_finite
from llm_assets.links.training import TeachingSection, draw_loss, train
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict
from llm_assets.training import encoder_decoders
from llm_assets.training.adapters import FOLDER, WHOLE, Adapter
from llm_assets.training.decoders import refuse_unfit
from llm_assets.training.job import Answering, Conversation, TrainingJob
from llm_assets.training.weights import read_config

if TYPE_CHECKING:
    from llm_assets.training.chat import Chat

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


class AssistantModelConfig(TeachingSection):
    """How the assistant is trained, and how it is scored."""

    max_length: int = Field(256, ge=16, description="tokens of a block, and of a conversation; of a longer one the end of the first turn is left out")
    adapter: Adapter = Field(Adapter(), description="which weights are trained: all, or an adapter's, which is kept and (but for prefix) merged")
    learning_rate: float = Field(5e-4, gt=0, description="highest learning rate")
    zero_stage: Literal[0, 1, 2, 3] = Field(2, description="what DeepSpeed partitions: 1 optimizer, 2 and gradients, 3 and weights")
    asked: Limits = Field(Limits(), description="how much of the evaluation documents it is asked, besides how likely it finds every one")
    required_gain: float = Field(
        0.05, ge=-10, description="bits a byte by which it must find the validation answers likelier than its checkpoint does"
    )

    def recipe(self) -> dict[str, Any]:
        """Without learnt positions what it was before there were any."""
        values = super().recipe()
        if not self.adapter.before:
            del values["adapter"]["tokens"]
        return values

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.adapter.kind in WHOLE and self.zero_stage == 3:
            raise ValueError(f"adapter.kind {self.adapter.kind} looks at whole weights, which zero_stage 3 cuts: set it to 0, 1 or 2")
        if 2 * self.adapter.before > self.max_length:
            raise ValueError(f"adapter.tokens ({self.adapter.tokens}) stand before each conversation: at most half of max_length ({self.max_length})")
        if self.adapter.virtual + self.asked.answer_tokens >= self.max_length:
            raise ValueError(
                f"asked.answer_tokens ({self.asked.answer_tokens}) leave no room for what is asked in max_length ({self.max_length}): lower them"
            )
        return self


def assistant_model(
    bench: Bench,
    config: AssistantModelConfig,
    pretrained_checkpoint: Artifact,
    tokenizer: Artifact,
    labelled_examples: Artifact,
    evaluation_sets: Artifact,
    compute: Mapping[str, Any],
) -> Made:
    """Finetunes the decoder on conversations, on the assistant's turns alone, and scores it beside its baselines on the frozen documents.

    Several conversations share a block, without padding and without seeing each other. All weights are trained, or an adapter's, which
    is kept in `adapter/` and merged into `model.safetensors`; a tuned prompt as tokens of its own, with which the chat template begins
    and which are suppressed in answers. A tuned prefix is in no weights: `model.safetensors` is the checkpoint's then, the figures are
    those of both together, and what would align, round or serve the weights alone refuses them. An encoder-decoder reads what was
    said and writes each answer; all its weights are trained, and the page `attention` shows where a few answers looked. The evaluation
    with the least validation loss is kept. On both splits
    bits per byte and perplexity of the assistant's turns stand beside the pretrained checkpoint's; the rank of the true reply among
    ten beside BM25's and chance; translations (chrF, BLEU) beside the source copied; titles (ROUGE) beside the first sentence.
    The check looks at validation alone. `predictions.parquet` keeps every figure and answer.
    """
    from transformers import PreTrainedTokenizerFast

    from llm_assets.training.adapters import merge
    from llm_assets.training.chat import Chat, refuse_misfit, write_template
    from llm_assets.training.prefixes import keep
    from llm_assets.training.prompts import extend
    from llm_assets.training.prompts import merge as merge_prompt

    settings = read_config(pretrained_checkpoint.directory)
    both = encoder_decoders.is_one(settings)
    (encoder_decoders.refuse_unfit if both else refuse_unfit)(settings, "pretrained_checkpoint")
    if both and config.adapter.kind != "none":
        raise ValueError(
            f"adapter.kind is {config.adapter.kind}: adapters stand beside a decoder's matrices, and pretrained_checkpoint is an "
            "encoder-decoder, whose weights are trained themselves: set it to none"
        )
    mine = PreTrainedTokenizerFast.from_pretrained(tokenizer.directory, local_files_only=True)
    chat = refuse_misfit(mine, settings, "pretrained_checkpoint")
    vocabulary = tokenizer.directory
    if config.adapter.virtual:
        vocabulary = extend(tokenizer.directory, bench.scratch / "tokenizer", config.adapter.virtual)
        chat = Chat(PreTrainedTokenizerFast.from_pretrained(vocabulary, local_files_only=True))
    asked = Asked.read(evaluation_sets, ConversationsConfig.model_validate(labelled_examples.manifest.recipe["config"]))
    job = _job(bench, config, chat, vocabulary, labelled_examples, asked, pretrained_checkpoint.directory)
    figures = train(bench, job, config.processes, compute)
    if config.adapter.virtual:
        merge_prompt(pretrained_checkpoint.directory, bench.directory / FOLDER, bench.directory, chat)
    elif config.adapter.kind == "prefix":
        keep(pretrained_checkpoint.directory, bench.directory)
    elif config.adapter.kind != "none":
        merge(pretrained_checkpoint.directory, bench.directory)
    for name in TOKENIZER_FILES:
        if (source := vocabulary / name).exists():
            (bench.directory / name).write_bytes(source.read_bytes())
    write_template(bench.directory, chat)
    ends = {"bos_token_id": chat.opening, "eos_token_id": [chat.end, mine.eos_token_id], "pad_token_id": mine.pad_token_id}
    begins = {"decoder_start_token_id": settings["decoder_start_token_id"]} if both else {}
    suppressed = {"suppress_tokens": chat.virtual} if chat.virtual else {}
    write_json(bench.directory / "generation_config.json", ends | begins | suppressed)
    folders = {FINETUNED: (bench.directory, bench.directory), PRETRAINED: (pretrained_checkpoint.directory, tokenizer.directory)}
    models = scored(bench, config.asked, config.max_length, asked, folders)
    _draw(bench, models)
    if both:
        show_attention(bench, config.asked, config.max_length, asked)
    return Made({"models": models, **figures, "training_examples": labelled_examples.rows("train.parquet"), **asked.left_out})


def _job(
    bench: Bench, config: AssistantModelConfig, chat: Chat, tokenizer: Path, labelled_examples: Artifact, asked: Asked, start_from: Path
) -> TrainingJob:
    """The job that teaches the model of ``start_from``."""
    taught = _answering if encoder_decoders.is_one(read_config(start_from)) else _conversing
    objective, blocks = taught(bench, config, chat, labelled_examples.path("train.parquet"), asked.write(bench.scratch / "evaluation.parquet"))
    return TrainingJob(
        objective=objective,
        tokenizer=tokenizer,
        output=bench.directory,
        scratch=bench.scratch,
        start_from=start_from,
        **config.updates(blocks),
        seed=bench.seed,
        **config.optimization(),
    )


def _conversing(bench: Bench, config: AssistantModelConfig, chat: Chat, train: Path, evaluation: Path) -> tuple[Conversation, int]:
    """A decoder's objective, and in how many blocks its conversations stand."""
    from llm_assets.training.conversation import pack, read_conversations

    lengths = [len(one.ids) for one in read_conversations(train, chat, config.max_length)]
    objective = Conversation(train=train, evaluation=evaluation, max_length=config.max_length, adapter=config.adapter)
    return objective, len(pack(lengths, config.max_length, bench.seed))


def _answering(bench: Bench, config: AssistantModelConfig, chat: Chat, train: Path, evaluation: Path) -> tuple[Answering, int]:
    """An encoder-decoder's, and in how many blocks its answers stand with their sources."""
    from llm_assets.training.answering import Answers

    objective = Answering(train=train, evaluation=evaluation, max_length=config.max_length)
    return objective, len(Answers.read(train, chat, config.max_length, bench.seed).blocks)


def _draw(bench: Bench, models: Mapping[str, Any]) -> None:
    """The loss over the updates, and each figure of the test split side by side."""
    draw_loss(bench, "Loss of the assistant's turns", "nats a token")
    for figure, title in (("bits_per_byte", "Bits per byte"), ("first_of_10", "True reply first of ten"), ("chrf", "chrF"), ("rougel", "ROUGE-L")):
        if found := {name: splits["test"][figure] for name, splits in models.items() if figure in splits["test"]}:
            plots.bars(bench.directory, figure, found, "Test split", title)


def _beats_baseline(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    """Against the checkpoint it began from, on the validation split: nothing was chosen by looking at the test split."""
    margin = artifact.manifest.recipe["config"]["required_gain"]
    table = artifact.table("predictions.parquet", ["model", "split", "nats", "bytes"]).to_pylist()
    bits = {}
    for name in (FINETUNED, PRETRAINED):
        rows = [row for row in table if row["model"] == name and row["split"] == "validation" and row["nats"] is not None]
        bits[name] = sum(row["nats"] for row in rows) / math.log(2) / max(1, sum(row["bytes"] for row in rows)) if rows else math.inf
    return Verdict(
        check="beats_baseline",
        passed=bits[FINETUNED] <= bits[PRETRAINED] - margin,
        description=f"{bits[FINETUNED]:.3f} bits per byte of the validation answers; the pretrained checkpoint {bits[PRETRAINED]:.3f}, "
        f"{margin:.2f} below it are asked for",
        values={**bits, "margin": margin},
    )


def _every_document_scored(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    config = ConversationsConfig.model_validate(inputs["labelled_examples"].manifest.recipe["config"])
    expected = set(Asked.read(inputs["evaluation_sets"], config).doc_ids)
    found = Counter[str]()
    there: dict[str, set[str]] = {FINETUNED: set(), PRETRAINED: set()}
    for row in artifact.table("predictions.parquet", ["model", "doc_id", "nats"]).to_pylist():
        if row["model"] in there and row["nats"] is not None and math.isfinite(row["nats"]):
            there[row["model"]].add(row["doc_id"])
            found[row["model"]] += 1
    missing = {name: len(expected - ids) for name, ids in there.items()}
    return Verdict(
        check="every_document_scored",
        passed=not any(missing.values()) and all(found[name] == len(expected) for name in there),
        description=f"{len(expected)} evaluation conversations; without a finite likelihood: {missing}",
        values=missing,
    )


LINK = Link(
    name="finetuned_model",
    variant="generation",
    version=2,
    make=assistant_model,
    config=AssistantModelConfig,
    inputs=("pretrained_checkpoint", "tokenizer", "labelled_examples", "evaluation_sets", "compute"),
    stage="model",
    role="data_scientist",
    kinds=("torch", "deepspeed", "huggingface"),
    checks=(
        Check("beats_baseline", "It finds the validation answers likelier than its checkpoint does, by the stated margin.", _beats_baseline),
        Check("every_document_scored", "Assistant and checkpoint were scored once on every evaluation conversation.", _every_document_scored),
        Check("weights_finite", "Every weight is a finite number.", weights_finite),
    ),
    trained=True,
    libraries=("bm25s", "deepspeed", "peft", "rouge-score", "sacrebleu", "torch", "transformers"),
)
