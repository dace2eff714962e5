"""DETR as its authors released it: github.com/facebookresearch/detr, {"model": state dict} (chapter 19).

The dilated (DC5) networks have the tensors of the others, so that a file does not tell which of the two it is: say so
by name.
"""

import re
from collections.abc import Callable

from torch import nn

from course_lib.detection.families.detr import detr

MODELS: dict[str, Callable[[], nn.Module]] = {
    "detr_r50": detr.detr_r50,
    "detr_r50_dc5": detr.detr_r50_dc5,
    "detr_r101": detr.detr_r101,
    "detr_r101_dc5": detr.detr_r101_dc5,
}
"""Name of the checkpoint -> our model with its configuration."""

_PARTS = {
    "backbone.0.body.": "body.network.",
    "input_proj.": "project.",
    "query_embed.weight": "query_positions",
    "class_embed.": "class_head.",
    "bbox_embed.": "box_head.",
}
_LAYER = {
    "self_attn.in_proj_": "attention.qkv.",
    "self_attn.out_proj.": "attention.out.",
    "multihead_attn.in_proj_": "cross_attention.qkv.",
    "multihead_attn.out_proj.": "cross_attention.out.",
    "linear1.": "feed.first.",
    "linear2.": "feed.second.",
}


def rename(name: str) -> str:
    """Return what our DETR calls an official tensor; another name comes back as it is."""
    if found := re.fullmatch(r"transformer\.((?:en|de)coder)\.(layers\.\d+\.)?(.+)", name):
        part, layer, tensor = found[1], found[2] or "", found[3]
        start = next((start for start in _LAYER if tensor.startswith(start)), "")
        ours = _LAYER.get(start, "")
        if part == "decoder" and start.startswith("self_attn."):
            ours = f"self_{ours}"
        return f"{part}.{layer}{ours}{tensor.removeprefix(start)}"
    start = next((start for start in _PARTS if name.startswith(start)), "")
    return _PARTS.get(start, "") + name.removeprefix(start)
