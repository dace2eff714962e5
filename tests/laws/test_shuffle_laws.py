"""Laws of PixelShuffle and of sub-pixel convolution, over random shapes, factors and both channel orders."""

from functools import partial

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from course_lib.upsampling import (
    channel_order,
    icnr_,
    pixel_shuffle,
    pixel_unshuffle,
    resize,
    subpixel_to_transposed,
    transposed_to_subpixel,
)

ORDERS = st.sampled_from(["torch", "tensorflow"])
FACTORS = st.integers(1, 4)
FEW = st.integers(1, 3)
SIDES = st.integers(1, 5)
SEEDS = st.integers(0, 99)
laws = settings(max_examples=60, deadline=None, derandomize=True)


def numbers(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@laws
@given(c=FEW, r=FACTORS, h=SIDES, w=SIDES, order=ORDERS, batch=st.lists(FEW, max_size=2), seed=SEEDS)
def test_shuffle_and_unshuffle_undo_each_other(c, r, h, w, order, batch, seed):
    """Both ways round, bit for bit, for any leading dimensions."""
    small, large = (numbers(*batch, c * r * r, h, w, seed=seed), numbers(*batch, c, r * h, r * w, seed=seed))
    assert torch.equal(pixel_unshuffle(pixel_shuffle(small, r, order), r, order), small)
    assert torch.equal(pixel_shuffle(pixel_unshuffle(large, r, order), r, order), large)


@laws
@given(c=FEW, r=FACTORS, h=SIDES, w=SIDES, order=ORDERS, seed=SEEDS)
def test_the_adjoint_is_the_inverse(c, r, h, w, order, seed):
    """Orthogonal: <PS x, g> = <x, PS^-1 g>, lengths are kept, and autograd's gradient is the unshuffled g."""
    x = numbers(c * r * r, h, w, seed=seed).requires_grad_()
    g = numbers(c, r * h, r * w, seed=seed + 1)
    out = pixel_shuffle(x, r, order)
    (gradient,) = torch.autograd.grad(out, x, g)
    assert torch.equal(gradient, pixel_unshuffle(g, r, order))
    torch.testing.assert_close((out * g).sum(), (x * gradient).sum())
    torch.testing.assert_close(out.square().sum(), x.square().sum())


@laws
@given(c=FEW, r=FACTORS, h=SIDES, w=SIDES, batch=st.lists(FEW, max_size=2), seed=SEEDS)
def test_torch_agrees(c, r, h, w, batch, seed):
    """Oracle: `F.pixel_shuffle` and `F.pixel_unshuffle`, bit for bit, gradients included."""
    for ours, theirs, shape in (
        (pixel_shuffle, F.pixel_shuffle, (*batch, c * r * r, h, w)),
        (pixel_unshuffle, F.pixel_unshuffle, (*batch, c, r * h, r * w)),
    ):
        x = numbers(*shape, seed=seed).requires_grad_()
        out, expected = ours(x, r), theirs(x, r)
        assert torch.equal(out, expected)
        g = numbers(*out.shape, seed=seed + 1)
        assert torch.equal(*(torch.autograd.grad(y, x, g)[0] for y in (out, expected)))


@laws
@given(c=FEW, r=FACTORS, h=SIDES, w=SIDES, batch=st.lists(FEW, max_size=2), seed=SEEDS)
def test_the_orders_differ_by_a_permutation(c, r, h, w, batch, seed):
    """TensorFlow's shuffle of x is torch's own shuffle of x[channel_order]; with one colour the orders are the same."""
    x = numbers(*batch, c * r * r, h, w, seed=seed)
    expected = F.pixel_shuffle(x[..., channel_order(c, r), :, :], r)
    assert torch.equal(pixel_shuffle(x, r, "tensorflow"), expected)
    if c == 1:
        assert torch.equal(pixel_shuffle(x, r, "tensorflow"), pixel_shuffle(x, r, "torch"))


@laws
@given(
    c_in=FEW, c=FEW, k=st.sampled_from([1, 3, 5]), r=FACTORS, h=SIDES, w=SIDES, order=ORDERS, seed=SEEDS,
    inset=st.integers(0, 2),
)  # fmt: skip
def test_subpixel_convolution_is_a_transposed_convolution(c_in, c, k, r, h, w, order, seed, inset):
    """Oracle: torch's conv2d and conv_transpose2d; the same values and the same gradients, for any padding."""
    p = max((k - 1) // 2 - inset, 0)
    h, w = h + k, w + k
    x = numbers(2, c_in, h, w, seed=seed).requires_grad_()
    weight = numbers(c * r * r, c_in, k, k, seed=seed + 1).requires_grad_()
    small = pixel_shuffle(F.conv2d(x, weight, padding=p), r, order)
    large = F.conv_transpose2d(x, subpixel_to_transposed(weight, r, order), stride=r, padding=(k - 1 - p) * r)
    torch.testing.assert_close(large, small, atol=1e-11, rtol=1e-11)
    g = numbers(*small.shape, seed=seed + 2)
    for ours, theirs in zip(*(torch.autograd.grad(y, (x, weight), g) for y in (large, small)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@laws
@given(c_in=FEW, c=FEW, kh=FEW, kw=FEW, r=FACTORS, h=SIDES, w=SIDES, order=ORDERS, seed=SEEDS)
def test_a_transposed_convolution_is_a_subpixel_convolution(c_in, c, kh, kw, r, h, w, order, seed):
    """Oracle: torch again, from the other side, kernels of any shape r kh by r kw; and the two conversions undo."""
    x = numbers(1, c_in, h, w, seed=seed)
    weight = numbers(c_in, c, r * kh, r * kw, seed=seed + 1).requires_grad_()
    sub = transposed_to_subpixel(weight, r, order)
    assert torch.equal(subpixel_to_transposed(sub, r, order), weight)
    assert torch.equal(transposed_to_subpixel(subpixel_to_transposed(sub, r, order), r, order), sub)
    whole = F.conv_transpose2d(x, weight, stride=r)
    padded = F.pad(x, (kw - 1, kw - 1, kh - 1, kh - 1))
    torch.testing.assert_close(pixel_shuffle(F.conv2d(padded, sub), r, order), whole, atol=1e-11, rtol=1e-11)
    g = numbers(*sub.shape, seed=seed + 2)
    (gradient,) = torch.autograd.grad(sub, weight, g)
    assert torch.equal(gradient, subpixel_to_transposed(g, r, order))  # a permutation too


@laws
@given(c_in=FEW, c=FEW, k=st.sampled_from([1, 3, 5]), r=FACTORS, order=ORDERS, seed=SEEDS)
def test_icnr_starts_as_nearest_upsampling(c_in, c, k, r, order, seed):
    """Oracle: `resize(method="nearest")` of the convolution with one filter for each colour."""
    generator = torch.Generator().manual_seed(seed)
    init = partial(torch.nn.init.kaiming_normal_, generator=generator)
    weight = torch.full((c * r * r, c_in, k, k), torch.nan, dtype=torch.float64)
    assert icnr_(weight, r, init, order) is weight
    x = numbers(1, c_in, 6, 5, seed=seed)
    out = pixel_shuffle(F.conv2d(x, weight, padding=k // 2), r, order)
    one_each = weight[:: r * r] if order == "torch" else weight[:c]
    expected = resize(F.conv2d(x, one_each, padding=k // 2), scale=r, method="nearest")
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    assert c == 1 or not torch.equal(one_each[0], one_each[1])


@pytest.mark.parametrize("order", ["torch", "tensorflow"])
def test_gradcheck(order):
    """Oracle: finite differences in float64, first and second order, of a function that is not linear."""
    small, large = numbers(1, 8, 2, 3, seed=1).requires_grad_(), numbers(1, 2, 4, 6, seed=2).requires_grad_()
    weight = numbers(8, 2, 3, 3, seed=3).requires_grad_()
    for function, x in (
        (lambda x: pixel_shuffle(x, 2, order) ** 2, small),
        (lambda x: pixel_unshuffle(x, 2, order) ** 2, large),
        (lambda x: subpixel_to_transposed(x, 2, order) ** 2, weight),
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_cpu_and_cuda_agree(dtype):
    """The same numbers on both devices, bit for bit."""
    x = (10 * numbers(2, 18, 5, 7, seed=1)).to(dtype)
    for order in ("torch", "tensorflow"):
        large = pixel_shuffle(x.cuda(), 3, order)
        assert large.device.type == "cuda"
        assert torch.equal(large.cpu(), pixel_shuffle(x, 3, order))
        assert torch.equal(pixel_unshuffle(large, 3, order).cpu(), x)
