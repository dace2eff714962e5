"""YOLOS as released, github.com/hustvl/YOLOS. Pictures as DETR's: ImageNet's mean and deviation, by `IMAGENET`."""

import re
from collections.abc import Callable

from torch import nn

from course_lib.detection.families.yolos.yolos import yolos_b, yolos_s, yolos_s_dwr, yolos_ti
from course_lib.official import vit

MODELS: dict[str, Callable[[], nn.Module]] = {
    "yolos_ti": yolos_ti,
    "yolos_s": yolos_s,
    "yolos_s_dwr": yolos_s_dwr,
    "yolos_b": yolos_b,
}
"""Name of the checkpoint -> our model with its configuration."""

_OWN = {"backbone.det_token": "det_tokens", "backbone.mid_pos_embed": "middle_positions"}
_HEADS = {"class_embed": "class_head", "bbox_embed": "box_head"}
_HEAD = re.compile(r"(class_embed|bbox_embed)(\.layers\.\d+\.\w+)")


def rename(name: str) -> str:
    """Return what our `YOLOS` calls an official tensor; another name comes back as it is."""
    if head := _HEAD.fullmatch(name):
        return _HEADS[head[1]] + head[2]
    if name.startswith("backbone."):
        return _OWN.get(name) or vit.rename(name.removeprefix("backbone."))
    return name
