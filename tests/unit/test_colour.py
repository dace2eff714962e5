"""Colours. Oracles: skimage's BT.601 conversion, the inverse, and what a grey picture must do."""

import numpy as np
import pytest
import skimage.color
import torch

from course_lib import colour
from course_lib.super_resolution import ESPCN, enlarge_rgb
from course_lib.upsampling import resize


def test_ycbcr_is_that_of_scikit_image() -> None:
    image = torch.rand(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = skimage.color.rgb2ycbcr(image.permute(1, 2, 0).numpy()) / 255
    np.testing.assert_allclose(colour.to_ycbcr(image).permute(1, 2, 0).numpy(), theirs, atol=1e-12)
    torch.testing.assert_close(colour.to_ycbcr(image)[:1], colour.luminance(image), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_back_from_ycbcr(dtype: torch.dtype) -> None:
    image = torch.rand(2, 3, 4, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))
    back = colour.from_ycbcr(colour.to_ycbcr(image))
    assert back.dtype == dtype
    torch.testing.assert_close(back, image, atol=1e-6 if dtype == torch.float32 else 1e-12, rtol=0)


def test_ycbcr_wants_three_channels() -> None:
    for function in (colour.to_ycbcr, colour.from_ycbcr):
        with pytest.raises(ValueError, match="image must have 3 channels, got 1"):
            function(torch.rand(1, 4, 4))


def test_a_bicubic_model_gives_the_bicubic_picture() -> None:
    # the conversion is affine and bicubic weights sum to one, so the order of the two does not matter
    image = torch.rand(3, 9, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = enlarge_rgb(lambda y: resize(y, scale=3, border="symmetric"), image, scale=3)
    torch.testing.assert_close(got, resize(image, scale=3, border="symmetric"), atol=1e-12, rtol=0)


def test_the_model_decides_the_luminance() -> None:
    image = torch.rand(2, 3, 5, 4, generator=torch.Generator().manual_seed(3))
    got = enlarge_rgb(lambda y: y.repeat_interleave(2, -1).repeat_interleave(2, -2), image, scale=2)
    blocks = colour.luminance(image).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(colour.luminance(got), blocks, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 5, 4), (2, 2, 3, 5, 4)])
def test_a_network_of_another_dtype(shape: tuple[int, ...]) -> None:
    """Oracle: the same network in the picture's dtype, to the digits of float32; gradients still flow."""
    torch.manual_seed(0)
    network, image = ESPCN(2), torch.rand(shape, dtype=torch.float64, requires_grad=True)
    got = enlarge_rgb(network, image, scale=2)
    assert got.dtype == torch.float64
    assert enlarge_rgb(network, image.bfloat16(), scale=2).dtype == torch.bfloat16
    torch.testing.assert_close(got, enlarge_rgb(network.double(), image, scale=2), atol=1e-6, rtol=0)
    assert got.requires_grad


def test_a_model_of_another_scale_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model must return \(1, 10, 8\) for scale 2, got \(1, 5, 4\)"):
        enlarge_rgb(lambda y: y, torch.rand(3, 5, 4), scale=2)
