"""EDSR. The authors' PyTorch port, github.com/sanghyun-son/EDSR-PyTorch, src/model/edsr.py; raw state dicts.

Its pictures are in [0, 255], as `EDSR` makes them from [0, 1]. Its mean shifts are frozen: buffers here. It lets a file
of one scale into a network of another and skips the tail; here that is a misfit.
"""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.super_resolution.edsr import EDSR

_BASELINES = {f"edsr_baseline_x{scale}": scale for scale in (2, 3, 4)}
MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: partial(EDSR, scale) for name, scale in _BASELINES.items()},
    "edsr_full_x2": partial(EDSR, 2, blocks=32, channels=256, residual_scale=0.1),
}
"""Name of the checkpoint -> our model with its configuration."""

_BLOCK = re.compile(r"body\.(\d+)\.body\.([02])\.(\w+)")
_STAGE = re.compile(r"tail\.0\.([02])\.(\w+)")


def rename_encoder(name: str, blocks: int = 16) -> str:
    """Return what `EDSREncoder` calls an official tensor of the head or body; another name comes back as it is."""
    if block := _BLOCK.fullmatch(name):
        return f"body.{block[1]}.conv{1 + int(block[2]) // 2}.{block[3]}"
    for theirs, ours in {"head.0.": "head.", f"body.{blocks}.": "last."}.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def rename(name: str, blocks: int = 16) -> str:
    """Return what `EDSR` calls an official tensor; another name comes back as it is."""
    if stage := _STAGE.fullmatch(name):
        return f"tail.stages.{int(stage[1]) // 2}.{stage[2]}"  # between the convolutions there are shuffles
    if name.startswith("tail.1."):
        return f"tail.last.{name.removeprefix('tail.1.')}"
    ours = rename_encoder(name, blocks)
    return name if ours == name else f"encoder.{ours}"


RENAMES: dict[str, Callable[[str], str]] = {
    name: partial(rename, blocks=16 if name in _BASELINES else 32) for name in MODELS
}
"""Name of the checkpoint -> official name of a tensor to ours."""
