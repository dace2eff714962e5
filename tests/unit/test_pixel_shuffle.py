"""PixelShuffle: oracles are index formulas by loops, torch's own operator and numbers by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.plain import pixel_shuffle_plain, pixel_unshuffle_plain
from course_lib.upsampling import (
    channel_order,
    icnr_,
    pixel_shuffle,
    pixel_unshuffle,
    subpixel_to_transposed,
    transposed_to_subpixel,
)

ORDERS = pytest.mark.parametrize("order", ["torch", "tensorflow"])
BY_HAND = [[1, 5, 2, 6], [9, 13, 10, 14], [3, 7, 4, 8], [11, 15, 12, 16]]


def counted(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)


@ORDERS
def test_four_channels_by_hand(order):
    """Oracle: four channels of 2 x 2 numbers laid out with a pencil; a plain reshape puts them elsewhere."""
    x = torch.arange(1, 17).view(4, 2, 2)
    assert pixel_shuffle(x, 2, order).tolist() == [BY_HAND]
    assert pixel_shuffle_plain(x.tolist(), 2, order) == [BY_HAND]
    assert x.reshape(4, 4).tolist() != BY_HAND


@pytest.mark.parametrize(("c", "r", "h", "w"), [(1, 2, 2, 3), (2, 2, 1, 2), (3, 3, 2, 1), (2, 1, 3, 2), (5, 4, 1, 1)])
def test_torch_order_is_the_index_formula(c, r, h, w):
    """Oracle: out[c, r h + i, r w + j] = in[c r^2 + i r + j, h, w] by loops, and torch."""
    x = counted(c * r * r, h, w)
    expected = torch.empty(c, r * h, r * w, dtype=x.dtype)
    for colour in range(c):
        for y in range(r * h):
            for column in range(r * w):
                i, j = y % r, column % r
                expected[colour, y, column] = x[colour * r * r + i * r + j, y // r, column // r]
    assert torch.equal(pixel_shuffle(x, r), expected)
    assert torch.equal(pixel_shuffle(x, r), nn.PixelShuffle(r)(x[None])[0])
    assert pixel_shuffle_plain(x.tolist(), r) == expected.tolist()
    assert pixel_unshuffle_plain(expected.tolist(), r) == x.tolist()


@pytest.mark.parametrize(("c", "r", "h", "w"), [(1, 2, 2, 3), (2, 2, 1, 2), (3, 3, 2, 1), (2, 1, 3, 2), (5, 4, 1, 1)])
def test_tensorflow_order_is_the_papers_formula(c, r, h, w):
    """Oracle: equation 4 of the paper with x the column: channel C r mod(y, r) + C mod(x, r) + c.

    `tf.nn.depth_to_space` documents the same: channels are (bY, bX, oC), "ordered by decreasing memory layout
    significance".
    """
    x = counted(c * r * r, h, w)
    expected = torch.empty(c, r * h, r * w, dtype=x.dtype)
    for colour in range(c):
        for row in range(r * h):
            for column in range(r * w):
                k = c * r * (row % r) + c * (column % r) + colour
                expected[colour, row, column] = x[k, row // r, column // r]
    assert torch.equal(pixel_shuffle(x, r, "tensorflow"), expected)
    assert pixel_shuffle_plain(x.tolist(), r, "tensorflow") == expected.tolist()
    assert pixel_unshuffle_plain(expected.tolist(), r, "tensorflow") == x.tolist()
    n, h2, w2 = 1, h, w  # depth_to_space's documented six coordinates, channels last: n, iY, iX, bY, bX, oC
    six = x.permute(1, 2, 0).reshape(n, h2, w2, r, r, c)
    documented = six.permute(0, 1, 3, 2, 4, 5).reshape(r * h, r * w, c)
    assert torch.equal(pixel_shuffle(x, r, "tensorflow"), documented.permute(2, 0, 1))


def test_channel_order_by_hand():
    """Oracle: C = 2, r = 2: the four channels of colour 0 are TensorFlow's even ones."""
    assert channel_order(2, 2).tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert channel_order(1, 3).tolist() == list(range(9))
    assert channel_order(3, 1).tolist() == [0, 1, 2]


def test_loading_weights_in_the_other_order():
    """Oracle: a network with TensorFlow's shuffle; its last layer, permuted, gives the same picture with torch's."""
    torch.manual_seed(0)
    theirs, x = nn.Conv2d(5, 12, 3, padding=1), torch.randn(2, 5, 4, 6)
    picture = pixel_shuffle(theirs(x), 2, "tensorflow")
    p = channel_order(3, 2)
    ours = nn.Conv2d(5, 12, 3, padding=1)
    ours.load_state_dict({name: value[p] for name, value in theirs.state_dict().items()})
    torch.testing.assert_close(nn.PixelShuffle(2)(ours(x)), picture)
    assert (nn.PixelShuffle(2)(theirs(x)) - picture).abs().max() > 0.1


@ORDERS
def test_three_by_three_becomes_six_by_six(order):
    """Oracle: wt[2 (2 - u) + i, 2 (2 - v) + j] = w[2 i + j, u, v], by loops; kernel 6, stride 2, padding 2."""
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    large = subpixel_to_transposed(weight, 2, order)
    assert large.shape == (1, 1, 6, 6)
    for i in range(2):
        for j in range(2):
            for u in range(3):
                for v in range(3):
                    assert large[0, 0, 2 * (2 - u) + i, 2 * (2 - v) + j] == weight[2 * i + j, 0, u, v]
    x = counted(1, 1, 5, 4)
    layer = nn.ConvTranspose2d(1, 1, 6, stride=2, padding=2, bias=False, dtype=torch.float64)
    layer.weight = nn.Parameter(large)
    torch.testing.assert_close(layer(x), pixel_shuffle(F.conv2d(x, weight, padding=1), 2, order))


def test_icnr_copies_one_filter_for_each_colour():
    """Oracle: torch's initialiser with the same random state, on the smaller layer."""
    for order in ("torch", "tensorflow"):
        layer = nn.Conv2d(4, 3 * 9, 3)
        torch.manual_seed(5)
        icnr_(layer.weight, 3, nn.init.xavier_uniform_, order)
        torch.manual_seed(5)
        filters = nn.init.xavier_uniform_(torch.empty(3, 4, 3, 3))
        for k in range(27):
            colour = k // 9 if order == "torch" else k % 3
            assert torch.equal(layer.weight[k], filters[colour])
        assert layer.weight.requires_grad
        assert layer.weight.grad_fn is None


def test_icnr_wants_an_initialiser_that_fills_in_place():
    """Oracle: the words, and that the weight is as it was."""
    weight = torch.ones(8, 2, 3, 3)
    with pytest.raises(ValueError, match=r"init must fill the tensor that it is given, in place; .* left NaN"):
        icnr_(weight, 2, torch.ones_like)
    assert torch.equal(weight, torch.ones(8, 2, 3, 3))
    with pytest.raises(TypeError, match=r"weight must be floating point, got torch\.int64"):
        icnr_(weight.long(), 2)
    assert icnr_(weight.to("meta"), 2).is_meta


@ORDERS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.uint8, torch.bool])
def test_dtype_and_layout_are_kept(order, dtype):
    """Oracle: the plain form; nothing is computed, so that any dtype goes through, and nothing at all as well."""
    x = (counted(2, 8, 2, 3) % 7).to(dtype)
    out = pixel_shuffle(x, 2, order)
    assert (out.dtype, out.shape) == (dtype, (2, 2, 4, 6))
    assert out.tolist() == [pixel_shuffle_plain(one.tolist(), 2, order) for one in x]
    assert torch.equal(pixel_shuffle(x.mT.contiguous().mT, 2, order), out)
    assert pixel_shuffle(x[:0], 2, order).shape == (0, 2, 4, 6)
    assert pixel_unshuffle(out[:0], 2, order).shape == (0, 8, 2, 3)


def test_bad_arguments_are_named():
    """Each error says which argument, what came and what was expected."""
    x = torch.zeros(1, 8, 4, 4)
    weight = torch.zeros(8, 2, 3, 3)
    cases = [
        (lambda: pixel_shuffle(x, 3), ValueError, r"image must be .* divisible by 9 .* got shape \(1, 8, 4, 4\)"),
        (lambda: pixel_shuffle(x[:, :6], 2), ValueError, r"image must be .* by 4 .* got shape \(1, 6, 4, 4\)"),
        (lambda: pixel_shuffle(x[0, 0], 2), ValueError, r"image must be \(\.\.\., C \* r \* r, H, W\), got"),
        (lambda: pixel_shuffle([[1]], 2), TypeError, "image must be a tensor, got list"),
        (lambda: pixel_shuffle(x, 0), ValueError, "r must be at least 1, got 0"),
        (lambda: pixel_shuffle(x, 2.0), TypeError, "r must be a whole number, got 2.0"),
        (lambda: pixel_shuffle(x, 2, "caffe"), ValueError, "order must be one of 'torch', 'tensorflow', got 'caffe'"),
        (lambda: pixel_unshuffle(x, 3), ValueError, r"image must be .* divisible by r = 3, got"),
        (lambda: pixel_unshuffle(x[..., :3], 2), ValueError, r"image must be .* got shape \(1, 8, 4, 3\)"),
        (lambda: pixel_unshuffle(x[..., :3, :], 2), ValueError, r"image must be .* got shape \(1, 8, 3, 4\)"),
        (lambda: pixel_unshuffle(x, 2, "tf"), ValueError, "order must be one of"),
        (lambda: channel_order(0, 2), ValueError, "channels must be at least 1"),
        (lambda: channel_order(2, True), TypeError, "r must be a whole number"),
        (lambda: icnr_(weight, 3), ValueError, r"weight must be \(C \* r \* r, C_in, kh, kw\) with r = 3, got shape"),
        (lambda: icnr_(weight, 2, order="x"), ValueError, "order must be one of"),
        (lambda: subpixel_to_transposed(weight[0], 2), ValueError, r"weight must be .* got shape \(2, 3, 3\)"),
        (lambda: subpixel_to_transposed(weight[:0], 2), ValueError, "weight must be"),
        (lambda: transposed_to_subpixel(weight, 2), ValueError, r"weight must be \(C_in, C, r \* kh, .* with r = 2"),
        (lambda: transposed_to_subpixel(weight, -1), ValueError, "r must be at least 1"),
    ]  # fmt: skip
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()
