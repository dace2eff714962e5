"""Windows of an enlargement and colours at single places. Oracles: exact fractions, `resize`, the whole picture."""

from fractions import Fraction
from typing import Any

import pytest
import torch

from course_lib.super_resolution.any_scale import AnyScale, Span, bicubic_at, bicubic_window
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.upsampling import resize

SIZES = [(18, 26), (27, 39), (31, 50), (9, 13), (100, 177), (5, 6)]


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def tiny(**switches: Any) -> LIIF:
    torch.manual_seed(1)
    return LIIF("edsr-tiny", (8, 8), **switches).double()


def grid(height: int, width: int) -> torch.Tensor:
    ys, xs = ((2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in (height, width))
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1).flatten(0, 1)


@pytest.mark.parametrize(("n_in", "n_out", "step"), [(10, 37, None), (7, 21, None), (50, 115, Fraction(10, 23))])
def test_coordinates_are_exact(n_in: int, n_out: int, step: Fraction | None) -> None:
    """Oracle: (i + 1/2) step - 1/2 in fractions."""
    span = Span.whole(n_in, n_out, step).part(2, n_out - 1, 3)
    exact = [(i + Fraction(1, 2)) * span.step - Fraction(1, 2) for i in range(2, n_out - 1)]
    floor, fraction = span.coordinates()
    assert floor.tolist() == [x.numerator // x.denominator for x in exact]
    assert fraction.tolist() == [float(x - x.numerator // x.denominator) for x in exact]
    assert span.length == len(exact)


def test_a_part_has_the_pixels_around_its_own() -> None:
    """Oracle: counted by hand; output 9 of 40 lies in small pixel 2 of 10, output 20 in 5."""
    part = Span.whole(10, 40).part(9, 21, 2)
    assert (part.first, part.end, part.origin, part.have) == (9, 21, 0, 8)
    assert (Span.whole(10, 40).part(12, 13, 0).origin, Span.whole(10, 40).part(12, 13, 0).have) == (3, 1)
    assert part.here(0, 8) == slice(0, 8)
    with pytest.raises(ValueError, match="must hold small pixels 1 to 8 for outputs 9 to 20, got 0 to 7"):
        part.here(1, 9)
    with pytest.raises(ValueError, match="must hold small pixels 2 to 3 for outputs 12 to 12, got 3 to 3"):
        Span.whole(10, 40).part(12, 13, 0).here(2, 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((0, 4, 0, 4, 0, 1, Fraction(1)), "n_in must be at least 1, got 0"),
        ((4, 8, 3, 3, 0, 4, Fraction(1, 2)), "first < end <= n_out = 8 must hold, got first 3, end 3"),
        ((4, 8, 0, 9, 0, 4, Fraction(1, 2)), "got first 0, end 9"),
        ((4, 8, 0, 8, 1, 4, Fraction(1, 2)), r"origin \+ have must be at most n_in = 4, got 1 \+ 4"),
        ((4, 8, 0, 8, 0, 4, Fraction(0)), "step must be a Fraction above 0"),
        ((4, 8, 0, 8, 0, 4, 0.5), "step must be a Fraction above 0, got 0.5"),
    ],
)
def test_wrong_spans(fields: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Span(*fields)


@pytest.mark.parametrize("size", SIZES)
def test_bicubic_windows_and_places(size: tuple[int, int]) -> None:
    """Oracle: `resize`, and the same window of the whole."""
    small = picture(2, 3, 9, 13)
    rows, columns = Span.whole(9, size[0]), Span.whole(13, size[1])
    expected = resize(small, size=size, method="bicubic", border="symmetric", antialias=False)
    whole = bicubic_window(small, rows, columns)
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-12)
    at = grid(*size).expand(2, -1, -1)
    torch.testing.assert_close(bicubic_at(small, at).mT.reshape(2, 3, *size), expected, rtol=0, atol=1e-12)
    down, right = rows.part(1, size[0] - 1, 2), columns.part(2, size[1] - 2, 2)
    piece = small[..., down.origin : down.origin + down.have, right.origin : right.origin + right.have]
    torch.testing.assert_close(bicubic_window(piece, down, right), whole[..., 1:-1, 2:-2], rtol=0, atol=1e-12)


def test_bicubic_needs_its_pixels() -> None:
    rows, columns = Span.whole(9, 18).part(8, 10, 0), Span.whole(9, 18)
    with pytest.raises(ValueError, match="the piece must hold small pixels 2 to 6 for outputs 8 to 9, got 4 to 4"):
        bicubic_window(picture(1, 3, 1, 9), rows, columns)


@pytest.mark.parametrize("added", [True, False])
@pytest.mark.parametrize("scale", [2, 3, 3.4])
def test_a_window_is_that_of_the_whole(scale: float, added: bool) -> None:
    """Oracle: `forward` on the whole picture."""
    model, lr = tiny(added=added), picture(3, 60, 52)
    rows, columns = model.spans((60, 52), scale=scale)
    down, right = rows.part(70, 85, model.radius), columns.part(0, 31, model.radius)
    assert down.have < 60
    assert right.have < 52
    piece = lr[..., down.origin : down.origin + down.have, right.origin : right.origin + right.have]
    with torch.no_grad():
        torch.testing.assert_close(
            model.render(piece, down, right), model(lr, scale=scale)[:, 70:85, :31], rtol=0, atol=1e-12
        )
        with pytest.raises(ValueError, match=r"lr must be \(\.\.\., 3, \d+, \d+\) as rows and columns say"):
            model.render(piece[..., 1:], down, right)


@pytest.mark.parametrize("added", [True, False])
def test_pixels_asked_singly_are_the_picture(added: bool) -> None:
    """Oracle: `forward`, at the centres of its pixels."""
    model, lr = tiny(added=added), picture(2, 3, 6, 5)
    at = grid(14, 12).expand(2, -1, -1)
    cells = torch.tensor([2 / 14, 2 / 12], dtype=torch.float64).expand_as(at)
    with torch.no_grad():
        asked = model.predict(lr, at, cells).mT.reshape(2, 3, 14, 12)
        torch.testing.assert_close(model(lr, size=(14, 12)), asked, rtol=0, atol=1e-12)


def test_added_is_added() -> None:
    """Oracle: the decoder's part with nothing to say, on the bicubic picture."""
    model, lr = tiny(added=True), picture(3, 6, 5)
    with torch.no_grad():
        for parameter in model.mlp.parameters():
            parameter.zero_()
        expected = resize(lr, size=(13, 17), method="bicubic", border="symmetric")
        torch.testing.assert_close(model(lr, size=(13, 17)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("model", [tiny(added=True), MetaSR("edsr-tiny", 5, added=True).double()])
def test_a_batch_of_no_pictures(model: AnyScale) -> None:
    """Oracle: shapes; with and without gradients, as EDSR and RDN."""
    none, at = torch.zeros(0, 3, 6, 5, dtype=torch.float64), torch.zeros(0, 7, 2, dtype=torch.float64)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            assert model(none, scale=2.5).shape == (0, 3, *model.output_size((6, 5), 2.5))
            assert model(none[None], scale=2).shape == (1, 0, 3, 12, 10)
            assert model.predict(none, at, at + 0.1).shape == (0, 7, 3)
            assert model.predict(picture(2, 3, 6, 5), at.reshape(2, 0, 2), at.reshape(2, 0, 2)).shape == (2, 0, 3)


def test_wrong_places() -> None:
    """Oracle: the message says what came and what was expected; never is one picture's row taken for another's."""
    model, lr, at = tiny(added=True), picture(2, 3, 6, 5), torch.zeros(2, 7, 2)
    for wrong in (lr[0], lr[None]):
        with pytest.raises(ValueError, match=r"lr must be \(B, 3, h, w\).* got"):
            model.predict(wrong, at, at)
    for one, other in (
        (at[:1], at[:1]),
        (at, at[:1]),
        (at[..., :1], at[..., :1]),
        (at[0], at[0]),
        (at[0, 0], at[0, 0]),
    ):
        with pytest.raises(ValueError, match=r"coordinates and cells must be \(2, Q, 2\), got") as caught:
            model.predict(lr, one, other)
        assert f"{tuple(one.shape)} and {tuple(other.shape)}" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "give exactly one of size and scale"),
        ({"size": (4, 4), "scale": 2}, ValueError, "give exactly one of size and scale"),
        ({"size": (4,)}, ValueError, r"size must be \(height, width\), got \(4,\)"),
        ({"size": (4, 2.5)}, TypeError, "size must be a whole number, got 2.5"),
        ({"size": (0, 4)}, ValueError, "size must be at least 1, got 0"),
        ({"scale": 0.01}, ValueError, "scale must leave at least one pixel, got 0.01 for 6 x 5 pixels"),
        ({"scale": -1}, ValueError, "scale must be a positive finite number"),
        ({"scale": 1e6}, ValueError, r"6000000 x 5000000; `course upscale` works by tiles"),
    ],
)
def test_wrong_sizes(arguments: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tiny()(picture(3, 6, 5), **arguments)


def test_wrong_pictures() -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"lr must be \(\.\.\., 3, h, w\) with h, w >= 1, got \(1, 6, 5\)"):
        model(picture(1, 6, 5), scale=2)
    with pytest.raises(TypeError, match=r"lr must be floating point, values in \[0, 1\], got torch.uint8"):
        model(torch.zeros(3, 6, 5, dtype=torch.uint8), scale=2)
    with pytest.raises(TypeError, match=r"lr must be a torch.Tensor, got int"):
        model(3, scale=2)
    with pytest.raises(ValueError, match=r"encoder must be one of .*edsr-tiny.*; got 'vgg'"):
        LIIF("vgg")
