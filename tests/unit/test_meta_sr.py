"""Meta-SR. Oracles: the plain form (one output pixel after the other), Fraction arithmetic, and the sheet's numbers."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.plain.meta_sr import location, meta_upscale_chunked, meta_upscale_plain, place
from course_lib.super_resolution.any_scale import Span, bicubic_window
from course_lib.super_resolution.meta_sr import MetaSR
from course_lib.super_resolution.meta_upscale import (
    FilterNetwork,
    costs,
    projection,
    residues,
    upscale,
    upscale_by_class,
    upscale_reassociated,
    upscale_shuffled,
)
from course_lib.super_resolution.metrics import enlarger, score
from course_lib.upsampling.grids import as_fraction

PI = 3.1415926


def network(channels: int = 3, width: int = 5) -> FilterNetwork:
    torch.manual_seed(0)
    return FilterNetwork(channels, width).double()


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def spans(h: int, w: int, scale: float) -> tuple[Span, Span]:
    r = as_fraction(scale)
    return Span.whole(h, math.floor(r * h), 1 / r), Span.whole(w, math.floor(r * w), 1 / r)


def made(**options: object) -> MetaSR:
    torch.manual_seed(0)
    return MetaSR("edsr-tiny", **{"hidden": 6, "mean_shift": False, **options}).double().eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(("r", "n"), [(2.3, 50), (2.3, 90), (2.7, 90), (3.7, 100), (2.7, 50), (2.3, 100), (3.7, 90)])
def test_every_output_lies_where_fractions_say(r: float, n: int) -> None:
    """Oracle: Fraction arithmetic; the official float32 rule differs at these scales, and its sizes at 2.3."""
    exact = Fraction(str(r))
    size = math.floor(exact * n)
    assert made().output_size((n, n), r) == (size, size)
    index, offset = projection(n, size, r)
    assert index == [math.floor(i / exact) for i in range(size)]
    assert all(i == (small + part) * exact for i, (small, part) in enumerate(zip(index, offset, strict=True)))
    assert all(0 <= part < 1 for part in offset)
    rounded = (torch.arange(size, dtype=torch.float32) * torch.tensor(1 / r, dtype=torch.float32)).floor().int()
    wrong = [i for i in range(size) if rounded[i] != index[i]]
    assert wrong[0] == {2.3: 69, 2.7: 81, 3.7: 111}[r]
    assert (int(r * n) == size - 1) == (r == 2.3)
    wide = upscale(torch.arange(n, dtype=torch.float64).expand(1, 1, n, n), centre(), *spans(n, n, r))
    assert wide[0, 0, 0].round().long().tolist() == index
    assert wide[0, 0, :, 0].round().abs().max() == 0


def centre() -> FilterNetwork:
    """Return a network whose filters copy the small pixel in the centre: then the result tells who owns an output."""
    net = FilterNetwork(1, 1).double()
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.no_grad():
        net.last.bias.view(1, 3, 3, 3)[:, 1, 1] = 1
    return net


def test_small_numbers() -> None:
    """Oracle: the sheet's lists: 2, 1, 2, 1 at 1.5; the offsets at 2.5; nine places at 1.5; every class once."""
    third = Fraction(1, 3)
    assert projection(4, 6, 1.5) == ([0, 0, 1, 2, 2, 3], [0, 2 * third, third, 0, 2 * third, third])
    index, offset = projection(4, 10, 2.5)
    assert index == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert [float(part) for part in offset] == [0, 0.4, 0.8, 0.2, 0.6] * 2
    assert [len(owned) for owned in residues(1.5)] == [2, 1]
    assert [len(owned) for owned in residues(3.4)] == [4, 3, 4, 3, 3]
    assert residues(2) == [range(2)]
    r = Fraction(3, 2)
    assert len({place(i, j, r) for i in range(30) for j in range(30)}) == 9
    assert len({place(i, j, Fraction(17, 5)) for i in range(60) for j in range(60)}) == 289
    assert place(1, 0, Fraction(2)) == (Fraction(1, 2), Fraction(1, 2), 0)
    assert location(5, 2, r) == (3, 1)
    for scale in (1.1, 2.3, 3.4, 4):
        p, q = as_fraction(scale).as_integer_ratio()
        assert [c for owned in residues(scale) for c in owned] == list(range(p))
        assert all(i * q // p % q == a for a, owned in enumerate(residues(scale)) for i in owned)
    with pytest.raises(ValueError, match="n_out must be at most 6 for 4 pixels at this scale, got 7"):
        projection(4, 7, 1.5)
    for wrong in (lambda: residues(0.5), lambda: projection(4, 2, 0.5), lambda: made()(numbers(3, 4, 4), scale=0.9)):
        with pytest.raises(ValueError, match="scale must be at least 1"):
            wrong()


@pytest.mark.parametrize("scale", [1, 2, 3, 1.5, 2.5, 3.4, 2.3, 1.1, PI, 30])
def test_every_form_is_the_plain_one_with_its_gradients(scale: float) -> None:
    """Oracle: the paper's equations at each output pixel, and autograd through them; a batch that is not square."""
    net, r = network(), as_fraction(scale)
    h, w = (2, 3) if scale == 30 else (5, 7)
    features = numbers(2, 3, h, w).requires_grad_()
    rows, columns = spans(h, w, scale)
    size = rows.length, columns.length
    inputs = [features, *net.parameters()]
    form = meta_upscale_plain if scale != 30 else meta_upscale_chunked
    expected = torch.stack([form(one, net, r, size) for one in features])
    weights = numbers(*expected.shape)
    gradients = torch.autograd.grad(expected, inputs, weights)
    forms = (
        [upscale, upscale_reassociated] + [upscale_by_class] * (scale != PI) + [upscale_shuffled] * (scale in (1, 2))
    )
    for one in forms:
        out = one(features, net, rows, columns)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
        for got, right in zip(torch.autograd.grad(out, inputs, weights), gradients, strict=True):
            torch.testing.assert_close(got, right, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            torch.testing.assert_close(one(features, net, rows, columns), expected, rtol=0, atol=1e-12)
    chunked = meta_upscale_chunked(features[0], net, r, size, chunk=50)
    torch.testing.assert_close(chunked, expected[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [2, 3.4, 1.5, PI])
@pytest.mark.parametrize("form", [upscale, upscale_by_class, upscale_reassociated, upscale_shuffled])
def test_windows_are_parts_of_the_whole(scale: float, form: object) -> None:
    """Oracle: the whole result, cut; pieces begin anywhere, end at borders or not, and are as small as may be."""
    if (form is upscale_shuffled and scale != 2) or (form is upscale_by_class and scale == PI):
        return
    assert callable(form)
    net, features = network(), numbers(2, 3, 13, 17)
    rows, columns = spans(13, 17, scale)
    whole = form(features, net, rows, columns)
    for first, end, left, right in ((0, 5, 3, 4), (7, rows.n_out, 11, 20), (9, 17, 8, columns.n_out), (11, 12, 0, 25)):
        down, across = rows.part(first, end, 2), columns.part(left, right, 2)
        piece = features[..., down.origin : down.origin + down.have, across.origin : across.origin + across.have]
        window = form(piece, net, down, across)
        torch.testing.assert_close(window, whole[..., first:end, left:right], rtol=0, atol=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same forms with room for everything at once."""
    net, features = network(), numbers(2, 3, 13, 17)
    for scale in (3.4, PI):
        rows, columns = spans(13, 17, scale)
        for form in [upscale_reassociated] + [upscale_by_class] * (scale == 3.4):
            whole = form(features, net, rows, columns)
            with monkeypatch.context() as patch:
                patch.setattr("course_lib.super_resolution.meta_upscale._BLOCK", 150)
                torch.testing.assert_close(form(features, net, rows, columns), whole, rtol=0, atol=1e-12)


def test_the_cheaper_form_is_taken() -> None:
    """Oracle: counts by hand for 48 x 48, C = 64, K = 256: four filters for x2; at pi hardly a period."""
    net = FilterNetwork(64, 256)
    by_class, reassociated = costs(net, 1, *spans(48, 48, 2))
    assert by_class == 4 * 1728 * 256 + 96 * 96 * 1728
    assert reassociated == 771 * (576 * 48**2 + 16 * 96**2)
    for scale in (1.1, 1.5, 2, 2.3, 3, 3.4, 4, 30):
        by_class, reassociated = costs(net, 1, *spans(48, 48, scale))
        assert by_class < reassociated, scale
    by_class, reassociated = costs(net, 1, *spans(48, 48, PI))
    assert by_class > 1000 * reassociated


@pytest.mark.parametrize("size", [(12, 18), (11, 17), (13, 19), (6, 9)])
@pytest.mark.parametrize("mean_shift", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_query_is_forward_at_single_places(size: tuple[int, int], mean_shift: bool, dtype: torch.dtype) -> None:
    """Oracle: `forward` with the size that the cells say, gradients included."""
    model, (height, width) = made(mean_shift=mean_shift).to(dtype), size
    lr = torch.rand(2, 3, 6, 9, dtype=dtype)
    axes = [(2 * torch.arange(n, dtype=dtype) + 1) / n - 1 for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1).expand(2, -1, 2)
    cells = torch.tensor([2 / height, 2 / width], dtype=dtype).expand_as(places)
    expected = model(lr, size=size)
    rgb = model.query(model.features(lr), places, cells)
    atol = 1e-11 if dtype == torch.float64 else 2e-4
    torch.testing.assert_close(rgb.mT.reshape(expected.shape), expected, rtol=0, atol=atol)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for got, right in zip(
        *(torch.autograd.grad(out.square().mean(), parameters) for out in (rgb, expected)), strict=True
    ):
        torch.testing.assert_close(got, right, rtol=1e-6 if dtype == torch.float64 else 2e-2, atol=atol)


def test_places_stay_exact_under_autocast() -> None:
    """Oracle: float32; in half precision v would be off by 1/500, and places between pixels would fall elsewhere."""
    model = made().float()
    seen: list[Tensor] = []
    whole = model.filters.hidden

    def spy(scale: float | Tensor, down: Tensor, right: Tensor) -> Tensor:
        seen.append(whole(scale, down, right))
        return seen[-1]

    model.filters.hidden = spy  # type: ignore[method-assign]
    lr = torch.rand(1, 3, 8, 8)
    places, cells = torch.rand(1, 20, 2) * 1.9 - 0.95, torch.full((1, 20, 2), 2 / 27)
    for ask in (
        lambda: model(lr, scale=3.4),
        lambda: model(lr, scale=PI),
        lambda: model.query(model.features(lr), places, cells),
    ):
        with torch.no_grad():
            seen.clear()
            expected, exact = ask(), list(seen)
            seen.clear()
            with torch.autocast("cpu", torch.bfloat16):
                half = ask()
        assert half.dtype == torch.float32
        assert (half - expected).abs().max() < 0.05
        assert all(torch.equal(a, b) for a, b in zip(seen, exact, strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model.query(model.features(lr), places, cells).mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("mean_shift", [False, True])
@pytest.mark.parametrize("scale", [2, 2.5, PI])
def test_half_precision(mean_shift: bool, scale: float) -> None:
    """Oracle: the same network in float32; the mean colour is added to a picture in float32."""
    model, lr = made(mean_shift=mean_shift).float(), torch.rand(1, 3, 7, 6)
    with torch.no_grad():
        expected = model(lr, scale=scale)
        half = model.bfloat16()(lr.bfloat16(), scale=scale)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=0.06)


def test_added_and_ranges() -> None:
    """Oracle: the same decoder's numbers, halved and shifted by hand; bicubic below; no mean colour is added to it."""
    lr = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    paper, added = made(), made(added=True)
    rows, columns = paper.spans((6, 5), scale=1.5)
    raw = upscale(paper.features(lr), paper.filters, rows, columns)
    torch.testing.assert_close(paper(lr, scale=1.5), raw / 2 + 0.5)
    torch.testing.assert_close(added(lr, scale=1.5), raw / 2 + bicubic_window(lr, rows, columns))
    shifted = made(mean_shift=True, added=True)
    assert shifted.add is None
    assert made(mean_shift=True).add is not None
    raw = upscale(shifted.features(lr), shifted.filters, rows, columns)
    torch.testing.assert_close(shifted(lr, scale=1.5), raw / 255 + bicubic_window(lr, rows, columns))
    assert paper(lr, scale=1.5).shape == (1, 3, 9, 7)
    assert paper(lr[0], scale=1.5).shape == (3, 9, 7)


def test_the_radius_is_the_one_that_is_seen() -> None:
    """Oracle: gradients. Output 1 of 3 at r = 3/2 belongs to the small pixel before the one its centre lies in."""
    model = made()
    n = 2 * model.radius + 5
    lr = torch.rand(1, 3, n, 3, dtype=torch.float64, requires_grad=True)
    i = n - n % 3 + 4
    (gradient,) = torch.autograd.grad(model(lr, scale=1.5)[..., i, 0].sum(), lr)
    seen = gradient.abs().sum((0, 1, 3)).nonzero()
    assert math.floor((i + 0.5) / 1.5) - int(seen.min()) == model.radius


def test_colours_are_from_0_to_255_where_the_mean_is_shifted() -> None:
    """Oracle: the difference from black, from which the mean falls out."""
    lr = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    shifted, paper = made(mean_shift=True), made()
    torch.testing.assert_close(shifted.prepare(lr) - shifted.prepare(0 * lr), 255 * lr)
    torch.testing.assert_close(paper.prepare(lr) - paper.prepare(0 * lr), 2 * lr)


def test_one_scale_for_both_axes() -> None:
    """Oracle: of sizes of one scale, rounded either way, the edges meet on each axis; another shape is refused."""
    model = made()
    assert model.steps((10, 12), (23, 28), None) == (Fraction(10, 23), Fraction(12, 28))
    assert model.steps((10, 12), (23, 27), 2.3) == (Fraction(10, 23), Fraction(10, 23))
    lr = torch.rand(1, 3, 10, 12, dtype=torch.float64)
    assert model(lr, size=(23, 28)).shape == (1, 3, 23, 28)
    with pytest.raises(ValueError, match=r"size must have the shape of the small picture, about 40 x 48"):
        model(lr, size=(20, 48))
    with pytest.raises(ValueError, match="size must be at least 10 x 12"):
        model(lr, size=(9, 11))


@pytest.mark.parametrize("size", [(8, 11), (7, 10), (15, 21)])
def test_a_rounded_size_ends_where_the_picture_does(size: tuple[int, int]) -> None:
    """Oracle: who owns an output and where in it, in fractions axis by axis; the larger r for all, pixel by pixel."""
    net, features = network(), numbers(1, 3, 5, 7)
    rows, columns = (Span.whole(n, m) for n, m in zip((5, 7), size, strict=True))
    around = torch.nn.functional.pad(features[0], (1, 1, 1, 1))
    r = max(Fraction(m, n) for n, m in zip((5, 7), size, strict=True))
    expected = torch.empty(3, *size, dtype=torch.float64)
    for i, j in itertools.product(*map(range, size)):
        y, x = Fraction(5 * i, size[0]), Fraction(7 * j, size[1])
        v = torch.tensor([float(part) for part in (1 / r, y % 1, x % 1)], dtype=torch.float64)
        patch = around[:, math.floor(y) : math.floor(y) + 3, math.floor(x) : math.floor(x) + 3]
        expected[:, i, j] = (patch[..., None] * net(v).view(-1, 3, 3, 3)).sum((0, 1, 2))
    torch.testing.assert_close(upscale(features, net, rows, columns)[0], expected, rtol=0, atol=1e-12)
    down, across = rows.part(2, size[0] - 1, 2), columns.part(3, 8, 2)
    piece = features[..., down.origin : down.origin + down.have, across.origin : across.origin + across.have]
    window = upscale(piece, net, down, across)[0]
    torch.testing.assert_close(window, expected[:, 2 : size[0] - 1, 3:8], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(12, 18), (11, 17), (13, 19)])
def test_predict_is_forward_at_single_places(size: tuple[int, int]) -> None:
    """Oracle: `forward` with the size that the cells say, the bicubic picture below included."""
    model, (height, width) = made(added=True), size
    lr = torch.rand(2, 3, 6, 9, dtype=torch.float64)
    axes = [(2 * torch.arange(n, dtype=torch.float64) + 1) / n - 1 for n in size]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, 1).expand(2, -1, 2)
    cells = torch.tensor([2 / height, 2 / width], dtype=torch.float64).expand_as(places)
    with torch.no_grad():
        expected = model(lr, size=size)
        came = model.predict(lr, places, cells).mT.reshape(expected.shape)
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-11)


def test_a_size_is_measured_without_a_shift() -> None:
    """Oracle: bicubic by `resize`: a network that adds nothing is worth as much, also where x1.5 is rounded."""
    model = made(added=True)
    for part in model.filters.last.parameters():
        torch.nn.init.zeros_(part)
    picture = datasets.from_uint8(datasets.to_uint8(datasets.photograph("chelsea", (53, 74))))
    came, expected = (score(picture, enlarger(one), 1.5)[0] for one in (model, "bicubic"))
    assert came == pytest.approx(expected, abs=1e-6)


def test_errors_name_the_argument() -> None:
    """Oracle: the message says what came and what was expected, before any work."""
    net, (rows, columns) = network(), spans(4, 5, 2)
    with pytest.raises(ValueError, match=r"features must be \(B, 3, 4, 5\), got \(1, 3, 5, 4\)"):
        upscale(numbers(1, 3, 5, 4), net, rows, columns)
    with pytest.raises(ValueError, match="rows and columns must have steps of at most 1, got 1/2 and 5/4"):
        upscale(numbers(1, 3, 4, 5), net, rows, Span.whole(5, 4))
    with pytest.raises(ValueError, match="outputs must lie in small pixels 0 to 3, got some in 4"):
        upscale(numbers(1, 3, 4, 5), net, Span.whole(4, 9, Fraction(1, 2)), columns)
    with pytest.raises(ValueError, match="the piece must hold small pixels"):
        upscale(numbers(1, 3, 2, 5), net, Span(4, 8, 0, 8, 0, 2, Fraction(1, 2)), columns)
    with pytest.raises(ValueError, match=r"coordinates and cells must be \(1, Q, 2\), got \(1, 7, 2\) and \(1, 6, 2\)"):
        made().query(numbers(1, 32, 4, 4), numbers(1, 7, 2), numbers(1, 6, 2))
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        MetaSR("edsr-tiny", hidden=0)
    with pytest.raises(ValueError, match="encoder must be one of"):
        MetaSR("vgg")
