"""Parity with Pillow and SciPy, each under the convention it follows."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import map_coordinates

from course_lib.upsampling import resize, resize_matrix, source_coordinates

SIZES = [((16, 24), (64, 96)), ((30, 41), (12, 17)), ((16, 24), (37, 11)), ((5, 7), (5, 7)), ((9, 4), (1, 1))]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def picture(h, w):
    return torch.rand(1, h, w, generator=torch.Generator().manual_seed(h + w))


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_pillow_float(shape, size, method):
    """Oracle: Pillow's mode F: half-pixel, a = -0.5, always antialiased, renormalised at the border."""
    image = picture(*shape)
    pillow = Image.fromarray(image[0].numpy()).resize(size[::-1], FILTERS[method])
    ours = resize(image, size=size, method=method, border="renormalise")[0]
    np.testing.assert_allclose(ours.numpy(), np.asarray(pillow), atol=2e-6)


@pytest.mark.parametrize("n_in", [1, 2, 7, 24, 41])
@pytest.mark.parametrize("n_out", [1, 3, 11, 24, 37, 90])
def test_pillow_nearest(n_in, n_out):
    """Oracle: Pillow's NEAREST; only where a centre falls exactly between two pixels may its rounding differ."""
    row = torch.arange(float(n_in)).view(1, 1, n_in)
    pillow = np.asarray(Image.fromarray(row[0].numpy()).resize((n_out, 1), Image.Resampling.NEAREST))[0]
    ours = resize(row, size=(1, n_out), method="nearest")[0, 0].numpy()
    between = (2 * np.arange(n_out) + 1) * n_in % (2 * n_out) == 0
    np.testing.assert_array_equal(ours[~between], pillow[~between])


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_pillow_bytes(shape, size, method):
    """Oracle: Pillow on 8-bit pictures: one axis at a time, width first, rounded and clipped after each pass."""
    image = Image.fromarray((picture(*shape)[0] * 255).round().numpy().astype(np.uint8))
    for step in ((shape[0], size[1]), size):
        before = torch.from_numpy(np.asarray(image).copy())[None].double()
        image = image.resize(step[::-1], FILTERS[method])
        exact = resize(before, size=step, method=method, border="renormalise")[0].numpy()
        ours = np.floor(exact + 0.5).clip(0, 255)
        # Its weights are fixed point: a value half way between two levels may fall to either side.
        tie = np.abs(exact % 1 - 0.5) < 1e-3
        np.testing.assert_array_equal(ours[~tie], np.asarray(image)[~tie])
    assert image.size == size[::-1]


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("grid", ["half_pixel", "align_corners", "origin"])
@pytest.mark.parametrize(("border", "mode"), [("replicate", "nearest"), ("symmetric", "reflect")])
def test_scipy_linear(shape, size, grid, border, mode):
    """Oracle: scipy.ndimage.map_coordinates(order=1); its "reflect" is the mirror that repeats the edge."""
    image = picture(*shape).double()
    rows, columns = (source_coordinates(n, m, grid=grid).numpy() for n, m in zip(shape, size, strict=True))
    where = np.meshgrid(rows, columns, indexing="ij")
    theirs = map_coordinates(image[0].numpy(), where, order=1, mode=mode)
    ours = resize(image, size=size, method="bilinear", antialias=False, grid=grid, border=border)[0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-12)


@pytest.mark.parametrize("grid", ["half_pixel", "align_corners", "origin"])
@pytest.mark.parametrize(("n_in", "n_out"), [(9, 23), (12, 5), (4, 16)])
def test_scipy_hermite(grid, n_in, n_out):
    """Oracle: with a = -1/2, cubic convolution is the Hermite spline with central-difference slopes (Catmull-Rom)."""
    values = picture(1, n_in)[0, 0].double().numpy()
    padded = np.pad(values, 3, mode="edge")
    knots = np.arange(-3, n_in + 3)
    spline = CubicHermiteSpline(knots[1:-1], padded[1:-1], (padded[2:] - padded[:-2]) / 2)
    where = source_coordinates(n_in, n_out, grid=grid).numpy()
    ours = resize_matrix(n_in, n_out, antialias=False, grid=grid).to_dense().numpy() @ values
    np.testing.assert_allclose(ours, spline(where), atol=1e-12)
