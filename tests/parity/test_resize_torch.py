"""Parity with PyTorch: F.interpolate in every mode, with every align_corners, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from course_lib.upsampling import resize, resize_matrix

SIZES = [
    ((16, 24), (64, 96)),
    ((16, 24), (4, 6)),
    ((16, 24), (37, 41)),
    ((33, 20), (12, 19)),
    ((7, 5), (7, 5)),
    ((6, 9), (1, 1)),
    ((1, 1), (3, 4)),
]


def picture(h, w):
    return torch.rand(2, 3, h, w, generator=torch.Generator().manual_seed(h * w), dtype=torch.float64)


def agree(image, ours, theirs, atol=1e-11):
    """Same values and same gradients."""
    x, y = (image.clone().requires_grad_() for _ in range(2))
    a, b = ours(x), theirs(y)
    torch.testing.assert_close(a, b, atol=atol, rtol=0)
    g = torch.rand(a.shape, generator=torch.Generator().manual_seed(5), dtype=a.dtype)
    torch.testing.assert_close(torch.autograd.grad(a, x, g)[0], torch.autograd.grad(b, y, g)[0], atol=10 * atol, rtol=0)


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize(("mode", "grid"), [("nearest", "origin"), ("nearest-exact", "half_pixel")])
def test_nearest(shape, size, mode, grid):
    """Oracle: F.interpolate(mode="nearest") and "nearest-exact"."""
    agree(
        picture(*shape),
        lambda x: resize(x, size=size, method="nearest", grid=grid),
        lambda x: F.interpolate(x, size, mode=mode),
    )


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("mode", "a"), [("bilinear", -0.5), ("bicubic", -0.75)])
def test_unfiltered(shape, size, align_corners, mode, a):
    """Oracle: F.interpolate without antialiasing; its bicubic has a = -0.75."""
    grid = "align_corners" if align_corners else "half_pixel"
    agree(
        picture(*shape),
        lambda x: resize(x, size=size, method=mode, a=a, antialias=False, grid=grid),
        lambda x: F.interpolate(x, size, mode=mode, align_corners=align_corners),
    )


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased(shape, size, mode):
    """Oracle: F.interpolate(antialias=True), whose bicubic has a = -0.5 and which renormalises at the border."""
    agree(
        picture(*shape),
        lambda x: resize(x, size=size, method=mode, border="renormalise"),
        lambda x: F.interpolate(x, size, mode=mode, antialias=True, align_corners=False),
    )


@pytest.mark.parametrize(("shape", "size"), [pair for pair in SIZES if min(*pair[0], *pair[1]) > 1])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_antialiased_align_corners(shape, size, mode):
    """Oracle: F.interpolate(antialias=True, align_corners=True).

    It steps (n_in - 1) / (n_out - 1) but keeps half-pixel centres: its corners do not meet. The matrix says exactly
    that with `scale`; `resize(grid="align_corners")` keeps the corners together instead.
    """

    def ours(x):
        a_h, a_w = (
            resize_matrix(n, m, (m - 1) / (n - 1), mode, border="renormalise").to_dense()
            for n, m in zip(shape, size, strict=True)
        )
        return a_h @ x @ a_w.T

    agree(picture(*shape), ours, lambda x: F.interpolate(x, size, mode=mode, antialias=True, align_corners=True), 1e-10)
    corners = resize(picture(*shape), size=size, method="bilinear", grid="align_corners", antialias=False)
    torch.testing.assert_close(corners[..., 0, 0], picture(*shape)[..., 0, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [4, 2, 0.5, 0.25])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("border", ["replicate", "symmetric", "renormalise"])
@pytest.mark.parametrize("a", [-0.5, -0.75])
@pytest.mark.parametrize("antialias", [True, False])
def test_both_roads_lead_to_the_same_picture(dtype, scale, method, border, a, antialias):
    """Where resize calls PyTorch's kernel inside, the matrices give the same numbers (oracle: `resize_matrix`)."""
    image = picture(32, 48).to(dtype)
    rules = {"method": method, "border": border, "a": a, "antialias": antialias}
    a_h, a_w = (resize_matrix(n, int(n * scale), scale, **rules, dtype=dtype).to_dense() for n in (32, 48))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    agree(image, lambda x: resize(x, scale, **rules), lambda x: a_h @ x @ a_w.T, tolerance)
