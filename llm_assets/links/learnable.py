"""What a classifier can learn from its examples and be judged by on the evaluation sets, asked before it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llm_assets.evaluation import predictions
from llm_assets.store.artifact import Artifact
from llm_assets.training.heads import Problem, parts


def refuse_unlearnable(problem: Problem, given: Sequence[str], labels: Sequence[str], sources: Mapping[str, Artifact]) -> None:
    """Raise ``ValueError`` unless the examples and the sets are of this problem, and labels and examples name each other."""
    for name, artifact in sources.items():
        found = artifact.manifest.recipe["config"].get("problem", problem)
        if found != problem:
            raise ValueError(f"finetuned_model.problem is {problem}, {name}.problem is {found}: write the same in both sections")
    taught = {name for label in given for name in parts(label, problem)}
    if taught != set(labels):
        missing, unknown = sorted(set(labels) - taught), sorted(taught - set(labels))
        raise ValueError(
            f"finetuned_model: labels.json of labelled_examples names {', '.join(missing) or 'nothing'} that no example carries, and lacks "
            f"{', '.join(unknown) or 'nothing'} that examples carry: materialize labelled_examples again"
        )


def learnt_examples(evaluation_sets: Artifact, labels: list[str], problem: Problem = "single_label") -> predictions.Examples:
    """The evaluation documents whose labels are learnt. Raises ``ValueError`` when a split has none."""
    examples = predictions.Examples.read(evaluation_sets, labels, problem)
    for split in predictions.SPLITS:
        if split not in examples.splits:
            raise ValueError(
                f"finetuned_model: no {split} document of evaluation_sets carries one of the labels learnt ({', '.join(labels)}); "
                "correct labelled_examples.labels, or draw larger evaluation sets"
            )
    return examples
