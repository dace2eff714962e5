"""TTSR's critic. The authors' code, github.com/researchmm/TTSR, loss/discriminator.py; it is not in the released files.

Its pictures are in [-1, 1], as `Discriminator` makes them from [0, 1].
"""

import re
from collections.abc import Callable

from torch import nn

from course_lib.super_resolution.discriminator import Discriminator

MODELS: dict[str, Callable[[], nn.Module]] = {"ttsr_discriminator": Discriminator}
"""Name of the checkpoint -> our model with its configuration."""

_CONVOLUTION = re.compile(r"conv([1-9]\d*)\.(\w+)")
_LINEAR = {"fc1.": "first.", "fc2.": "last."}


def rename(name: str) -> str:
    """Return what `Discriminator` calls an official tensor; another name comes back as it is."""
    if convolution := _CONVOLUTION.fullmatch(name):
        return f"convolutions.{int(convolution[1]) - 1}.{convolution[2]}"
    for theirs, ours in _LINEAR.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


RENAMES: dict[str, Callable[[str], str]] = {"ttsr_discriminator": rename}
"""Name of the checkpoint -> official name of a tensor to ours."""
