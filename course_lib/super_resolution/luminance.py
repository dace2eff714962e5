"""Colour pictures for networks that know luminance only."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.colour import from_ycbcr, to_ycbcr
from course_lib.upsampling import resize


def enlarge_rgb(model: Callable[[Tensor], Tensor], image: Tensor, scale: int) -> Tensor:
    """Enlarge an RGB picture with a network for luminance; its two colour differences are enlarged bicubically.

    image: (..., 3, h, w) in [0, 1] -> (..., 3, scale h, scale w), not clamped. model: (..., 1, h, w) -> (..., 1, scale
    h, scale w); a network gets the picture in its own dtype and on its own device. The eye sees colour at a lower
    resolution than brightness, so papers that train on luminance show their pictures in this way (Shi et al. 2016).
    Raises ValueError for other channels, or another size from the model.
    """
    planes = to_ycbcr(image)
    large = in_its_dtype(model, planes[..., :1, :, :])
    colours = resize(planes[..., 1:, :, :], scale=scale, method="bicubic", border="symmetric")
    wanted = (*colours.shape[:-3], 1, *colours.shape[-2:])
    if large.shape != wanted:
        raise ValueError(f"model must return {wanted} for scale {scale}, got {tuple(large.shape)}")
    return from_ycbcr(torch.cat([large, colours], dim=-3))


def in_its_dtype(model: Callable[..., Tensor], image: Tensor, **options: Any) -> Tensor:
    """Return `model(image, **options)` with dtype and device of `image`, computed with those of the network's weights.

    A model that has no parameters is called with `image` as it is.
    """
    weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return model(image, **options) if weight is None else model(image.to(weight), **options).to(image)
