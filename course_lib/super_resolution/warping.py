"""Backward warping by a flow, and what goes with it: pyramids, and the Charbonnier loss (chapter 11)."""

import math

import torch
from torch import Tensor

from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Return what a flow points at in a picture, between pixels by chapter 03's bilinear weights.

    picture (B, C, H', W'); flow (B, 2, H, W): pixel (y, x) of the result reads the picture at (y + flow[0], x +
    flow[1]), in pixels. So the flow lives on the grid of the RESULT, (B, C, H, W), and points into the picture, which
    may have another size; beyond its edge the nearest pixel is read, and nan where the flow is nan. Gradients: to the
    picture its weights, to the flow the local slope (b - a between neighbours a and b, the one behind at a pixel
    itself), 0 beyond the edge. dtype of the picture; places are computed in float32, or float64 where the flow is.

    Raises TypeError or ValueError naming the argument. CrossNet: F(p) = sum over q of F(q) max(0, 1 - |p_x + V_x -
    q_x|) max(0, 1 - |p_y + V_y - q_y|) (Zheng et al. 2018); only four q have weights.
    """
    _check(picture, flow)
    rows, columns = _places(flow)
    height, width = picture.shape[-2:]
    y, x = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    top, left = y.detach().floor(), x.detach().floor()
    down, right = (y - top)[:, None], (x - left)[:, None]  # fractions: how near the pixel below, and the one behind
    # an undefined place is a whole number of its own on each device; the fractions make its pixel undefined
    first, before = top.long().clamp(0, height - 1), left.long().clamp(0, width - 1)
    last, behind = (first + 1).clamp(max=height - 1), (before + 1).clamp(max=width - 1)
    above = (1 - right) * _read(picture, first, before) + right * _read(picture, first, behind)
    below = (1 - right) * _read(picture, last, before) + right * _read(picture, last, behind)
    return ((1 - down) * above + down * below).to(picture.dtype)


def inside(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Return 1 where a flow (B, 2, H, W) points into a picture of the size (height, width), else 0: (B, 1, H, W).

    The picture reaches from the centre of its first pixel to that of its last. Raises as `warp` does.
    """
    _check_flow(flow)
    rows, columns = _places(flow)
    hits = (rows >= 0) & (rows <= size[0] - 1) & (columns >= 0) & (columns <= size[1] - 1)
    return hits[:, None].to(flow.dtype)


def pyramid(picture: Tensor, levels: int) -> list[Tensor]:
    """Return a picture (..., C, H, W), its half, its quarter ...: `levels` pictures, the largest first.

    Bicubic, antialiased, symmetric border; sides are rounded up. A motion of 2**k pixels is one pixel at level k.
    Raises TypeError or ValueError for levels that are not a whole number >= 1.
    """
    found = [picture]
    for _ in range(check_length("levels", levels) - 1):
        found.append(resize(found[-1], scale=0.5, border="symmetric"))
    return found


def charbonnier(difference: Tensor, epsilon: float = 1e-3) -> Tensor:
    """Return sqrt(d^2 + epsilon^2) of each number d: |d| with a rounded tip, whose slope at 0 is 0.

    Any shape, any float dtype; its mean is CrossNet's loss. epsilon: where the tip ends, in units of d. Raises
    ValueError for an epsilon that is not positive. Charbonnier et al. 1994; Zheng et al. 2018.
    """
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon must be a positive number, got {epsilon!r}")
    return (difference.square() + epsilon**2).sqrt()


def _check(picture: Tensor, flow: Tensor) -> None:
    if not picture.is_floating_point():
        raise TypeError(f"picture must be floating point, got {picture.dtype}")
    if picture.dim() != 4 or 0 in picture.shape:
        raise ValueError(f"picture must be (B, C, H, W), got {tuple(picture.shape)}")
    _check_flow(flow)
    if len(flow) != len(picture) or flow.device != picture.device:
        raise ValueError(
            f"flow must be one for each of {len(picture)} pictures on {picture.device}, "
            f"got {len(flow)} on {flow.device}"
        )


def _check_flow(flow: Tensor) -> None:
    if not flow.is_floating_point():
        raise TypeError(f"flow must be floating point, in pixels, got {flow.dtype}")
    if flow.dim() != 4 or flow.shape[1] != 2:
        raise ValueError(f"flow must be (B, 2, H, W), down and right, got {tuple(flow.shape)}")


def _places(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns (B, H, W) that a flow points at, which half precision could not tell apart."""
    wide = flow.to(torch.promote_types(flow.dtype, torch.float32))
    rows, columns = (torch.arange(n, dtype=wide.dtype, device=wide.device) for n in flow.shape[-2:])
    return rows[:, None] + wide[:, 0], columns + wide[:, 1]


def _read(picture: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the pixels (B, C, H, W) of picture (B, C, H', W') at rows and columns (B, H, W)."""
    places = (rows * picture.shape[-1] + columns).flatten(1)[:, None].expand(-1, picture.shape[1], -1)
    return picture.flatten(2).gather(2, places).view(*picture.shape[:2], *rows.shape[1:])
