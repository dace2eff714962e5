"""Losses of sets. Oracles: by hand, the loop form with gradients, torch. Official numbers are in tests/parity."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.detection.assignment import Costs, SetTruth, check_sets, hungarian, layer_costs, match_sets
from course_lib.detection.boxes import giou, iou
from course_lib.detection.set_losses import FOCAL, SetWeights, set_losses, total
from course_lib.plain.sets import focal_loss, giou_pair, set_losses_loop

DOUBLE = torch.float64
NAN, INF = float("nan"), float("inf")
FOCALS = pytest.mark.parametrize("focal", [False, True])


def drawn(counts: tuple[int, ...] = (2, 0, 3), queries: int = 5, seed: int = 0) -> tuple[Any, list[SetTruth]]:
    """Outputs with two auxiliary layers and proposals, and objects; the gradient of each output is asked for."""
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return 0.05 + 0.6 * torch.rand(*shape, 4, generator=generator, dtype=DOUBLE)

    outputs = {}
    for prefix, lead in (
        ("", (len(counts), queries)),
        ("aux_", (2, len(counts), queries)),
        ("proposal_", (len(counts), 6)),
    ):
        outputs[f"{prefix}logits"] = 2 * torch.randn(*lead, 4, generator=generator, dtype=DOUBLE)
        outputs[f"{prefix}boxes"] = boxes(*lead)
    truths = [SetTruth(torch.randint(0, 3, (n,), generator=generator), boxes(n)) for n in counts]
    return {name: value.requires_grad_() for name, value in outputs.items()}, truths


def only(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The last layer."""
    return {name: outputs[name] for name in ("logits", "boxes")}


@pytest.mark.parametrize(
    ("a", "b", "shared", "value"),
    [
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, -5 / 63),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0, -1 / 3),
        ((0, 0, 1, 1), (9, 0, 10, 1), 0, -0.8),
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25, 0.25),
    ],
)
def test_giou_by_hand(a: tuple[int, ...], b: tuple[int, ...], shared: float, value: float) -> None:
    """Oracle: areas counted in squares. It goes on falling where IoU is 0 already."""
    first, second = torch.tensor(a, dtype=DOUBLE), torch.tensor(b, dtype=DOUBLE)
    assert float(iou(first, second, paired=True)) == pytest.approx(shared)
    assert float(giou(first, second, paired=True)) == pytest.approx(value)
    centres = [torch.cat([(x[:2] + x[2:]) / 2, x[2:] - x[:2]]) for x in (first, second)]
    assert float(giou_pair(*centres)) == pytest.approx(value)


def test_three_queries_and_two_objects() -> None:
    """Oracle: by hand. Cross-entropy (-ln .7 - ln .6 - .1 ln .1) / 2.1, L1 distances .04 and .05, GIoU 5/6 and 5/7."""
    p = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.6, 0.3, 0.1]]], dtype=DOUBLE)
    boxes = torch.tensor([[[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.3, 0.3], [0.32, 0.3, 0.2, 0.24]]], dtype=DOUBLE)
    wanted = torch.tensor([[0.3, 0.3, 0.2, 0.24], [0.7, 0.65, 0.3, 0.3]], dtype=DOUBLE)
    losses = set_losses({"logits": p.log(), "boxes": boxes}, [SetTruth(torch.tensor([0, 1]), wanted)])
    by_hand = -(math.log(0.7) + math.log(0.6) + 0.1 * math.log(0.1)) / 2.1
    assert by_hand == pytest.approx(0.522742, abs=5e-7)
    assert float(losses["classes"]) == pytest.approx(by_hand)
    assert float(losses["boxes"]) == pytest.approx((0.04 + 0.05) / 2)
    assert float(losses["giou"]) == pytest.approx((1 / 6 + 2 / 7) / 2)
    assert float(total(losses)) == pytest.approx(1.200123, abs=5e-7)
    assert float(losses["class_error"]) == 0
    assert float(losses["cardinality"]) == 1  # the third query says class 0, too


def test_class_error_and_cardinality_by_hand() -> None:
    """Oracle: counted: of two matched queries one says another class; pictures have 1 and 1, and say 2 and 0."""
    said = torch.tensor([[0, 1, 2], [2, 2, 2]])
    boxes = torch.rand(2, 3, 4, dtype=DOUBLE)
    truths = [SetTruth(torch.tensor([k]), boxes[k, :1]) for k in (0, 1)]
    losses = set_losses({"logits": 9 * torch.eye(3, dtype=DOUBLE)[said], "boxes": boxes}, truths)
    assert float(losses["class_error"]) == 50
    assert float(losses["cardinality"]) == 1
    assert not any(losses[name].requires_grad for name in ("class_error", "cardinality"))


def test_focal_loss_by_hand() -> None:
    """Oracle: by hand for p = .9: .25 * .1^2 * -ln .9 for yes, .75 * .9^2 * -ln .1 for no; torch with gamma 0."""
    x = torch.tensor(math.log(9.0), dtype=DOUBLE)
    assert float(focal_loss(x, True)) == pytest.approx(0.25 * 0.01 * -math.log(0.9))
    assert float(focal_loss(x, False)) == pytest.approx(0.75 * 0.81 * -math.log(0.1))
    outputs, truths = drawn()
    losses = set_losses(only(outputs), truths, focal=True, alpha=0.5, gamma=0, costs=Costs())
    labels = torch.zeros(3, 5, 4, dtype=DOUBLE)
    for k, (queries, objects) in enumerate(_pairs(outputs, truths)):
        labels[k, queries, truths[k].labels[objects]] = 1
    expected = F.binary_cross_entropy_with_logits(outputs["logits"], labels, reduction="sum") / 2 / 5
    torch.testing.assert_close(losses["classes"], expected)


def _pairs(outputs: dict[str, Tensor], truths: list[SetTruth]) -> list[tuple[Tensor, Tensor]]:
    """As matched with alpha .5 and gamma 0: its cost is -x / 2."""
    packed = check_sets(outputs["logits"], outputs["boxes"], truths)
    table = layer_costs(outputs["logits"][None], outputs["boxes"][None], packed, Costs(), True, 0.5, 0.0)[0]
    return [hungarian(one.T) for one in torch.split(table, packed.counts)]


@FOCALS
@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0), (1,), (3, 3)])
def test_equals_the_loop(counts: tuple[int, ...], focal: bool) -> None:
    """Oracle: layer after layer, picture after picture, query after query: each loss, and the gradient of each."""
    outputs, truths = drawn(counts)
    mine, theirs = (function(outputs, truths, focal) for function in (set_losses, set_losses_loop))
    assert {name for name in mine if "cardinality" not in name} == {*theirs, "class_error"}
    assert len(theirs) == 9
    for name, loop in theirs.items():
        torch.testing.assert_close(
            mine[name], loop, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )
        weights = torch.arange(1.0, 1 + loop.numel(), dtype=DOUBLE).view(loop.shape)
        gradients = [
            torch.autograd.grad(
                (weights * x[name]).sum(), list(outputs.values()), retain_graph=True, materialize_grads=True
            )
            for x in (mine, theirs)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@FOCALS
def test_gradients(focal: bool) -> None:
    """Oracle: gradcheck, of the sum of all losses; no matching is so near another that it changes with the step."""
    outputs, truths = drawn((1, 1), queries=2)
    outputs = only(outputs)
    names = list(outputs)

    def summed(*tensors: Tensor) -> Tensor:
        return total(set_losses(dict(zip(names, tensors, strict=True)), truths, focal), FOCAL)

    assert torch.autograd.gradcheck(summed, tuple(outputs.values()))


@FOCALS
def test_each_layer_has_a_matching_of_its_own(focal: bool) -> None:
    """Oracle: every layer given as the last one; the layers here do not agree on who finds what."""
    outputs, truths = drawn()
    losses = set_losses(outputs, truths, focal)
    pairs = []
    for layer in range(2):
        alone = {"logits": outputs["aux_logits"][layer], "boxes": outputs["aux_boxes"][layer]}
        pairs.append(match_sets(alone, truths, focal=focal)[2][0].tolist())
        for name, value in set_losses(alone, truths, focal).items():
            if name != "class_error":
                torch.testing.assert_close(losses[f"aux_{name}"][layer], value)
    assert pairs[0] != pairs[1]


@FOCALS
def test_proposals_are_all_of_class_0(focal: bool) -> None:
    """Oracle: the proposals given as the last layer, and objects that are all called 0; the labels are others."""
    outputs, truths = drawn()
    assert any(bool(truth.labels.any()) for truth in truths)
    alone = {"logits": outputs["proposal_logits"], "boxes": outputs["proposal_boxes"]}
    nameless = [SetTruth(torch.zeros_like(truth.labels), truth.boxes) for truth in truths]
    losses, expected = set_losses(outputs, truths, focal), set_losses(alone, nameless, focal)
    for name in ("classes", "boxes", "giou", "cardinality"):
        torch.testing.assert_close(losses[f"proposal_{name}"], expected[name])


def test_total() -> None:
    """Oracle: written out; 1, 5, 2 unless said otherwise; what is only logged has no part in it."""
    losses = set_losses(*drawn())
    sums = [
        sum(losses[f"{layer}{name}"].sum() for layer in ("", "aux_", "proposal_"))
        for name in ("classes", "boxes", "giou")
    ]
    torch.testing.assert_close(total(losses), sums[0] + 5 * sums[1] + 2 * sums[2])
    torch.testing.assert_close(total(losses, FOCAL), 2 * sums[0] + 5 * sums[1] + 2 * sums[2])
    torch.testing.assert_close(total(losses, SetWeights(0, 3, 0)), 3 * sums[1])
    with pytest.raises(ValueError, match=r"losses must have classes, boxes, giou, got none for boxes, giou"):
        total({"classes": losses["classes"]})


@FOCALS
def test_nothing_to_find(focal: bool) -> None:
    """Oracle: boxes lose nothing and have gradients of 0; every query is to say "no object"; nothing was wrong."""
    outputs, truths = drawn((0, 0))
    losses = set_losses(outputs, truths, focal)
    for name in ("boxes", "giou", "proposal_boxes", "proposal_giou"):
        assert float(losses[name].detach()) == 0
    assert not losses["aux_boxes"].any()
    assert losses["class_error"].isnan()
    gradients = dict(zip(outputs, torch.autograd.grad(total(losses), list(outputs.values())), strict=True))
    for name, gradient in gradients.items():
        assert bool(gradient.isfinite().all())
        assert bool(gradient.any()) == name.endswith("logits")
    nothing = torch.full((10,), 3)
    if not focal:
        torch.testing.assert_close(losses["classes"], F.cross_entropy(outputs["logits"].flatten(0, 1), nothing))


@FOCALS
def test_more_objects_than_queries(focal: bool) -> None:
    """Oracle: two queries find two of nine objects, and the sums are divided by nine as in the official code."""
    outputs, truths = drawn((9,), queries=2)
    losses = set_losses(only(outputs), truths, focal)
    ((queries, objects),) = match_sets(outputs, truths, focal=focal)
    assert queries.tolist() == [0, 1]
    distance = (outputs["boxes"][0, queries] - truths[0].boxes[objects]).abs().sum() / 9
    torch.testing.assert_close(losses["boxes"], distance)
    if not focal:  # both are matched: the plain mean of two
        right = truths[0].labels[objects]
        torch.testing.assert_close(losses["classes"], F.cross_entropy(outputs["logits"][0], right))


@FOCALS
@pytest.mark.parametrize("kind", [float, torch.tensor])
def test_several_processes(kind: Any, focal: bool) -> None:
    """Oracle: one process with the whole batch: four pictures, of which one of two processes has the two empty ones."""
    outputs, truths = drawn((2, 3, 0, 0))
    whole = total(set_losses(outputs, truths, focal))
    parts = []
    for share in (slice(0, 2), slice(2, 4)):
        mine = {name: value[:, share] if name.startswith("aux_") else value[share] for name, value in outputs.items()}
        parts.append(total(set_losses(mine, truths[share], focal, count=kind(2.5))))
    torch.testing.assert_close((parts[0] + parts[1]) / 2, whole)


def test_count() -> None:
    """Oracle: sums over what is given, and over 1 where it is less."""
    outputs, truths = drawn()
    plain = set_losses(only(outputs), truths, focal=True)
    for count, divided in ((10, 10), (0.5, 1), (torch.tensor([0]), 1), (torch.tensor(7), 7)):
        losses = set_losses(only(outputs), truths, focal=True, count=count)
        for name in ("classes", "boxes", "giou"):
            torch.testing.assert_close(losses[name], plain[name] * 5 / divided)


@FOCALS
def test_half_precision_and_autocast(focal: bool) -> None:
    """Oracle: the same numbers in float32; the result is float32."""
    outputs, truths = drawn()
    half = {name: value.detach().bfloat16() for name, value in outputs.items()}
    truths = [SetTruth(truth.labels, truth.boxes.float()) for truth in truths]
    expected = set_losses({name: value.float() for name, value in half.items()}, truths, focal)
    with torch.autocast("cpu", torch.bfloat16):
        for name, value in set_losses(half, truths, focal).items():
            assert value.dtype == torch.float32
            assert torch.equal(value, expected[name])


def test_no_object_counts_eos() -> None:
    """Oracle: torch's weighted mean; the class of two objects that share a label is asked of both queries."""
    outputs, truths = drawn()
    wanted = torch.full((3, 5), 3)
    for k, (queries, objects) in enumerate(match_sets(outputs, truths)):
        wanted[k, queries] = truths[k].labels[objects]
    for eos in (0.0, 0.1, 0.7, 1.0):
        weight = torch.tensor([1, 1, 1, eos], dtype=DOUBLE)
        expected = F.cross_entropy(outputs["logits"].flatten(0, 1), wanted.flatten(), weight)
        torch.testing.assert_close(set_losses(only(outputs), truths, eos=eos)["classes"], expected)
    outputs, truths = drawn((0, 0))
    assert float(set_losses(only(outputs), truths, eos=0)["classes"].detach()) == 0


OUTPUTS, TRUTHS = drawn()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"outputs": only(OUTPUTS) | {"aux_logits": OUTPUTS["aux_logits"]}},
            ValueError,
            "must have aux_logits and aux_",
        ),
        (
            {"outputs": OUTPUTS | {"aux_logits": torch.zeros(2, 3, 5, 7)}},
            ValueError,
            r"aux_logits must be \('L', 3, 5, 4\) as logits, got \(2, 3, 5, 7\)",
        ),
        ({"outputs": OUTPUTS | {"aux_logits": torch.zeros(3, 5, 4)}}, ValueError, r"aux_logits must be \(L, N, Q, C\)"),
        (
            {"outputs": OUTPUTS | {"aux_boxes": torch.zeros(2, 3, 5, 3)}},
            ValueError,
            r"aux_boxes must be \(2, 3, 5, 4\)",
        ),
        (
            {"outputs": OUTPUTS | {"proposal_logits": torch.zeros(2, 6, 4), "proposal_boxes": torch.zeros(2, 6, 4)}},
            ValueError,
            r"proposal_logits must be of 3 pictures, got \(2, 6, 4\)",
        ),
        (
            {"outputs": OUTPUTS | {"aux_boxes": torch.full((2, 3, 5, 4), NAN)}},
            ValueError,
            "boxes must be finite, got NaN",
        ),
        ({"truths": TRUTHS[:1]}, ValueError, "truths must be one for each of 3 pictures"),
        ({"eos": 2}, ValueError, r"eos must be in \[0, 1\], got 2"),
        ({"alpha": -1}, ValueError, r"alpha must be in \[0, 1\], got -1"),
        ({"gamma": -1}, ValueError, "gamma must be 0 or more and finite, got -1"),
        ({"gamma": INF}, ValueError, "gamma must be 0 or more and finite, got inf"),
        ({"count": -1}, ValueError, "count must be 0 or more, got -1"),
        ({"count": NAN}, ValueError, "count must be 0 or more, got nan"),
        ({"count": torch.ones(2)}, ValueError, r"count must be one number, got the shape \(2,\)"),
    ],
)
def test_refusals(change: dict[str, Any], error: type[Exception], message: str) -> None:
    """Oracle: the message names the argument and what came."""
    with pytest.raises(error, match=message):
        set_losses(**{"outputs": OUTPUTS, "truths": TRUTHS, **change})


@pytest.mark.gpu
@FOCALS
def test_cuda(focal: bool) -> None:
    """Oracle: the same on a CPU, in double precision: losses and gradients."""
    results = []
    for device in ("cpu", "cuda"):
        outputs, truths = drawn((2, 0, 3, 7))
        there = {name: value.detach().to(device).requires_grad_() for name, value in outputs.items()}
        losses = set_losses(there, [truth.to(device) for truth in truths], focal)
        gradients = torch.autograd.grad(total(losses), list(there.values()))
        results.append([x.cpu() for x in (*losses.values(), *gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
