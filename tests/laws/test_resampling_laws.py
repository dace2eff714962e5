"""Laws every resampling obeys, over random shapes, scales and rules (Hypothesis draws them)."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import assume, given, settings

from course_lib.upsampling import (
    cubic,
    nearest_indices,
    output_size,
    resize,
    resize_matrix,
    source_coordinates,
)

METHODS = st.sampled_from(["nearest", "bilinear", "bicubic"])
GRIDS = st.sampled_from(["half_pixel", "align_corners", "origin"])
BORDERS = st.sampled_from(["replicate", "symmetric", "renormalise"])
SCALES = st.one_of(
    st.fractions(Fraction(1, 6), 6, max_denominator=20),
    st.floats(0.2, 6, allow_nan=False),
    st.sampled_from([2, 4, Fraction(1, 2), Fraction(1, 4)]),
)
LENGTHS = st.integers(1, 20)
SLOPES = st.sampled_from([-0.5, -0.75, -1.0, 0.0, -0.6])
RULES = st.fixed_dictionaries(
    {"method": METHODS, "grid": GRIDS, "border": BORDERS, "a": SLOPES, "antialias": st.booleans()}
)
laws = settings(max_examples=80, deadline=None, derandomize=True)


def picture(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@laws
@given(n=LENGTHS, scale=SCALES, rules=RULES)
def test_partition_of_unity(n, scale, rules):
    """Every row of the matrix sums to one: a flat grey stays flat."""
    rows = resize_matrix(n, output_size(n, scale), scale, **rules).to_dense().sum(1)
    torch.testing.assert_close(rows, torch.ones_like(rows), atol=1e-12, rtol=0)


@laws
@given(h=LENGTHS, w=LENGTHS, scale=st.tuples(SCALES, SCALES), rules=RULES, seed=st.integers(0, 99))
def test_the_gradient_is_the_adjoint(h, w, scale, rules, seed):
    """<A x, g> = <x, A' g> for random x and g, with A' g from autograd."""
    image = picture(2, h, w, seed=seed).requires_grad_()
    out = resize(image, scale, **rules)
    g = picture(*out.shape, seed=seed + 1)
    (gradient,) = torch.autograd.grad(out, image, g)
    torch.testing.assert_close((out * g).sum(), (image * gradient).sum(), atol=1e-9, rtol=1e-12)
    a_h = resize_matrix(h, out.shape[-2], scale[0], **rules).to_dense()
    a_w = resize_matrix(w, out.shape[-1], scale[1], **rules).to_dense()
    torch.testing.assert_close(gradient, a_h.T @ g @ a_w, atol=1e-10, rtol=0)


@laws
@given(h=LENGTHS, w=LENGTHS, scale=SCALES, rules=RULES, seed=st.integers(0, 99))
def test_a_batch_is_its_pictures(h, w, scale, rules, seed):
    """Resizing together equals resizing one by one."""
    batch = picture(3, 2, h, w, seed=seed)
    together = resize(batch, scale, **rules)
    for one, expected in zip(batch, together, strict=True):
        torch.testing.assert_close(resize(one, scale, **rules), expected, atol=1e-12, rtol=0)


@laws
@given(h=LENGTHS, w=LENGTHS, scale=SCALES, rules=RULES, seed=st.integers(0, 99))
def test_linearity_and_transposition(h, w, scale, rules, seed):
    """A sum resizes to the sum; a transposed picture to the transposed result."""
    x, y = picture(1, h, w, seed=seed), picture(1, h, w, seed=seed + 1)
    once = resize(2 * x - 3 * y, scale, **rules)
    torch.testing.assert_close(once, 2 * resize(x, scale, **rules) - 3 * resize(y, scale, **rules), atol=1e-11, rtol=0)
    torch.testing.assert_close(resize(x.mT, scale, **rules), resize(x, scale, **rules).mT, atol=1e-12, rtol=0)


@laws
@given(h=LENGTHS, w=LENGTHS, rules=RULES, size=st.tuples(LENGTHS, LENGTHS), seed=st.integers(0, 99))
def test_mirror_symmetry(h, w, rules, size, seed):
    """A symmetric grid treats left and right alike.

    Not so the origin grid, nearest (ties go up), and one aligned output, which cannot meet both corners.
    """
    assume(rules["grid"] != "origin" and rules["method"] != "nearest")
    assume(rules["grid"] != "align_corners" or min(size) > 1)
    x = picture(1, h, w, seed=seed)
    flipped = resize(x.flip(-1), size=size, **rules).flip(-1)
    torch.testing.assert_close(flipped, resize(x, size=size, **rules), atol=1e-11, rtol=0)


@laws
@given(n=LENGTHS, rules=RULES)
def test_scale_one_changes_nothing(n, rules):
    """Kernels that are 1 at 0 and 0 at other pixels interpolate: the identity at scale 1."""
    torch.testing.assert_close(
        resize_matrix(n, n, **rules).to_dense(), torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0
    )


@laws
@given(n=st.integers(12, 30), scale=st.floats(1, 6), grid=GRIDS, degree=st.integers(0, 3))
def test_polynomial_reproduction(n, scale, grid, degree):
    """Away from borders the tent draws degree 1 exactly and the cubic with a = -1/2 degree 2, and no more."""
    n_out = output_size(n, scale)
    where = source_coordinates(n, n_out, scale, grid)
    inside = (where > 2) & (where < n - 3)
    samples = torch.arange(n, dtype=torch.float64) ** degree
    for method, exact_to in (("bilinear", 1), ("bicubic", 2)):
        drawn = resize_matrix(n, n_out, scale, method, grid=grid, antialias=False).to_dense() @ samples
        error = (drawn - where**degree)[inside].abs()
        if degree <= exact_to:
            assert error.max() < 1e-9
        elif (where[inside] % 0.5 != 0).any():
            assert error.max() > 0


@laws
@given(s=st.floats(0, 1), a=st.floats(-2, 1))
def test_moments_of_the_cubic(s, a):
    """Sum of weights 1; ramp error (2a+1) s (1-s) (2s-1); second moment off by 2 (2a+1) s^2 (1-s)."""
    pixels = torch.tensor([-1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    w = cubic(a)(s - pixels)
    assert float(w.sum()) == pytest.approx(1, abs=1e-12)
    assert float((pixels * w).sum()) - s == pytest.approx((2 * a + 1) * s * (1 - s) * (2 * s - 1), abs=1e-12)
    assert float((pixels**2 * w).sum()) - s * s == pytest.approx(2 * (2 * a + 1) * s * s * (1 - s), abs=1e-12)


@laws
@given(n=st.integers(1, 12), r=st.integers(1, 6))
def test_nearest_up_and_back_is_the_identity(n, r):
    """The exact rule up by r, then down by r, returns every pixel to itself."""
    up = nearest_indices(n, n * r, "exact")
    assert torch.equal(up[nearest_indices(n * r, n, "exact")], torch.arange(n))


@laws
@given(h=LENGTHS, w=LENGTHS, scale=SCALES, grid=GRIDS, border=BORDERS, antialias=st.booleans(), seed=st.integers(0, 99))
def test_bilinear_never_leaves_the_range(h, w, scale, grid, border, antialias, seed):
    """Weights of the tent are never negative: no output lies outside the input's range."""
    x = picture(1, h, w, seed=seed)
    out = resize(x, scale, method="bilinear", grid=grid, border=border, antialias=antialias)
    assert out.min() >= x.min() - 1e-12
    assert out.max() <= x.max() + 1e-12


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [2, 0.5, 1.7])
@pytest.mark.parametrize("border", ["replicate", "symmetric", "renormalise"])
def test_gradcheck(method, scale, border):
    """Oracle: finite differences in float64, first and second order."""
    image = picture(1, 2, 4, 5, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: resize(x, scale, method=method, border=border), image)
    assert torch.autograd.gradgradcheck(lambda x: resize(x, scale, method=method, border=border) ** 2, image)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_cpu_and_cuda_agree(dtype):
    """The same numbers on both devices, every method, grid and border, values and gradients."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3}[dtype]
    image = picture(2, 3, 33, 46, seed=1).to(dtype)
    for method in ("nearest", "bilinear", "bicubic"):
        for grid in ("half_pixel", "align_corners", "origin"):
            for border in ("replicate", "symmetric", "renormalise"):
                for scale in (2, 0.5, 3.4, 0.3):
                    results = []
                    for device in ("cpu", "cuda"):
                        x = image.to(device).requires_grad_()
                        out = resize(x, scale, method=method, grid=grid, border=border)
                        assert out.device.type == device
                        (gradient,) = torch.autograd.grad(out.square().sum(), x)
                        results.append((out.detach().cpu(), gradient.cpu()))
                    torch.testing.assert_close(results[0], results[1], atol=tolerance * 20, rtol=tolerance)
