"""ViDT with and without its neck, as github.com/naver-ai/vidt (branch main) names the tensors, in {"model": ...}.

Trained on COCO: columns of the logits are its ids 0 to 90, and "no object" behind them where there is no neck. The box
heads of the decoder are the detector's own under a second name. Inputs are RGB, normalised by ImageNet's numbers.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.detection.families.vidt import vidt
from course_lib.official import swin
from course_lib.official.fitting import Misfit

MODELS: dict[str, Callable[[], nn.Module]] = {
    "vidt_nano": vidt.vidt_nano,
    "vidt_tiny": vidt.vidt_tiny,
    "vidt_small": vidt.vidt_small,
    "vidt_base": vidt.vidt_base,
    "vidt_wo_neck_nano": vidt.vidt_without_neck_nano,
    "vidt_wo_neck_tiny": vidt.vidt_without_neck_tiny,
    "vidt_wo_neck_small": vidt.vidt_without_neck_small,
    "vidt_wo_neck_base": vidt.vidt_without_neck_base,
}
"""Name of the checkpoint -> our model with its configuration."""

NEVER_USED = (
    r"^transformer\.level_embed$",
    r"^backbone\.layers\.\d+\.downsample\.(expansion|norm2)\.",
    r"^backbone\.norm[123]\.",
)
"""Regular expressions of official names that the official code never reads."""

LEFT_AS_INITIALISED = (r"^neck\.decoder\.layers\.\d+\.cross_attention\.offsets\.bias$",)
"""Regular expressions of our names that may keep what the architecture puts there: the ring of sampling offsets."""

_TWICE = "transformer.decoder.bbox_embed."
_STARTS = {
    "backbone.det_token": "body.det_tokens",
    "backbone.det_pos_embed": "body.det_positions",
    "transformer.reference_points.": "neck.reference.",
    "tgt_proj.": "neck.dets.",
    "query_pos_proj.": "neck.positions.",
}
_WITH_NECK = {"input_proj.": "neck.maps.", "class_embed.": "class_heads.", "bbox_embed.": "neck.box_heads."}
_WITHOUT = {"input_proj.": "project.", "class_embed.": "class_head.", "bbox_embed.": "box_head."}
_LAYER = {
    "self_attn.in_proj_": "self_attention.qkv.",
    "self_attn.out_proj.": "self_attention.out.",
    "cross_attn.sampling_offsets.": "cross_attention.offsets.",
    "cross_attn.attention_weights.": "cross_attention.weights.",
    "cross_attn.value_proj.": "cross_attention.values.",
    "cross_attn.output_proj.": "cross_attention.out.",
    "norm1.": "norm2.",  # counted officially as written, not as run
    "norm2.": "norm1.",
    "linear1.": "feed.first.",
    "linear2.": "feed.second.",
}


def fold(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors without a second name: box heads' in the decoder; and without tables, as `swin` drops them.

    Raises Misfit where the two names have different tensors, and as `swin.without_tables` does.
    """
    kept: dict[str, Tensor] = {}
    for name, tensor in swin.without_tables(state).items():
        first = name.removeprefix("transformer.decoder.") if name.startswith(_TWICE) else name
        other = kept.setdefault(first, tensor)
        if other.shape != tensor.shape or not (tensor.is_meta or torch.equal(other, tensor)):
            both = f"{first} and transformer.decoder.{first}"
            raise Misfit(f"these are not the weights of a ViDT: {both} must be the same tensor")
    return kept


def rename(name: str, neck: bool) -> str:
    """Return what our ViDT calls an official tensor; another name comes back as it is."""
    if found := re.fullmatch(r"transformer\.decoder\.layers\.(\d+)\.(.+)", name):
        return f"neck.decoder.layers.{found[1]}.{_begun(found[2], _LAYER)}"
    known = _begun(name, _STARTS | (_WITH_NECK if neck else _WITHOUT))
    if known == name and name.startswith("backbone."):
        of_swin = name.removeprefix("backbone.")
        if found := re.fullmatch(r"layers\.(\d+\.blocks\.\d+)\.det_pos_linear\.(weight|bias)", of_swin):
            return f"body.stages.{found[1]}.det_position.{found[2]}"
        if (ours := swin.rename(of_swin)) != of_swin:
            return f"body.{ours}"
    return known


def _begun(name: str, starts: Mapping[str, str]) -> str:
    start = next((start for start in starts if name.startswith(start)), "")
    return starts.get(start, "") + name.removeprefix(start)


RENAMES: dict[str, Callable[[str], str]] = {name: partial(rename, neck="wo_neck" not in name) for name in MODELS}
"""Name of the checkpoint -> official name of a tensor to ours."""
