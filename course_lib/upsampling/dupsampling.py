"""DUpsampling: enlarge label maps with weights computed from the labels themselves (chapter 07; Tian et al. 2019)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length
from course_lib.upsampling.pixel_shuffle import pixel_shuffle


def label_windows(labels: Tensor, r: int, classes: int, ignore: int | None = None) -> Tensor:
    """Cut label maps into r x r windows and write each as one one-hot vector.

    labels: integers (..., H, W) in 0..classes-1, H and W multiples of r. Returns float32 (n, r * r * classes), windows
    row by row, numbers in the order row, column, class (class fastest). Windows that hold the label `ignore` (often
    255, "do not count") are left out. Raises TypeError for labels that are no integers and ValueError for a size that
    r does not divide or any other label outside 0..classes-1. Section 3.1 of the paper.

    The result takes 4 * classes bytes a pixel, so that large sets are cut in parts (see `fit_projection`).
    """
    check_length("r", r)
    check_length("classes", classes)
    check_labels("labels", labels, classes, ignore, ignorable=True)
    if labels.dim() < 2 or labels.numel() == 0 or labels.shape[-2] % r or labels.shape[-1] % r:
        raise ValueError(f"labels must be (..., H, W) with H and W multiples of r = {r}, got {tuple(labels.shape)}")
    height, width = labels.shape[-2:]
    # int64 first: a small integer type would wrap `ignore` into the classes
    windows = labels.long().reshape(-1, height // r, r, width // r, r).transpose(2, 3).reshape(-1, r * r, 1)
    if ignore is not None:
        windows = windows[(windows != ignore).all(1).all(1)]
    one_hot = torch.zeros(len(windows), r * r, classes, device=labels.device)
    return one_hot.scatter_(2, windows, 1).flatten(1)


def windows_to_image(vectors: Tensor, size: Sequence[int], r: int, classes: int) -> Tensor:
    """Lay window vectors back into maps of class scores, the inverse of cutting.

    vectors: (n, r * r * classes) in the order of `label_windows`; size: (..., H, W), the shape of the label maps.
    Returns (..., classes, H, W). Raises TypeError for vectors or a size of another kind, ValueError for a size that r
    does not divide or another number of windows.
    """
    if not isinstance(vectors, Tensor):
        raise TypeError(f"vectors must be a torch.Tensor, got {type(vectors).__name__}")
    if not isinstance(size, (tuple, list)) or len(size) < 2:
        raise TypeError(f"size must be the shape of the label maps, (H, W) or (..., H, W), got {size!r}")
    shape = [check_length("size", n) for n in size]
    length = check_length("r", r) ** 2 * check_length("classes", classes)
    if shape[-2] % r or shape[-1] % r:
        raise ValueError(f"size must be (..., height, width), both multiples of r = {r}, got {tuple(size)}")
    cells = (*shape[:-2], shape[-2] // r, shape[-1] // r)
    expected = (math.prod(cells), length)
    if tuple(vectors.shape) != expected:
        raise ValueError(f"vectors must be {expected} to fill {tuple(size)}, got {tuple(vectors.shape)}")
    return pixel_shuffle(vectors.reshape(*cells, length).movedim(-1, -3), r, order="tensorflow")


@dataclass(frozen=True, eq=False)
class Projection:
    """The best linear compression of vectors to k numbers: v is kept as x = down (v - mean), restored as up x + mean.

    up: (N, k) with orthonormal columns, the paper's W; down: (k, N), its P; mean: (N,), zero unless centred;
    singular_values: all of them, falling, of the vectors (centred ones if centred). `==` asks whether two are the same
    object.
    """

    up: Tensor
    down: Tensor
    mean: Tensor
    singular_values: Tensor

    @property
    def rank(self) -> int:
        """Into how many numbers a vector is compressed."""
        return self.up.shape[1]

    @property
    def residual(self) -> float:
        """The sum of all squared errors over the vectors it was fitted to (Eckart-Young): the dropped sigma_i^2."""
        return float(self.singular_values[self.rank :].square().sum())

    def to(self, target: torch.device | torch.dtype | str) -> Projection:
        """Return the projection on another device or in another dtype, as `Tensor.to` understands them."""
        return Projection(*(part.to(target) for part in (self.up, self.down, self.mean, self.singular_values)))

    def compress(self, vectors: Tensor) -> Tensor:
        """Return the codes (n, k) of vectors (n, N); device and dtype follow the vectors."""
        return (vectors - self.mean.to(vectors)) @ self.down.to(vectors).T

    def restore(self, codes: Tensor) -> Tensor:
        """Return the vectors (n, N) that codes (n, k) stand for; device and dtype follow the codes."""
        return codes @ self.up.to(codes).T + self.mean.to(codes)


def fit_projection(windows: Tensor | Iterable[Tensor], rank: int, centre: bool = False) -> Projection:
    """Return the projection to `rank` numbers with the least sum of squared errors (truncated SVD, Eckart-Young).

    windows: float (n, N), or an iterable of such parts, which are summed up and never held together: a set of any size
    fits (`(label_windows(a, r, classes) for a in maps)`). centre: subtract the mean first (principal components;
    restoring then needs a bias, which the paper's formula does not have). Computed and returned in float64.

    With more windows than numbers in each, and for parts always, the N x N Gram matrix is decomposed instead: squared
    singular values are then right to about 1e-15 of the largest one. All N axes are found whatever the rank, in time
    that grows as N^3: seconds for N = 2048, minutes for r = 16 and 21 classes (N = 5376).

    Raises TypeError for windows that are no floats, ValueError for another shape, for NaN and
    infinity, and for a rank outside 1..min(n, N).
    """
    check_length("rank", rank)
    if isinstance(windows, Tensor):
        vectors = _check_windows(windows)
        _check_rank(rank, vectors.shape)
        mean = vectors.mean(0) if centre else torch.zeros_like(vectors[0])
        values, axes = _right_singular(vectors - mean)
    else:
        values, axes, mean = _summed(windows, rank, centre)
    up = _fix_signs(axes[:, :rank])
    return Projection(up=up, down=up.T.contiguous(), mean=mean, singular_values=values)


class DUpsampling(nn.Module):
    """Every feature vector becomes an r x r window of class scores: a 1 x 1 convolution, then the windows are laid out.

    features: channels k of the input; classes, r: of the window. projection: the closed form, whose W (and mean, as a
    bias, where centred) the layer takes; None leaves PyTorch's random start, and the layer is a sub-pixel convolution.
    trainable: whether training may change W; by default only where no projection was given. The layer is called
    `conv_w` as in the public implementation. Raises TypeError for a projection that is none, ValueError for one of
    another size.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        r: int,
        projection: Projection | None = None,
        trainable: bool | None = None,
    ) -> None:
        """Make the layer; see the class for the arguments."""
        super().__init__()
        self.classes, self.r = check_length("classes", classes), check_length("r", r)
        if projection is not None and not isinstance(projection, Projection):
            raise TypeError(f"projection must be a Projection or None, got {type(projection).__name__}")
        length = r * r * classes
        biased = projection is not None and bool(projection.mean.any())
        self.conv_w = nn.Conv2d(check_length("features", features), length, 1, bias=biased)
        if projection is not None:
            if tuple(projection.up.shape) != (length, features):
                raise ValueError(f"projection.up must be {(length, features)}, got {tuple(projection.up.shape)}")
            with torch.no_grad():
                self.conv_w.weight.copy_(projection.up[:, :, None, None])
                if self.conv_w.bias is not None:
                    self.conv_w.bias.copy_(projection.mean)
        self.conv_w.requires_grad_(projection is None if trainable is None else trainable)

    def forward(self, features: Tensor) -> Tensor:
        """Return class scores (B, classes, r h, r w) of features (B, k, h, w), for h != w too; B may be left out.

        Raises TypeError or ValueError for other features.
        """
        if not isinstance(features, Tensor):
            raise TypeError(f"features must be a torch.Tensor, got {type(features).__name__}")
        if features.dim() not in (3, 4) or features.shape[-3] != self.conv_w.in_channels:
            raise ValueError(f"features must be (B, {self.conv_w.in_channels}, h, w), got {tuple(features.shape)}")
        vectors: Tensor = self.conv_w(features)  # (B, r * r * classes, h, w)
        return pixel_shuffle(vectors, self.r, order="tensorflow")


class AdaptiveTemperatureSoftmax(nn.Module):
    """Softmax of scores / T with one learned temperature T: below 1 it sharpens scores that stay near 0 and 1.

    start: the first T. Raises TypeError unless it is a number, ValueError unless it is > 0 and finite. Equation 5 of
    the paper.
    """

    def __init__(self, start: float = 1.0) -> None:
        """Make the layer; see the class for the argument."""
        super().__init__()
        if isinstance(start, bool) or not isinstance(start, (int, float, np.integer, np.floating)):
            raise TypeError(f"start must be a number, got {start!r}")
        if not 0 < start < math.inf:
            raise ValueError(f"start must be a temperature > 0 and finite, got {start}")
        self.T = nn.Parameter(torch.tensor(float(start)))

    def forward(self, scores: Tensor, dim: int = 1) -> Tensor:
        """Return probabilities of the shape of `scores` that sum to one along `dim`."""
        return torch.softmax(scores / self.T, dim)

    def log_softmax(self, scores: Tensor, dim: int = 1) -> Tensor:
        """Return their logarithms, as the cross-entropy wants them."""
        return torch.log_softmax(scores / self.T, dim)


def check_labels(name: str, labels: Any, classes: int, ignore: int | None = None, ignorable: bool = False) -> None:
    """Raise TypeError or ValueError, which call the argument `name`, unless it is a tensor of integers in 0..classes-1.

    ignore: a label outside that range that is allowed too. ignorable: the caller has such an argument to offer.
    """
    if not isinstance(labels, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be integers (class numbers), got {labels.dtype}")
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, (int, np.integer))):
        raise TypeError(f"ignore must be a whole number or None, got {ignore!r}")
    wide = labels.long()
    wrong = (wide < 0) | (wide >= classes)
    if ignore is not None:
        wrong &= wide != ignore
    if bool(wrong.any()):
        found = int(wide[wrong][0])
        hint = f"; ignore={found} leaves them out" if ignorable else ""
        raise ValueError(f"{name} must be 0..{classes - 1}, got {found}{hint}")


def _check_windows(windows: Any) -> Tensor:
    """Return windows as float64 without gradients."""
    if not isinstance(windows, Tensor):
        raise TypeError(f"windows must be a torch.Tensor or an iterable of them, got {type(windows).__name__}")
    if not windows.is_floating_point():
        raise TypeError(f"windows must be floating point, got {windows.dtype}")
    if windows.dim() != 2:
        raise ValueError(f"windows must be (n, N), got {tuple(windows.shape)}")
    if not bool(torch.isfinite(windows).all()):
        raise ValueError("windows must be finite, got NaN or infinity")
    return windows.detach().to(torch.float64)


def _check_rank(rank: int, shape: Sequence[int]) -> None:
    if rank > min(shape):
        raise ValueError(f"rank must be from 1 to min(n, N) = {min(shape)}, got {rank}")


def _summed(parts: Any, rank: int, centre: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return singular values, axes and mean of all parts together, from the sum of their Gram matrices."""
    parts = iter(parts if isinstance(parts, Iterable) else [parts])
    first = _check_windows(next(parts, None))
    length = first.shape[1]
    # near the mean already, so that what the mean takes away later does not take the digits with it
    shift = first.mean(0) if centre and len(first) else first.new_zeros(length)
    count, total, gram = 0, torch.zeros_like(shift), first.new_zeros(length, length)
    for part in itertools.chain([first], parts):
        vectors = _check_windows(part)
        if vectors.shape[1] != length:
            raise ValueError(f"windows must be (n, {length}) in every part, got {tuple(vectors.shape)}")
        vectors = vectors - shift
        count, total, gram = count + len(vectors), total + vectors.sum(0), gram + vectors.T @ vectors
    _check_rank(rank, (count, length))
    offset = total / count if centre else torch.zeros_like(total)
    squares, axes = torch.linalg.eigh(gram - count * torch.outer(offset, offset))
    values = squares.flip(0).clamp(min=0).sqrt()[: min(count, length)]
    return values, axes.flip(1), shift + offset


def _right_singular(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return all singular values, falling, and the right singular vectors as columns."""
    if len(vectors) <= vectors.shape[1]:
        _, values, rows = torch.linalg.svd(vectors, full_matrices=False)
        return values, rows.T
    squares, axes = torch.linalg.eigh(vectors.T @ vectors)
    return squares.flip(0).clamp(min=0).sqrt(), axes.flip(1)


def _fix_signs(axes: Tensor) -> Tensor:
    """Make the first of the largest entries of each column positive, so that every machine returns the same signs."""
    size = axes.abs()
    first = (size >= (1 - 1e-6) * size.amax(0)).int().argmax(0)
    return axes * axes.gather(0, first[None]).sign()
