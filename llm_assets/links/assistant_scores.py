"""What an assistant is asked on the evaluation documents, and what its answers and those of its baselines are worth."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llm_assets.corpus.conversations import Task, Turn, conversation_of
from llm_assets.evaluation import generation, predictions
from llm_assets.links.conversations import PLAIN, ConversationsConfig
from llm_assets.links.link import Bench
from llm_assets.store.artifact import Artifact
from llm_assets.store.strict import Strict

if TYPE_CHECKING:
    from llm_assets.evaluation.assistant import Assistant, Likelihood

FINETUNED, PRETRAINED, BM25 = "finetuned", "pretrained", "bm25"


class Limits(Strict):
    """How much is asked."""

    ranked: int = Field(100, ge=1, description="conversations of each split whose true last reply is ranked among ten")
    answered: int = Field(50, ge=1, description="texts of each split and task that the assistant translates or gives a title")
    answer_tokens: int = Field(48, ge=1, description="tokens of such an answer at most")


@dataclass(frozen=True)
class Asked:
    """The evaluation conversations, columns of equal length."""

    doc_ids: list[str]
    splits: list[str]
    tasks: list[Task | None]
    messages: list[list[dict[str, str]]]
    left_out: dict[str, int]  # evaluation documents that are no conversation of this chain's, by reason

    @classmethod
    def read(cls, evaluation_sets: Artifact, config: ConversationsConfig) -> Asked:
        """Those of the sources that the examples come from, worded as they are. Raises ``ValueError`` where a split has none."""
        left_out = {"evaluation_documents_of_other_sources": 0, "evaluation_documents_without_answer": 0}
        rows: list[tuple[str, str, Task | None, list[dict[str, str]]]] = []
        examples = predictions.Examples.read(evaluation_sets)
        for doc_id, text, source, split in zip(examples.doc_ids, examples.texts, examples.labels, examples.splits, strict=True):
            task = config.task_of(source)
            spoken = conversation_of(text, task)
            if source not in config.sources:
                left_out["evaluation_documents_of_other_sources"] += 1
            elif not spoken:
                left_out["evaluation_documents_without_answer"] += 1
            else:
                rows.append((doc_id, split, task, [_message(turn) for turn in spoken]))
        for split in predictions.SPLITS:
            if split not in {row[1] for row in rows}:
                raise ValueError(
                    f"finetuned_model: no {split} document of evaluation_sets is a conversation of {', '.join(config.sources)}: name them in "
                    "evaluation_sets.sources with unlabelled: true, or draw larger sets"
                )
        doc_ids, splits, tasks, messages = ([row[column] for row in rows] for column in range(4))
        return cls(doc_ids, splits, tasks, messages, left_out)  # type: ignore[arg-type]  # the rows' columns

    def of(self, split: str, measure: str | None = None, most: int | None = None) -> list[int]:
        """The places of one split, those of tasks with that measure, at most so many."""
        found = [place for place, name in enumerate(self.splits) if name == split and measure in (None, _measure(self.tasks[place]))]
        return found[:most]

    def write(self, path: Path) -> Path:
        """The validation conversations as the worker reads them; returns ``path``."""
        import pyarrow
        import pyarrow.parquet

        rows = [{"doc_id": self.doc_ids[place], "messages": self.messages[place]} for place in self.of("validation")]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path


def _message(turn: Turn) -> dict[str, str]:
    return {"role": turn.role, "content": turn.content}


def _measure(task: Task | None) -> str:
    return "reply_ranking" if task is None else task.measure


def scored(bench: Bench, limits: Limits, max_length: int, asked: Asked, folders: Mapping[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Ask every model, given by the folders of its weights and its tokenizer, write ``predictions.parquet``; returns the figures by split."""
    from llm_assets.evaluation.encoder_decoder import assistant

    models: dict[str, dict[str, dict[str, Any]]] = defaultdict(lambda: {split: {} for split in predictions.SPLITS})
    rows: list[dict[str, Any]] = []
    for name, (folder, tokenizer) in folders.items():
        model = assistant(folder, tokenizer, max_length)
        found = model.likelihoods(asked.messages, progress=bench.progress)
        for split in predictions.SPLITS:
            places = asked.of(split)
            models[name][split] |= {**_likelihood([found[place] for place in places]), "documents": len(places)}
            rows += [_row(name, asked, place, **found[place]._asdict()) for place in places]
        if name == FINETUNED:
            for split in predictions.SPLITS:
                _rank(model, limits, asked, split, models, rows)
                _answer(model, limits, asked, split, models, rows, bench)
    _write(bench.directory / "predictions.parquet", rows)
    return dict(models)


def _likelihood(found: Sequence[Likelihood]) -> dict[str, float]:
    nats, tokens, written = (sum(column) for column in zip(*found, strict=True))
    return {"bits_per_byte": round(nats / math.log(2) / max(written, 1), 5), "perplexity": round(math.exp(nats / max(tokens, 1)), 4)}


def _rank(model: Assistant, limits: Limits, asked: Asked, split: str, models: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Rank each true last reply among ten: by the mean -log p a token of each after the same context, and by BM25."""
    pool = asked.of(split, "reply_ranking")
    replies = [asked.messages[place][-1]["content"] for place in pool]
    if len(set(replies)) < generation.CANDIDATES:
        return  # too few different replies to choose among
    places = pool[: limits.ranked]
    chosen = generation.candidates(replies, [asked.doc_ids[place] for place in pool], limits.ranked)
    contexts = [asked.messages[place][:-1] for place in places]
    pairs = [[*context, {"role": "assistant", "content": replies[one]}] for context, own in zip(contexts, chosen, strict=True) for one in own]
    costs = iter(model.likelihoods(pairs, last=True))
    likely = [[-(cost := next(costs)).nats / max(cost.tokens, 1) for _ in own] for own in chosen]
    said = ["\n".join(turn["content"] for turn in context) for context in contexts]
    for name, scores in ((FINETUNED, likely), (BM25, generation.bm25(said, replies, chosen))):
        models[name][split] |= generation.ranking(scores) | {"ranked": len(places)}
        rows += [_row(name, asked, place, scores=row) for place, row in zip(places, scores, strict=True)]


def _answer(model: Assistant, limits: Limits, asked: Asked, split: str, models: dict[str, Any], rows: list[dict[str, Any]], bench: Bench) -> None:
    """Let it translate and give titles, and measure that beside the baseline's answers."""
    for measure, (figures, baseline, of) in generation.MEASURES.items():
        places = asked.of(split, measure, limits.answered)
        if not places:
            continue
        references = [asked.messages[place][1]["content"] for place in places]
        answers = model.answers([asked.messages[place][:1] for place in places], limits.answer_tokens, bench.progress)
        simple = [of(ask_of(asked.messages[place][0]["content"], asked.tasks[place])) for place in places]
        for name, said in ((FINETUNED, answers), (baseline, simple)):
            models[name][split] |= {**figures(said, references), f"{measure}s": len(places)}
            rows += [_row(name, asked, place, answer=one) for place, one in zip(places, said, strict=True)]


def ask_of(content: str, task: Task | None) -> str:
    """The document's first line, out of the instruction that holds it."""
    before, _, after = ("{ask}" if task is None else task.instruction).partition("{ask}")
    return content.removeprefix(before).removesuffix(after)


def _row(model: str, asked: Asked, place: int, **found: Any) -> dict[str, Any]:
    task = asked.tasks[place]
    reference = asked.messages[place][-1]["content"]
    names = {"model": model, "split": asked.splits[place], "doc_id": asked.doc_ids[place], "task": task.name if task else PLAIN}
    return {**names, "reference": reference, **found}


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One row a model, document and kind of figure: its likelihood, its candidates' scores (the true one first), or its answer."""
    import pyarrow
    import pyarrow.parquet

    text = [(name, pyarrow.string()) for name in ("model", "split", "doc_id", "task", "reference", "answer")]
    numbers = [("nats", pyarrow.float64()), ("tokens", pyarrow.int64()), ("bytes", pyarrow.int64()), ("scores", pyarrow.list_(pyarrow.float64()))]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, pyarrow.schema([*text, *numbers])), path)
