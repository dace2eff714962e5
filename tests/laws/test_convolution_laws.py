"""Laws of convolution as a matrix and of its transpose, over random shapes and rules (Hypothesis draws them)."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings

from course_lib.upsampling import (
    bilinear_weight,
    conv_matrix,
    conv_size,
    conv_transpose_by_scatter,
    conv_transpose_by_zeros,
    conv_transpose_size,
    insert_zeros,
    overlap_counts,
    resize,
)

laws = settings(max_examples=60, deadline=None, derandomize=True)
SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))
KERNELS = st.tuples(st.integers(1, 4), st.integers(1, 4))
RULES = st.fixed_dictionaries(
    {
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "dilation": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    }
)
GROUPS = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))  # groups, input, output channels of each


def rand(*shape, seed):
    numbers = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * numbers - 1).requires_grad_()


def sizes(size, kernel, rules, formula, **more):
    """The formula along both axes; None where it refuses, as torch must then too."""
    options = [dict(zip(rules, one, strict=True)) for one in zip(*rules.values(), strict=True)]
    try:
        return tuple(formula(n, k, **one, **more) for n, k, one in zip(size, kernel, options, strict=True))
    except ValueError:
        return None


@laws
@given(size=SIDES, kernel=KERNELS, rules=RULES, groups=GROUPS, seed=st.integers(0, 99))
def test_the_matrix_is_torchs_convolution(size, kernel, rules, groups, seed):
    """Values, sizes and both gradients against F.conv2d; what one refuses the other refuses."""
    g, c_in, c_out = groups
    x, weight = rand(g * c_in, *size, seed=seed), rand(g * c_out, c_in, *kernel, seed=seed + 1)
    expected = sizes(size, kernel, rules, conv_size)
    if expected is None:
        with pytest.raises(ValueError, match="kernel must fit"):
            conv_matrix(weight, size, **rules, groups=g)
        with pytest.raises(RuntimeError):
            F.conv2d(x[None], weight, **rules, groups=g)
        return
    wanted = F.conv2d(x[None], weight, **rules, groups=g)[0]
    assert wanted.shape[1:] == expected
    M = conv_matrix(weight, size, **rules, groups=g)
    assert M.shape == (wanted.numel(), x.numel())
    # What claims to be sorted and without repetition must be.
    assert (torch.diff(M.indices()[0] * M.shape[1] + M.indices()[1]) > 0).all()
    ours = (M @ x.flatten()).view_as(wanted)
    torch.testing.assert_close(ours, wanted)
    weights = torch.rand_like(wanted)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weights).sum(), (x, weight)),
        torch.autograd.grad((wanted * weights).sum(), (x, weight)),
    )


@laws
@given(size=SIDES, kernel=KERNELS, rules=RULES, groups=GROUPS, seed=st.integers(0, 99))
def test_the_transpose_is_the_gradient_and_the_transposed_convolution(size, kernel, rules, groups, seed):
    """<Mx, g> = <x, M'g>, M'g is torch's gradient, and conv_transpose2d comes back to the size asked for."""
    g, c_in, c_out = groups
    x, weight = rand(g * c_in, *size, seed=seed), rand(g * c_out, c_in, *kernel, seed=seed + 1)
    out_size = sizes(size, kernel, rules, conv_size)
    assume(out_size is not None)
    M = conv_matrix(weight, size, **rules, groups=g)
    y = rand(g * c_out, *out_size, seed=seed + 2)
    back = (M.t() @ y.flatten()).view_as(x)
    torch.testing.assert_close((M @ x.flatten()) @ y.flatten(), (x * back).sum(), atol=1e-10, rtol=1e-10)
    (gradient,) = torch.autograd.grad(F.conv2d(x[None], weight, **rules, groups=g)[0], x, y)
    torch.testing.assert_close(back, gradient)
    small = sizes(out_size, kernel, rules, conv_transpose_size)
    if small is None:
        return
    left = tuple(n - m for n, m in zip(size, small, strict=True))
    if all(0 <= n < max(s, d) for n, s, d in zip(left, rules["stride"], rules["dilation"], strict=True)):
        torch.testing.assert_close(conv_transpose_by_scatter(y, weight, **rules, output_padding=left, groups=g), back)
    ways = torch.autograd.grad(back.square().sum(), (y, weight))
    (wanted,) = torch.autograd.grad(F.conv2d(x[None], weight, **rules, groups=g)[0], x, y, create_graph=True)
    torch.testing.assert_close(ways, torch.autograd.grad(wanted.square().sum(), (y, weight)))


@laws
@given(
    size=SIDES,
    kernel=KERNELS,
    rules=RULES,
    groups=GROUPS,
    more=st.tuples(*[st.integers(0, 2)] * 2),
    seed=st.integers(0, 99),
)
def test_both_views_are_torchs_transposed_convolution(size, kernel, rules, groups, more, seed):
    """Values, sizes and both gradients against F.conv_transpose2d; what one refuses the others refuse."""
    g, c_in, c_out = groups
    x, weight = rand(2, g * c_in, *size, seed=seed), rand(g * c_in, c_out, *kernel, seed=seed + 1)
    expected = sizes(size, kernel, {**rules, "output_padding": more}, conv_transpose_size)
    options = {**rules, "output_padding": more, "groups": g}
    views = (conv_transpose_by_zeros, conv_transpose_by_scatter)
    if expected is None:
        for view in views:
            with pytest.raises(ValueError, match="padding must"):
                view(x, weight, **options)
        with pytest.raises(RuntimeError):
            F.conv_transpose2d(x, weight, **options)
        return
    wanted = F.conv_transpose2d(x, weight, **options)
    assert wanted.shape[2:] == expected
    upstream = torch.rand_like(wanted)
    gradients = torch.autograd.grad((wanted * upstream).sum(), (x, weight))
    for view in views:
        ours = view(x, weight, **options)
        torch.testing.assert_close(ours, wanted)
        torch.testing.assert_close(torch.autograd.grad((ours * upstream).sum(), (x, weight)), gradients)


@laws
@given(size=SIDES, kernel=KERNELS, rules=RULES)
def test_overlaps_are_the_transposed_convolution_of_ones(size, kernel, rules):
    """Ones through a kernel of ones count the copies; all of them together are all taps that were not cut off."""
    expected = sizes(size, kernel, rules, conv_transpose_size)
    assume(expected is not None)
    counts = overlap_counts(size, kernel, **rules)
    assert counts.shape == expected
    ones = F.conv_transpose2d(torch.ones(1, 1, *size), torch.ones(1, 1, *kernel), **rules)[0, 0]
    assert torch.equal(counts, ones.long())
    if rules["padding"] == (0, 0):
        assert counts.sum() == size[0] * size[1] * kernel[0] * kernel[1]


@laws
@given(kernel=st.integers(1, 9), stride=st.integers(1, 6), more=st.integers(0, 5))
def test_overlaps_are_uniform_inside_exactly_where_the_stride_divides_the_kernel(kernel, stride, more):
    """Inside, the count at x is how many whole n have 0 <= x - n s < k: k/s everywhere, or floor and ceil of it."""
    n = 2 * kernel + more + 2
    inside = overlap_counts(n, kernel, stride)[kernel - 1 : 1 - kernel or None]
    assert len(inside) >= stride
    assert (len(set(inside.tolist())) == 1) == (kernel % stride == 0)
    assert set(inside.tolist()) == {kernel // stride, -(-kernel // stride)}


@laws
@given(n=st.integers(1, 30), kernel=st.integers(1, 5), stride=st.integers(1, 4), padding=st.integers(0, 3))
def test_sizes_go_there_and_back(n, kernel, stride, padding):
    """There and back returns the size but for the remainder of the division, which output_padding gives back."""
    assume(n + 2 * padding >= kernel)
    there = conv_size(n, kernel, stride, padding)
    remainder = (n + 2 * padding - kernel) % stride
    assert conv_transpose_size(there, kernel, stride, padding, output_padding=remainder) == n


@laws
@given(size=SIDES, stride=st.integers(1, 4), seed=st.integers(0, 99))
def test_zeros_go_in_and_come_out(size, stride, seed):
    """Every stride-th pixel is the picture again, and nothing else was added."""
    x = rand(2, *size, seed=seed)
    spread = insert_zeros(x, stride)
    assert torch.equal(spread[..., ::stride, ::stride], x)
    assert spread.count_nonzero() == x.count_nonzero()


@laws
@given(size=st.tuples(st.integers(3, 9), st.integers(3, 9)), scale=st.integers(1, 6), seed=st.integers(0, 99))
def test_fcns_kernel_is_bilinear_inside(size, scale, seed):
    """Oracle: our `resize`, which is bilinear by geometry, away from the border."""
    x = rand(1, *size, seed=seed).detach().float()
    weight = bilinear_weight(scale)
    ours = conv_transpose_by_zeros(x, weight, scale, (weight.shape[-1] - scale) // 2)
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(ours[inside], resize(x, scale, method="bilinear")[inside], atol=2e-6, rtol=0)


def test_gradcheck():
    """Oracle: finite differences in float64, for weight and picture."""
    x, weight = rand(2, 3, 4, seed=0), rand(2, 2, 3, 2, seed=1)
    for view in (conv_transpose_by_zeros, conv_transpose_by_scatter):
        assert torch.autograd.gradcheck(lambda x, w, view=view: view(x, w, 2, 1, 1), (x, weight))
    assert torch.autograd.gradcheck(lambda w: conv_matrix(w, (3, 4), padding=1).to_dense(), weight)


@pytest.mark.gpu
def test_cpu_and_cuda_agree():
    """The same matrix and the same pictures on both devices."""
    x, weight = rand(2, 5, 6, seed=0).detach(), rand(2, 3, 3, 3, seed=1).detach()
    square = weight.transpose(0, 1).contiguous()
    M = conv_matrix(square.cuda(), (5, 6), stride=2, padding=1)
    assert M.device.type == "cuda"
    torch.testing.assert_close(M.cpu().to_dense(), conv_matrix(square, (5, 6), stride=2, padding=1).to_dense())
    for view in (conv_transpose_by_zeros, conv_transpose_by_scatter):
        torch.testing.assert_close(view(x.cuda(), weight.cuda(), 2, 1, 1).cpu(), view(x, weight, 2, 1, 1))
