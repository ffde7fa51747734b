"""Each head's loss, metric and way of writing labels, on cases worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy
import pytest
import torch
from transformers import TrainerControl, TrainerState

from llm_assets.training.classification import EarlyStopping
from llm_assets.training.heads import IGNORED, LabelError, canonical, loss, parts, targets, validation

LN2 = math.log(2)


def outputs(*rows: list[float]) -> dict[str, torch.Tensor]:
    return {"logits": torch.tensor(rows)}


def test_cross_entropy_by_hand() -> None:
    # Equal logits: ln 2 each. Logits 0 and ln 3 give 1/4 and 3/4: -ln 3/4 for the second label.
    answer, labels = outputs([0.0, 0.0], [0.0, math.log(3)]), torch.tensor([0, 1])
    assert float(loss("single_label")(answer, labels)) == pytest.approx((LN2 + math.log(4 / 3)) / 2)
    assert float(loss("single_label")(answer, labels, torch.tensor(8))) == pytest.approx((LN2 + math.log(4 / 3)) / 8)  # of 8 in the update


def test_binary_cross_entropy_by_hand() -> None:
    # Four yes or no questions: sigmoid(0) = 1/2 costs ln 2 either way, sigmoid(ln 3) = 3/4 costs ln 4/3 for yes and ln 4 for no.
    answer, labels = outputs([0.0, 0.0], [math.log(3), math.log(3)]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(loss("multi_label")(answer, labels)) == pytest.approx((2 * LN2 + math.log(4 / 3) + math.log(4)) / 4)


def test_squared_error_by_hand() -> None:
    assert float(loss("regression")(outputs([1.0], [4.0]), torch.tensor([3.0, 3.0]))) == pytest.approx((4 + 1) / 2)


@pytest.mark.parametrize(
    ("problem", "answer", "labels"),
    [
        ("single_label", outputs([0.0, 1.0], [2.0, 0.0]), torch.tensor([0, 1])),
        ("multi_label", outputs([0.0, 1.0], [2.0, 0.0]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])),
        ("regression", outputs([1.0], [4.0]), torch.tensor([3.0, 2.0])),
    ],
)
def test_weights_of_one_change_nothing_and_others_count(problem: str, answer: dict[str, torch.Tensor], labels: torch.Tensor) -> None:
    def weighted(*weights: float) -> float:
        columns = labels.reshape(2, -1).float()
        return float(loss(problem, weighted=True)(answer, torch.cat([columns, torch.tensor(weights)[:, None]], 1)))

    alone = [float(loss(problem)({"logits": answer["logits"][row : row + 1]}, labels[row : row + 1])) for row in (0, 1)]
    assert weighted(1, 1) == pytest.approx(float(loss(problem)(answer, labels)))
    assert weighted(1.5, 0.5) == pytest.approx((1.5 * alone[0] + 0.5 * alone[1]) / 2)


def test_labels_are_written_alike() -> None:
    assert parts(" room|price |", "multi_label") == ["price", "room"] and canonical("room|price", "multi_label") == "price|room"
    assert parts("", "multi_label") == [] and canonical("a|b", "single_label") == "a|b"
    assert canonical("3", "regression") == canonical("3.0", "regression") == "3.0"
    for label in ("much", "nan", "inf", ""):
        with pytest.raises(LabelError, match="no finite number"):
            canonical(label, "regression")


def test_targets_follow_the_order_of_the_outputs() -> None:
    assert targets(["b", "a"], ["a", "b"], "single_label") == [1, 0] and targets(["b", "a"], ["b", "a"], "single_label") == [0, 1]
    assert targets(["c|a", "", "b"], ["a", "b", "c"], "multi_label") == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert targets(["2.5"], ["value"], "regression") == [2.5]
    with pytest.raises(LabelError, match="label d is not among those of the model: a, b"):
        targets(["a|d"], ["a", "b"], "multi_label")


def test_the_number_that_the_trainer_would_leave_out_is_counted() -> None:
    value = torch.tensor(targets([str(IGNORED)], ["value"], "regression"))
    assert bool(value.ne(IGNORED).all()) and float(value) == pytest.approx(IGNORED, abs=1e-3)


def test_evaluations_by_hand() -> None:
    logits = numpy.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    assert validation("single_label", logits, [1, 1, 1], [0, 1, 2]) == {"accuracy": pytest.approx(2 / 3), "score": pytest.approx(2 / 3)}
    # Said: (no, yes), (yes, yes is 1/2), (no...): sigmoid(0) is one half, which counts as yes.
    several = validation("multi_label", numpy.array([[-1.0, 1.0], [1.0, 0.0]]), [[1.0, 1.0], [1.0, 0.0]], [0, 1])
    assert several["micro_f1"] == several["score"] == pytest.approx(2 * 2 / (3 + 3))
    assert validation("regression", numpy.array([[1.0], [4.0]]), [2.0, 2.0], [0, 1]) == {"mse": 2.5, "score": -2.5}


def test_windows_are_averaged_as_probabilities_before_a_document_is_judged() -> None:
    # Two windows of document 0: one all but sure of the second label, two thirds of them for the first. Averaged, the second wins.
    logits = numpy.array([[1.0, 0.0], [0.0, 9.0], [3.0, 0.0]])
    assert validation("single_label", logits, [1, 1, 0], [0, 0, 1])["accuracy"] == 1.0
    assert validation("regression", numpy.array([[1.0], [3.0], [5.0]]), [2.0, 2.0, 5.0], [7, 7, 8])["mse"] == 0.0


def test_training_ends_after_evaluations_without_a_better_one() -> None:
    def asks(patience: int, *scores: tuple[float, float]) -> bool:
        state, control = TrainerState(), TrainerControl()
        state.log_history = [{"loss": 1.0}, *({"eval_score": score, "eval_loss": cost} for score, cost in scores)]
        EarlyStopping(patience).on_evaluate(SimpleNamespace(), state, control)
        return control.should_training_stop

    assert not asks(2, (0.7, 0.5)) and not asks(2, (0.7, 0.5), (0.6, 0.5))
    assert asks(2, (0.7, 0.5), (0.6, 0.5), (0.7, 0.6))
    assert not asks(2, (0.7, 0.5), (0.6, 0.5), (0.7, 0.4))  # as many right at a lower loss is better
