"""CrossNet in miniature: a reference aligned by optical flow (chapter 11; Zheng et al. 2018)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.super_resolution.borrowing import Borrowing
from course_lib.super_resolution.warping import inside, pyramid, warp
from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length

_BLUR = 2  # pixels: what shrinking folded into false waves is not compared
_SMOOTH = 2
_STILL = 1e-4  # squared slopes below which a window says nothing about motion


class CrossNet(Borrowing):
    """Enlarge four times with a reference that a flow aligns: sr = lr_up + warp(ref - ref_down_up, flow).

    The flow goes from `lr_up` to `ref_down_up`, which are equally blurred. weighted: the borrowed detail counts only
    where the warped `ref_down_up` agrees with `lr_up`, by exp(-(d / tolerance)^2), d being their root mean square
    difference around a pixel, and nowhere that the flow points beyond the reference. levels, steps, radius: of
    `estimate_flow`.

    What the paper does and this does not: a FlowNetS, trained with the rest, estimates flows at four scales; they warp
    FEATURES of the reference at 1, 1/2, 1/4 and 1/8 of the size, and a U-Net's decoder takes these beside those of the
    enlarged picture. The criticism holds for both: one smooth field, so motion beyond its reach, occlusions, and things
    in another order are lost. Raises TypeError or ValueError for numbers that are not positive. Zheng et al. 2018.
    """

    def __init__(
        self, levels: int = 4, steps: int = 4, radius: int = 8, weighted: bool = False, tolerance: float = 0.07
    ) -> None:
        """Keep the settings; there are no weights."""
        super().__init__()
        self.levels, self.steps = check_length("levels", levels), check_length("steps", steps)
        self.radius, self.weighted = check_length("radius", radius), weighted
        if not 0 < tolerance < float("inf"):
            raise ValueError(f"tolerance must be a positive difference of grey values, got {tolerance!r}")
        self.tolerance = tolerance

    def borrowed(self, lr_up: Tensor, ref: Tensor, ref_down_up: Tensor) -> Tensor:
        """Return the warped detail, (B, 3, 4h, 4w), of a reference of any size."""
        flow = estimate_flow(lr_up, ref_down_up, self.levels, self.steps, self.radius)
        detail = warp(ref - ref_down_up, flow)
        return self.agreement(lr_up, ref_down_up, flow) * detail if self.weighted else detail

    def agreement(self, lr_up: Tensor, ref_down_up: Tensor, flow: Tensor) -> Tensor:
        """Return how far to trust a flow at each pixel: (B, 1, 4h, 4w) in [0, 1]."""
        error = (warp(ref_down_up, flow) - lr_up).square().mean(1, keepdim=True)
        hits = inside(flow, (ref_down_up.shape[-2], ref_down_up.shape[-1])).to(error)
        return hits * torch.exp(-_mean(error, _BLUR) / self.tolerance**2)


def estimate_flow(target: Tensor, reference: Tensor, levels: int = 4, steps: int = 4, radius: int = 8) -> Tensor:
    """Return the flow (B, 2, H, W), in pixels down and right, with which `warp(reference, flow)` is like the target.

    target (B, C, H, W), reference (B, C, H', W'): in [0, 1]; their channels' mean is compared. Lucas and Kanade 1981,
    coarse to fine: at each of `levels` sizes, each half the one before, `steps` times over: the difference that is left
    is explained by the slopes of the warped reference, by least squares in windows of (2 radius + 1)^2 pixels. A step
    is at most one pixel of its level, and only a motion that the coarsest level sees as one of few pixels is found: 2
    pixels at level 3 are 16 at level 0. The field is smoothed a little after each step. Differentiable.

    Raises TypeError or ValueError for numbers that are not whole and >= 1.
    """
    steps, radius = check_length("steps", steps), check_length("radius", radius)
    pictures, references = (
        pyramid(_mean(one.to(torch.promote_types(one.dtype, torch.float32)).mean(1, keepdim=True), _BLUR), levels)
        for one in (target, reference)
    )
    flow = torch.zeros_like(pictures[-1]).repeat(1, 2, 1, 1)
    for picture, other in zip(reversed(pictures), reversed(references), strict=True):
        if flow.shape[-2:] != picture.shape[-2:]:
            # a pixel of this level is half of one of the level before
            flow = 2 * resize(flow, size=picture.shape[-2:], method="bilinear")
        for _ in range(steps):
            flow = _mean(flow + _step(picture, warp(other, flow), radius), _SMOOTH)
    return flow


def _step(picture: Tensor, warped: Tensor, radius: int) -> Tensor:
    """Return the motion (B, 2, H, W) that best explains picture - warped in each window, at most one pixel."""
    padded = F.pad(warped, (1, 1, 1, 1), mode="replicate")
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    right = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    error = picture - warped
    products = torch.cat([down * down, right * right, down * right, down * error, right * error], dim=1)
    dd, rr, dr, de, re = torch.split(_mean(products, radius), 1, dim=1)
    # the normal equations [dd dr; dr rr] step = [de; re], a little steeper so that flat windows stay where they are
    dd, rr = dd + _STILL, rr + _STILL
    step = torch.cat([rr * de - dr * re, dd * re - dr * de], dim=1) / (dd * rr - dr * dr)
    return step.clamp(-1, 1)


def _mean(planes: Tensor, radius: int) -> Tensor:
    """Return the mean of each window of (2 radius + 1)^2 pixels, of those that are inside."""
    side = 2 * radius + 1
    columns: Tensor = F.avg_pool2d(planes, (side, 1), 1, (radius, 0), count_include_pad=False)
    means: Tensor = F.avg_pool2d(columns, (1, side), 1, (0, radius), count_include_pad=False)
    return means
