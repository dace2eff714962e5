"""What `course bench detection` measures: anchors, matching, SSD's loss, suppression, average precision, and networks
(chapters 13 to 18).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.bench.sr_cases import Case, Make
from course_lib.detection.anchors import MAPS, SSD300_VOC, anchors
from course_lib.detection.boxes import to_xyxy
from course_lib.detection.evaluation import multiply_adds
from course_lib.detection.families.ssd.ssd import SSD, ssd300
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.losses import Targets, multibox_loss, targets
from course_lib.detection.matching import match
from course_lib.detection.metrics import Truth, voc_map
from course_lib.detection.nms import class_nms, nms
from course_lib.detection.prediction import Detections
from course_lib.plain.detection import anchors_loop, average_precision_loop, match_loop, multibox_loop, nms_loop

PROTOCOL = (
    "boxes of random numbers, random weights, float32; the least of all runs but the first, rivals by turns (of 20 ms "
    "where they are fast), with one CPU thread its processor time. plain: the loops of course_lib.plain.detection, "
    "which on CUDA begin with copies on the host, but for the loss. anchors: of SSD300, 8732. matching: 50 boxes, rule "
    "greedy. loss: 8 pictures with 1 to 12 boxes each, 8732 anchors, 21 classes; with gradients: of both losses by "
    "logits and offsets; else no gradients. NMS: IoU 0.45, all boxes from a single class, or each of one of 20 "
    "classes; boxes lie in clusters of 20 on the average. average precision: one class at IoU 0.5, all points; 100 "
    "pictures of 5 objects and 10 detections. SSD300: one picture, bare: its convolutions alone. family: the recipes' "
    "networks, untrained, one picture of 96 x 96, bare: family-ssd. mib: peak memory above what is there before (CPU: "
    "of a fresh process for each, after a run at a small size, what is freed goes back at once; CUDA: of the "
    "allocator). of_limit: arithmetic a second of the network's convolutions, as a share of a large matrix product's"
)
_SMALL_MAPS = ((5, 5), (3, 3), (1, 1))
_OVERLAP = 0.45


def making_anchors(device: str, small: bool) -> Case:
    """The case of SSD300's anchors; plain: box after box."""
    given = _maps(small), _levels(small), (300, 300)
    return Case({"ours": lambda: anchors(*given, device=device), "plain": lambda: anchors_loop(*given).to(device)})


def matching(device: str, small: bool) -> Case:
    """The case of finding for each anchor the box that it is to predict; plain: pair after pair."""
    every = anchors(_maps(small), _levels(small), (300, 300), device=device)
    boxes = _objects(5 if small else 50, torch.Generator().manual_seed(0)).to(device)
    return Case({"ours": lambda: match(boxes, every), "plain": lambda: match_loop(boxes.cpu(), every.cpu()).to(device)})


def loss(gradients: bool) -> Make:
    """Return what makes the case of SSD's loss; plain: step by step as ssd.pytorch does it."""

    def make(device: str, small: bool) -> Case:
        torch.manual_seed(0)
        every = anchors(_maps(small), _levels(small), (300, 300))
        count, classes = (2, 4) if small else (8, 21)
        wanted = _wanted(count, classes, every)
        wanted = Targets(wanted.labels.to(device), wanted.offsets.to(device))
        logits, offsets = (torch.randn(count, len(every), n).to(device).requires_grad_() for n in (classes, 4))

        def form(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], Sequence[Tensor]]:
            def losses() -> Sequence[Tensor]:
                return function(logits, offsets, wanted)

            def with_gradients() -> Sequence[Tensor]:
                with torch.enable_grad():
                    both = losses()
                    return (*both, *torch.autograd.grad(sum(both), (logits, offsets)))  # type: ignore[arg-type]

            return with_gradients if gradients else losses

        return Case({"ours": form(multibox_loss), "plain": form(multibox_loop)})

    return make


def suppression(count: int) -> Make:
    """Return what makes the case of non-maximum suppression of so many boxes; plain: a loop over those that stay."""

    def make(device: str, small: bool) -> Case:
        boxes, scores = _clusters(60 if small else count, device)

        def plain() -> Tensor:
            return torch.from_numpy(nms_loop(boxes.cpu().numpy(), scores.cpu().numpy(), _OVERLAP)).to(device)

        return Case({"ours": lambda: nms(boxes, scores, _OVERLAP), "plain": plain})

    return make


def suppression_of_classes(device: str, small: bool) -> Case:
    """The case of suppression within each of 20 classes; plain: the loop for each class, then by falling score."""
    boxes, scores = _clusters(60 if small else 8732, device)
    labels = torch.randint(20, scores.shape, generator=torch.Generator().manual_seed(1)).to(device)

    def plain() -> Tensor:
        box, score, label = (table.cpu().numpy() for table in (boxes, scores, labels))
        rows = [np.flatnonzero(label == k) for k in range(20)]
        kept = np.concatenate([some[nms_loop(box[some], score[some], _OVERLAP)] for some in rows])
        return torch.from_numpy(kept[np.argsort(-score[kept], kind="stable")]).to(device)

    return Case({"ours": lambda: class_nms(boxes, scores, labels, _OVERLAP), "plain": plain})


def average_precision(device: str, small: bool) -> Case:
    """The case of one class's average precision; plain: detection after detection. On the CPU on every device."""
    random = torch.Generator().manual_seed(0)
    found, truths = [], []
    for _ in range(4 if small else 100):
        objects = _objects(5, random)
        near = objects.repeat(2, 1) + 0.03 * torch.randn(10, 4, generator=random)
        near = torch.cat([near[:, :2].minimum(near[:, 2:] - 0.01), near[:, 2:]], 1)
        found.append(Detections(near, torch.rand(10, generator=random), torch.zeros(10, dtype=torch.int64)))
        truths.append(Truth(objects, torch.zeros(5, dtype=torch.int64)))
    pictures = [(one.boxes, one.scores) for one in found]
    wanted = [(one.boxes, [False] * len(one.labels)) for one in truths]
    return Case(
        {"ours": lambda: voc_map(found, truths, 1)["mAP"], "plain": lambda: average_precision_loop(pictures, wanted)}
    )


def network(device: str, small: bool) -> Case:
    """The case of SSD300 for one picture; bare: its convolutions alone."""
    torch.manual_seed(0)
    model = (TinyDetector(widths=(4, 6, 8, 8, 10, 10)) if small else ssd300()).eval().to(device)
    images = torch.randn(1, 3, *model.picture, device=device)
    return Case({"ours": lambda: model(images), "bare": _convolutions(model, images)}, 2 * multiply_adds(model))


def member(name: str) -> Make:
    """Return what makes the case of one of the family's small networks for one picture; bare: family-ssd's."""

    def make(device: str, small: bool) -> Case:
        model, first = (_of_recipe(recipe, device, small) for recipe in (name, "family-ssd"))
        images = torch.randn(1, 3, *model.picture, device=device)
        forms: dict[str, Callable[[], Any]] = {"ours": lambda: model(images)}
        if name != "family-ssd":
            forms["bare"] = lambda: first(images)
        return Case(forms, 2 * multiply_adds(model))

    return make


def _of_recipe(name: str, device: str, small: bool) -> SSD:
    from course_lib.training import recipes

    torch.manual_seed(0)
    less: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8} if small else {}
    model: Any = recipes.get(name, **less).model()
    made: SSD = model.eval().to(device)
    return made


def _convolutions(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return what runs a network's convolutions alone, each of what it gets when the network sees the images."""
    seen: list[tuple[nn.Module, Tensor]] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(lambda layer, args: seen.append((layer, args[0]))) for layer in layers]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()

    def bare() -> None:
        for layer, x in seen:
            layer(x)

    return bare


def _maps(small: bool) -> Sequence[tuple[int, int]]:
    return _SMALL_MAPS if small else MAPS["SSD300_VOC"]


def _levels(small: bool) -> Any:
    return SSD300_VOC[-len(_SMALL_MAPS) :] if small else SSD300_VOC


def _objects(count: int, random: torch.Generator) -> Tensor:
    """Return boxes xyxy (count, 4), normalised, with sides from 0.05 to 0.6."""
    sides = 0.05 + 0.55 * torch.rand(count, 2, generator=random)
    centres = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=random)
    return to_xyxy(torch.cat([centres, sides], 1))


def _clusters(count: int, device: str) -> tuple[Tensor, Tensor]:
    """Return boxes xyxy (count, 4) and scores (count,), the boxes near count / 20 objects."""
    random = torch.Generator().manual_seed(count)
    few = max(1, count // 20)
    objects = _objects(few, random)[torch.randint(few, (count,), generator=random)]
    sides = (objects[:, 2:] - objects[:, :2]).repeat(1, 2)
    boxes = objects + 0.05 * sides * torch.randn(count, 4, generator=random)
    return boxes.to(device), torch.rand(count, generator=random).to(device)


def _wanted(count: int, classes: int, every: Tensor) -> Targets:
    """Return the targets of pictures with 1 to 12 boxes each."""
    random = torch.Generator().manual_seed(0)
    many = torch.randint(1, 13, (count,), generator=random).tolist()
    boxes = [_objects(n, random) for n in many]
    return targets(boxes, [torch.randint(classes - 1, (n,), generator=random) for n in many], every)


MEMBERS = ("family-ssd", "family-ssd-wide", "family-dssd", "family-fssd", "family-rssd", "family-dsod")

CASES: dict[str, Make] = {
    "anchors of SSD300": making_anchors,
    "matching 50 x 8732": matching,
    "loss 8 x 8732 x 21": loss(gradients=False),
    "loss, with gradients": loss(gradients=True),
    "NMS of 1000": suppression(1000),
    "NMS of 8732": suppression(8732),
    "NMS of 20,000": suppression(20_000),
    "NMS of 8732 in 20 classes": suppression_of_classes,
    "average precision": average_precision,
    "SSD300": network,
    **{f"{name} 96 x 96": member(name) for name in MEMBERS},
}
"""The cases by name."""
