"""The link labelled_examples of a chain that generates: the conversations that the assistant is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from llm_assets.corpus.batches import PROVENANCES, verdict
from llm_assets.corpus.conversations import ROLES, Task, conversation_of, text_of, turns
from llm_assets.corpus.documents import reject_schema, rejects, table_writer, text_key
from llm_assets.links.feedback_examples import Feedback, Joining, as_recipe, batched, evaluated, observe_feedback
from llm_assets.links.link import Bench, Check, Link, Made, Section
from llm_assets.links.plots import bars, histogram
from llm_assets.store.artifact import Artifact
from llm_assets.store.files import write_json
from llm_assets.store.verdict import Verdict

if TYPE_CHECKING:
    import pyarrow as pa

PLAIN = "conversation"  # the task of sources without an instruction
UNANSWERED = "no_assistant_turn"
WRONG = "no_right_reply"  # why a row of feedback is left out that says only that a reply was wrong


class ConversationsConfig(Section):
    """Which documents are conversations, and what each asks for."""

    sources: list[str] = Field(min_length=1, description="of the clean corpus, whose documents are conversations: a turn a line, the user's first")
    tasks: list[Task] = Field(default_factory=list, description="instructions for some of them; a source without one is a plain conversation")
    minimum_examples: int = Field(100, ge=2, description="the check fails when a task has fewer")
    feedback: Feedback = Field(Feedback(), description="replies that users called right or corrected, learned from beside the corpus's")

    def recipe(self) -> dict[str, Any]:
        """All but where the batches of feedback stand."""
        return as_recipe(super().recipe(), self.feedback)

    @model_validator(mode="after")
    def _tasks_have_sources(self) -> Self:
        named = Counter(source for task in self.tasks for source in task.sources)
        if foreign := sorted(set(named) - set(self.sources)):
            raise ValueError(f"labelled_examples: tasks name {', '.join(foreign)}, which `sources` does not: add them there")
        if twice := sorted(source for source, count in named.items() if count > 1):
            raise ValueError(f"labelled_examples: {', '.join(twice)} stand in two tasks: an example is learned once, choose one")
        return self

    def unread(self) -> tuple[str, ...]:
        """Only feedback is compared with the evaluation sets: the clean corpus was already; a check does it again."""
        return () if self.feedback.folder else ("evaluation_sets",)

    def task_of(self, source: str) -> Task | None:
        """The task of a source, None for a plain conversation."""
        return next((task for task in self.tasks if source in task.sources), None)


def observe(config: ConversationsConfig) -> dict[str, Any]:
    """The batches of feedback, where they are learned from."""
    return observe_feedback(config.feedback)


def conversations(bench: Bench, config: ConversationsConfig, clean_corpus: Artifact, evaluation_sets: Artifact | None = None) -> Made:
    """Collects the conversations of the clean corpus as training examples, each with the instruction of its task.

    The clean corpus holds neither duplicates nor anything of the evaluation sets, so the examples do not either. A last turn of
    the user's is cut off and counted, since nobody answers it; a conversation in which the assistant never speaks is left out and
    stands in `rejects.parquet` with that reason. A row holds `messages`, the turns with their roles. With `feedback`, conversations join
    them whose reply users called right, or wrote; these are compared with the evaluation sets like any other text, their `source` is
    their provenance, and all of the corpus stays.
    """
    voted = batched(config.feedback)
    offered, taken = {text_key(_document(row)) for row in voted}, set[str]()
    tally, examples = Counter[str](), 0
    tasks, sources, lengths = Counter[str](), Counter[str](), list[int]()
    total, read = clean_corpus.rows("documents.parquet"), 0
    with (
        table_writer(bench.directory / "train.parquet", _schema()) as keep,
        table_writer(bench.directory / "rejects.parquet", reject_schema()) as reject,
    ):
        for batch in clean_corpus.batches("documents.parquet", ["doc_id", "text", "source", "member", "line"]):
            read += len(batch)
            kept, dropped = _read(config, batch, tally)
            keep(kept)
            reject(dropped)
            examples += len(kept)
            tasks.update(kept["task"].to_pylist())
            sources.update(kept["source"].to_pylist())
            spoken = kept["messages"].to_pylist()
            lengths += map(len, spoken)
            taken |= offered & {text_key(_text(one)) for one in spoken} if offered else set()
            bench.progress(read, total, "documents")
        joined, more = _with_feedback(bench, config, voted, taken, examples, clean_corpus, evaluation_sets)
        keep(more)
        tasks.update(more["task"].to_pylist())
        lengths += map(len, more["messages"].to_pylist())
    write_json(bench.directory / "tasks.json", sorted({PLAIN, *(task.name for task in config.tasks)}))
    bars(bench.directory, "tasks", dict(sorted(tasks.items())), "Conversations of each task", "conversations")
    histogram(bench.directory, "turns", lengths, "Turns of the conversations", "turns")
    return Made(
        metrics={
            "examples": examples + len(more),
            "tasks": dict(sorted(tasks.items())),
            "sources": {source: sources[source] for source in config.sources},
            "turns": sum(lengths),
            "dropped": {UNANSWERED: tally[UNANSWERED]},
            "last_turns_cut": tally["cut"],
            **joined,
        }
    )


def _with_feedback(
    bench: Bench,
    config: ConversationsConfig,
    voted: Sequence[dict[str, Any]],
    taken: set[str],
    learned: int,
    clean_corpus: Artifact,
    evaluation_sets: Artifact | None,
) -> tuple[dict[str, Any], pa.Table]:
    """The metrics of the conversations from service, and those that join ``learned`` of the corpus; nothing where none are asked for."""
    import pyarrow as pa

    if not config.feedback.folder:
        return {}, _schema().empty_table()
    assert evaluation_sets is not None
    asked = _asked(config, evaluation_sets)
    apart = [row for row in voted if text_key(row["text"]) not in asked]
    rows = [{**row, "text": _document(row), "label": None if verdict(row) == "wrong" or row["answered"] is None else "right"} for row in apart]
    refuted = {text_key(f"{row['text']}\n{row['answered']}") for row in voted if row["answered"] != row["label"]}
    kept, left_out = Joining(config.feedback, taken, learned, clean_corpus, evaluation_sets, bench.scratch).sort_out(rows, WRONG, refuted)
    left_out["evaluation"] += len(voted) - len(apart)
    spoken = [[turn._asdict() for turn in turns(row["text"])] for row in kept]
    found = [{"doc_id": row["doc_id"], "messages": one, "task": PLAIN, "source": row["provenance"]} for row, one in zip(kept, spoken, strict=True)]
    return {"feedback": {"examples": len(found), "left_out": left_out}}, pa.Table.from_pylist(found, _schema())


def _asked(config: ConversationsConfig, evaluation_sets: Artifact) -> set[str]:
    """What the evaluation documents ask, each in its task's words and up to its last answer: a short one is near to no document as a whole."""
    documents = evaluation_sets.table("evaluation.parquet", ["text", "label"]).to_pylist()
    spoken = (conversation_of(row["text"], config.task_of(row["label"])) for row in documents)
    return {text_key(text_of(one[:-1])) for one in spoken if one}


def _document(row: Mapping[str, Any]) -> str:
    """The conversation that a row of feedback says is right, as the corpus has them: a turn a line."""
    return f"{row['text']}\n{row['label']}"


def _text(messages: Sequence[Mapping[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in messages)


def _read(config: ConversationsConfig, batch: pa.RecordBatch, tally: Counter[str]) -> tuple[pa.Table, pa.Table]:
    """The conversations among some documents, and those in which the assistant never speaks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.Table.from_batches([batch])
    table = table.filter(pc.is_in(table["source"], pa.array(config.sources, pa.string())))
    rows, unanswered = [], []
    for row in table.select(["doc_id", "text", "source"]).to_pylist():
        task = config.task_of(row["source"])
        spoken = conversation_of(row["text"], task)
        unanswered.append(not spoken)
        tally["cut"] += bool(spoken) and len(spoken) < row["text"].count("\n") + 1
        if spoken:
            messages = [turn._asdict() for turn in spoken]
            rows.append({"doc_id": row["doc_id"], "messages": messages, "task": task.name if task else PLAIN, "source": row["source"]})
    silent = table.filter(pa.array(unanswered, pa.bool_()))
    tally[UNANSWERED] += len(silent)
    return pa.Table.from_pylist(rows, _schema()), rejects(silent, [UNANSWERED] * len(silent), silent["text"].to_pylist())


def _schema() -> pa.Schema:
    import pyarrow as pa

    turn = pa.struct([("role", pa.string()), ("content", pa.string())])
    return pa.schema([("doc_id", pa.string()), ("messages", pa.list_(turn)), ("task", pa.string()), ("source", pa.string())])


def _answered(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    wrong = []
    for batch in artifact.batches("train.parquet", ["doc_id", "messages"]):
        for doc_id, spoken in zip(batch["doc_id"].to_pylist(), batch["messages"].to_pylist(), strict=True):
            in_turn = all(turn["role"] == ROLES[place % 2] and turn["content"].strip() for place, turn in enumerate(spoken))
            if not in_turn or not spoken or spoken[-1]["role"] != "assistant":
                wrong.append(doc_id)
    return Verdict(
        check="answered",
        passed=not wrong,
        description=f"{len(wrong)} of {artifact.rows('train.parquet')} conversations do not alternate, have an empty turn, or end without an answer",
        values={"doc_ids": wrong[:10]},
    )


def _enough(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    config = ConversationsConfig.model_validate(artifact.manifest.recipe["config"])
    asked = sorted({task.name if (task := config.task_of(source)) else PLAIN for source in config.sources})
    found = Counter(name for batch in artifact.batches("train.parquet", ["task"]) for name in batch["task"].to_pylist())
    few = [name for name in asked if found[name] < config.minimum_examples]
    return Verdict(
        check="enough",
        passed=not few,
        description=", ".join(f"{name} {found[name]}" for name in asked) + f"; at least {config.minimum_examples} of each expected",
        values=dict(found),
    )


def _from_clean(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    import tempfile

    left, served, voted = set[str](), dict[str, str](), "feedback" in artifact.manifest.recipe["config"]
    for batch in artifact.batches("train.parquet", ["doc_id", "messages", "source"]):
        for row in batch.to_pylist():
            if voted and row["source"] in PROVENANCES:
                served[row["doc_id"]] = _text(row["messages"])
            else:
                left.add(row["doc_id"])
    tested = (left | served.keys()) & set(inputs["evaluation_sets"].table("members.parquet", ["doc_id"])["doc_id"].to_pylist())
    if served:
        with tempfile.TemporaryDirectory() as scratch:
            wrong = evaluated([*served.values()], inputs["clean_corpus"], inputs["evaluation_sets"], Path(scratch))
        tested |= {doc_id for doc_id, is_wrong in zip(served, wrong.tolist(), strict=True) if is_wrong}
    for batch in inputs["clean_corpus"].batches("documents.parquet", ["doc_id"]):
        left.difference_update(batch["doc_id"].to_pylist())
    return Verdict(
        check="from_clean_corpus",
        passed=not left and not tested,
        description=f"{len(left)} examples are neither in the clean corpus, which is free of evaluation text, nor feedback; "
        f"{len(tested)} are evaluation documents, or nearly",
        values={"doc_ids": sorted(left | tested)[:10]},
    )


def _expectations(artifact: Artifact, inputs: Mapping[str, Any]) -> Verdict:
    from llm_assets.corpus.expectations import judge_conversations

    return judge_conversations(artifact)


LINK = Link(
    name="labelled_examples",
    variant="generation",
    version=1,
    make=conversations,
    config=ConversationsConfig,
    inputs=("clean_corpus", "evaluation_sets"),
    stage="corpus",
    role="technical_expert",
    kinds=("python", "parquet"),
    checks=(
        Check("answered", "User and assistant speak by turns, the assistant last, and nobody says nothing", _answered),
        Check("enough", "Every task has examples enough to learn it", _enough),
        Check("from_clean_corpus", "Every conversation is of the clean corpus, or feedback, and none of the evaluation sets'", _from_clean),
        Check("expectations", "Great Expectations: doc_ids unique, tasks and roles as stated, turns not empty", _expectations),
    ),
    observe=observe,
    libraries=("pyarrow",),
)
