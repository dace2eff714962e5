"""Laws of matching, losses and selection of sets, for numbers that Hypothesis chooses."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.detection.assignment import SetTruth, hungarian, match_sets, matching_cost
from course_lib.detection.set_losses import set_losses, total
from course_lib.detection.set_prediction import select
from course_lib.plain.sets import match_brute_force, match_greedy

FEW = settings(max_examples=20, deadline=None)
DOUBLE = torch.float64
FOCALS = pytest.mark.parametrize("focal", [False, True])
PICTURES = {"counts": st.lists(st.integers(0, 5), min_size=1, max_size=4), "seed": st.integers(0, 999)}


def noise(*shape: int, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def drawn(counts: list[int], seed: int, queries: int = 6) -> tuple[dict[str, Tensor], list[SetTruth]]:
    """Outputs of five columns with two auxiliary layers, and objects of the first four classes."""
    logits = 6 * noise(3, len(counts), queries, 5, seed=seed)
    boxes = 0.05 + 0.6 * noise(3, len(counts), queries, 4, seed=seed + 1000)
    outputs = {"logits": logits[-1], "boxes": boxes[-1], "aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}
    made = [
        SetTruth((4 * noise(n, seed=seed + k)).long(), 0.05 + 0.6 * noise(n, 4, seed=seed - k))
        for k, n in enumerate(counts, start=2000)
    ]
    return outputs, made


def some(outputs: dict[str, Tensor], place: Any, dim: int) -> dict[str, Tensor]:
    """The pictures (dim 0) or queries (dim 1) at `place`, of all layers."""
    return {name: x.index_select(dim + (name[:4] == "aux_"), place) for name, x in outputs.items()}


def order(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


@FEW
@given(rows=st.integers(0, 6), columns=st.integers(0, 6), seed=st.integers(0, 999))
def test_nothing_is_cheaper(rows: int, columns: int, seed: int) -> None:
    """Law: equal to the cheapest of all ways, never dearer than the greedy one; each row and column once at most."""
    cost = noise(rows, columns, seed=seed) - 0.5
    found = hungarian(cost)
    pairs = list(zip(*(x.tolist() for x in found), strict=True))
    assert pairs == match_brute_force(cost)
    assert len(pairs) == min(rows, columns)
    greedy = match_greedy(cost)
    assert len(greedy) == len(pairs)
    assert sum(float(cost[pair]) for pair in pairs) <= sum(float(cost[pair]) for pair in greedy) + 1e-12


@FEW
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), seed=st.integers(0, 999))
def test_a_price_that_all_pay_changes_nothing(rows: int, columns: int, seed: int) -> None:
    """Law: what every row pays, or, where every column is matched, what each column pays whoever has it."""
    cost = noise(rows, columns, seed=seed)
    prices = noise(columns, seed=seed + 1) if rows >= columns else noise(1, seed=seed + 1)
    for one, other in zip(hungarian(cost), hungarian(3 * cost + 5 * prices), strict=True):
        assert torch.equal(one, other)


@FOCALS
@FEW
@given(**PICTURES)
def test_batched_is_single(counts: list[int], seed: int, focal: bool) -> None:
    """Law: the pairs and the costs of each picture are those it has alone."""
    outputs, truths = drawn(counts, seed)
    found = match_sets(outputs, truths, focal=focal)
    costs = matching_cost(outputs["logits"], outputs["boxes"], truths, focal=focal)
    for k, truth in enumerate(truths):
        alone = some(outputs, torch.tensor([k]), 0)
        (expected,) = match_sets(alone, [truth], focal=focal)
        assert all(torch.equal(one, other) for one, other in zip(found[k], expected, strict=True))
        (cost,) = matching_cost(alone["logits"], alone["boxes"], [truth], focal=focal)
        torch.testing.assert_close(costs[k], cost, rtol=1e-12, atol=1e-12)


@FOCALS
@FEW
@given(**PICTURES)
def test_a_set_has_no_order(counts: list[int], seed: int, focal: bool) -> None:
    """Law: pictures, queries and objects in another order: the same losses, of every layer."""
    outputs, truths = drawn(counts, seed)
    pictures = order(len(counts), seed)
    shuffled = some(some(outputs, pictures, 0), order(6, seed + 1), 1)
    mixed = [order(len(truths[k]), seed + k) for k in pictures.tolist()]
    moved = [
        SetTruth(truths[k].labels[rows], truths[k].boxes[rows])
        for k, rows in zip(pictures.tolist(), mixed, strict=True)
    ]
    losses, others = set_losses(outputs, truths, focal), set_losses(shuffled, moved, focal)
    for name, value in losses.items():
        torch.testing.assert_close(value, others[name], rtol=1e-9, atol=1e-12, equal_nan=True)


@FOCALS
@FEW
@given(**PICTURES)
def test_what_is_right_loses_least(counts: list[int], seed: int, focal: bool) -> None:
    """Law: objects that are the first queries' boxes: these are found, lose nothing but their class, and no other
    matching of the same layer has a smaller sum of boxes; a query moved away loses more."""
    outputs, truths = drawn(counts, seed)
    sure = [SetTruth(t.labels, outputs["boxes"][k, : len(t)]) for k, t in enumerate(truths)]
    for k, truth in enumerate(sure):
        outputs["logits"][k] = -20.0
        outputs["logits"][k, :, -1] = -20.0 if focal else 20.0
        rows = torch.arange(len(truth))
        outputs["logits"][k, rows, truth.labels] = 40.0
    losses = set_losses({"logits": outputs["logits"], "boxes": outputs["boxes"]}, sure, focal)
    for value in (losses["classes"], losses["boxes"], losses["giou"]):
        assert float(value) == pytest.approx(0, abs=1e-6)
    if sum(counts):
        assert float(losses["class_error"]) == 0
        moved = {"logits": outputs["logits"], "boxes": outputs["boxes"] + 0.01}
        assert float(total(set_losses(moved, sure, focal))) > float(total(losses)) + 0.01


@pytest.mark.parametrize("background", [True, False])
@FEW
@given(seed=st.integers(0, 999), most=st.integers(1, 40), score=st.sampled_from([0.0, 0.3, 0.9]))
def test_selection_is_nested(seed: int, most: int, score: float, background: bool) -> None:
    """Law: fewer, or of a higher score, are the first of more; scores fall; batched is single; no order of queries."""
    outputs, _ = drawn([0, 0], seed)
    every, found = select(outputs, background, 100, 0.0), select(outputs, background, most, score)
    mixed = select(some(outputs, order(6, seed), 1), background, most, score)
    for k, (mine, all_of_them) in enumerate(zip(found, every, strict=True)):
        assert len(mine) == min(most, int((all_of_them.scores > score).sum()))
        assert bool((all_of_them.scores.diff() <= 0).all())
        (alone,) = select(some(outputs, torch.tensor([k]), 0), background, most, score)
        for name in ("boxes", "scores", "labels"):
            kept = getattr(all_of_them, name)[: len(mine)]
            for other in (kept, getattr(alone, name), getattr(mixed[k], name)):
                torch.testing.assert_close(getattr(mine, name), other, rtol=1e-12, atol=0)
