"""Pictures in another light, for training: brightness, contrast, saturation and hue as one affine map of the colours
(chapter 15).
"""

import math

import torch
from torch import Tensor

from course_lib.datasets.annotations import Labelled
from course_lib.datasets.counter import check_number

_LUMA = (0.299, 0.587, 0.114)


def photometric(
    labelled: Labelled,
    generator: torch.Generator,
    brightness: float = 0.125,
    contrast: float = 0.5,
    saturation: float = 0.5,
    hue: float = 18.0,
    grey: float = 0.0,
) -> Labelled:
    """Return the picture in another light; each of the first four is changed with a probability of one half.

    brightness: largest amount that is added or taken. contrast, saturation: largest change of the factor, which is 1
    where nothing changes, by which colours move away from the mean luma and from their own luma. hue: largest turn
    about the axis of greys, in degrees. grey: probability of a picture without colours. All of it is one affine map of
    (R, G, B), then clamped to [0, 1]; SSD's own code turns hue and saturation in HSV instead. generator: on the CPU.
    """
    check_light(brightness, contrast, saturation, hue, grey)
    draws = uniform(generator, 9)
    knobs = (brightness, contrast, saturation, hue)
    change = [(2 * draws[2 * k + 1] - 1) * knob if draws[2 * k] < 0.5 else 0.0 for k, knob in enumerate(knobs)]
    factor = 1 + change[1]
    kept = 0.0 if draws[8] < grey else 1 + change[2]
    image = labelled.image
    luma = image.new_tensor(_LUMA)
    # matrices that leave greys as they are: away from the own luma, then about the axis of greys
    colours = _turn(change[3]).to(image) @ (
        kept * torch.eye(3, dtype=image.dtype, device=image.device) + (1 - kept) * luma
    )
    offset = (1 - factor) * (image.mean((1, 2)) @ luma) + change[0]
    lit = (factor * colours @ image.flatten(1) + offset).clamp_(0, 1)
    return Labelled(lit.view_as(image), labelled.boxes, labelled.labels)


def check_light(brightness: float, contrast: float, saturation: float, hue: float, grey: float) -> None:
    """Raise TypeError or ValueError, which name it, for a knob of `photometric` that is out of its range."""
    knobs = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "grey": grey}
    for name, value in knobs.items():
        check_number(name, value, 0, 1)
    check_number("hue", hue, 0, 180)


def uniform(generator: torch.Generator, count: int) -> list[float]:
    """Return random numbers in [0, 1)."""
    numbers: list[float] = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return numbers


def _turn(degrees: float) -> Tensor:
    """Return the rotation about the axis of greys, (3, 3): 120 degrees make red green, green blue and blue red."""
    angle = math.radians(degrees)
    along, across = (1 - math.cos(angle)) / 3, math.sin(angle) / math.sqrt(3)
    rows = [[along, along - across, along + across]]
    rows += [rows[0][2:] + rows[0][:2], rows[0][1:] + rows[0][:1]]
    return torch.tensor(rows, dtype=torch.float64) + math.cos(angle) * torch.eye(3, dtype=torch.float64)
