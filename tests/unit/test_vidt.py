"""ViDT in small: outputs, new networks, gradients, precision, bad input. Oracle: each test's."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.families.detr.deformable_heads import Projection
from course_lib.detection.families.detr.deformable_transformer import inverse_sigmoid
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.neck import EncoderFreeNeck
from course_lib.detection.families.vidt.vidt import ViDT
from course_lib.detection.prediction import IMAGENET, PLAIN

BOTH = pytest.mark.parametrize("neck", [True, False])


def small(neck: bool = True, depths: tuple[int, ...] = (1, 1, 2), **options: Any) -> ViDT:
    """A ViDT for pictures of 64 pixels: windows of 4, 6 [DET] tokens, 2 layers behind."""
    stages = len(depths)
    body = RAMBody(
        *(8, depths, [2**k for k in range(stages)], 4),
        dets=6,
        positions=16,
        cross_stages=(stages - 1,),
        extra=16 if neck else None,
        drop=options.pop("drop", 0.0),
    )
    made: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "points": 2, "hidden": 24, "groups": 4}
    return ViDT(body, neck, **{**made, "dropout": 0.0, "classes": 3 + (not neck), **options})


def pictures(*size: int) -> Tensor:
    return torch.rand(2, 3, *(size or (64, 64)), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("depths", [(1, 1), (1, 1, 2), (1, 1, 1, 1)])
def test_any_number_of_stages(depths: tuple[int, ...]) -> None:
    """Oracle: strides double; all stages but the first are read, and one map more."""
    model = small(depths=depths).eval()
    outputs = model(pictures(), tokens=True)
    sides = [64 // 2**k for k in range(3, 3 + len(depths))]
    assert [tuple(one.shape) for one in outputs.pop("patch_tokens")] == [(2, 16, side, side) for side in sides]
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {
        "logits": (2, 6, 3),
        "boxes": (2, 6, 4),
        "aux_logits": (2, 2, 6, 3),
        "aux_boxes": (2, 2, 6, 4),
        "det_tokens": (2, 6, 16),
        "neck_tokens": (3, 2, 6, 16),
    }
    assert (model.stride, model.body.stride) == (64 // sides[-1],) * 2
    assert torch.equal(outputs["det_tokens"], outputs["neck_tokens"][0])
    every = torch.cat([outputs["aux_boxes"], outputs["boxes"][None]])
    assert bool(((every > 0) & (every < 1)).all())


def test_without_neck() -> None:
    outputs = small(neck=False).eval()(pictures())
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"logits": (2, 6, 4), "boxes": (2, 6, 4)}
    assert bool(((outputs["boxes"] > 0) & (outputs["boxes"] < 1)).all())


def test_what_a_detector_says_of_itself() -> None:
    """Oracle: the contract of all detectors of DETR's line."""
    model, without = small(picture=(64, 64), normalisation=PLAIN), small(neck=False)
    assert (model.classes, model.background, model.queries, model.stride) == (3, False, 6, 32)
    assert (without.classes, without.background, without.queries, without.stride) == (4, True, 6, 16)
    assert (model.picture, model.normalisation) == ((64, 64), PLAIN)
    assert (without.picture, without.normalisation, without.shorter, without.longer) == (None, IMAGENET, 800, 1333)
    assert (small(classes=None).classes, small(neck=False, classes=None).classes) == (91, 92)
    assert not hasattr(model, "anchors")


@BOTH
@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 7)])
def test_any_picture(neck: bool, size: tuple[int, int]) -> None:
    assert all(bool(values.isfinite().all()) for values in small(neck).eval()(pictures(*size)).values())


def test_a_new_network_is_calm() -> None:
    """Oracle: the initialisation of the official code. Boxes stay where the points are, at a size of sigmoid(-2),
    through all layers; every class is at 1 in 100."""
    model = small().eval()
    with torch.no_grad():
        outputs = model(pictures())
        points = model.neck(model.body(pictures())).references
    every = torch.cat([outputs["aux_boxes"], outputs["boxes"][None]])
    torch.testing.assert_close(every[..., :2], points.expand(3, -1, -1, -1), rtol=0, atol=1e-5)
    torch.testing.assert_close(every[..., 2:], torch.full((3, 2, 6, 2), 1 / (1 + math.e**2)), rtol=0, atol=1e-5)
    for name, values in model.class_heads.named_parameters():
        assert "bias" not in name or torch.equal(values, torch.full((3,), -math.log(99)))
    assert points.std().item() > 0.01
    drawn = torch.cat([layer.weight.flatten() for layer in model.body.modules() if isinstance(layer, torch.nn.Linear)])
    assert drawn.std().item() == pytest.approx(0.02 * 0.8796, rel=0.05)  # a normal cut at two deviations
    assert drawn.abs().max().item() <= 0.04
    assert model.body.det_tokens.abs().max().item() <= 0.04


def stirred(model: ViDT) -> ViDT:
    """The model in float64, its numbers drawn anew, so that no head is 0."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.double().parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.data = noise * (0.3 if parameter.dim() > 1 else 0.1)
    return model.eval()


def test_each_layer_refines_the_boxes_before() -> None:
    """Oracle: the box head's change of a layer is the difference of logits to the boxes before it."""
    model = stirred(small())
    with torch.no_grad():
        outputs = model(pictures().double(), tokens=True)
        every = torch.cat([outputs["aux_boxes"], outputs["boxes"][None]])
        for place, head in enumerate(list(model.neck.box_heads)[1:], 1):
            change = inverse_sigmoid(every[place]) - inverse_sigmoid(every[place - 1])
            torch.testing.assert_close(change, head(outputs["neck_tokens"][place]), rtol=0, atol=1e-9)
        for place, head in enumerate(list(model.class_heads)[:-1]):
            torch.testing.assert_close(outputs["aux_logits"][place], head(outputs["neck_tokens"][place]))


def test_no_gradient_through_a_reference() -> None:
    """Oracle: autograd. What a layer makes of its boxes does not teach the box head before it (Zhu et al. 2021)."""
    model = stirred(small())
    outputs = model(pictures().double())
    own = list(model.neck.box_heads[0].parameters())
    for values in (outputs["boxes"], outputs["logits"], outputs["aux_boxes"][1], outputs["aux_logits"]):
        found = torch.autograd.grad(values.sum(), own, retain_graph=True, allow_unused=True)
        assert all(one is None or bool((one == 0).all()) for one in found)
    assert all(bool((one != 0).any()) for one in torch.autograd.grad(outputs["aux_boxes"][0].sum(), own))


@BOTH
def test_every_number_is_trained(neck: bool) -> None:
    """Oracle: autograd: no parameter is left without a gradient by the losses' inputs, as several processes demand."""
    model = stirred(small(neck)).train()
    outputs = model(pictures().double())
    torch.stack([values.square().sum() for values in outputs.values()]).sum().backward()  # type: ignore[no-untyped-call]
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not bool((gradient != 0).any())] == []
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ([] if neck else ["body.stages.2.blocks.1.windows.table"])


@BOTH
def test_precision(neck: bool) -> None:
    """Oracle: float32. Outputs keep the pictures' dtype under autocast too."""
    model, images = small(neck).eval(), pictures()
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model(images)
        exact = model.double()(images.double())
        half = model.bfloat16()(images.bfloat16())
    for key, values in expected.items():
        assert (mixed[key].dtype, exact[key].dtype) == (torch.float32, torch.float64)
        assert half[key].dtype == torch.bfloat16
        torch.testing.assert_close(mixed[key], values, rtol=0, atol=0.1)
        torch.testing.assert_close(exact[key].float(), values, rtol=0, atol=1e-4)


def test_training_differs_where_something_is_dropped() -> None:
    """Oracle: two runs of one batch: alike without, not alike with dropout or blocks left out."""
    cases: list[tuple[dict[str, Any], bool]] = [({}, True), ({"dropout": 0.5}, False), ({"drop": 0.9}, False)]
    for options, alike in cases:
        model = stirred(small(**options)).train()
        runs = [model(pictures().double())["logits"] for _ in range(2)]
        assert torch.equal(*runs) is alike


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda m: m(torch.zeros(2, 1, 8, 8)), ValueError, r"images must be \(B, 3, H, W\)"),
        (lambda m: m(torch.zeros(2, 3, 8, 8).long()), TypeError, "images must be a floating point"),
        (lambda m: m(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8)), TypeError, "mask must be a bool"),
        (lambda m: m(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 9).bool()), ValueError, r"mask must be \(2, 8, 8\)"),
        (
            lambda _: small(neck=False)(pictures(), tokens=True),
            ValueError,
            "tokens must be False for a ViDT without neck",
        ),
        (lambda _: small(groups=3), ValueError, "width must be a multiple of groups, 3, got 16"),
        (lambda _: small(classes=0), ValueError, "classes"),
        (lambda _: small(neck=False, classes=1), ValueError, "classes"),
        (lambda _: small(layers=0), ValueError, "depth"),
        (lambda _: small(heads=3), ValueError, "heads must divide width, 16, got 3"),
        (lambda _: small(dropout=1.5), ValueError, "dropout"),
        (
            lambda _: ViDT(RAMBody(8, (1, 1), (1, 1), 4, cross_stages=()), neck=False),
            ValueError,
            "body must have extra=None where there is no neck",
        ),
        (lambda _: EncoderFreeNeck([], 8), ValueError, "levels"),
        (lambda _: Projection(4, 0, 1), ValueError, "width"),
    ],
)
def test_bad_input(make: Callable[[ViDT], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make(small())


@pytest.mark.gpu
@BOTH
def test_on_a_gpu(neck: bool) -> None:
    """Oracle: the CPU, gradients too, in float64, with padding."""
    model, images, mask = stirred(small(neck)), pictures(37, 50).double(), torch.zeros(2, 37, 50, dtype=torch.bool)
    mask[1, 30:] = mask[1, :, 41:] = True
    results = []
    for device in ("cpu", "cuda"):
        model = model.to(device)
        outputs = model(images.to(device), mask.to(device))
        loss = torch.stack([values.square().sum() for values in outputs.values()]).sum()
        gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
        results.append([x.detach().cpu() for x in (*outputs.values(), *gradients)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-8, atol=1e-10)
