"""A small segmentation network with five decoders, and what label maps lose at its stride (chapter 07)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling import AdaptiveTemperatureSoftmax, DUpsampling, Projection, label_windows, resize_matrix
from course_lib.upsampling.dupsampling import check_labels
from course_lib.upsampling.grids import check_choice, check_length

Decoder = Literal["bilinear", "dupsampling", "dupsampling-trained", "dupsampling-plain", "shuffle"]
"""Who enlarges the answer: fixed tents; W from the labels, kept, or trained on, or kept under a softmax without
temperature; or the same layer with a W that is learned from a random start."""

STRIDE = 16


class SegmentationNet(nn.Module):
    """Four halvings and two more layers, then a decoder that enlarges sixteen times.

    decoder: "bilinear" (class scores, enlarged), "dupsampling" (rank features, then W of `projection`, which is not
    trained), "dupsampling-trained" (W starts there and is trained), "dupsampling-plain" (W is kept, and so is the
    temperature: 1) or "shuffle" (W trained from a random start). The bilinear decoder gets a hidden layer of
    `hidden_width` channels, so that all cost the same number of multiplications. Raises ValueError for an unknown
    decoder, other than four widths, or a projection that is missing or not wanted.
    """

    def __init__(
        self,
        decoder: Decoder,
        classes: int = 4,
        widths: tuple[int, int, int, int] = (16, 32, 64, 96),
        rank: int = 32,
        projection: Projection | None = None,
    ) -> None:
        """Make the layers; see the class for the arguments."""
        super().__init__()
        if decoder not in get_args(Decoder):
            raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))}, got {decoder!r}")
        if (projection is None) == decoder.startswith("dupsampling"):
            came = "none" if projection is None else "one"
            raise ValueError(f"projection must be given for the dupsampling decoders alone, got {came} for {decoder}")
        if len(widths) != 4:
            raise ValueError(f"widths must be four, one for each halving, got {widths!r}")
        self.trunk = nn.Sequential(*_trunk(widths))
        self.softmax = AdaptiveTemperatureSoftmax().requires_grad_(decoder != "dupsampling-plain")
        self.head: nn.Module
        self.up: nn.Module
        if decoder == "bilinear":
            hidden = hidden_width(widths[-1], classes, rank)
            self.head = nn.Sequential(nn.Conv2d(widths[-1], hidden, 1), nn.ReLU(), nn.Conv2d(hidden, classes, 1))
            self.up = nn.Upsample(scale_factor=STRIDE, mode="bilinear")
        else:
            self.head = nn.Conv2d(widths[-1], rank, 1)
            trainable = decoder in ("dupsampling-trained", "shuffle")
            self.up = DUpsampling(rank, classes, STRIDE, projection, trainable)

    def forward(self, image: Tensor) -> Tensor:
        """Return class scores (B, classes, H, W) of images (B, 3, H, W) in [0, 1], H and W multiples of 16.

        Raises TypeError or ValueError for other images.
        """
        if not isinstance(image, Tensor):
            raise TypeError(f"image must be a torch.Tensor, got {type(image).__name__}")
        if image.dim() != 4 or image.shape[1] != 3 or image.shape[2] % STRIDE or image.shape[3] % STRIDE:
            wanted = f"(B, 3, H, W) with H and W multiples of {STRIDE}"
            raise ValueError(f"image must be {wanted}, got {tuple(image.shape)}")
        scores: Tensor = self.up(self.head(self.trunk(image)))
        return scores

    def loss(self, image: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of labels (B, H, W) under the softmax with temperature."""
        return F.nll_loss(self.softmax.log_softmax(self(image).float()), labels)


def _trunk(widths: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    before = 3
    for width in widths:
        layers += _layer(before, width, stride=2)
        if before > 3:  # a second layer at full resolution would cost more than all the others
            layers += _layer(width, width, stride=1)
        before = width
    return layers


def _layer(before: int, width: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


def decoder_cost(decoder: Decoder, features: int, classes: int, rank: int, stride: int = STRIDE) -> int:
    """Return the multiplications of a decoder for each place of its input: 1 x 1 layers, and 4 for each tent sum.

    Raises ValueError for an unknown decoder.
    """
    check_choice("decoder", decoder, Decoder)
    if decoder == "bilinear":
        return hidden_width(features, classes, rank, stride) * (features + classes) + 4 * stride**2 * classes
    return rank * (features + stride**2 * classes)


def hidden_width(features: int, classes: int, rank: int, stride: int = STRIDE) -> int:
    """Return how many hidden channels a bilinear decoder can afford for the price of DUpsampling with `rank`."""
    spare = decoder_cost("dupsampling", features, classes, rank, stride) - 4 * stride**2 * classes
    return max(1, spare // (features + classes))


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int, ignore: int | None = None) -> Tensor:
    """Return how many pixels of class i (row) were called j (column): int64 (classes, classes).

    predicted, labels: integers of one shape in 0..classes-1. ignore: a label (often 255) whose pixels do not count.
    Raises TypeError or ValueError naming the argument.
    """
    check_length("classes", classes)
    check_labels("predicted", predicted, classes)
    check_labels("labels", labels, classes, ignore, ignorable=True)
    if predicted.shape != labels.shape:
        raise ValueError(
            f"predicted must have the shape of labels, {tuple(labels.shape)}, got {tuple(predicted.shape)}"
        )
    # int64 first: 255 is the largest number of uint8, in which a picture file's labels come
    cells = labels.long() * classes + predicted.long()
    counted = cells.flatten() if ignore is None else cells[labels.long() != ignore]
    return torch.bincount(counted, minlength=classes**2).view(classes, classes)


def class_iou(table: Tensor) -> Tensor:
    """Return intersection over union of every class, float64 (classes,), from a confusion table; NaN if never seen."""
    hits: Tensor = table.diagonal().double()
    return hits / (table.sum(0) + table.sum(1) - hits)


def mean_iou(predicted: Tensor, labels: Tensor, classes: int, ignore: int | None = None) -> float:
    """Return the mean over classes of intersection over union, all pixels of all maps counted together.

    Arguments and errors as in `confusion_matrix`. Classes that neither has are left out.
    """
    return float(class_iou(confusion_matrix(predicted, labels, classes, ignore)).nanmean())


def best_bilinear(labels: Tensor, r: int, classes: int) -> Tensor:
    """Return label maps (n, H, W) after the best trip through a grid r times coarser and back by bilinear enlargement.

    Best: the coarse class scores with the least sum of squared errors to the one-hot map, by the pseudo-inverse; the
    class with the largest enlarged score is returned. labels: integers (n, H, W) in 0..classes-1, H and W multiples of
    r. Raises TypeError or ValueError for others.
    """
    check_length("r", r)
    check_labels("labels", labels, classes)
    if labels.dim() != 3 or labels.shape[1] % r or labels.shape[2] % r:
        raise ValueError(f"labels must be (n, H, W) with H and W multiples of r = {r}, got {tuple(labels.shape)}")
    one_hot = F.one_hot(labels.long(), classes).movedim(-1, 1).double()
    rows, columns = (
        resize_matrix(n // r, n, method="bilinear").to_dense().to(labels.device) for n in labels.shape[-2:]
    )
    coarse = torch.linalg.pinv(rows) @ one_hot @ torch.linalg.pinv(columns).T
    found: Tensor = (rows @ coarse @ columns.T).argmax(1)
    return found


def best_windows(labels: Tensor, projection: Projection, r: int, classes: int) -> Tensor:
    """Return label maps (n, H, W) after compression of every r x r window to the projection's numbers, and back.

    labels: integers (n, H, W), otherwise as in `label_windows`, whose errors it raises.
    """
    windows = projection.restore(projection.compress(label_windows(labels, r, classes)))
    n, height, width = labels.shape
    found = windows.view(n, height // r, width // r, r, r, classes).argmax(-1)
    return found.transpose(2, 3).reshape(n, height, width)
