"""TTSR. The authors' code, github.com/researchmm/TTSR, model/; raw state dicts without LTE_copy, a second copy of the
extractor that only the loss asks (and that is passed over where a file holds it).

Its pictures are in [-1, 1], as `TTSR` makes them from [0, 1]. What it calls a mean shift also divides by ImageNet's
standard deviation; it is frozen: buffers here.
"""

import re
from collections.abc import Callable

from torch import nn

from course_lib.super_resolution.ttsr import TTSR

MODELS: dict[str, Callable[[], nn.Module]] = {"ttsr": TTSR}
"""Name of the checkpoint -> our model with its configuration."""
NEVER_USED = (r"^LTE_copy\.",)
"""Official names that the network carries but never reads."""
LEFT_AS_INITIALISED = (r"^extractor\.(weight|bias)$",)
"""Our names that may be absent: ImageNet's mean and standard deviation."""

_MAIN = {
    "SFE.conv_head": "head",
    "SFE.conv_tail": "first.last",
    "conv11_head": "attention1.conv",
    "conv11_tail": "stage1.last",
    "conv12": "to_x2",
    "conv22_head": "attention2.conv",
    "conv23": "to_x4",
    "conv33_head": "attention4.conv",
    **{f"conv2{i}_tail": f"stage2.stages.{i - 1}.last" for i in (1, 2)},
    **{f"conv3{i}_tail": f"stage4.stages.{i - 1}.last" for i in (1, 2, 3)},
    **{f"ex12.conv_merge{i}": f"stage2.exchange.merges.{i - 1}" for i in (1, 2)},
    **{f"ex123.conv_merge{i}": f"stage4.exchange.merges.{i - 1}" for i in (1, 2, 3)},
    "ex12.conv12": "stage2.exchange.paths.x1_to_x2.conv",
    "ex12.conv21": "stage2.exchange.paths.x2_to_x1.convs.0",
    "ex123.conv12": "stage4.exchange.paths.x1_to_x2.conv",
    "ex123.conv13": "stage4.exchange.paths.x1_to_x4.conv",
    "ex123.conv23": "stage4.exchange.paths.x2_to_x4.conv",
    "ex123.conv21": "stage4.exchange.paths.x2_to_x1.convs.0",
    "ex123.conv32": "stage4.exchange.paths.x4_to_x2.convs.0",
    "ex123.conv31_1": "stage4.exchange.paths.x4_to_x1.convs.0",
    "ex123.conv31_2": "stage4.exchange.paths.x4_to_x1.convs.1",
    "merge_tail.conv13": "tail.from_x1.conv",
    "merge_tail.conv23": "tail.from_x2.conv",
    "merge_tail.conv_merge": "tail.merge",
    "merge_tail.conv_tail1": "tail.tail1",
    "merge_tail.conv_tail2": "tail.tail2",
}
_STAGES = {
    "SFE.RBs": "first",
    "RB11": "stage1",
    **{f"RB2{i}": f"stage2.stages.{i - 1}" for i in (1, 2)},
    **{f"RB3{i}": f"stage4.stages.{i - 1}" for i in (1, 2, 3)},
}
_LTE = re.compile(r"slice[123]\.(\d+\.\w+)")  # the layers are numbered on from slice to slice, as in VGG19
_BLOCK = re.compile(r"(SFE\.RBs|RB\d\d)\.(\d+)\.(.+)")


def rename(name: str) -> str:
    """Return what `TTSR` calls an official tensor; another name comes back as it is."""
    part, _, inner = name.partition(".")
    if part == "LTE" and inner.startswith("sub_mean."):
        return f"extractor.{inner.removeprefix('sub_mean.')}"
    if part == "LTE" and (layer := _LTE.fullmatch(inner)):
        return f"extractor.vgg.features.{layer[1]}"
    module, _, last = inner.rpartition(".")
    if part == "MainNet" and module in _MAIN:
        return f"{_MAIN[module]}.{last}"
    if part == "MainNet" and (block := _BLOCK.fullmatch(inner)) and block[1] in _STAGES:
        return f"{_STAGES[block[1]]}.body.{block[2]}.{block[3]}"
    return name


RENAMES: dict[str, Callable[[str], str]] = {"ttsr": rename}
"""Name of the checkpoint -> official name of a tensor to ours."""
