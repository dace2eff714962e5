"""Vision transformers as released: DeiT's and timm's, github.com/facebookresearch/deit, and Google's, in Flax.

Files of DeiT and timm have the same names of tensors, and the networks differ in nothing: `deit_tiny` and `vit_tiny`,
`deit_base` and `vit_base_patch16_224` are one network with other weights. DeiT wants pictures from which ImageNet's
mean colour (0.485, 0.456, 0.406) is subtracted, divided by (0.229, 0.224, 0.225); timm's own files want 0.5 for all six
numbers.

Google's files (.npz, github.com/google-research/vision_transformer) hold other names and transposed matrices, and their
networks use the GELU with tanh; give `official.load` a dictionary {name: torch.from_numpy(array)} of them. Which names
and shapes they have was read from the Flax code; the code itself was not run against ours.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.blocks.vit import vit_base, vit_large, vit_small, vit_tiny
from course_lib.official.fitting import Misfit

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

FLAX: dict[str, Callable[[], nn.Module]] = {
    "vit_ti16_jax": partial(vit_tiny, activation="gelu_tanh"),
    "vit_s16_jax": partial(vit_small, activation="gelu_tanh"),
    "vit_b16_jax": partial(vit_base, activation="gelu_tanh"),
    "vit_l16_jax": partial(vit_large, activation="gelu_tanh"),
}
"""The same of Google's files."""

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


_ATTENTION = "MultiHeadDotProductAttention_1"
_FLAX_PARTS = {
    "LayerNorm_0": "attention_norm",
    f"{_ATTENTION}/qkv": "attention.qkv",
    f"{_ATTENTION}/out": "attention.out",
    "LayerNorm_2": "feed_forward_norm",
    "MlpBlock_3/Dense_0": "feed_forward.first",
    "MlpBlock_3/Dense_1": "feed_forward.second",
}
_FLAX_MODULES = {
    "embedding": "embedding.projection",
    "Transformer/encoder_norm": "norm",
    "head": "head",
}
_FLAX_BLOCK = re.compile(r"Transformer/encoderblock_(\d+)/(.+)")
_THREE = re.compile(rf"(.*{_ATTENTION})/(query|key|value)/(kernel|bias)")


def fold_flax(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a Flax ViT as torch's layers hold them, queries, keys and values as one matrix "qkv".

    Flax stores a matrix as (inputs, outputs), its outputs of attention as (heads, width / heads), and a kernel as
    (height, width, inputs, outputs). Other tensors come back as they are. Raises Misfit where one of three is missing.
    """
    folded: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if three := _THREE.fullmatch(name):
            names = [f"{three[1]}/{part}/{three[3]}" for part in ("query", "key", "value")]
            if missing := [part for part in names if part not in state]:
                raise Misfit(f"these are not the weights of a ViT in Flax: {len(missing)} missing: {missing[0]}")
            folded[f"{three[1]}/qkv/{three[3]}"] = torch.cat([_flat(state[part], three[3]) for part in names])
        elif name.endswith(f"{_ATTENTION}/out/kernel") and tensor.dim() == 3:
            folded[name] = tensor.flatten(0, 1).mT
        elif name.endswith("kernel") and tensor.dim() == 2:
            folded[name] = tensor.mT
        elif name == "embedding/kernel" and tensor.dim() == 4 and tensor.shape[2] == 3:
            folded[name] = tensor.permute(3, 2, 0, 1)
        else:
            folded[name] = tensor
    return folded


def _flat(tensor: Tensor, kind: str) -> Tensor:
    """Return (outputs, inputs) of a kernel (inputs, heads, n), or (outputs,) of a bias (heads, n)."""
    return tensor.flatten(1).mT if kind == "kernel" else tensor.flatten()


def rename_flax(name: str) -> str:
    """Return what our `ViT` calls a tensor that `fold_flax` returns; another name comes back as it is."""
    module, _, tensor = name.rpartition("/")
    ours = _FLAX_MODULES.get(module)
    if (block := _FLAX_BLOCK.fullmatch(module)) and block[2] in _FLAX_PARTS:
        ours = f"blocks.{block[1]}.{_FLAX_PARTS[block[2]]}"
    if ours is not None and tensor in ("kernel", "scale", "bias"):
        return f"{ours}.{'bias' if tensor == 'bias' else 'weight'}"
    return {"cls": "class_token", "Transformer/posembed_input/pos_embedding": "positions"}.get(name, name)
