"""The protocols for RGB networks. Oracles: the steps written out with numpy and scikit-image, and published rows."""

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
import skimage.metrics
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.colour import luminance, to_ycbcr
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.metrics import enlarger, pair, psnr, score, shave
from course_lib.super_resolution.rdn import RDN
from course_lib.upsampling import resize

SCALES = [2, 3, 4, 2.5, 3.5, Fraction(17, 5), 1.1, 1, 6, 7.9]


@pytest.fixture(scope="module")
def picture() -> Tensor:
    return datasets.from_uint8(datasets.to_uint8(datasets.photograph("chelsea", (131, 150))))


def eight_bits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5)


@pytest.mark.parametrize("scale", SCALES)
def test_pair_by_its_steps(scale: float, picture: Tensor) -> None:
    """Oracle: the rule of sizes in fractions by hand, a slice, and our resize by size, rounded by numpy."""
    exact = {2.5: Fraction(5, 2), 3.5: Fraction(7, 2), 1.1: Fraction(11, 10), 7.9: Fraction(79, 10)}.get(scale, scale)
    h, w = (n * Fraction(exact).denominator // Fraction(exact).numerator for n in (131, 150))
    lr, hr = pair(picture, scale)
    assert lr.shape == (3, h, w)
    assert hr.shape == (3, round(h * Fraction(exact)), round(w * Fraction(exact)))
    assert lr.dtype == hr.dtype == torch.float64
    torch.testing.assert_close(hr, picture[:, : hr.shape[1], : hr.shape[2]].double(), rtol=0, atol=1e-7)
    shrunk = resize(hr, size=(h, w), method="bicubic", a=-0.5, border="symmetric").numpy()
    np.testing.assert_array_equal(255 * lr.numpy(), eight_bits(shrunk))


def test_sizes_of_pairs() -> None:
    """Oracle: written by hand; 7.5 and 12.5 are rounded to even, 1.1 is eleven tenths."""
    sizes = {(10, 2.5): (4, 10), (9, 2.5): (3, 8), (13, 2.5): (5, 12), (11, 1.1): (10, 11), (7, 2): (3, 6)}
    for (n, scale), (small, large) in (sizes | {(50, 2.3): (21, 48), (46, 2.3): (20, 46)}).items():
        lr, hr = pair(torch.zeros(3, n, 60), scale)
        assert (lr.shape[1], hr.shape[1]) == (small, large)
        lr, hr = pair(torch.zeros(3, 60, n), scale)
        assert (lr.shape[2], hr.shape[2]) == (small, large)


def test_pair_of_a_grey_picture(picture: Tensor) -> None:
    """Oracle: the same plane three times."""
    lr, hr = pair(picture[:1], 3)
    assert torch.equal(lr, pair(picture[:1].expand(3, -1, -1), 3)[0])
    assert torch.equal(hr[0], hr[2])


def by_hand(picture: Tensor, scale: float, protocol: str) -> tuple[float, float]:
    """numpy and scikit-image: shrink, enlarge bicubically, round, cut, compare."""
    lr, hr = pair(picture, scale)
    sr = eight_bits(resize(lr, size=hr.shape[-2:], border="symmetric").numpy()) / 255
    border = math.ceil(scale) + (6 if protocol == "div2k" else 0)
    inside = (slice(None), slice(border, -border), slice(border, -border))
    a, b = sr[inside], hr.numpy()[inside]
    if protocol == "benchmark":
        weights = np.array([65.481, 128.553, 24.966]) / 255
        a, b = (np.tensordot(weights, x, 1)[None] + 16 / 255 for x in (a, b))
    similarity = skimage.metrics.structural_similarity(
        a, b, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return skimage.metrics.peak_signal_noise_ratio(b, a, data_range=1), similarity


@pytest.mark.parametrize("scale", [2, 4, 2.5, 3.4])
@pytest.mark.parametrize("protocol", ["benchmark", "div2k"])
def test_score_by_its_steps(scale: float, protocol: str, picture: Tensor) -> None:
    """Oracle: numpy, and scikit-image with Wang's window (its mean leaves out 5 pixels of border, as "valid" does)."""
    came = score(picture, enlarger("bicubic"), scale, protocol)  # type: ignore[arg-type]
    assert came == pytest.approx(by_hand(picture, scale, protocol), abs=1e-9)


def test_the_protocols_differ(picture: Tensor) -> None:
    """Law: luminance has less noise of colour, so its PSNR is higher here; without a border's pixels both change."""
    luma, rgb = (score(picture, enlarger("bicubic"), 3, protocol)[0] for protocol in ("benchmark", "div2k"))  # type: ignore[arg-type]
    assert luma > rgb + 0.5


def test_the_two_spellings_of_luminance() -> None:
    """Oracle: LIIF writes the weights 65.738, 129.057, 25.064 over 256: the same to 2e-6, so PSNR to 1e-4 dB."""
    a, b = (torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(seed)).double() for seed in (0, 1))
    theirs = torch.tensor([65.738, 129.057, 25.064], dtype=torch.float64) / 256
    torch.testing.assert_close(theirs, torch.tensor([65.481, 128.553, 24.966]).double() / 255, rtol=0, atol=2e-6)
    error = torch.tensordot(theirs, a - b, 1).square().mean()
    assert float(psnr(luminance(a), luminance(b))) == pytest.approx(float(-10 * torch.log10(error)), abs=1e-4)


def test_a_grey_picture_is_its_own_luminance(picture: Tensor) -> None:
    """Oracle: PSNR of the plane itself; as RGB it would be squeezed to 16..235 and win 20 log10(255 / 219) dB."""
    grey = picture[1:2]
    lr, hr = pair(grey, 2)
    sr = torch.from_numpy(eight_bits(resize(lr, size=hr.shape[-2:], border="symmetric").numpy()) / 255)
    came = score(grey, enlarger("bicubic"), 2)[0]
    assert came == pytest.approx(float(psnr(shave(sr[:1], 2), shave(hr[:1], 2))), abs=1e-9)
    squeezed = score(grey.expand(3, -1, -1), enlarger("bicubic"), 2)[0]
    assert squeezed - came == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)


def test_a_coloured_result_of_a_grey_picture_counts_in_luminance(picture: Tensor) -> None:
    """Oracle: numpy, the weights of BT.601 by themselves: 0.299, 0.587, 0.114; no channel stands for all three."""
    grey = picture[1:2]
    hr = pair(grey, 2)[1]
    change = torch.tensor([0.05, -0.02, 0.03], dtype=torch.float64).view(3, 1, 1)
    came = score(grey, lambda lr, size: (hr + change).clamp(0, 1), 2)
    result = eight_bits((hr + change).numpy()) / 255
    plane = np.tensordot(np.array([65.481, 128.553, 24.966]) / 219, result, 1)[None, 2:-2, 2:-2]
    original = hr[:1, 2:-2, 2:-2].numpy()
    assert came[0] == pytest.approx(skimage.metrics.peak_signal_noise_ratio(original, plane, data_range=1), abs=1e-9)
    assert came[1] == pytest.approx(
        skimage.metrics.structural_similarity(
            plane[0], original[0], data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        ),
        abs=1e-9,
    )


def test_the_result_is_clamped_and_rounded(picture: Tensor) -> None:
    """Law: what no 8-bit file can hold does not count."""

    def perfect(change: float) -> float:
        hr = pair(picture, 2)[1]
        return score(picture, lambda lr, size: hr + change / 255, 2)[0]

    assert perfect(0) == perfect(0.49) == perfect(-0.49) == math.inf
    assert perfect(0.51) < 60
    white = torch.ones(3, 40, 40)
    assert score(white, lambda lr, size: torch.full((3, *size), 1.5), 2)[0] == math.inf


def test_every_model_is_asked_in_its_own_way(picture: Tensor) -> None:
    """Oracle: the models called by hand; float64 comes back from float32 weights, and no gradient."""
    torch.manual_seed(0)
    lr = pair(picture[:, :24, :30], 2)[0]
    size = (24, 30)
    edsr, rdn = EDSR(2, blocks=1, channels=4), RDN(2, 1, 1, 4, 4)
    grey, colour = ESPCN(2), ESPCN(2, channels=3)
    liif = LIIF("edsr-tiny", hidden=(8,))
    expected = {
        edsr: edsr(lr.float()),
        rdn: rdn(lr.float()),
        colour: colour(lr.float()),
        grey: enlarge_rgb(grey, lr, 2),
        liif: liif(lr.float(), size=size),
    }
    for model, by_itself in expected.items():
        came = enlarger(model)(lr, size)
        assert came.dtype == torch.float64
        assert not came.requires_grad
        torch.testing.assert_close(came, by_itself.double(), rtol=0, atol=1e-6)
    for method in ("nearest", "bilinear", "bicubic"):
        by_method = resize(lr, size=(31, 40), method=method, border="symmetric")  # type: ignore[arg-type]
        torch.testing.assert_close(enlarger(method)(lr, (31, 40)), by_method)
    assert enlarger(liif)(lr, (31, 40)).shape == (3, 31, 40)
    torch.testing.assert_close(
        to_ycbcr(enlarger(grey)(lr, size))[:1], grey(to_ycbcr(lr)[:1].float()).double(), atol=1e-6, rtol=0
    )


def test_errors_teach(picture: Tensor) -> None:
    """Oracle: each names the argument, what came and what was expected."""
    bicubic = enlarger("bicubic")
    with pytest.raises(ValueError, match="protocol must be one of 'benchmark', 'div2k', got 'luminance'"):
        score(picture, bicubic, 2, "luminance")  # type: ignore[arg-type]
    for scale in (0.5, 132, 151):
        with pytest.raises(ValueError, match=f"scale must be from 1 to 131 for 131 x 150, got {scale}"):
            score(picture, bicubic, scale)
    with pytest.raises(ValueError, match="scale must be a positive finite number"):
        pair(picture, 0)
    with pytest.raises(ValueError, match=r"reference must be \(3, H, W\) or \(1, H, W\), got \(2, 131, 150\)"):
        pair(picture[:2], 2)
    with pytest.raises(ValueError, match="reference must be"):
        pair(picture[None], 2)
    with pytest.raises(TypeError, match=r"reference must be floating point.*uint8"):
        pair((255 * picture).to(torch.uint8), 2)
    for other in (255 * picture, picture - 0.01, picture + 0.0005, picture * torch.nan):
        with pytest.raises(ValueError, match=r"in \[0, 1\] and in whole 255ths"):
            pair(other, 2)
    with pytest.raises(ValueError, match=r"model must return \(3, 130, 150\) for scale 2, got \(3, 65, 75\)"):
        score(picture, lambda lr, size: lr, 2)
    with pytest.raises(ValueError, match="model must be one of 'nearest', 'bilinear', 'bicubic', got 'cubic'"):
        enlarger("cubic")
    with pytest.raises(
        TypeError, match="model must be an AnyScale, EDSR, RDN, SAN, TTSR, ESPCN or a method's name, got Linear"
    ):
        enlarger(torch.nn.Linear(2, 2))
    for model in (EDSR(3, 1, 4), RDN(3, 1, 1, 4, 4), ESPCN(3)):
        with pytest.raises(
            ValueError, match=r"size must be \(96, 111\) for 3, the network's only scale; got \(128, 148\)"
        ):
            score(picture[:, :130, :148], enlarger(model), 4)
    with pytest.raises(ValueError, match="at least 11 x 11"):
        score(picture[:, :24, :24], bicubic, 4, "div2k")


ROUNDED = {"Set5": {2: 33.65, 3: 30.39, 4: 28.42}, "Set14": {2: 30.22, 3: 27.53, 4: 25.99}}
UNROUNDED = {"Set5": {2: 33.68, 3: 30.40, 4: 28.43}, "Set14": {2: 30.24, 3: 27.54, 4: 26.00}}


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ROUNDED)
def test_bicubic_gives_the_published_row_of_8_bit_files(name: str) -> None:
    """Oracle: the table published with SelfExSR's files, whose luminance is rounded; `score` does not round it."""
    try:
        pictures = [datasets.from_uint8(array) for _, array in datasets.pictures(name)]
    except datasets.DataMissing as missing:
        pytest.skip(str(missing))
    bicubic = enlarger("bicubic")
    for scale in (2, 3, 4):
        decibels = []
        for reference in pictures:
            lr, hr = pair(reference, scale)
            sr = torch.from_numpy(eight_bits(bicubic(lr, (hr.shape[1], hr.shape[2])).numpy()) / 255)
            planes = (sr[:1], hr[:1]) if reference.shape[0] == 1 else (luminance(x, rounded=True) for x in (sr, hr))
            decibels.append(float(psnr(*(shave(plane, scale) for plane in planes))))
        assert round(float(np.mean(decibels)), 2) == ROUNDED[name][scale]
        own = np.mean([score(reference, bicubic, scale)[0] for reference in pictures])
        assert round(float(own), 2) == UNROUNDED[name][scale]
