"""A small segmentation network with three decoders, and what label maps lose at its stride (chapter 07)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling import AdaptiveTemperatureSoftmax, DUpsampling, Projection, label_windows, resize_matrix

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
    decoder, or a projection that is missing or not wanted.
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
        """Return class scores (B, classes, H, W) of images (B, 3, H, W) in [0, 1], H and W multiples of 16."""
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
    """Return the multiplications of a decoder for each place of its input: 1 x 1 layers, and 4 for each tent sum."""
    if decoder == "bilinear":
        return hidden_width(features, classes, rank, stride) * (features + classes) + 4 * stride**2 * classes
    return rank * (features + stride**2 * classes)


def hidden_width(features: int, classes: int, rank: int, stride: int = STRIDE) -> int:
    """Return how many hidden channels a bilinear decoder can afford for the price of DUpsampling with `rank`."""
    spare = decoder_cost("dupsampling", features, classes, rank, stride) - 4 * stride**2 * classes
    return max(1, spare // (features + classes))


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return how many pixels of class i (row) were called j (column): int64 (classes, classes)."""
    counts = torch.bincount((labels * classes + predicted).flatten(), minlength=classes**2)
    return counts.view(classes, classes)


def class_iou(table: Tensor) -> Tensor:
    """Return intersection over union of every class, float64 (classes,), from a confusion table; NaN if never seen."""
    hits: Tensor = table.diagonal().double()
    return hits / (table.sum(0) + table.sum(1) - hits)


def mean_iou(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """Return the mean over classes of intersection over union, all pixels of all maps counted together.

    predicted, labels: integers of one shape in 0..classes-1. Classes that neither has are left out.
    """
    return float(class_iou(confusion_matrix(predicted, labels, classes)).nanmean())


def best_bilinear(labels: Tensor, r: int, classes: int) -> Tensor:
    """Return label maps (n, H, W) after the best trip through a grid r times coarser and back by bilinear enlargement.

    Best: the coarse class scores with the least sum of squared errors to the one-hot map, by the pseudo-inverse; the
    class with the largest enlarged score is returned.
    """
    one_hot = F.one_hot(labels, classes).movedim(-1, 1).double()
    rows, columns = (
        resize_matrix(n // r, n, method="bilinear").to_dense().to(labels.device) for n in labels.shape[-2:]
    )
    coarse = torch.linalg.pinv(rows) @ one_hot @ torch.linalg.pinv(columns).T
    found: Tensor = (rows @ coarse @ columns.T).argmax(1)
    return found


def best_windows(labels: Tensor, projection: Projection, r: int, classes: int) -> Tensor:
    """Return label maps (n, H, W) after compression of every r x r window to the projection's numbers, and back."""
    windows = projection.restore(projection.compress(label_windows(labels, r, classes)))
    n, height, width = labels.shape
    found = windows.view(n, height // r, width // r, r, r, classes).argmax(-1)
    return found.transpose(2, 3).reshape(n, height, width)
