"""Warping against its plain form, PyTorch's grid_sample, chapter 03's bilinear resize, and numbers done by hand."""

import pytest
import torch
from torch.nn import functional as F

from course_lib.plain.warping import warp_by_tents
from course_lib.super_resolution.warping import charbonnier, inside, pyramid, warp
from course_lib.upsampling import resize
from course_lib.upsampling.grids import source_coordinates


def rand(*shape, seed=0, low=0.0, high=1.0):
    numbers = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return low + (high - low) * numbers


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, 1, -1)


def by_grid_sample(picture, flow):
    """PyTorch's sampler, whose coordinates are (x, y), -1 and 1 at the outer edges of the corner pixels."""
    height, width = picture.shape[-2:]
    y = torch.arange(flow.shape[-2], dtype=flow.dtype)[:, None] + flow[:, 0]
    x = torch.arange(flow.shape[-1], dtype=flow.dtype) + flow[:, 1]
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=False)


def test_half_a_pixel_by_hand():
    """Oracle: between 0, 10, 20, 30 lie 5, 15, 25, and beyond the edge its pixel is read."""
    flow = torch.tensor([0.0, 0.5], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    assert warp(row(0, 10, 20, 30), flow).flatten().tolist() == [5, 15, 25, 30]
    assert warp(row(0, 10, 20, 30), -flow).flatten().tolist() == [0, 5, 15, 25]


def test_the_gradient_to_the_flow_is_the_slope():
    """Oracle: d/dv of (1 - v) a + v b is b - a; none beyond the edge, none down a picture of one row."""
    flow = torch.zeros(1, 2, 1, 4, dtype=torch.float64)
    flow[:, 1] = 0.25
    flow.requires_grad_()
    warp(row(0, 10, 50, 20), flow).sum().backward()
    assert flow.grad.flatten().tolist() == [0, 0, 0, 0, 10, 40, -30, 0]
    at_pixels = torch.zeros(1, 2, 1, 4, dtype=torch.float64, requires_grad=True)
    warp(row(0, 10, 50, 20), at_pixels).sum().backward()
    assert at_pixels.grad[0, 1, 0, :3].tolist() == [10, 40, -30]


@pytest.mark.parametrize("axis", [0, 1])
def test_an_undefined_flow_makes_its_own_pixel_undefined(axis):
    """Oracle: the same flow with numbers there, for all other pixels."""
    picture, flow = rand(1, 2, 3, 4), rand(1, 2, 3, 4, seed=1, low=-1)
    clean = warp(picture, flow)
    flow[0, axis, 1, 2] = torch.nan
    made = warp(picture, flow)
    hole = torch.zeros(3, 4, dtype=torch.bool)
    hole[1, 2] = True
    assert made[..., hole].isnan().all()
    assert torch.equal(made[..., ~hole], clean[..., ~hole])
    assert inside(flow, (3, 4))[0, 0, 1, 2] == 0


@pytest.mark.parametrize("size", [(5, 7), (9, 4), (1, 6)])
@pytest.mark.parametrize("oracle", [by_grid_sample, warp_by_tents])
def test_values_and_gradients(size, oracle):
    """Oracle: F.grid_sample and the plain form, for flows that leave the picture, which has another size."""
    picture, flow = (
        rand(2, 3, 6, 8, seed=1).requires_grad_(),
        rand(2, 2, *size, seed=2, low=-9, high=9).requires_grad_(),
    )
    ours, theirs = warp(picture, flow), oracle(picture, flow)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    weight = rand(2, 3, *size, seed=3)
    pairs = zip(*(torch.autograd.grad(one, (picture, flow), weight) for one in (ours, theirs)), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)


def test_a_resize_is_a_warp():
    """Oracle: chapter 03's bilinear resize, whose outputs look at `source_coordinates`."""
    picture = rand(1, 2, 6, 5)
    y, x = source_coordinates(6, 15), source_coordinates(5, 8)
    flow = torch.stack([(y - torch.arange(15))[:, None].expand(15, 8), (x - torch.arange(8)).expand(15, 8)])[None]
    expected = resize(picture, size=(15, 8), method="bilinear", antialias=False)
    torch.testing.assert_close(warp(picture, flow), expected, rtol=0, atol=1e-14)


def test_half_precision_keeps_places_apart():
    """Oracle: slices of the same bits; bfloat16 alone could not count columns beyond 256."""
    picture = rand(1, 1, 2, 600, seed=4).bfloat16()
    flow = torch.zeros(1, 2, 2, 500, dtype=torch.bfloat16)
    flow[:, 1] = 37
    moved = warp(picture, flow)
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved, picture[..., 37:537])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(picture.float(), flow.float()), picture.float()[..., 37:537])


def test_inside_ends_at_the_centres_of_the_edge():
    """Oracle: by hand, a row of 4 in a picture of 3."""
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 1] = torch.tensor([-0.1, 1.0, 0.1, float("inf")])
    assert inside(flow, (1, 3)).flatten().tolist() == [0, 1, 0, 0]
    flow[0, 0, 0, 1] = 0.5
    assert inside(flow, (1, 3)).sum() == 0
    assert inside(flow, (2, 3)).sum() == 1


def test_pyramid_halves():
    """Oracle: sizes by hand, values by `resize`."""
    picture = rand(2, 1, 13, 8)
    levels = pyramid(picture, 3)
    assert [tuple(level.shape[-2:]) for level in levels] == [(13, 8), (7, 4), (4, 2)]
    assert levels[0] is picture
    torch.testing.assert_close(levels[2], resize(levels[1], scale=0.5, border="symmetric"))


def test_charbonnier_by_hand():
    """Oracle: sqrt(0.01 + 0.000001) = 0.100005; |d| far from 0; slope 0 at 0, 1 / sqrt(2) at epsilon."""
    d = torch.tensor([0.1, 0.0, 0.001, -7.0], dtype=torch.float64, requires_grad=True)
    value = charbonnier(d)
    assert value.tolist() == pytest.approx([0.1000049999, 0.001, 0.001 * 2**0.5, 7.0], rel=1e-7)
    value.sum().backward()
    assert d.grad.tolist() == pytest.approx([0.99995, 0, 0.5**0.5, -1], rel=1e-5)
    assert charbonnier(torch.tensor(3.0), epsilon=4.0) == 5


@pytest.mark.parametrize(
    ("picture", "flow", "error", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 2, 4, 4), TypeError, "picture must be floating"),
        (torch.zeros(3, 4, 4), torch.zeros(1, 2, 4, 4), ValueError, r"picture must be \(B, C, H, W\), got \(3, 4, 4\)"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4).long(), TypeError, "flow must be floating point, in pixels"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, 2), ValueError, r"flow must be \(B, 2, H, W\).*\(1, 4, 4, 2\)"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 2, 4, 4), ValueError, "each of 2 pictures on cpu, got 1"),
    ],
)
def test_errors_name_the_argument(picture, flow, error, message):
    """Oracle: the message says what came and what was expected."""
    with pytest.raises(error, match=message):
        warp(picture, flow)


def test_numbers_out_of_range_are_refused():
    """Oracle: the docstrings."""
    with pytest.raises(ValueError, match="epsilon must be a positive number, got 0"):
        charbonnier(torch.zeros(1), epsilon=0)
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        pyramid(torch.zeros(1, 1, 4, 4), 0)
