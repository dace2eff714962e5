"""From pictures to a network's input, and from its output to boxes: the parts around a detector (chapter 16)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.colour import check_picture
from course_lib.detection import boxes as box
from course_lib.detection.checks import check_device, check_rows, check_share
from course_lib.detection.coding import VARIANCES, decode
from course_lib.detection.nms import unsuppressed
from course_lib.upsampling.grids import check_length

Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one picture, by falling score.

    boxes: (n, 4) xyxy; `postprocess` gives them normalised, measures take them in the unit of their truths. scores:
    (n,) in [0, 1]. labels: int64 (n,), 0 to K - 1: places in the classes' names, without background. anchors: int64
    (n,), the row of the anchor that each comes from, which tells its level; None where nobody has kept them.

    Raises TypeError or ValueError that name the field.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    anchors: Tensor | None = None

    def __post_init__(self) -> None:
        """Check shapes and kinds."""
        check_rows("boxes", self.boxes, self.labels)
        if not isinstance(self.scores, Tensor) or not self.scores.is_floating_point():
            kind = self.scores.dtype if isinstance(self.scores, Tensor) else type(self.scores).__name__
            raise TypeError(f"scores must be a floating-point tensor, got {kind}")
        for name, given in (("scores", self.scores), ("anchors", self.anchors)):
            if given is not None and given.shape != self.labels.shape:
                raise ValueError(f"{name} must be {tuple(self.labels.shape)} as labels, got {tuple(given.shape)}")

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.scores)

    def pixels(self, size: tuple[float, float]) -> Tensor:
        """Return the boxes, normalised so far, in pixels of a picture of `size` (height, width)."""
        return box.to_pixels(self.boxes, size)


@dataclass(frozen=True)
class Normalisation:
    """How a network wants its pictures: (scale x - mean) / std of each channel; blue, green, red if `bgr`.

    mean and std are of the channels in the network's order, in units of scale x, where x is in [0, 1].
    """

    mean: Triple
    std: Triple
    scale: float = 1.0
    bgr: bool = False

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return pictures (..., 3, H, W) RGB in [0, 1] as the network wants them, of the same shape."""
        _check_rgb(pictures)
        mean, std = (pictures.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((pictures.flip(-3) if self.bgr else pictures) * self.scale - mean) / std


CAFFE = Normalisation((104.0, 117.0, 123.0), (1.0, 1.0, 1.0), scale=255.0, bgr=True)
"""Of networks whose bodies were trained in Caffe: blue first, 0 to 255, the mean colour of ImageNet taken away."""
PLAIN = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
"""Of the book's own networks: from -2 to 2."""
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of DETR's line and what else was trained on ImageNet: the mean colour taken away, by the standard deviation."""


def preprocess(pictures: Tensor, size: tuple[int, int] | None, normalisation: Normalisation) -> Tensor:
    """Return pictures (3, H, W) or (N, 3, H, W), RGB in [0, 1], as a network's input (N, 3, *size).

    size: (height, width), reached bilinearly, with antialiasing and whatever it does to the shape; None: as they are.
    Raises TypeError or ValueError for other pictures or another size.
    """
    _check_rgb(pictures)
    if pictures.dim() not in (3, 4):
        raise ValueError(f"pictures must be (3, H, W) or (N, 3, H, W), got {tuple(pictures.shape)}")
    batch = pictures if pictures.dim() == 4 else pictures[None]
    if size is not None:
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(f"size must be (height, width), got {size!r}")
        for side in size:
            check_length("size", side)
        if tuple(size) != tuple(batch.shape[-2:]):
            # antialiasing is not made for half precision
            wide = batch.to(torch.promote_types(batch.dtype, torch.float32))
            batch = F.interpolate(wide, tuple(size), mode="bilinear", antialias=True).to(batch.dtype)
    return normalisation(batch)


def pad(pictures: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return pictures (3, H, W) of any sizes as one batch, and its mask: bool (N, H', W'), True where there is none.

    Pictures, normalised already, lie at the upper left of the largest height and width, zeros below and on the right.
    Raises TypeError or ValueError for none, for other shapes, and for several dtypes or devices.
    """
    if not pictures:
        raise ValueError("pictures must be at least one, got none")
    for one in pictures:
        _check_rgb(one)
        check_device("pictures", one, "their first", pictures[0])
        if one.dim() != 3 or one.dtype != pictures[0].dtype:
            raise ValueError(f"pictures must be (3, H, W) of one dtype, got {tuple(one.shape)} of {one.dtype}")
    height, width = (max(one.shape[side] for one in pictures) for side in (1, 2))
    batch = pictures[0].new_zeros(len(pictures), 3, height, width)
    mask = torch.ones(len(pictures), height, width, dtype=torch.bool, device=batch.device)
    for place, padding, one in zip(batch, mask, pictures, strict=True):
        place[:, : one.shape[1], : one.shape[2]] = one
        padding[: one.shape[1], : one.shape[2]] = False
    return batch, mask


def postprocess(
    outputs: Mapping[str, Tensor],
    anchors: Tensor,
    score: float = 0.01,
    top: int = 400,
    overlap: float = 0.45,
    most: int | None = 200,
    variances: tuple[float, ...] = VARIANCES,
    clip: bool = True,
    nms: bool = True,
) -> list[Detections]:
    """Return what a detector's output says of each picture, in the order of the SSD that its authors published.

    outputs: "logits" (N, P, K + 1), column 0 the background, and "offsets" (N, P, 4); anchors (P, 4) cxcywh,
    normalised. Softmax; of every class but background: the anchors whose probability is above `score`, of them the
    `top` most probable, of these what non-maximum suppression leaves at IoU `overlap` (`nms=False`: all); of all
    classes together the `most` most probable (None: all). An anchor can give a box for several classes. At last boxes
    are cut at the picture's border, if `clip`; one wholly outside is left without area. Equal scores: the lower
    class first, then the lower anchor. float32 under autocast; no gradient.

    Raises TypeError or ValueError that name the argument; outputs with NaN, or logits of plus infinity, are refused and
    not taken for a picture without objects. Liu et al. 2016 (SSD), section 3.3; the numbers that are not
    in the paper (0.01, 200) are those of its code.
    """
    logits, offsets = _check_outputs(outputs, anchors)
    for name, value in (("score", score), ("overlap", overlap)):
        check_share(name, value)
    check_length("top", top)
    if most is not None:
        check_length("most", most)
    threshold = overlap if nms else None
    with torch.no_grad():
        found = []
        wide = torch.promote_types(logits.dtype, torch.float32)
        for one, offset in zip(logits.to(wide), offsets.to(wide), strict=True):
            scores = F.softmax(one, -1)[:, 1:]
            rows = (scores > score).any(-1).nonzero()[:, 0]  # most anchors see only background
            boxes = decode(offset[rows], anchors[rows], variances)
            made = _select(scores[rows].T, boxes, rows, score, top, threshold, most)
            found.append(replace(made, boxes=box.clip(made.boxes)) if clip else made)
        return found


def _select(
    scores: Tensor, boxes: Tensor, anchors: Tensor, score: float, top: int, overlap: float | None, most: int | None
) -> Detections:
    """Return the detections of one picture from scores (K, n), boxes (n, 4) and the rows of their anchors (n,)."""
    scores, rows = scores.sort(dim=1, descending=True, stable=True)
    longest = int((scores > score).sum(1).max()) if scores.numel() else 0
    scores, rows = (table[:, : min(top, longest)] for table in (scores, rows))
    stays = scores > score
    ranked = boxes[rows]
    if overlap is not None:
        stays = stays & unsuppressed(ranked, overlap)
    labels, ranks = stays.nonzero(as_tuple=True)
    order = scores[labels, ranks].argsort(descending=True, stable=True)[:most]
    labels, ranks = labels[order], ranks[order]
    return Detections(ranked[labels, ranks], scores[labels, ranks], labels, anchors[rows[labels, ranks]])


def _check_rgb(pictures: Tensor) -> None:
    check_picture("pictures", pictures)
    if pictures.shape[-3] != 3:
        raise ValueError(f"pictures must be (..., 3, H, W), got {tuple(pictures.shape)}")


def _check_outputs(outputs: Mapping[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits and offsets."""
    if not isinstance(outputs, Mapping):
        raise TypeError(f"outputs must be a mapping with logits and offsets, got {type(outputs).__name__}")
    missing = {"logits", "offsets"} - set(outputs)
    if missing:
        raise ValueError(f"outputs must have logits and offsets, got {sorted(outputs)}")
    logits, offsets = outputs["logits"], outputs["offsets"]
    box.check_last("anchors", anchors)
    box.check_last("offsets", offsets)
    if anchors.dim() != 2:
        raise ValueError(f"anchors must be (P, 4), got {tuple(anchors.shape)}")
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"logits must be a floating-point tensor, got {kind}")
    if logits.dim() != 3 or logits.shape[1] != len(anchors) or logits.shape[2] < 2:
        raise ValueError(f"logits must be (N, {len(anchors)}, K + 1) with K >= 1, got {tuple(logits.shape)}")
    if offsets.shape != (*logits.shape[:2], 4):
        raise ValueError(f"offsets must be {(*logits.shape[:2], 4)}, got {tuple(offsets.shape)}")
    check_device("anchors", anchors, "logits", logits)
    check_device("offsets", offsets, "logits", logits)
    fine = torch.stack(((logits < torch.inf).all(), ~offsets.isnan().any())).tolist()  # NaN is below nothing
    if not all(fine):
        name = "offsets" if fine[0] else "logits"
        raise ValueError(f"{name} must not be NaN or plus infinity, got such numbers: has the training diverged?")
    return logits, offsets
