"""resize: toy numbers done by hand, both forms, sizes, dtypes, and errors that name what came."""

import math
from fractions import Fraction

import pytest
import torch

from course_lib.plain import W, resize_plain
from course_lib.upsampling import (
    nearest_indices,
    output_size,
    polyphase_downscale,
    polyphase_filters,
    polyphase_upscale,
    resize,
    resize_matrix,
)

GRIDS = ("half_pixel", "align_corners", "origin")
BORDERS = ("replicate", "symmetric", "renormalise")


def picture(*shape, seed=0, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def row(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, 1, -1)


def test_bilinear_two_by_two_by_hand():
    """Oracle: chapter 03's table, both grids."""
    corners = torch.tensor([[[10.0, 20.0], [30.0, 40.0]]], dtype=torch.float64)
    half = [[10, 12.5, 17.5, 20], [15, 17.5, 22.5, 25], [25, 27.5, 32.5, 35], [30, 32.5, 37.5, 40]]
    torch.testing.assert_close(resize(corners, 2, method="bilinear")[0], torch.tensor(half, dtype=torch.float64))
    aligned = resize(corners, size=4, method="bilinear", grid="align_corners")[0]
    ramp = torch.tensor([0, 1 / 3, 2 / 3, 1], dtype=torch.float64)
    torch.testing.assert_close(aligned, 10 + 10 * ramp[None, :] + 20 * ramp[:, None])


def test_nearest_three_by_three_by_hand():
    """Oracle: chapter 02's table for the floor rule."""
    grid = torch.arange(10.0, 100.0, 10.0).view(1, 3, 3)
    expected = [[10, 10, 20, 30], [10, 10, 20, 30], [40, 40, 50, 60], [70, 70, 80, 90]]
    assert resize(grid, size=4, method="nearest", grid="origin")[0].tolist() == expected


def test_bicubic_weights_by_hand():
    """Oracle: (-1, 9, 9, -1)/16 half way, and the eight antialiased taps of halving, in 128ths."""
    assert (polyphase_filters(2)[0] * 128).tolist() == [[-3, 29, 111, -9, 0], [0, -9, 111, 29, -3]]
    taps = resize_matrix(16, 8, method="bicubic").to_dense()[4] * 128
    assert taps[taps != 0].tolist() == pytest.approx([-1.5, -4.5, 14.5, 55.5, 55.5, 14.5, -4.5, -1.5])
    plain = resize_matrix(16, 8, antialias=False).to_dense()[4] * 16
    assert plain[plain != 0].tolist() == pytest.approx([-1, 9, 9, -1])


def test_imresize_of_an_alternating_row():
    """Oracle: MATLAB's rule (mirror border, widened kernel, rows normalised) worked out by hand to four digits."""
    waves = row(*([0, 1] * 12))
    ours = resize(waves, size=(1, 8), border="symmetric")[0, 0]
    expected = [0.4074, 0.5062, 0.5062, 0.4938, 0.5062, 0.4938, 0.4938, 0.5926]
    assert ours.tolist() == pytest.approx(expected, abs=5e-5)
    assert resize(waves, size=(1, 8), antialias=False)[0, 0].tolist() == pytest.approx([1, 0] * 4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize(("method", "radius"), [("bilinear", 1), ("bicubic", 2)])
@pytest.mark.parametrize("scale", [2, 0.5, Fraction(17, 10), 0.3])
def test_resize_is_the_plain_double_sum(grid, border, antialias, method, radius, scale):
    """Oracle: the loops of course_lib.plain, pixel by pixel."""
    image = picture(1, 5, 7)
    size = tuple(output_size(n, scale) for n in (5, 7))
    kernel = (lambda x: W(x, -0.5)) if method == "bicubic" else (lambda x: max(0.0, 1 - abs(x)))
    scales = (float(scale), float(scale))
    plain = resize_plain(image[0].tolist(), size, scales, kernel, radius, grid, border, antialias)
    ours = resize(image, scale, method=method, antialias=antialias, grid=grid, border=border)[0]
    torch.testing.assert_close(ours, torch.tensor(plain, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("scale", [2, 3, 3.4, 0.25, 0.37, (2.5, 0.5), 1])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("border", BORDERS)
def test_resize_is_two_matrices(method, scale, grid, border):
    """Oracle: A_h X A_w^T with `resize_matrix`, whichever path resize takes inside."""
    image = picture(2, 3, 16, 24)
    vertical, horizontal = scale if isinstance(scale, tuple) else (scale, scale)
    for antialias in (True, False):
        rules = {"method": method, "antialias": antialias, "grid": grid, "border": border}
        a_h = resize_matrix(16, output_size(16, vertical), vertical, **rules).to_dense()
        a_w = resize_matrix(24, output_size(24, horizontal), horizontal, **rules).to_dense()
        torch.testing.assert_close(resize(image, scale, **rules), a_h @ image @ a_w.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize("r", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_polyphase_forms_are_resize(r, method):
    """Oracle: resize itself, gradients included."""
    image = picture(2, 2, 14, 21, seed=r).requires_grad_()
    target = picture(2, 2, 14 * r, 21 * r, seed=9)
    ours, theirs = polyphase_upscale(image, r, method), resize(image, r, method=method)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    gradients = [torch.autograd.grad((out * target).sum(), image)[0] for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, atol=1e-11, rtol=0)
    if method != "nearest" and r in (1, 7):
        small = polyphase_downscale(image, r, method)
        torch.testing.assert_close(small, resize(image, Fraction(1, r), method=method), atol=1e-12, rtol=0)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (2, 3, 8, 1), (2, 1, 4, 5, 6), (0, 3, 4, 4)])
@pytest.mark.parametrize("scale", [3, 0.4, 2.5])
@pytest.mark.parametrize("method", ["nearest", "bilinear", "bicubic"])
def test_any_layout(shape, scale, method):
    """Oracle: one plane at a time; a constant stays constant even from a single pixel."""
    image = picture(*shape)
    out = resize(image, scale, method=method)
    assert out.shape == (*shape[:-2], output_size(shape[-2], scale), output_size(shape[-1], scale))
    for plane, result in zip(image.reshape(-1, 1, *shape[-2:]), out.reshape(-1, 1, *out.shape[-2:]), strict=True):
        torch.testing.assert_close(result, resize(plane, scale, method=method), atol=1e-12, rtol=0)
    torch.testing.assert_close(resize(torch.ones(shape), scale, method=method), torch.ones(out.shape))


def test_channels_last_and_strided_inputs():
    """Oracle: the same numbers laid out plainly."""
    image = picture(2, 3, 10, 12)
    expected = resize(image, 2.5)
    torch.testing.assert_close(resize(image.to(memory_format=torch.channels_last), 2.5), expected)
    torch.testing.assert_close(resize(image.permute(0, 1, 3, 2).contiguous().mT, 2.5), expected)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)],
)
@pytest.mark.parametrize("scale", [4, 0.25, 3.4])
def test_dtype_follows_the_input(dtype, tolerance, scale):
    """Oracle: float64."""
    image = picture(1, 3, 16, 20)
    out = resize(image.to(dtype), scale)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), resize(image.to(dtype).double(), scale), atol=tolerance, rtol=0)


def test_scale_fixes_coordinates_and_size_fixes_counts():
    """Oracle: the matrices. 5 * 1.1 = 5.5 pixels round up to 6, which look 1/1.1 apart, not 5/6."""
    image = picture(1, 5, 5)
    by_scale, by_size = resize(image, 1.1), resize(image, size=6)
    assert by_scale.shape == by_size.shape == (1, 6, 6)
    first, second = (resize_matrix(5, 6, scale).to_dense() for scale in (1.1, None))
    torch.testing.assert_close(by_scale, first @ image @ first.T)
    torch.testing.assert_close(by_size, second @ image @ second.T)
    assert (by_scale - by_size).abs().max() > 1e-3


def test_matrix_dtype_and_rows():
    """Oracle: partition of unity."""
    matrix = resize_matrix(9, 31, method="bilinear", dtype=torch.float32)
    assert matrix.dtype == torch.float32
    assert matrix.is_coalesced()
    torch.testing.assert_close(matrix.to_dense().sum(1), torch.ones(31))


def test_the_input_is_never_written_to():
    """Oracle: a copy made before."""
    image = picture(1, 3, 16, 16)
    before = image.clone()
    for border in BORDERS:
        resize(image, 4, border=border)
        resize(image, 0.25, border=border)
    assert torch.equal(image, before)


def nan_at(*index):
    image = torch.rand(3, 8, 8)
    image[index] = math.nan
    return image


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: resize("photo.png", 2), TypeError, "image must be a torch.Tensor, got str"),
        (
            lambda: resize(torch.rand(3, 0, 4), 2),
            ValueError,
            r"image must be \(..., C, H, W\) with H, W >= 1, got \(3, 0, 4\)",
        ),
        (lambda: resize(torch.rand(8, 8), 2), ValueError, r"got \(8, 8\)"),
        (
            lambda: resize(torch.zeros(3, 8, 8, dtype=torch.uint8), 2),
            TypeError,
            "image must be floating point .* got torch.uint8",
        ),
        (
            lambda: resize(torch.rand(3, 8, 8)),
            ValueError,
            "exactly one of scale and size, got scale=None and size=None",
        ),
        (lambda: resize(torch.rand(3, 8, 8), 2, 16), ValueError, "got scale=2 and size=16"),
        (lambda: resize(torch.rand(3, 8, 8), 0), ValueError, "scale must be a positive finite number, got 0"),
        (lambda: resize(torch.rand(3, 8, 8), -1), ValueError, "scale must be a positive finite number, got -1"),
        (lambda: resize(torch.rand(3, 8, 8), 1e9), ValueError, "scale or size must leave sides of at most"),
        (lambda: resize(torch.rand(3, 8, 8), 1e-12), ValueError, "scale must not shrink this far"),
        (
            lambda: resize(torch.rand(3, 8, 8), (2, 2, 2)),
            ValueError,
            r"scale must be one number or two .* got \(2, 2, 2\)",
        ),
        (lambda: resize(torch.rand(3, 8, 8), size=0), ValueError, "size must be at least 1, got 0"),
        (lambda: resize(torch.rand(3, 8, 8), size=7.5), TypeError, "size must be a whole number, got 7.5"),
        (
            lambda: resize(torch.rand(3, 8, 8), 2, method="lanczos"),
            ValueError,
            "method must be one of .* got 'lanczos'",
        ),
        (lambda: resize(torch.rand(3, 8, 8), 2, grid="corner"), ValueError, "grid must be one of .* got 'corner'"),
        (lambda: resize(torch.rand(3, 8, 8), 2, border="zero"), ValueError, "border must be one of .* got 'zero'"),
        (lambda: resize(torch.rand(3, 8, 8), 2, a=math.inf), ValueError, "a must be a finite number, .* got inf"),
        (lambda: resize(nan_at(1, 2, 3), 2), ValueError, r"image must be finite, got nan at index \(1, 2, 3\)"),
        (lambda: resize(nan_at(0, 7, 7), 0.5), ValueError, r"image must be finite, got nan at index \(0, 7, 7\)"),
        (lambda: resize(torch.rand(1, 1, 1), (1e8, 1)), ValueError, "must leave sides of at most 16,777,216 pixels"),
        (
            lambda: resize(torch.rand(3, 8, 8), 10**400),
            ValueError,
            "scale must be from 1e-30 to 1e30",
        ),
        (lambda: resize(torch.rand(3, 8, 8), 2, a="x"), TypeError, "a must be a number, got 'x'"),
        (lambda: resize(torch.rand(3, 8, 8), 2, a=1e308), ValueError, r"a must be a finite number, .* got 1e\+308"),
        (lambda: resize(torch.rand(3, 8, 8).to(torch.float8_e4m3fn), 2), TypeError, "got torch.float8_e4m3fn"),
        (lambda: resize(torch.rand(3, 8, 8).to_sparse(), 2), TypeError, "image must be a dense tensor, got layout"),
        (
            lambda: resize_matrix(4, 9, dtype=torch.int64),
            TypeError,
            "dtype must be a floating .* got torch.int64",
        ),
        (lambda: polyphase_upscale(torch.zeros(1, 4, 4, dtype=torch.int64), 2), TypeError, "got torch.int64"),
        (
            lambda: polyphase_upscale(nan_at(1, 2, 3), 2),
            ValueError,
            r"image must be finite, got nan at index \(1, 2, 3\)",
        ),
        (lambda: resize_matrix(0, 4), ValueError, "n_in must be at least 1, got 0"),
        (lambda: polyphase_filters(0), ValueError, "r must be at least 1, got 0"),
        (lambda: polyphase_downscale(torch.rand(1, 5, 6), 2), ValueError, "multiples of r = 2"),
        (
            lambda: polyphase_downscale(torch.rand(1, 6, 6), 2, "nearest"),
            ValueError,
            "method must be 'bilinear' or 'bicubic'",
        ),
    ],
)
def test_errors_name_what_came_and_what_was_expected(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("shape", "scale"), [((4, 1), (2, 1)), ((4, 1), (0.5, 1)), ((1, 4), (1, 2)), ((1, 1), 4)])
def test_one_pixel_wide_pictures(method, border, shape, scale):
    """Oracle: the matrices. PyTorch's antialiased kernel goes wrong on a single column."""
    image = picture(1, *shape)
    out = resize(image, scale, method=method, border=border)
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    a_h, a_w = (
        resize_matrix(n, output_size(n, s), s, method, border=border).to_dense()
        for n, s in zip(shape, scales, strict=True)
    )
    torch.testing.assert_close(out, a_h @ image @ a_w.T)


def test_steps_that_float32_cannot_hold_stay_exact():
    """Oracle: integer arithmetic. 16368 -> 16384 steps by 1023/1024, one bit more than a float32 position has."""
    row = torch.arange(16368.0).view(1, 1, -1)
    assert torch.equal(resize(row, size=(1, 16384), method="nearest")[0, 0].long(), nearest_indices(16368, 16384))
    ramp = row / 16368
    exact = resize(ramp.double(), size=(1, 16384), method="bilinear")
    torch.testing.assert_close(resize(ramp, size=(1, 16384), method="bilinear").double(), exact, atol=1e-6, rtol=0)


def test_a_dropped_border_may_leave_nothing_to_read():
    """Oracle: by hand. 7 * 0.3 rounds up to 3 pixels; the third looks at 7.83, beyond the last pixel: the edge."""
    matrix = resize_matrix(7, 3, 0.3, "bilinear", antialias=False, border="renormalise").to_dense()
    assert matrix[2].tolist() == [0, 0, 0, 0, 0, 0, 1]


def test_training_after_inference_mode():
    """Tables first made in inference mode serve training afterwards (oracle: a gradient arrives)."""
    with torch.inference_mode():
        resize(torch.rand(1, 9, 9), 1.61)
    image = torch.rand(1, 9, 9, requires_grad=True)
    resize(image, 1.61).sum().backward()
    assert image.grad is not None


def test_another_default_device_changes_nothing():
    """Oracle: the same call without it; `meta` stands for any device that is not the picture's."""
    image = picture(1, 6, 7)
    with torch.device("meta"):
        out = resize(image, 1.73)
        matrix = resize_matrix(6, 11, 1.73)
    assert out.device.type == "cpu"
    torch.testing.assert_close(out, resize(image, 1.73))
    torch.testing.assert_close(matrix, resize_matrix(6, 11, 1.73))


@pytest.mark.filterwarnings("ignore")  # what Dynamo warns of while it traces is its own affair
def test_torch_compile_gives_the_same_picture():
    """Oracle: the same call uncompiled, values and gradients."""
    image = picture(1, 9, 14).requires_grad_()
    compiled = torch.compile(lambda x: resize(x, 1.9), backend="eager")(image)
    torch.testing.assert_close(compiled, resize(image, 1.9))
    compiled.sum().backward()
    assert image.grad is not None


@pytest.mark.parametrize("scale", [2, 1.7, 0.5])
def test_autocast_does_not_lower_the_precision(scale):
    """Oracle: the same call outside autocast."""
    image = picture(1, 16, 16, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = resize(image, scale)
    torch.testing.assert_close(inside, resize(image, scale), atol=0, rtol=0)


def test_long_thin_pictures_keep_little():
    """Oracle: tracemalloc. Three scales of a 200,000-pixel row leave no tables behind."""
    import tracemalloc

    row = torch.rand(1, 1, 200_000)
    tracemalloc.start()
    for scale in (1.37, 1.38, 0.37):
        resize(row, (1, scale))
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5e6
    assert peak < 3e8


def test_huge_but_honest_values_are_not_refused():
    """Oracle: a constant stays itself although its sum overflows."""
    image = torch.full((1, 8, 8), 3e38)
    assert torch.isfinite(resize(image, 2, method="nearest")).all()
