"""Who finds what. Oracles: by hand, all ways tried, scipy on whole matrices. Official numbers are in tests/parity."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from course_lib.detection import assignment
from course_lib.detection.assignment import Costs, SetTruth, hungarian, match_sets, matching_cost
from course_lib.plain.sets import match_brute_force, match_greedy, match_one_matrix, matching_cost_loop

DOUBLE = torch.float64
NAN, INF = float("nan"), float("inf")
P = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.6, 0.3, 0.1]]], dtype=DOUBLE)
BOXES = torch.tensor([[[0.30, 0.30, 0.20, 0.20], [0.70, 0.70, 0.30, 0.30], [0.32, 0.30, 0.20, 0.24]]], dtype=DOUBLE)
TRUTH = SetTruth(torch.tensor([0, 1]), torch.tensor([[0.30, 0.30, 0.20, 0.24], [0.70, 0.65, 0.30, 0.30]], dtype=DOUBLE))


def drawn(counts: tuple[int, ...], queries: int = 6, classes: int = 4, seed: int = 0) -> tuple[Any, list[SetTruth]]:
    """Outputs of as many pictures as there are counts, and their objects, whose labels are below classes - 1."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return 0.05 + 0.6 * torch.rand(*shape, 4, generator=generator, dtype=DOUBLE)

    outputs = {
        "logits": 2 * torch.randn(len(counts), queries, classes, generator=generator, dtype=DOUBLE),
        "boxes": boxes(len(counts), queries),
    }
    labels = [torch.randint(0, classes - 1, (n,), generator=generator) for n in counts]
    return outputs, [SetTruth(names, boxes(len(names))) for names in labels]


def test_by_hand() -> None:
    """Oracle: the six ways of a 3 x 3 matrix; the cheapest pair first is dearer."""
    cost = torch.tensor([[4.0, 1, 3], [2, 0, 5], [3, 2, 2]])
    rows, columns = hungarian(cost)
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2], [1, 0, 2])
    assert float(cost[rows, columns].sum()) == 5
    assert match_brute_force(cost) == [(0, 1), (1, 0), (2, 2)]
    greedy = match_greedy(cost)
    assert greedy == [(0, 0), (1, 1), (2, 2)]
    assert sum(float(cost[pair]) for pair in greedy) == 6


def test_three_queries_and_two_objects() -> None:
    """Oracle: costs computed by hand. The third query is nearly as good as the first, and gets nothing."""
    (cost,) = matching_cost(P.log(), BOXES, [TRUTH])
    expected = [[-2.16667, 5.88333], [6.06625, -1.77857], [-2.13636, 5.44340]]
    np.testing.assert_allclose(cost.numpy(), expected, atol=5e-6)
    ((queries, objects),) = match_sets({"logits": P.log(), "boxes": BOXES}, [TRUTH])
    assert (queries.tolist(), objects.tolist()) == ([0, 1], [0, 1])
    assert float(cost[queries, objects].sum()) == pytest.approx(-3.94524, abs=5e-6)


def test_weights_of_the_cost() -> None:
    """Oracle: the three parts, each alone with weight 1, add up by weight."""
    parts = [matching_cost(P.log(), BOXES, [TRUTH], Costs(*one))[0] for one in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    (cost,) = matching_cost(P.log(), BOXES, [TRUTH], Costs(3, 0.5, 7))
    torch.testing.assert_close(cost, 3 * parts[0] + 0.5 * parts[1] + 7 * parts[2])
    torch.testing.assert_close(parts[0], -P[0][:, :2])


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (6,), (4, 1)])
def test_costs_equal_the_loop(counts: tuple[int, ...], focal: bool) -> None:
    """Oracle: every pair by itself."""
    outputs, truths = drawn(counts)
    made = matching_cost(outputs["logits"], outputs["boxes"], truths, focal=focal)
    for logits, boxes, truth, cost in zip(outputs["logits"], outputs["boxes"], truths, made, strict=True):
        assert cost.shape == (6, len(truth))
        torch.testing.assert_close(cost, matching_cost_loop(logits, boxes, truth, focal), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("counts", [(2, 0, 3), (6,), (1, 9, 7), (0,)])
def test_matching_is_the_best_of_all(counts: tuple[int, ...]) -> None:
    """Oracle: all ways tried; of nine objects and six queries as many are found as there are queries."""
    outputs, truths = drawn(counts)
    costs = matching_cost(outputs["logits"], outputs["boxes"], truths)
    for (queries, objects), cost, n in zip(match_sets(outputs, truths), costs, counts, strict=True):
        assert queries.dtype == objects.dtype == torch.int64
        assert len(queries) == min(6, n)
        best = match_brute_force(cost) if n < 9 else list(zip(*(x.tolist() for x in hungarian(cost)), strict=True))
        assert list(zip(queries.tolist(), objects.tolist(), strict=True)) == best


def test_equals_one_matrix_of_the_batch() -> None:
    """Oracle: the official way, 16 pictures of 100 queries and up to 20 objects."""
    outputs, truths = drawn(tuple(range(5, 21)), queries=100, classes=30)
    expected = match_one_matrix(outputs["logits"], outputs["boxes"], truths)
    for mine, theirs in zip(match_sets(outputs, truths), expected, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_no_picture_is_compared_with_anothers_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: how many numbers scipy is given and the IoU is computed of: those of each picture's own block."""
    given: list[int] = []
    computed: list[int] = []
    giou = assignment.box.giou

    def counting(table: Any) -> Any:
        given.append(table.size)
        return linear_sum_assignment(table)

    def counting_too(a: Tensor, b: Tensor) -> Tensor:
        made = giou(a, b)
        computed.append(made.numel())
        return made

    monkeypatch.setattr("scipy.optimize.linear_sum_assignment", counting)
    monkeypatch.setattr(assignment.box, "giou", counting_too)
    match_sets(*drawn((2, 0, 3)))
    assert given == [12, 18]
    assert computed == [30]


def test_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: how often a tensor is asked for its numbers, which on a GPU is to wait for all that it does."""
    asked = []
    for name in ("cpu", "tolist", "item", "__bool__", "__int__", "__float__", "nonzero"):
        real = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda *a, real=real, name=name, **k: (asked.append(name), real(*a, **k))[1])
    match_sets(*drawn((2, 0, 3)))
    assert asked == ["cpu"]


def test_half_precision_and_autocast() -> None:
    """Oracle: the same numbers in float32."""
    outputs, truths = drawn((2, 3))
    half = {name: value.bfloat16() for name, value in outputs.items()}
    small = [SetTruth(truth.labels, truth.boxes.float()) for truth in truths]
    wide = {name: value.float() for name, value in half.items()}
    expected = matching_cost(wide["logits"], wide["boxes"], small)
    with torch.autocast("cpu", torch.bfloat16):
        for mine, theirs in zip(matching_cost(half["logits"], half["boxes"], small), expected, strict=True):
            assert mine.dtype == torch.float32
            assert torch.equal(mine, theirs)


OUTPUTS, TRUTHS = drawn((2, 0, 3))


def changed(name: str, value: float, place: tuple[int, ...] = (0, 1, 0)) -> dict[str, Tensor]:
    table = OUTPUTS[name].clone()
    table[place] = value
    return {**OUTPUTS, name: table}


@pytest.mark.parametrize(
    ("outputs", "truths", "error", "message"),
    [
        (changed("logits", NAN), TRUTHS, ValueError, "logits must be finite, got NaN"),
        (changed("logits", INF), TRUTHS, ValueError, "logits must be finite, got infinite numbers"),
        (changed("boxes", NAN, (2, 5, 3)), TRUTHS, ValueError, "boxes must be finite, got NaN"),
        (changed("boxes", -INF), TRUTHS, ValueError, "boxes must be finite, got infinite numbers"),
        (
            OUTPUTS,
            [*TRUTHS[:2], SetTruth(torch.tensor([1]), torch.full((1, 4), NAN, dtype=DOUBLE))],
            ValueError,
            "truths must be finite, got NaN$",
        ),
        (
            OUTPUTS,
            [*TRUTHS[:2], SetTruth(torch.tensor([3]), torch.ones(1, 4, dtype=DOUBLE))],  # "no object" is no label
            ValueError,
            "truths must have labels from 0 to 2, classes in logits, got 0 to 3",
        ),
        (
            OUTPUTS,
            [*TRUTHS[:2], SetTruth(torch.tensor([-1]), torch.ones(1, 4, dtype=DOUBLE))],
            ValueError,
            "labels from 0 to 2.*got -1 to",
        ),
        (changed("logits", NAN, (1, 0, 0)), TRUTHS, ValueError, "logits must be finite, got NaN"),  # nothing is in it
        (changed("boxes", INF, (1, 0, 0)), TRUTHS, ValueError, "boxes must be finite, got infinite numbers"),
        (
            OUTPUTS,
            [*TRUTHS[:2], SetTruth(torch.tensor([1]), torch.tensor([[50.0, 50, 20, 20]], dtype=DOUBLE))],  # pixels
            ValueError,
            r"boxes cxcywh in parts of the picture, width and height >= 0, got \(50, 50, 20, 20\)",
        ),
        (
            OUTPUTS,
            [*TRUTHS[:2], SetTruth(torch.tensor([1]), torch.tensor([[0.5, 0.5, -0.2, 0.2]], dtype=DOUBLE))],
            ValueError,
            r"width and height >= 0, got \(0.5, 0.5, -0.2, 0.2\)",
        ),
        (OUTPUTS, TRUTHS[:2], ValueError, "truths must be one for each of 3 pictures, at least one, got 2"),
        (OUTPUTS, TRUTHS[0], TypeError, "truths must be a list of SetTruth, got SetTruth"),
        (OUTPUTS, [{}, {}, {}], TypeError, "truths must be a list of SetTruth, got .'dict', 'dict', 'dict'"),
        ([], TRUTHS, TypeError, "outputs must be a mapping with logits and boxes, got list"),
        ({"logits": OUTPUTS["logits"]}, TRUTHS, ValueError, r"outputs must have logits and boxes, got \['logits'\]"),
        ({**OUTPUTS, "logits": 3}, TRUTHS, TypeError, "logits must be a floating-point tensor, got int"),
        ({**OUTPUTS, "logits": OUTPUTS["logits"][0]}, TRUTHS, ValueError, r"logits must be \(N, Q, C\) with Q, C >= 1"),
        ({**OUTPUTS, "boxes": OUTPUTS["boxes"][:, 1:]}, TRUTHS, ValueError, r"boxes must be \(3, 6, 4\) as logits"),
        ({**OUTPUTS, "boxes": OUTPUTS["boxes"].long()}, TRUTHS, TypeError, "boxes must be a floating-point tensor"),
    ],
)
def test_refusals(outputs: Any, truths: Any, error: type[Exception], message: str) -> None:
    """Oracle: the message names the argument and what came."""
    with pytest.raises(error, match=message):
        match_sets(outputs, truths)


def test_other_refusals() -> None:
    """Oracle: as above."""
    for cost in (torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), [[1.0]]):
        with pytest.raises(TypeError, match=r"cost must be a floating-point torch.Tensor \(q, n\), got"):
            hungarian(cost)  # type: ignore[arg-type]
    for number in (NAN, INF, -INF):
        with pytest.raises(ValueError, match=f"cost must be finite, got {number} in row 1, column 0"):
            hungarian(torch.tensor([[1.0, 2], [number, 3]]))
    for number in (-1.0, NAN, INF):
        with pytest.raises(ValueError, match=f"giou must be 0 or more and finite, got {number}"):
            Costs(giou=number)
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\) and labels \(n,\), got \(2, 4\) and \(3,\)"):
        SetTruth(torch.tensor([1, 2, 3]), torch.zeros(2, 4))
    with pytest.raises(TypeError, match=r"labels must be an int64 tensor, got torch.float32"):
        SetTruth(torch.zeros(2), torch.zeros(2, 4))


def test_the_last_column_is_a_class_of_sigmoids() -> None:
    """Oracle: the four columns of the logits, of which none is "no object"."""
    last, beyond = (SetTruth(torch.tensor([label]), torch.ones(1, 4, dtype=DOUBLE)) for label in (3, 4))
    assert len(match_sets(OUTPUTS, [last, *TRUTHS[1:]], focal=True)[0][0]) == 1
    with pytest.raises(ValueError, match="truths must have labels from 0 to 3, classes in logits, got 0 to 4"):
        match_sets(OUTPUTS, [beyond, *TRUTHS[1:]], focal=True)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3)])
def test_nothing_to_match(shape: tuple[int, int]) -> None:
    """Oracle: no pairs."""
    assert [len(x) for x in hungarian(torch.zeros(shape))] == [0, 0]


@pytest.mark.gpu
def test_cuda() -> None:
    """Oracle: the same on a CPU, and there results are."""
    outputs, truths = drawn((2, 0, 9))
    there = {name: value.cuda() for name, value in outputs.items()}
    found = match_sets(there, [truth.to("cuda") for truth in truths])
    for mine, theirs in zip(found, match_sets(outputs, truths), strict=True):
        assert all(x.is_cuda and torch.equal(x.cpu(), y) for x, y in zip(mine, theirs, strict=True))
    assert all(x.is_cuda for x in hungarian(there["logits"][0]))
    with pytest.raises(ValueError, match=r"truths\[0\] and logits must be on one device, got cpu and cuda:0"):
        match_sets(there, truths)
    wrong = SetTruth(torch.tensor([7]), torch.ones(1, 4, dtype=DOUBLE)).to("cuda")
    with pytest.raises(ValueError, match=r"labels from 0 to 2.*got 7 to 7"):
        match_sets({name: value[:1] for name, value in there.items()}, [wrong])
