"""Convolution as a matrix, and transposed convolution: oracles are torch, the plain loops and numbers done by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from course_lib.plain import convolve, convolve_transposed
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

VIEWS = [conv_transpose_by_zeros, conv_transpose_by_scatter]
KERNEL = torch.arange(1.0, 10).view(1, 1, 3, 3)
ROWS = """
    1 2 3 0 4 5 6 0 7 8 9 0 0 0 0 0
    0 1 2 3 0 4 5 6 0 7 8 9 0 0 0 0
    0 0 0 0 1 2 3 0 4 5 6 0 7 8 9 0
    0 0 0 0 0 1 2 3 0 4 5 6 0 7 8 9
"""
BACK = [[1, 4, 7, 6], [7, 23, 33, 24], [19, 53, 63, 42], [21, 52, 59, 36]]


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_four_rows_by_hand():
    """Oracle: the 4 x 16 matrix written out, C X and C' g by hand, the inner products, rank and diagonal."""
    C = conv_matrix(KERNEL, (4, 4))
    assert C.is_coalesced()
    assert C.to_dense().tolist() == [[float(v) for v in line.split()] for line in ROWS.strip().splitlines()]
    X, g = torch.arange(1.0, 17), torch.tensor([1.0, 2, 3, 4])
    assert (C @ X).tolist() == [348, 393, 528, 573]
    assert (C.t() @ g).view(4, 4).tolist() == BACK
    assert float((C @ X) @ g) == float(X @ (C.t() @ g)) == 5010
    assert torch.linalg.matrix_rank(C.to_dense()) == 4
    assert (C.to_dense() @ C.to_dense().T).diagonal().tolist() == [285] * 4


def test_a_two_by_two_kernel_by_hand():
    """Oracle: the row a b 0 c d, four times, written out."""
    wanted = """
        1 2 0 3 4 0 0 0 0
        0 1 2 0 3 4 0 0 0
        0 0 0 1 2 0 3 4 0
        0 0 0 0 1 2 0 3 4
    """
    C = conv_matrix(torch.tensor([[[[1.0, 2], [3, 4]]]]), (3, 3))
    assert C.to_dense().tolist() == [[float(v) for v in line.split()] for line in wanted.strip().splitlines()]


def test_a_row():
    """Oracle: torch's conv1d, sizes as a number and as a tuple of one."""
    weight, x = rand(4, 3, 3), rand(6, 11, seed=1)
    for size in (11, (11,), torch.Size([11])):
        M = conv_matrix(weight, size, stride=2, padding=1, dilation=2, groups=2)
        wanted = F.conv1d(x[None], weight, stride=2, padding=1, dilation=2, groups=2)[0]
        torch.testing.assert_close((M @ x.flatten()).view_as(wanted), wanted)


def test_axes_may_differ():
    """Oracle: torch, with another kernel, stride, padding and dilation along each axis."""
    weight, x = rand(4, 2, 3, 2), rand(2, 9, 8, seed=1)
    options = {"stride": (2, 1), "padding": (0, 3), "dilation": (1, 3)}
    wanted = F.conv2d(x[None], weight, **options)[0]
    torch.testing.assert_close((conv_matrix(weight, (9, 8), **options) @ x.flatten()).view_as(wanted), wanted)
    kernels = rand(2, 4, 3, 2)
    options["output_padding"] = (1, 2)
    for view in VIEWS:
        torch.testing.assert_close(view(x, kernels, **options), F.conv_transpose2d(x[None], kernels, **options)[0])


def test_weights_of_zero_keep_their_place_and_their_gradient():
    """Oracle: torch's gradient for a kernel of zeros."""
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    x = rand(1, 5, 6)
    M = conv_matrix(weight, (5, 6), padding=1)
    assert M._nnz() == 30 * 9 - 2 * 3 * (5 + 6) + 4
    ours = torch.autograd.grad((M @ x.flatten()).square().add(M @ x.flatten()).sum(), weight)
    out = F.conv2d(x[None], weight, padding=1)
    torch.testing.assert_close(ours, torch.autograd.grad(out.square().add(out).sum(), weight))


def test_a_layer_of_sixteen_channels():
    """Oracle: torch, at a size where a loop over pixels would be felt: 8.9 million weights find their place."""
    weight, x = rand(16, 16, 3, 3).float(), rand(16, 64, 64).float()
    M = conv_matrix(weight, (64, 64))
    assert (M.shape, M._nnz(), M.dtype) == ((16 * 62 * 62, 16 * 64 * 64), 16 * 16 * 62 * 62 * 9, torch.float32)
    torch.testing.assert_close((M @ x.flatten()).view(1, 16, 62, 62), F.conv2d(x[None], weight), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (3, 2, 2), (2, 4, 1)])
def test_plain_loops_agree_with_torch(stride, padding, dilation):
    """Oracle: torch, for the loops that the chapter shows, in whole numbers."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-9, 9, (1, 1, 6, 7), generator=generator).double()
    w = torch.randint(-9, 9, (1, 1, 3, 2), generator=generator).double()
    picture, kernel = x[0, 0].long().tolist(), w[0, 0].long().tolist()
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    assert convolve(picture, kernel, **options) == F.conv2d(x, w, **options)[0, 0].tolist()
    for more in range(max(stride, dilation)):
        wanted = F.conv_transpose2d(x, w, output_padding=more, **options)[0, 0]
        assert convolve_transposed(picture, kernel, **options, output_padding=more) == wanted.tolist()


@pytest.mark.parametrize("view", VIEWS)
def test_both_views_give_the_numbers_by_hand(view):
    """Oracle: C' g by hand; a picture without batch, one with two leading axes, and a batch of none."""
    g = torch.tensor([[[1.0, 2], [3, 4]]])
    assert view(g, KERNEL).tolist() == [BACK]
    many = view(g.expand(2, 3, 1, 2, 2), KERNEL)
    assert many.shape == (2, 3, 1, 4, 4)
    assert (many == torch.tensor(BACK)).all()
    assert view(g[:0].reshape(0, 1, 2, 2), KERNEL).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("view", VIEWS)
def test_padding_beyond_the_kernel_cuts_pixels_away(view):
    """Oracle: torch, where padding exceeds the kernel's reach and output_padding asks for what no pixel reaches."""
    for n, k, s, p, more in ((1, 1, 3, 1, 2), (5, 1, 2, 3, 1), (4, 2, 3, 4, 2), (9, 3, 1, 5, 0)):
        x, w = rand(1, 2, n, n), rand(2, 1, k, k, seed=1)
        wanted = F.conv_transpose2d(x, w, stride=s, padding=p, output_padding=more)
        torch.testing.assert_close(view(x, w, s, p, more), wanted)


def test_zeros_stand_between():
    """Oracle: written out."""
    x = torch.tensor([[[1.0, 2], [3, 4]]])
    assert insert_zeros(x, 2).tolist() == [[[1, 0, 2], [0, 0, 0], [3, 0, 4]]]
    assert insert_zeros(x, (1, 3)).tolist() == [[[1, 0, 0, 2], [3, 0, 0, 4]]]
    assert torch.equal(insert_zeros(x, 1), x)


def test_overlaps_by_hand():
    """Oracle: the rows of the fact sheet, counted by hand."""
    assert overlap_counts(5, 3, 2).tolist() == [1, 1, 2, 1, 2, 1, 2, 1, 2, 1, 1]
    assert overlap_counts((4,), 4, 2).tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]
    assert overlap_counts(6, 5, 2).tolist()[4:-4] == [3, 2, 3, 2, 3, 2, 3]
    assert overlap_counts(5, 6, 3).tolist()[3:-3] == [2] * 12
    assert overlap_counts(5, 5, 3).tolist()[3:-3] == [2, 2, 1] * 3 + [2, 2]
    square = overlap_counts((4, 4), 3, 2, padding=1)
    assert square.dtype == torch.int64
    assert square[:3, :3].tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    assert overlap_counts(3, 1, 3).tolist() == [1, 0, 0, 1, 0, 0, 1]  # a stride beyond the kernel leaves holes


def test_a_checkerboard_from_a_constant():
    """Oracle: the sheet's numbers: a kernel of 4/9 everywhere makes .444 and .889 of ones."""
    out = conv_transpose_by_scatter(torch.ones(1, 5, 5), torch.full((1, 1, 3, 3), 4 / 9), stride=2)[0]
    assert [round(v, 3) for v in out[1, 1:6].tolist()] == [0.444, 0.889, 0.444, 0.889, 0.444]


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_weights_enlarge_as_resize_does(scale, channels):
    """Oracle: our `resize` away from the border, for even and odd scales; inside, all weights of a phase sum to 1."""
    weight = bilinear_weight(scale, channels)
    k = 2 * scale - scale % 2
    assert (weight.shape, weight.dtype) == ((channels, 1, k, k), torch.float32)
    x, pad = rand(channels, 6, 7).float(), (k - scale) // 2
    ours = F.conv_transpose2d(x[None], weight, stride=scale, padding=pad, groups=channels)[0]
    wanted = resize(x, scale, method="bilinear")
    assert ours.shape == wanted.shape
    inside = (..., slice(scale, -scale), slice(scale, -scale))
    torch.testing.assert_close(ours[inside], wanted[inside], atol=2e-6, rtol=0)


def test_bilinear_by_hand_and_unshared():
    """Oracle: 1/4, 3/4, 3/4, 1/4 along each axis; channels do not share memory, so that a layer can train them."""
    row = torch.tensor([0.25, 0.75, 0.75, 0.25])
    weight = bilinear_weight(2, 2)
    assert torch.equal(weight[1, 0], torch.outer(row, row))
    weight[0] = 0
    assert weight[1].sum() == 4


def test_dtype_follows():
    """float64 and float32 stay what they are."""
    for dtype in (torch.float32, torch.float64):
        assert conv_matrix(KERNEL.to(dtype), (4, 4)).dtype == dtype
        for view in VIEWS:
            assert view(torch.ones(1, 2, 2, dtype=dtype), KERNEL.to(dtype)).dtype == dtype


def test_without_numbers():
    """Oracle: sizes, dtype and device; the meta device has shapes alone, and a caller may have made it the default."""
    weight = torch.ones(2, 1, 3, 3)
    with torch.device("meta"):
        there = conv_matrix(weight, (4, 5), padding=1)
    assert torch.equal(there.to_dense(), conv_matrix(weight, (4, 5), padding=1).to_dense())
    for padding in (0, 1):
        nothing = conv_matrix(weight.to("meta"), (4, 5), padding=padding)
        assert nothing.is_meta
        assert nothing.shape == conv_matrix(weight, (4, 5), padding=padding).shape


@pytest.mark.parametrize("view", VIEWS)
def test_both_views_want_one_dtype(view):
    """Oracle: the words; autocast brings dtypes together by itself and stays allowed."""
    image, weight = torch.ones(1, 3, 3, dtype=torch.float64), torch.ones(1, 1, 2, 2)
    message = "weight must be of the dtype and on the device of image, torch.float64 on cpu, got torch.float32 on cpu"
    with pytest.raises(TypeError, match=message):
        view(image, weight)
    with pytest.raises(TypeError, match=r"got torch\.float32 on meta"):
        view(image.float(), weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert view(image.bfloat16(), weight).shape == (1, 4, 4)


BAD = [
    (lambda: conv_size(2, 3), "kernel must fit into the padded row of 2 pixels, but it reaches over 3"),
    (lambda: conv_size(0, 3), "n must be at least 1, got 0"),
    (lambda: conv_size(5, 3, stride=0), "stride must be at least 1, got 0"),
    (lambda: conv_size(5, 3, padding=-1), "padding must be at least 0, got -1"),
    (lambda: conv_size(5, 2.0), "kernel must be a whole number, got 2.0"),
    (lambda: conv_size(5, True), "kernel must be a whole number, got True"),
    (lambda: conv_transpose_size(3, 3, 2, output_padding=2), "output_padding must be smaller than stride or dilation"),
    (lambda: conv_transpose_size(1, 2, padding=1), "which leaves 0"),
    (lambda: conv_matrix(KERNEL, (4, 4, 4)), "size must be one number or one for each of 2 axes"),
    (lambda: conv_matrix(KERNEL, (4, 4), stride="2"), "stride must be a whole number, got '2'"),
    (lambda: conv_matrix(KERNEL, (4, 4), groups=2), "groups must divide the 1 output channels of weight, got 2"),
    (lambda: conv_matrix(KERNEL.long(), (4, 4)), "weight must be a dense floating point tensor"),
    (lambda: conv_matrix(KERNEL.to_sparse(), (4, 4)), "weight must be a dense floating point tensor"),
    (lambda: conv_matrix([[1.0]], (4, 4)), "weight must be a torch.Tensor, got list"),
    (lambda: conv_matrix(KERNEL[0, 0], (4, 4)), "weight must be .* nothing empty, got .3, 3."),
    (lambda: conv_matrix(KERNEL[:0], (4, 4)), "nothing empty"),
    (lambda: conv_matrix(KERNEL, (20_000, 20_000)), "size must need at most"),
    (lambda: insert_zeros(torch.ones(1, 2, 2), 0), "stride must be at least 1, got 0"),
    (lambda: overlap_counts((2, 2, 2), 3, 2), "size must be a number, or .H, W."),
    (lambda: overlap_counts("9", 3, 2), "size must be a whole number, got '9'"),
    (lambda: bilinear_weight(0), "scale must be at least 1, got 0"),
    (lambda: bilinear_weight(2, 1.5), "channels must be a whole number, got 1.5"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_errors_name_the_argument(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


@pytest.mark.parametrize("view", VIEWS)
def test_both_views_refuse_the_same(view):
    x = torch.ones(2, 3, 3)
    for weight, options, message in (
        (KERNEL, {}, "with C_in = 2, the channels of image"),
        (torch.ones(2, 1, 3), {}, "weight must be .C_in, C_out / groups, kh, kw., got .2, 1, 3."),
        (torch.ones(2, 1, 3, 3), {"groups": 3}, "groups must divide the 2 input channels of weight, got 3"),
        (torch.ones(2, 1, 3, 3), {"output_padding": 1}, "output_padding must be smaller"),
        (torch.ones(2, 1, 3, 3), {"padding": 3}, "padding must leave at least one output"),
    ):
        with pytest.raises(ValueError, match=message):
            view(x, weight, **options)
    with pytest.raises(ValueError, match="image must be"):
        view(torch.ones(3, 3), KERNEL)


def test_numpy_whole_numbers_are_whole_numbers():
    """Oracle: the same call with ints."""
    assert conv_size(np.int64(9), np.int32(3), np.int64(2)) == conv_size(9, 3, 2) == 4
    assert torch.equal(overlap_counts(np.int64(5), 3, 2), overlap_counts(5, 3, 2))
