"""Matching, losses and selection of sets. Oracle: what the codes of DETR, Deformable DETR and ViDT gave (goldens).

Outputs and objects are drawn as they were for the goldens, which hold the objects, too.
"""

from functools import cache

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from course_lib.detection.assignment import Costs, SetTruth, match_sets, matching_cost
from course_lib.detection.boxes import giou, iou
from course_lib.detection.set_losses import FOCAL, SetWeights, set_losses, total
from course_lib.detection.set_prediction import select
from course_lib.plain.sets import match_one_matrix
from tests.parity import fill

NUMBERS = {"detr": (3, 100, 92), "deformable": (3, 300, 91), "vidt": (2, 100, 91), "vidt_wo_neck": (2, 100, 92)}
OBJECTS = {"detr": (5, 12, 0), "deformable": (5, 12, 0), "vidt": (5, 9), "vidt_wo_neck": (5, 9)}
COSTS = {"detr": Costs(), "deformable": Costs(2), "vidt": Costs(2), "vidt_wo_neck": Costs(2)}
OFFICIAL = {"classes": "loss_ce", "boxes": "loss_bbox", "giou": "loss_giou", "cardinality": "cardinality_error"}
SIZES = ((480, 640), (300, 400), (100, 200))
BOTH = pytest.mark.parametrize("name", ["detr", "deformable"])
ALL = pytest.mark.parametrize("name", list(NUMBERS))


@cache
def golden() -> dict[str, Tensor]:
    return load_file(fill.HERE / "golden" / "sets.safetensors")


def focal(name: str) -> bool:
    return name in ("deformable", "vidt")


@cache
def drawn(name: str) -> tuple[dict[str, Tensor], list[SetTruth]]:
    """Outputs and objects; DETR's has two auxiliary layers, which are drawn first."""
    generator = torch.Generator().manual_seed(7)
    layers = (3,) if name == "detr" else ()
    logits = torch.randn(*layers, *NUMBERS[name], generator=generator)
    boxes = torch.rand(*layers, *NUMBERS[name][:2], 4, generator=generator)
    boxes[..., 2:] = boxes[..., 2:] * 0.5 + 0.01
    truths = []
    for n in OBJECTS[name]:
        centre, size = (torch.rand(n, 2, generator=generator) for _ in range(2))
        labels = torch.randint(1, 91, (n,), generator=generator)
        truths.append(SetTruth(labels, torch.cat([centre * 0.6 + 0.2, size * 0.3 + 0.05], 1)))
    if not layers:
        return {"logits": logits, "boxes": boxes}, truths
    last = {"logits": logits[-1], "boxes": boxes[-1]}
    return {**last, "aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}, truths


@ALL
def test_the_objects_are_those_of_the_goldens(name: str) -> None:
    for k, truth in enumerate(drawn(name)[1]):
        assert torch.equal(truth.labels, golden()[f"{name}.target{k}.labels"])
        torch.testing.assert_close(truth.boxes, golden()[f"{name}.target{k}.boxes"], rtol=0, atol=1e-7)


def test_iou_and_giou() -> None:
    stored = {key: golden()[f"detr.giou.{key}"] for key in ("a_xyxy", "b_xyxy", "giou", "iou")}
    for key, mine in (("giou", giou), ("iou", iou)):
        made = mine(stored["a_xyxy"], stored["b_xyxy"])
        torch.testing.assert_close(made, stored[key], rtol=0, atol=5e-7)


@BOTH
def test_the_same_matching(name: str) -> None:
    """Picture by picture, in the official order; DETR's costs are stored, too."""
    outputs, truths = drawn(name)
    found = match_sets(outputs, truths, focal=focal(name))
    costs = matching_cost(outputs["logits"], outputs["boxes"], truths, focal=focal(name))
    for k, ((queries, objects), cost) in enumerate(zip(found, costs, strict=True)):
        assert torch.equal(queries, golden()[f"{name}.match.{k}.pred_index"])
        assert torch.equal(objects, golden()[f"{name}.match.{k}.target_index"])
        if name == "detr":
            torch.testing.assert_close(cost, golden()[f"detr.match.{k}.cost"], rtol=0, atol=2e-6)


def test_the_matching_by_one_matrix() -> None:
    """The official way, in plain steps, gives the same pairs."""
    outputs, truths = drawn("detr")
    for k, (queries, objects) in enumerate(match_one_matrix(outputs["logits"], outputs["boxes"], truths)):
        assert torch.equal(queries, golden()[f"detr.match.{k}.pred_index"])
        assert torch.equal(objects, golden()[f"detr.match.{k}.target_index"])


@ALL
def test_the_losses(name: str) -> None:
    """Those of the last layer, and what is logged."""
    losses = set_losses(*drawn(name), focal=focal(name), costs=COSTS[name])
    for mine, theirs in {**OFFICIAL, "class_error": "class_error"}.items():
        torch.testing.assert_close(losses[mine], golden()[f"{name}.{theirs}"], rtol=1e-6, atol=1e-6)


def test_the_losses_of_auxiliary_layers() -> None:
    losses = set_losses(*drawn("detr"))
    for mine, theirs in OFFICIAL.items():
        official = torch.stack([golden()[f"detr.{theirs}_{layer}"] for layer in range(2)])
        torch.testing.assert_close(losses[f"aux_{mine}"], official, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(total(losses), golden()["detr.total_weighted"], rtol=1e-6, atol=0)


def test_the_numbers_of_the_sheet() -> None:
    """As they were written down: DETR's losses and their sum, Deformable DETR's, ViDT's without neck."""
    losses = set_losses(*drawn("detr"))
    values = [float(losses[name]) for name in ("classes", "boxes", "giou", "cardinality")]
    assert values == pytest.approx([4.957716, 0.251374, 0.741218, 93.0], abs=2e-6)
    assert float(total(losses)) == pytest.approx(23.626759, abs=1e-5)
    losses = set_losses(*drawn("deformable"), focal=True)
    values = [float(losses[name]) for name in ("boxes", "giou", "cardinality")]
    assert values == pytest.approx([0.288883, 0.844433, 291.333333], abs=2e-5)
    assert float(losses["classes"]) == pytest.approx(1242.078979, rel=1e-6)
    weighted = 2 * 1242.078979 + 5 * 0.288883 + 2 * 0.844433
    assert float(total(losses, FOCAL)) == pytest.approx(weighted, rel=1e-6)
    losses = set_losses(*drawn("vidt_wo_neck"), costs=COSTS["vidt_wo_neck"])
    weighted = sum(
        w * float(golden()[f"vidt_wo_neck.{k}"]) for w, k in ((1, "loss_ce"), (5, "loss_bbox"), (2, "loss_giou"))
    )
    assert float(total(losses, SetWeights())) == pytest.approx(weighted, rel=1e-6)


def test_nothing_to_find() -> None:
    """DETR's last layer with no object in any picture: the cross-entropy that was stored, and no loss of boxes."""
    outputs, truths = drawn("detr")
    nothing = [SetTruth(truth.labels[:0], truth.boxes[:0]) for truth in truths]
    losses = set_losses({key: outputs[key] for key in ("logits", "boxes")}, nothing)
    torch.testing.assert_close(losses["classes"], golden()["detr.crit_empty.loss_ce"], rtol=1e-6, atol=0)
    assert float(losses["classes"]) == pytest.approx(5.041627, abs=2e-6)
    assert float(losses["boxes"]) == float(losses["giou"]) == 0


@BOTH
def test_what_is_selected(name: str) -> None:
    """Boxes, scores and labels; DETR's code keeps the order of its queries, Deformable DETR's goes by falling score."""
    for k, found in enumerate(select(drawn(name)[0], background=name == "detr", clip=False)):
        stored = {key: golden()[f"{name}.post.{k}.{key}"] for key in ("scores", "labels", "boxes")}
        assert found.anchors is not None
        rows = found.anchors if name == "detr" else torch.arange(100)
        assert sorted(rows.tolist()) == list(range(100))
        assert torch.equal(found.labels, stored["labels"][rows])
        torch.testing.assert_close(found.scores, stored["scores"][rows], rtol=1e-6, atol=0)
        torch.testing.assert_close(found.pixels(SIZES[k]), stored["boxes"][rows], rtol=0, atol=2e-4)
        assert bool((found.scores.diff() <= 0).all())
