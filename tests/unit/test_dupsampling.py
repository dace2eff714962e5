"""DUpsampling: oracles are hand numbers, loops written from the index formula, autograd and finite differences."""

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from course_lib.upsampling import (
    AdaptiveTemperatureSoftmax,
    DUpsampling,
    fit_projection,
    label_windows,
    pixel_shuffle,
    windows_to_image,
)
from tests.unit.networks import Largest

FOUR = torch.tensor([[[0, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [1, 1]], [[0, 1], [0, 1]]])


def labels(*shape, classes=3, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def toy_map():
    """Return the 64 x 64 map of five classes that everything below is measured on."""
    i, j = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    return ((i // 5) * 3 + (j // 7) * 2 + ((i - 32) ** 2 + (j - 32) ** 2 < 300).long()) % 5


def accuracy(windows, projection, classes):
    """Return the share of right classes; equal scores, which rounding must not decide, go to the lower class."""
    back = projection.restore(projection.compress(windows.double())).round(decimals=9)
    called, true = (scores.view(-1, classes).argmax(1) for scores in (back, windows))
    return float((called == true).double().mean())


def test_the_order_is_row_column_class():
    """Oracle: the index formula, one number at a time."""
    a = labels(2, 4, 6)
    vectors = label_windows(a, 2, 3)
    assert vectors.shape == (12, 12)
    assert vectors.dtype == torch.float32
    for n in range(12):
        picture, row, column = n // 6, n % 6 // 3, n % 3
        for i in range(2):
            for j in range(2):
                for c in range(3):
                    expected = a[picture, 2 * row + i, 2 * column + j] == c
                    assert vectors[n, (2 * i + j) * 3 + c] == expected


@pytest.mark.parametrize(("h", "w", "r"), [(4, 6, 2), (6, 4, 2), (3, 9, 3), (5, 5, 5), (2, 3, 1)])
def test_windows_lie_back_where_they_were(h, w, r):
    """Oracle: the labels themselves."""
    a = labels(h, w, classes=4)
    scores = windows_to_image(label_windows(a, r, 4), (h, w), r, 4)
    assert scores.shape == (4, h, w)
    assert torch.equal(scores.argmax(0), a)
    assert torch.equal(scores.sum(0), torch.ones(h, w))


def test_a_batch_of_labels_is_its_maps():
    together = label_windows(labels(2, 3, 4, 6), 2, 3)
    one_by_one = [label_windows(a, 2, 3) for a in labels(2, 3, 4, 6).flatten(0, 1)]
    assert torch.equal(together, torch.cat(one_by_one))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_label_255_is_an_error_or_left_out(dtype):
    """A pixel nobody labelled must never count as class 0."""
    a = labels(4, 6).to(dtype)
    whole = label_windows(a, 2, 3)
    a[2, 5] = 255
    with pytest.raises(ValueError, match=r"labels must be 0\.\.2, got 255; ignore=255"):
        label_windows(a, 2, 3)
    kept = label_windows(a, 2, 3, ignore=255)
    assert torch.equal(kept, whole[:-1])  # the lower right window is gone
    a[0, 0] = 7
    with pytest.raises(ValueError, match="got 7"):
        label_windows(a, 2, 3, ignore=255)


@pytest.mark.parametrize(("dtype", "ignore"), [(torch.uint8, -100), (torch.uint8, 256 + 3), (torch.int8, 255)])
def test_ignore_is_not_wrapped_into_the_classes(dtype, ignore):
    """Oracle: the windows of the same labels as int64; -100 in uint8 would be class 156, 255 in int8 nothing."""
    a = torch.arange(120).view(6, 20)
    if dtype == torch.uint8:
        a[0, :2] = 156
        a[3, 3] = 3
    classes = 171 if dtype == torch.uint8 else 127
    assert torch.equal(label_windows(a.to(dtype), 2, classes, ignore=ignore), label_windows(a, 2, classes))
    with pytest.raises(TypeError, match=r"ignore must be a whole number or None, got 1\.5"):
        label_windows(a, 2, classes, ignore=1.5)


def test_windows_of_several_maps_lie_back():
    """Oracle: the maps themselves; the size is their shape."""
    a = labels(2, 3, 4, 6, classes=4)
    scores = windows_to_image(label_windows(a, 2, 4), a.shape, 2, 4)
    assert scores.shape == (2, 3, 4, 4, 6)
    assert torch.equal(scores.argmax(-3), a)


def test_nothing_is_larger_than_the_result():
    """Oracle: the size of every tensor on the way; one-hot vectors of int64 would take twice as much."""
    with Largest() as largest:
        vectors = label_windows(labels(64, 64, classes=21).to(torch.uint8), 16, 21)
    assert largest.bytes == vectors.nbytes


def test_the_four_windows_by_hand():
    """Oracle: singular values^2 (5 + sqrt 17, 4, 2, 5 - sqrt 17), residuals and accuracies by hand."""
    windows = label_windows(FOUR, 2, 2)
    squares = fit_projection(windows, 1).singular_values.square()
    by_hand = torch.tensor([5 + math.sqrt(17), 4, 2, 5 - math.sqrt(17)], dtype=torch.float64)
    torch.testing.assert_close(squares, by_hand, atol=1e-12, rtol=0)
    residuals, right = [6.8769, 2.8769, 0.8769, 0.0], [0.625, 0.875, 1.0, 1.0]
    for k in (1, 2, 3, 4):
        projection = fit_projection(windows, k)
        assert projection.residual == pytest.approx(residuals[k - 1], abs=5e-5)
        error = (projection.restore(projection.compress(windows.double())) - windows).square().sum()
        assert float(error) == pytest.approx(projection.residual, abs=1e-12)
        assert accuracy(windows, projection, 2) == right[k - 1]
    centred = fit_projection(windows, 1, centre=True).singular_values.square()
    torch.testing.assert_close(centred, torch.tensor([4.0, 2, 1, 0], dtype=torch.float64), atol=1e-12, rtol=0)


TOY = {
    # rank: mean squared error, label accuracy; the same centred (recorded from an independent SVD in NumPy)
    2: (0.1288582, 0.431640625, 0.0986064, 0.7880859375),
    5: (0.0635441, 0.8056640625, 0.0558696, 0.839111328125),
    10: (0.0363005, 0.955322265625, 0.0336863, 0.960205078125),
    20: (0.0163453, 0.99365234375, 0.0149966, 0.993896484375),
    40: (0.0024422, 1.0, 0.0021771, 1.0),
}


@pytest.mark.parametrize("k", TOY)
def test_the_toy_map(k):
    windows = label_windows(toy_map(), 4, 5)
    assert windows.shape == (256, 80)
    for centre, error, right in ((False, *TOY[k][:2]), (True, *TOY[k][2:])):
        projection = fit_projection(windows, k, centre=centre)
        assert projection.residual / windows.numel() == pytest.approx(error, abs=1e-7)
        assert accuracy(windows, projection, 5) == right


def test_the_toy_map_has_rank_65():
    windows = label_windows(toy_map(), 4, 5)
    assert int((fit_projection(windows, 1).singular_values > 1e-6).sum()) == 65
    assert int((fit_projection(windows, 1, centre=True).singular_values > 1e-6).sum()) == 64


@pytest.mark.parametrize("centre", [False, True])
def test_gram_and_svd_agree(centre):
    """Oracle: torch.linalg.svd of the same windows, which are more than their numbers and take the Gram way."""
    windows = torch.rand(50, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    projection = fit_projection(windows, 5, centre=centre)
    shifted = windows - windows.mean(0) if centre else windows
    _, values, rows = torch.linalg.svd(shifted, full_matrices=False)
    torch.testing.assert_close(projection.singular_values, values, atol=1e-12, rtol=0)
    best = rows[:5].T @ rows[:5]
    torch.testing.assert_close(projection.up @ projection.down, best, atol=1e-12, rtol=0)


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("n", [50, 9])
def test_parts_are_summed_up(centre, n):
    """Oracle: the fit of all windows at once; far from zero too, and with fewer windows than numbers in each."""
    windows = 1e4 + torch.rand(n, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whole = fit_projection(windows, 3, centre=centre)
    parts = fit_projection(iter(torch.split(windows, 4)), 3, centre=centre)
    assert parts.singular_values.shape == whole.singular_values.shape
    # squares are right to 1e-15 of the largest: 1e4^2 * 12 n without a mean, about n with it
    tolerance = 1e-7 if centre else 1e-3
    torch.testing.assert_close(parts.singular_values, whole.singular_values, atol=tolerance, rtol=1e-12)
    torch.testing.assert_close(parts.mean, whole.mean, atol=1e-10, rtol=0)
    torch.testing.assert_close(parts.up @ parts.down, whole.up @ whole.down, atol=tolerance, rtol=0)
    single = fit_projection((part.float() for part in torch.split(windows, 4)), 3, centre=centre)
    assert single.up.dtype == torch.float64


def test_a_projection_moves_and_is_compared_by_identity():
    projection = fit_projection(label_windows(FOUR, 2, 2), 3, centre=True)
    single = projection.to(torch.float32)
    assert {part.dtype for part in (single.up, single.down, single.mean, single.singular_values)} == {torch.float32}
    torch.testing.assert_close(single.up.double(), projection.up, atol=1e-7, rtol=0)
    assert projection.to("meta").mean.is_meta
    assert projection == projection
    assert projection != single


def test_signs_do_not_depend_on_the_solver():
    """The same windows in another order, and each one twice (the other way to decompose), give the same columns."""
    windows = torch.rand(20, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    first = fit_projection(windows, 4)
    again = fit_projection(torch.cat([windows.flip(0), windows]), 4)
    torch.testing.assert_close(first.up, again.up, atol=1e-10, rtol=0)
    torch.testing.assert_close(again.singular_values[:20], first.singular_values * math.sqrt(2), atol=1e-10, rtol=0)
    assert bool((first.up.gather(0, first.up.abs().argmax(0)[None]) > 0).all())
    nearly_tied = fit_projection(torch.tensor([[1, -1 - 1e-9]], dtype=torch.float64), 1)
    assert float(nearly_tied.up[0]) > 0 > float(nearly_tied.up[1])  # rounding must not decide between the two


def test_codes_follow_the_dtype_they_are_given():
    windows = label_windows(FOUR, 2, 2)
    projection = fit_projection(windows, 3, centre=True)
    assert projection.up.dtype == torch.float64
    assert projection.compress(windows).dtype == torch.float32
    assert projection.restore(projection.compress(windows)).dtype == torch.float32
    assert projection.rank == 3


@pytest.mark.parametrize(("h", "w"), [(3, 3), (3, 5), (5, 2), (1, 4)])
@pytest.mark.parametrize("centre", [False, True])
def test_the_module_restores_label_maps(h, w, centre):
    """Codes of a map, laid out as feature vectors, come back as the map: h != w included."""
    r, classes = 2, 3
    maps = labels(2, r * h, r * w)
    windows = label_windows(maps, r, classes)
    projection = fit_projection(label_windows(labels(8, 12, 12, seed=3), r, classes), 9, centre=centre)
    codes = projection.compress(windows).view(2, h, w, 9).permute(0, 3, 1, 2)
    module = DUpsampling(9, classes, r, projection)
    restored = projection.restore(projection.compress(windows)).view(2, h * w, -1)
    expected = torch.stack([windows_to_image(v, (r * h, r * w), r, classes) for v in restored])
    torch.testing.assert_close(module(codes), expected, atol=1e-5, rtol=0)
    assert torch.equal(module(codes).argmax(1), maps)  # 9 of 12 numbers: a rank of 4 (C - 1) + 1 loses nothing


def test_the_module_is_a_convolution_and_a_shuffle():
    """Oracle: five loops from the index formula, and our pixel shuffle."""
    module = DUpsampling(4, 3, 2).double()
    x = torch.rand(2, 4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out, weight = module(x), module.conv_w.weight[:, :, 0, 0]
    assert module.conv_w.bias is None
    assert out.shape == (2, 3, 4, 6)
    for row in range(4):
        for column in range(6):
            for c in range(3):
                number = (2 * (row % 2) + column % 2) * 3 + c
                expected = x[:, :, row // 2, column // 2] @ weight[number]
                torch.testing.assert_close(out[:, c, row, column], expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(out, pixel_shuffle(module.conv_w(x), 2, order="tensorflow"), atol=0, rtol=0)
    for one, whole in zip(x, out, strict=True):  # batched = single
        torch.testing.assert_close(module(one[None])[0], whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(module(one), whole, atol=1e-12, rtol=0)


def test_who_may_train_w():
    projection = fit_projection(label_windows(FOUR, 2, 2), 3)
    assert not DUpsampling(3, 2, 2, projection).conv_w.weight.requires_grad
    assert DUpsampling(3, 2, 2, projection, trainable=True).conv_w.weight.requires_grad
    assert DUpsampling(3, 2, 2).conv_w.weight.requires_grad
    assert not DUpsampling(3, 2, 2, trainable=False).conv_w.weight.requires_grad
    assert DUpsampling(3, 2, 2, projection).conv_w.bias is None
    assert not DUpsampling(3, 2, 2, fit_projection(label_windows(FOUR, 2, 2), 3, True)).conv_w.bias.requires_grad
    weight = DUpsampling(3, 2, 2, projection).conv_w.weight[:, :, 0, 0]
    torch.testing.assert_close(weight, projection.up.float(), atol=0, rtol=0)


def test_gradients():
    """Oracle: finite differences, for the features, W and the temperature."""
    module = DUpsampling(3, 2, 2).double()
    x = torch.rand(1, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weight = module.conv_w.weight.detach().clone().requires_grad_()

    def scores(x, weight):
        return torch.func.functional_call(module, {"conv_w.weight": weight}, (x,))

    assert gradcheck(scores, (x, weight))
    softmax = AdaptiveTemperatureSoftmax(0.7).double()
    temperature = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, t: torch.func.functional_call(softmax, {"T": t}, (x,)), (x, temperature))
    assert gradcheck(
        lambda x, t: torch.func.functional_call(_Logarithms(softmax), {"inner.T": t}, (x,)), (x, temperature)
    )


class _Logarithms(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, scores):
        return self.inner.log_softmax(scores)


@pytest.mark.parametrize(("start", "expected"), [(2, 0.599), (1, 0.690), (0.5, 0.832), (0.1, 0.9997)])
def test_temperature_by_hand(start, expected):
    """Oracle: the logistic function of 0.8 / T."""
    scores = torch.tensor([0.9, 0.1]).view(1, 2, 1, 1)
    softmax = AdaptiveTemperatureSoftmax(start)
    first = float(softmax(scores)[0, 0].detach())
    assert first == pytest.approx(1 / (1 + math.exp(-0.8 / start)), abs=1e-6)
    assert first == pytest.approx(expected, abs=6e-4)
    torch.testing.assert_close(softmax.log_softmax(scores).exp(), softmax(scores))


@pytest.mark.parametrize(("start", "expected"), [(1, 0.11965), (0.1, 0.9991)])
def test_the_best_of_21_classes(start, expected):
    """Oracle: e^(1/T) / (e^(1/T) + 20)."""
    scores = torch.zeros(21)
    scores[4] = 1
    assert float(AdaptiveTemperatureSoftmax(start)(scores, dim=0)[4].detach()) == pytest.approx(expected, abs=5e-5)


def test_one_temperature_for_all():
    """T is one number, and it has a gradient."""
    softmax = AdaptiveTemperatureSoftmax()
    assert [p.shape for p in softmax.parameters()] == [torch.Size([])]
    softmax.log_softmax(torch.eye(3)[None, :, :, None])[0, 0, 0, 0].backward()
    assert float(softmax.T.grad) < 0  # sharper is better here


BAD = [
    (lambda: label_windows(torch.zeros(4, 4), 2, 2), TypeError, "labels must be integers"),
    (lambda: label_windows(torch.zeros(4, 4).bool(), 2, 2), TypeError, "labels must be integers"),
    (lambda: label_windows(torch.zeros(4, 5).long(), 2, 2), ValueError, r"multiples of r = 2, got \(4, 5\)"),
    (lambda: label_windows(torch.zeros(4).long(), 2, 2), ValueError, r"labels must be \(\.\.\., H, W\)"),
    (lambda: label_windows(torch.zeros(4, 4).long() - 1, 2, 2), ValueError, "got -1"),
    (lambda: label_windows(FOUR, 0, 2), ValueError, "r must be at least 1"),
    (lambda: label_windows(FOUR, 2, 2.0), TypeError, "classes must be a whole number"),
    (lambda: windows_to_image(torch.zeros(3, 8), (4, 4), 2, 2), ValueError, r"vectors must be \(4, 8\)"),
    (lambda: windows_to_image(torch.zeros(4, 8), (4, 5), 2, 2), ValueError, "size must be"),
    (lambda: fit_projection(torch.zeros(4, 8).long(), 1), TypeError, "windows must be floating point"),
    (lambda: fit_projection(torch.zeros(4, 8, 1), 1), ValueError, r"windows must be \(n, N\)"),
    (lambda: fit_projection(torch.zeros(4, 8), 5), ValueError, r"rank must be from 1 to min\(n, N\) = 4, got 5"),
    (lambda: fit_projection(torch.zeros(0, 8), 1), ValueError, "rank must be from 1"),
    (lambda: fit_projection(torch.zeros(4, 8), 0), ValueError, "rank must be at least 1"),
    (lambda: fit_projection(torch.full((4, 8), math.nan), 1), ValueError, "windows must be finite"),
    (lambda: DUpsampling(0, 2, 2), ValueError, "features must be at least 1"),
    (lambda: DUpsampling(2, 2, 2, fit_projection(torch.eye(8), 3)), ValueError, r"projection.up must be \(8, 2\)"),
    (lambda: AdaptiveTemperatureSoftmax(0), ValueError, "start must be a temperature > 0"),
    (lambda: AdaptiveTemperatureSoftmax(math.nan), ValueError, "start must be a temperature > 0"),
    (lambda: AdaptiveTemperatureSoftmax(math.inf), ValueError, "start must be a temperature > 0 and finite, got inf"),
    (lambda: AdaptiveTemperatureSoftmax("1"), TypeError, "start must be a number, got '1'"),
    (lambda: label_windows(np.zeros((4, 4), int), 2, 2), TypeError, "labels must be a torch.Tensor, got ndarray"),
    (lambda: fit_projection(np.zeros((4, 8)), 1), TypeError, "windows must be a torch.Tensor or .*, got ndarray"),
    (lambda: fit_projection(8, 1), TypeError, "windows must be a torch.Tensor or .*, got int"),
    (lambda: fit_projection([], 1), TypeError, "windows must be a torch.Tensor or .*, got NoneType"),
    (lambda: fit_projection([torch.zeros(4, 8), torch.zeros(4, 6)], 1), ValueError, r"\(n, 8\) in every part, got"),
    (lambda: fit_projection([torch.zeros(2, 8)] * 2, 5), ValueError, r"rank must be from 1 to min\(n, N\) = 4, got 5"),
    (lambda: fit_projection([torch.zeros(2, 8), torch.full((2, 8), math.inf)], 1), ValueError, "must be finite"),
    (lambda: windows_to_image(torch.zeros(4, 8), 4, 2, 2), TypeError, r"size must be the shape .* got 4"),
    (lambda: windows_to_image(torch.zeros(4, 8), (4, 0), 2, 2), ValueError, "size must be at least 1, got 0"),
    (lambda: windows_to_image(np.zeros((4, 8)), (4, 4), 2, 2), TypeError, "vectors must be a torch.Tensor"),
    (lambda: DUpsampling(3, 2, 2, torch.eye(8)), TypeError, "projection must be a Projection or None, got Tensor"),
    (lambda: DUpsampling(3, 2, 2)(torch.zeros(1, 4, 2, 2)), ValueError, r"features must be \(B, 3, h, w\), got"),
    (lambda: DUpsampling(3, 2, 2)(torch.zeros(1, 2, 2)), ValueError, r"features must be \(B, 3, h, w\), got"),
    (lambda: DUpsampling(3, 2, 2)(np.zeros((1, 3, 2, 2))), TypeError, "features must be a torch.Tensor"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
