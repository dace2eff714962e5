"""What the local ensemble promises. Oracle: chapter 03's bilinear resampling, and continuity."""

from fractions import Fraction

import pytest
import torch
from torch import Tensor

from course_lib.plain import liif as plain
from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.liif import LIIF, neighbours
from course_lib.upsampling import resize

SCALES = [2, 4, 1.5, 2.5, 3.4, 3, 5, 7]


def repeats_its_code() -> LIIF:
    """A decoder with f(z, x) = z for the first three numbers of z, as relu(z) - relu(-z)."""
    model = LIIF("edsr-tiny", (6,), feature_unfolding=False, cell_decoding=False).double()
    with torch.no_grad():
        for parameter in model.mlp.parameters():
            parameter.zero_()
        for c in range(3):
            model.mlp[0].weight[c, c], model.mlp[0].weight[3 + c, c] = 1, -1
            model.mlp[2].weight[c, c], model.mlp[2].weight[c, 3 + c] = 1, -1
    return model


def random_model(ensemble: bool) -> LIIF:
    torch.manual_seed(3)
    return LIIF("edsr-tiny", (16, 16), local_ensemble=ensemble).double()


def features() -> Tensor:
    return torch.randn(1, 32, 7, 9, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def decoded(z: Tensor, scale: float) -> Tensor:
    model = repeats_its_code()
    rows, columns = model.spans(z.shape[-2:], scale=scale)
    with torch.no_grad():
        return 2 * model.decode(z, rows, columns) - 1


@pytest.mark.parametrize("scale", SCALES)
def test_repeating_the_code_is_bilinear(scale: float) -> None:
    z = features()
    made = decoded(z, scale)
    expected = resize(z[:, :3], size=tuple(made.shape[-2:]), method="bilinear")
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_areas_are_bilinear_but_where_all_are_zero(scale: float) -> None:
    """At odd scales places fall on codes: beside the last code all four areas are zero, and rounding weighs them."""
    z = features()
    sr = decoded(z, scale)[0]
    model, size = repeats_its_code(), sr.shape[-2:]
    ys, xs = (plain.centre(torch.arange(n, dtype=torch.float64), n) for n in size)
    at = torch.stack(torch.meshgrid(ys, xs, indexing="ij"), dim=-1).flatten(0, 1)
    with torch.no_grad():
        areas = plain.liif_plain(z[0], model.mlp, at, None, feature_unfolding=False).T.reshape(3, *size)
    if scale % 2 == 1:
        lines = [round(scale) * (n - 1) + round(scale) // 2 for n in z.shape[-2:]]
        assert [float(x) for x in (ys[lines[0]], xs[lines[1]])] == pytest.approx([1 - 1 / 7, 1 - 1 / 9])
        areas[:, lines[0]], areas[:, :, lines[1]] = sr[:, lines[0]], sr[:, :, lines[1]]
    torch.testing.assert_close(areas, sr, rtol=0, atol=1e-6)


@pytest.mark.parametrize("ensemble", [True, False])
@pytest.mark.parametrize("scale", [Fraction(34, 10), Fraction(3), Fraction(1, 2)])
def test_weights_sum_to_one(scale: Fraction, ensemble: bool) -> None:
    found = neighbours(*Span.whole(10, round(10 * scale)).coordinates(), 10, ensemble)
    assert float((found.weight.sum(0) - 1).abs().max()) < 1e-15
    assert float(found.weight.min()) >= 0
    assert float(found.place.abs().max()) <= (2 if ensemble else 1)


@pytest.mark.parametrize("ensemble", [True, False])
def test_only_the_ensemble_is_continuous(ensemble: bool) -> None:
    """Just before and just behind the lines where codes change: between two codes, and at a code's centre."""
    model, z, tiny = random_model(ensemble), features(), 1e-9
    # in [-1, 1]: 7 codes; half way between codes 2 and 3 the nearest changes, at code 3 the pair does
    lines = (torch.tensor([-1 + 2 * 3 / 7, -1 + 7 / 7], dtype=torch.float64), (True, False))
    for y, between in zip(*lines, strict=True):
        at = torch.stack([torch.stack([y + side * tiny, torch.tensor(0.123)]) for side in (-1, 1)])[None]
        with torch.no_grad():
            before, behind = model.query(z, at, torch.full_like(at, 0.1))[0]
        jump = float((before - behind).abs().max())
        assert jump < 1e-7 if ensemble or not between else jump > 1e-3


def test_a_batch_is_its_pictures() -> None:
    model = random_model(True)
    lr = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        singles = torch.stack([model(one, scale=2.3) for one in lr])
        torch.testing.assert_close(model(lr, scale=2.3), singles, rtol=0, atol=1e-12)
        at = torch.rand(2, 11, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2 - 1
        cells = torch.full_like(at, 0.2)
        alone = [model.predict(lr[k : k + 1], at[k : k + 1], cells[k : k + 1])[0] for k in range(2)]
        torch.testing.assert_close(model.predict(lr, at, cells), torch.stack(alone), rtol=0, atol=1e-12)
