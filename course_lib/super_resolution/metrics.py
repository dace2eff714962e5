"""How close two pictures are, by the conventions of the super-resolution literature: PSNR, SSIM, and three protocols.

`benchmark` shrinks luminance, as the papers up to VDSR did; `score` shrinks colours, as the later ones do.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.colour import check_picture
from course_lib.colour import luminance as luminance
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.edsr import EDSR
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.layers import check_range
from course_lib.super_resolution.luminance import enlarge_rgb, in_its_dtype
from course_lib.super_resolution.rdn import RDN
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.ttsr import TTSR
from course_lib.upsampling import resize
from course_lib.upsampling.grids import Scale, as_fraction, check_choice, check_length
from course_lib.upsampling.taps import Method

Protocol = Literal["benchmark", "div2k"]
Enlarge = Callable[[Tensor, tuple[int, int]], Tensor]
"""(lr (3, h, w), size (H, W)) -> (3, H, W)."""

_WINDOW, _SIGMA = 11, 1.5


def _check_pair(image: Tensor, reference: Tensor, data_range: float) -> None:
    check_picture("image", image)
    check_picture("reference", reference)
    if image.shape != reference.shape:
        raise ValueError(
            f"image and reference must have the same shape, got {tuple(image.shape)} and {tuple(reference.shape)}; "
            "is one of them not cut to a multiple of the scale (modcrop)?"
        )
    check_range(data_range)


def _wide(image: Tensor) -> Tensor:
    # squares and differences of squares need more digits than half precision has
    return image.to(torch.promote_types(image.dtype, torch.float32))


def shave(image: Tensor, pixels: int) -> Tensor:
    """Cut `pixels` from each side: (..., H, W) -> (..., H - 2 pixels, W - 2 pixels).

    The outermost pixels of an enlarged picture depend on the border rule. Raises TypeError or ValueError for pixels
    that are not whole and >= 0, and when nothing would be left.
    """
    check_picture("image", image)
    if 2 * check_length("pixels", pixels, least=0) >= min(image.shape[-2:]):
        raise ValueError(f"pixels must leave something of {image.shape[-2]} x {image.shape[-1]}, got {pixels}")
    return image[..., pixels : image.shape[-2] - pixels, pixels : image.shape[-1] - pixels]


def modcrop(image: Tensor, scale: int) -> Tensor:
    """Cut the bottom and right so that height and width are multiples of `scale`: (..., H, W) -> (..., H - H % s, W -
    W % s).

    Raises ValueError for a scale that is no whole number >= 1 or exceeds the picture.
    """
    check_picture("image", image)
    height, width = image.shape[-2:]
    if isinstance(scale, bool) or not isinstance(scale, int) or not 1 <= scale <= min(height, width):
        raise ValueError(
            f"scale must be a whole number from 1 to {min(height, width)} for {height} x {width}, got {scale!r}"
        )
    return image[..., : height - height % scale, : width - width % scale]


def psnr(image: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the peak signal-to-noise ratio in decibels, 10 log10(data_range^2 / mean squared error).

    Both (..., C, H, W); the mean runs over C, H and W, so the result is (...), float32 for half precision. Infinite for
    equal pictures. Raises ValueError for different shapes.
    """
    _check_pair(image, reference, data_range)
    error = (_wide(image) - _wide(reference)).square().mean(dim=(-3, -2, -1))
    return 10 * torch.log10(data_range**2 / error)


def ssim(image: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Return the structural similarity, 1 for equal pictures (Wang et al. 2004, eq. 13).

    Both (..., C, H, W); the result is (...), the mean over channels and over all places where the 11 x 11 Gaussian
    window of sigma 1.5 lies inside, float32 for half precision. K1 = 0.01, K2 = 0.03. Raises ValueError for different
    shapes or sides below 11.
    """
    _check_pair(image, reference, data_range)
    if min(image.shape[-2:]) < _WINDOW:
        raise ValueError(
            f"image must be at least {_WINDOW} x {_WINDOW} pixels for the window of SSIM, got {tuple(image.shape)}"
        )
    x, y = (_wide(part).reshape(-1, 1, *part.shape[-2:]) for part in (image, reference))
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    var_x = _window_mean(x * x) - mean_x**2
    var_y = _window_mean(y * y) - mean_y**2
    both = _window_mean(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    parts = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return parts.reshape(*image.shape[:-2], *parts.shape[-2:]).mean(dim=(-3, -2, -1))


def _window_mean(planes: Tensor) -> Tensor:
    distance = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-(distance**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).to(planes)
    # a caller's autocast would turn convolutions, and these only, to half precision
    with torch.autocast(planes.device.type, enabled=False):
        return F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def benchmark(reference: Tensor, model: Callable[[Tensor, int], Tensor], scale: int) -> tuple[float, float]:
    """Return (PSNR, SSIM) of a luminance model on one 8-bit picture, by the protocol of the published bicubic rows.

    reference: (3 or 1, H, W) in [0, 1], whole 255ths. model(low, scale): (1, h, w) -> (1, h * scale, w * scale),
    float64. The picture is cut to a multiple of `scale`; its rounded luminance is shrunk bicubically (a = -1/2,
    antialiased, symmetric border) and NOT rounded; the result is rounded to 8 bits; `scale` pixels of border are cut
    off. Raises ValueError as its parts do.
    """
    high = luminance(modcrop(reference.to(torch.float64), scale), rounded=True)
    low = resize(high, scale=Fraction(1, scale), method="bicubic", a=-0.5, antialias=True, border="symmetric")
    raw = model(low, scale)
    if raw.shape != high.shape:
        raise ValueError(f"model must return {tuple(high.shape)} for scale {scale}, got {tuple(raw.shape)}")
    result = _eight_bits(raw)
    result, high = shave(result, scale), shave(high, scale)
    return float(psnr(result, high)), float(ssim(result, high))


def network(model: nn.Module) -> Callable[[Tensor, int], Tensor]:
    """Return a luminance network as `benchmark` takes it: float64 comes and goes, the network's own dtype and device in
    between, without gradients.

    The network has a whole-number attribute `scale`; what is returned raises ValueError for another scale.
    """
    own = int(model.scale)  # type: ignore[arg-type]

    def enlarge(low: Tensor, scale: int) -> Tensor:
        if scale != own:
            raise ValueError(f"scale must be {own}, the only one this network was trained for; got {scale}")
        with torch.no_grad():
            return in_its_dtype(model, low)

    return enlarge


def pair(reference: Tensor, scale: Scale) -> tuple[Tensor, Tensor]:
    """Return (lr, hr), the small picture (3, h, w) and the large one (3, H', W') of an 8-bit picture, by any scale.

    reference: (3 or 1, H, W) in [0, 1], whole 255ths; grey becomes three equal channels. h = floor(H / scale), and the
    large picture is cut to H' = round(h scale) at the bottom, likewise at the right. The small one is the large one
    shrunk bicubically (a = -1/2, antialiased, symmetric border), edges meeting, and rounded to 8 bits as a file would
    hold it. Both float64, in whole 255ths. Raises TypeError or ValueError for another picture, or a scale below 1 or
    beyond the picture.
    """
    check_picture("reference", reference)
    if reference.dim() != 3 or reference.shape[0] not in (1, 3):
        raise ValueError(f"reference must be (3, H, W) or (1, H, W), got {tuple(reference.shape)}")
    exact = 255 * reference.to(torch.float64)
    levels = exact.round()
    if not (levels.min() >= 0 and levels.max() <= 255 and (exact - levels).abs().max() < 1e-3):  # NaN is in no order
        raise ValueError("reference must be in [0, 1] and in whole 255ths: take datasets.to_uint8, then from_uint8")
    factor, (height, width) = as_fraction(scale), reference.shape[-2:]
    h, w = math.floor(height / factor), math.floor(width / factor)
    if factor < 1 or min(h, w) < 1:
        raise ValueError(f"scale must be from 1 to {min(height, width)} for {height} x {width}, got {scale}")
    hr = (levels / 255)[:, : round(h * factor), : round(w * factor)].expand(3, -1, -1)
    lr = resize(hr, size=(h, w), method="bicubic", a=-0.5, antialias=True, border="symmetric")
    return _eight_bits(lr), hr


def _eight_bits(picture: Tensor) -> Tensor:
    return (255 * picture.clamp(0, 1) + 0.5).floor() / 255


def score(reference: Tensor, model: Enlarge, scale: Scale, protocol: Protocol = "benchmark") -> tuple[float, float]:
    """Return (PSNR, SSIM) of a model for RGB on one 8-bit picture, by a protocol of the published tables.

    reference: (3 or 1, H, W) in [0, 1], whole 255ths. model(lr, size): a small picture (3, h, w), float64, as `pair`
    makes it -> (3, H, W) of this size; `enlarger` makes one. protocol: see `compared`. Raises ValueError for another
    protocol, another size from the model, and as the parts do.
    """
    check_choice("protocol", protocol, Protocol)
    lr, hr = pair(reference, scale)
    raw = model(lr, (hr.shape[-2], hr.shape[-1]))
    if raw.shape != hr.shape:
        raise ValueError(f"model must return {tuple(hr.shape)} for scale {scale}, got {tuple(raw.shape)}")
    sr, hr = compared(raw, hr, scale, protocol, grey=reference.shape[0] == 1)
    return float(psnr(sr, hr)), float(ssim(sr, hr))


def compared(
    sr: Tensor, hr: Tensor, scale: Scale, protocol: Protocol = "benchmark", grey: bool = False
) -> tuple[Tensor, Tensor]:
    """Return what a protocol compares of a result and its original, both (3, H, W): (C, n, m) of each.

    The result is clamped to [0, 1] and rounded to 8 bits, as in EDSR's code. LIIF's code does not round, which is worth
    0.01 dB of luminance at 37 dB, and 0.02 dB of RGB at 35 dB. Then
    "benchmark": luminance (BT.601 of the rounded colours, itself not rounded), without ceil(scale) pixels of border;
    of a grey picture the luminance from 0 to 1 in place of 16/255 to 235/255. Used for Set5, Set14, B100, Urban100.
    "div2k": RGB, without ceil(scale) + 6 pixels.
    Raises ValueError for another protocol, or where the border is all there is.
    """
    check_choice("protocol", protocol, Protocol)
    sr, border = _eight_bits(sr.to(hr)), math.ceil(as_fraction(scale))
    if protocol == "div2k":
        return shave(sr, border + 6), shave(hr, border + 6)
    planes = [shave(luminance(picture), border) for picture in (sr, hr)]
    if grey:
        planes = [(255 * plane - 16) / 219 for plane in planes]
    return planes[0], planes[1]


def enlarger(model: nn.Module | str) -> Enlarge:
    """Return what `score` takes: of a network, or of an interpolation by its name (symmetric border).

    model: an `AnyScale`; an EDSR, RDN, SAN, TTSR (without a reference) or ESPCN, whose own scale alone is accepted
    (ESPCN for luminance: colour differences are enlarged bicubically); or "nearest", "bilinear", "bicubic". float64
    comes and goes, the network's own dtype and device in between, without gradients. Raises ValueError for another
    name, TypeError for another class; what is returned raises ValueError for another size than the scale makes.
    """
    if isinstance(model, str):
        check_choice("model", model, Method)
        return lambda lr, size: resize(lr, size=size, method=cast(Method, model), border="symmetric")
    if not isinstance(model, (AnyScale, EDSR, RDN, SAN, TTSR, ESPCN)):
        raise TypeError(
            f"model must be an AnyScale, EDSR, RDN, SAN, TTSR, ESPCN or a method's name, got {type(model).__name__}"
        )

    def enlarge(lr: Tensor, size: tuple[int, int]) -> Tensor:
        with torch.no_grad():
            if isinstance(model, AnyScale):
                return in_its_dtype(model, lr, size=size)
            wanted = (model.scale * lr.shape[-2], model.scale * lr.shape[-1])
            if tuple(size) != wanted:
                raise ValueError(
                    f"size must be {wanted} for {model.scale}, the network's only scale; got {tuple(size)}"
                )
            if isinstance(model, ESPCN) and model.channels == 1:
                return enlarge_rgb(model, lr, model.scale)
            return in_its_dtype(model, lr)

    return enlarge
