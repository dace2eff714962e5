import math

import numpy as np
import pytest
import skimage.color
import skimage.metrics
import torch
from torch import Tensor

from course_lib import datasets
from course_lib.super_resolution.metrics import benchmark, luminance, modcrop, psnr, shave, ssim
from course_lib.upsampling import resize


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    clean = datasets.photograph("chelsea", (60, 71)).double()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (clean + 0.05 * noise).clamp(0, 1), clean


def test_luminance_of_corners_of_the_cube() -> None:
    """Oracle: BT.601 by hand: black 16, white 235, red 81.481, green 144.553, blue 40.966 (of 255)."""
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    y = 255 * luminance(colours.T[:, None])[0, 0]
    assert torch.allclose(y, torch.tensor([16, 235, 81.481, 144.553, 40.966], dtype=torch.float64), atol=1e-12)
    rounded = 255 * luminance(colours.T[:, None], rounded=True)[0, 0]
    assert torch.allclose(rounded, torch.tensor([16, 235, 81, 145, 41], dtype=torch.float64), atol=1e-12)


def test_luminance_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: skimage.color.rgb2ycbcr, whose weights have the same three decimals."""
    expected = skimage.color.rgb2ycbcr(pair[0].permute(1, 2, 0).numpy())[..., 0] / 255
    assert np.abs(luminance(pair[0])[0].numpy() - expected).max() < 1e-12


def test_grey_is_its_own_luminance() -> None:
    """Oracle: identity (replicating grey to RGB would squeeze it into 16..235 and change PSNR)."""
    grey = torch.rand(2, 1, 4, 5)
    assert luminance(grey, rounded=True) is grey


def test_psnr_by_hand(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: an error of 0.1 everywhere is 20 dB; halving it adds 20 log10(2); skimage on noise; equal is infinite."""
    flat = torch.full((3, 4, 5), 0.5, dtype=torch.float64)
    assert math.isclose(psnr(flat + 0.1, flat).item(), 20, abs_tol=1e-9)
    assert math.isclose(psnr(flat + 0.05, flat).item(), 20 + 20 * math.log10(2), abs_tol=1e-9)
    assert math.isclose(psnr(255 * flat + 25.5, 255 * flat, data_range=255).item(), 20, abs_tol=1e-9)
    expected = skimage.metrics.peak_signal_noise_ratio(pair[1].numpy(), pair[0].numpy(), data_range=1)
    assert math.isclose(psnr(*pair).item(), expected, abs_tol=1e-9)
    assert psnr(flat, flat).item() == math.inf


def test_ssim_equals_scikit_image(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: skimage with the window of the paper; it too averages only where the window lies inside."""
    expected = skimage.metrics.structural_similarity(
        pair[0].numpy(),
        pair[1].numpy(),
        data_range=1,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert math.isclose(ssim(*pair).item(), expected, abs_tol=1e-10)
    assert math.isclose(ssim(pair[0], pair[0]).item(), 1, abs_tol=1e-12)
    assert math.isclose(ssim(255 * pair[0], 255 * pair[1], data_range=255).item(), expected, abs_tol=1e-10)


def test_a_batch_is_its_pictures(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: one by one; a single precision picture gives nearly the same."""
    images, references = torch.stack([pair[0], pair[1]]), torch.stack([pair[1], pair[0] * 0.9])
    for metric in (psnr, ssim):
        single = torch.stack([metric(a, b) for a, b in zip(images, references, strict=True)])
        assert torch.allclose(metric(images, references), single, rtol=0, atol=1e-12)
        assert torch.allclose(metric(images.float(), references.float()).double(), single, rtol=0, atol=2e-4)
        assert metric(images, references).shape == (2,)
        assert metric(images[:0], references[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("top", [1.0, 255.0])
def test_half_precision_costs_no_digits(dtype: torch.dtype, top: float) -> None:
    """Oracle: the same numbers in float64; smooth pictures, where SSIM subtracts squares that nearly agree."""
    picture = datasets.photograph("chelsea", (64, 64)) * 0.2 + 0.7
    a, b = (top * picture).to(dtype), (top * (picture + 0.01)).to(dtype)
    for metric, tolerance in ((psnr, 1e-3), (ssim, 1e-4)):
        came = metric(a, b, data_range=top)
        assert came.dtype == torch.float32
        assert math.isclose(came.item(), metric(a.double(), b.double(), data_range=top).item(), abs_tol=tolerance)


def test_autocast_costs_no_digits() -> None:
    """Oracle: the same call outside."""
    picture = datasets.photograph("chelsea", (64, 64)) * 0.2 + 0.7
    with torch.autocast("cpu", dtype=torch.bfloat16):
        came = ssim(picture, picture + 0.01)
    assert torch.equal(came, ssim(picture, picture + 0.01))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rounded", [True, False])
def test_luminance_in_half_precision_is_rounded_once(dtype: torch.dtype, rounded: bool) -> None:
    """Oracle: float64, and half of the last place of the half type below 1."""
    picture = datasets.photograph("chelsea", (64, 64)).to(dtype)
    expected = luminance(picture.double(), rounded)
    came = luminance(picture, rounded)
    assert came.dtype == dtype
    assert (came - expected).abs().max() <= torch.finfo(dtype).eps / 4 + 1e-6


def test_metrics_have_gradients(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: finite differences (gradcheck)."""
    small, reference = pair[0][:1, :12, :13].clone().requires_grad_(), pair[1][:1, :12, :13]
    assert torch.autograd.gradcheck(lambda x: ssim(x, reference), small)
    assert torch.autograd.gradcheck(lambda x: psnr(x, reference), small)


def test_shave_and_modcrop() -> None:
    """Oracle: slices by hand."""
    image = torch.arange(70.0).reshape(1, 7, 10)
    assert torch.equal(shave(image, 2), image[:, 2:5, 2:8])
    assert torch.equal(shave(image, 0), image)
    assert torch.equal(modcrop(image, 3), image[:, :6, :9])
    assert torch.equal(modcrop(image, 1), image)


def test_errors_teach() -> None:
    """Oracle: each names the argument, what came and what was expected."""
    a = torch.rand(3, 20, 20)
    with pytest.raises(ValueError, match=r"same shape, got \(3, 20, 20\) and \(3, 20, 19\).*modcrop"):
        psnr(a, a[..., :-1])
    with pytest.raises(TypeError, match=r"reference must be floating point.*got torch.uint8"):
        psnr(a, (255 * a).to(torch.uint8))
    with pytest.raises(TypeError, match=r"image must be a torch\.Tensor, got ndarray"):
        ssim(a.numpy(), a)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 11 x 11"):
        ssim(a[..., :10], a[..., :10])
    with pytest.raises(ValueError, match="3 channels"):
        luminance(a[:2])
    with pytest.raises(ValueError, match="leave something of 20 x 20, got 10"):
        shave(a, 10)
    with pytest.raises(ValueError, match="pixels must be at least 0, got -1"):
        shave(a, -1)
    with pytest.raises(TypeError, match=r"pixels must be a whole number, got 2\.5"):
        shave(a, 2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="whole number from 1 to 20"):
        modcrop(a, 2.5)  # type: ignore[arg-type]
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"data_range must be .* got {wrong}"):
            psnr(a, a, data_range=wrong)
    with pytest.raises(ValueError, match=r"\(\.\.\., C, H, W\)"):
        psnr(a[0], a[0])
    with pytest.raises(ValueError, match="model must return"):
        benchmark(a, lambda low, scale: low, 2)


def test_benchmark_by_its_steps() -> None:
    """Oracle: the protocol written out with numpy and the parts; a model of long reach feels the border too."""
    picture = datasets.photograph("coffee", (41, 50))
    high = luminance(picture.double()[:, :39, :48], rounded=True)
    low = resize(high, size=(13, 16), border="symmetric")
    result = np.floor(255 * np.clip(resize(low, scale=3)[0].numpy(), 0, 1) + 0.5)[3:-3, 3:-3]
    error = ((result - 255 * high[0, 3:-3, 3:-3].numpy()) ** 2).mean()
    expected = 10 * math.log10(255**2 / error)
    came = benchmark(picture, lambda x, scale: resize(x, scale=scale), 3)
    assert math.isclose(came[0], expected, abs_tol=1e-9)
    assert 0 < came[1] < 1


PUBLISHED = {
    "Set5": ({2: 33.66, 3: 30.39, 4: 28.42}, {2: 0.9299, 3: 0.8682, 4: 0.8104}),
    "Set14": ({2: 30.23, 3: 27.54, 4: 26.00}, {2: 0.8687, 3: 0.7736, 4: 0.7019}),
}


@pytest.mark.needs_data
@pytest.mark.parametrize("name", PUBLISHED)
def test_bicubic_gives_the_published_row(name: str) -> None:
    """Oracle: the published bicubic rows (Set5 to the last digit; Set14 x2 and x3 are 0.01 dB below print)."""
    try:
        pictures = [datasets.from_uint8(array) for _, array in datasets.pictures(name)]
    except datasets.DataMissing as missing:
        pytest.skip(str(missing))
    for scale in (2, 3, 4):
        scores = [benchmark(p, lambda low, s: resize(low, scale=s, border="symmetric"), scale) for p in pictures]
        decibels, similarity = np.mean(scores, axis=0)
        assert round(decibels, 2) == PUBLISHED[name][0][scale]
        assert round(similarity, 4) == PUBLISHED[name][1][scale]


@pytest.mark.gpu
def test_metrics_on_cuda(pair: tuple[Tensor, Tensor]) -> None:
    """Oracle: the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for metric in (psnr, ssim):
        assert torch.allclose(metric(*(x.cuda() for x in pair)).cpu(), metric(*pair), rtol=0, atol=1e-9)
