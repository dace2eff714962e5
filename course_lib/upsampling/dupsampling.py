"""DUpsampling: enlarge label maps with weights computed from the labels themselves (chapter 07; Tian et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length
from course_lib.upsampling.pixel_shuffle import pixel_shuffle


def label_windows(labels: Tensor, r: int, classes: int, ignore: int | None = None) -> Tensor:
    """Cut label maps into r x r windows and write each as one one-hot vector.

    labels: integers (..., H, W) in 0..classes-1, H and W multiples of r. Returns float32 (n, r * r * classes), windows
    row by row, numbers in the order row, column, class (class fastest). Windows that hold the label `ignore` (often
    255, "do not count") are left out. Raises TypeError for labels that are no integers and ValueError for a size that
    r does not divide or any other label outside 0..classes-1. Section 3.1 of the paper.
    """
    check_length("r", r)
    check_length("classes", classes)
    _check_labels(labels, r, classes, ignore)
    height, width = labels.shape[-2:]
    windows = labels.reshape(-1, height // r, r, width // r, r).transpose(2, 3).reshape(-1, r * r)
    if ignore is not None:
        windows = windows[(windows != ignore).all(1)]
    return F.one_hot(windows.long(), classes).flatten(1).to(torch.float32)


def windows_to_image(vectors: Tensor, size: tuple[int, int], r: int, classes: int) -> Tensor:
    """Lay window vectors back into a map of class scores, the inverse of cutting.

    vectors: (H/r * W/r, r * r * classes) in the order of `label_windows`, windows row by row; size: (H, W). Returns
    (classes, H, W). Raises ValueError for a size that r does not divide or another number of windows.
    """
    height, width = size
    rows, columns = height // check_length("r", r), width // r
    expected = (rows * columns, r * r * check_length("classes", classes))
    if height % r or width % r or min(height, width) < 1:
        raise ValueError(f"size must be (height, width), both multiples of r = {r}, got {tuple(size)}")
    if tuple(vectors.shape) != expected:
        raise ValueError(f"vectors must be {expected} to fill {tuple(size)}, got {tuple(vectors.shape)}")
    return pixel_shuffle(vectors.T.reshape(-1, rows, columns), r, order="tensorflow")


@dataclass(frozen=True)
class Projection:
    """The best linear compression of vectors to k numbers: v is kept as x = down (v - mean), restored as up x + mean.

    up: (N, k) with orthonormal columns, the paper's W; down: (k, N), its P; mean: (N,), zero unless centred;
    singular_values: all of them, falling, of the vectors (centred ones if centred).
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

    def compress(self, vectors: Tensor) -> Tensor:
        """Return the codes (n, k) of vectors (n, N); device and dtype follow the vectors."""
        return (vectors - self.mean.to(vectors)) @ self.down.to(vectors).T

    def restore(self, codes: Tensor) -> Tensor:
        """Return the vectors (n, N) that codes (n, k) stand for; device and dtype follow the codes."""
        return codes @ self.up.to(codes).T + self.mean.to(codes)


def fit_projection(windows: Tensor, rank: int, centre: bool = False) -> Projection:
    """Return the projection to `rank` numbers with the least sum of squared errors (truncated SVD, Eckart-Young).

    windows: float (n, N). centre: subtract the mean first (principal components; restoring then needs a bias, which
    the paper's formula does not have). Computed and returned in float64. With more windows than numbers in each, the
    N x N Gram matrix is decomposed instead: squared singular values are then right to about 1e-15 of the largest one.
    Raises TypeError for windows that are no floats, ValueError for another shape, for NaN and
    infinity, and for a rank outside 1..min(n, N).
    """
    if not windows.is_floating_point():
        raise TypeError(f"windows must be floating point, got {windows.dtype}")
    if windows.dim() != 2:
        raise ValueError(f"windows must be (n, N), got {tuple(windows.shape)}")
    if not 1 <= check_length("rank", rank) <= min(windows.shape):
        raise ValueError(f"rank must be from 1 to min(n, N) = {min(windows.shape)}, got {rank}")
    if not bool(torch.isfinite(windows).all()):
        raise ValueError("windows must be finite, got NaN or infinity")
    vectors = windows.detach().to(torch.float64)
    mean = vectors.mean(0) if centre else torch.zeros_like(vectors[0])
    values, axes = _right_singular(vectors - mean)
    up = _fix_signs(axes[:, :rank])
    return Projection(up=up, down=up.T.contiguous(), mean=mean, singular_values=values)


class DUpsampling(nn.Module):
    """Every feature vector becomes an r x r window of class scores: a 1 x 1 convolution, then the windows are laid out.

    features: channels k of the input; classes, r: of the window. projection: the closed form, whose W (and mean, as a
    bias, where centred) the layer takes; None leaves PyTorch's random start, and the layer is a sub-pixel convolution.
    trainable: whether training may change W; by default only where no projection was given. The layer is called
    `conv_w` as in the public implementation. Raises ValueError for a projection of another size.
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
        """Return class scores (B, classes, r h, r w) of features (B, k, h, w), for h != w too."""
        vectors: Tensor = self.conv_w(features)  # (B, r * r * classes, h, w)
        return pixel_shuffle(vectors, self.r, order="tensorflow")


class AdaptiveTemperatureSoftmax(nn.Module):
    """Softmax of scores / T with one learned temperature T: below 1 it sharpens scores that stay near 0 and 1.

    start: the first T. Raises ValueError unless it is > 0. Equation 5 of the paper.
    """

    def __init__(self, start: float = 1.0) -> None:
        """Make the layer; see the class for the argument."""
        super().__init__()
        if not start > 0:
            raise ValueError(f"start must be a temperature > 0, got {start}")
        self.T = nn.Parameter(torch.tensor(float(start)))

    def forward(self, scores: Tensor, dim: int = 1) -> Tensor:
        """Return probabilities of the shape of `scores` that sum to one along `dim`."""
        return torch.softmax(scores / self.T, dim)

    def log_softmax(self, scores: Tensor, dim: int = 1) -> Tensor:
        """Return their logarithms, as the cross-entropy wants them."""
        return torch.log_softmax(scores / self.T, dim)


def _check_labels(labels: Tensor, r: int, classes: int, ignore: int | None) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers (class numbers), got {labels.dtype}")
    if labels.dim() < 2 or labels.numel() == 0 or labels.shape[-2] % r or labels.shape[-1] % r:
        raise ValueError(f"labels must be (..., H, W) with H and W multiples of r = {r}, got {tuple(labels.shape)}")
    wide = labels.long()
    wrong = (wide < 0) | (wide >= classes)
    if ignore is not None:
        wrong &= wide != ignore
    if bool(wrong.any()):
        found = int(wide[wrong][0])
        raise ValueError(f"labels must be 0..{classes - 1}, got {found}; ignore={found} leaves its windows out")


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
