"""Vision transformers as DeiT and timm release them, github.com/facebookresearch/deit.

Files of DeiT and timm have the same names of tensors, and the networks differ in nothing: `deit_tiny` and `vit_tiny`,
`deit_base` and `vit_base_patch16_224` are one network with other weights. DeiT wants pictures from which ImageNet's
mean colour (0.485, 0.456, 0.406) is subtracted, divided by (0.229, 0.224, 0.225); timm's own files want 0.5 for all six
numbers.
"""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.blocks.vit import vit_base, vit_small, vit_tiny

MODELS: dict[str, Callable[[], nn.Module]] = {
    "deit_tiny": vit_tiny,
    "deit_small": vit_small,
    "deit_base": vit_base,
    "deit_tiny_distilled": partial(vit_tiny, distilled=True),
    "deit_base_distilled_384": partial(vit_base, distilled=True, picture=(384, 384)),
    "vit_tiny": vit_tiny,
    "vit_base_patch16_224": vit_base,
}
"""Name of the checkpoint -> our model with its configuration."""

_TOKENS = {"cls_token": "class_token", "dist_token": "distillation_token", "pos_embed": "positions"}
_PARTS = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "feed_forward_norm",
    "mlp.fc1": "feed_forward.first",
    "mlp.fc2": "feed_forward.second",
}
_BLOCK = re.compile(rf"(blocks\.\d+)\.({'|'.join(map(re.escape, _PARTS))})\.(weight|bias)")


def rename(name: str) -> str:
    """Return what our `ViT` calls a tensor of DeiT's or timm's; another name comes back as it is."""
    if block := _BLOCK.fullmatch(name):
        return f"{block[1]}.{_PARTS[block[2]]}.{block[3]}"
    if name.startswith("patch_embed.proj."):
        return name.replace("patch_embed.proj", "embedding.projection")
    return _TOKENS.get(name, name.replace("head_dist.", "distillation_head.", 1))
