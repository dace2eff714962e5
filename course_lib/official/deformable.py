"""Deformable DETR. The authors' code, github.com/fundamentalvision/Deformable-DETR; files are {"model": state dict}.

Layers that share their heads are released with one copy a layer, and the decoder carries its heads a second time: all
names of one tensor must hold the same numbers.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.detection.families.detr.deformable import (
    deformable_detr_plain,
    deformable_detr_refine,
    deformable_detr_single,
    deformable_detr_two,
)
from course_lib.official.fitting import Misfit

MODELS: dict[str, Callable[[], nn.Module]] = {
    "deformable_detr_single": deformable_detr_single,
    "deformable_detr_plain": deformable_detr_plain,
    "deformable_detr_refine": deformable_detr_refine,
    "deformable_detr_two": deformable_detr_two,
}
"""Name of the checkpoint -> our model with its configuration."""

LAYERS = 6
"""Of the decoder; the heads with this number are those of the first stage."""

_DEFORMABLE = {
    "sampling_offsets": "offsets",
    "attention_weights": "weights",
    "value_proj": "values",
    "output_proj": "out",
}
_DECODER_NORMS = {"norm2": "norm1", "norm1": "norm2", "norm3": "norm3"}  # numbered there by age, here by place
_WHOLE = {
    "transformer.level_embed": "level",
    "query_embed.weight": "slots",
    "transformer.reference_points": "reference",
    "transformer.enc_output": "first.cells",
    "transformer.enc_output_norm": "first.cells_norm",
    "transformer.pos_trans": "first.places",
    "transformer.pos_trans_norm": "first.places_norm",
}
_HEADS = {"class_embed": "class_head", "bbox_embed": "box_head"}
_HEAD = re.compile(r"(class_embed|bbox_embed)\.(\d+)\.(.+)")
_LAYER = re.compile(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(\w+)\.(.+)")
_ATTENTION = re.compile(r"(\w+)\.(weight|bias)")


def rename(name: str) -> str:
    """Return what `DeformableDETR` calls an official tensor; another name comes back as it is."""
    if name in _WHOLE:
        return _WHOLE[name]
    module, _, last = name.rpartition(".")
    if module in _WHOLE:
        return f"{_WHOLE[module]}.{last}"
    if name.startswith("backbone.0.body."):
        return f"body.network.{name.removeprefix('backbone.0.body.')}"
    if name.startswith("input_proj."):
        return f"project.{name.removeprefix('input_proj.')}"
    if head := _HEAD.fullmatch(name):
        ours = _HEADS[head[1]]
        return f"first.{ours}.{head[3]}" if int(head[2]) == LAYERS else f"{ours}s.{head[2]}.{head[3]}"
    if layer := _LAYER.fullmatch(name):
        inner = _in_layer(layer[1], layer[3], layer[4])
        return name if inner is None else f"{layer[1]}.layers.{layer[2]}.{inner}"
    return name


def _in_layer(part: str, module: str, rest: str) -> str | None:
    if module in ("linear1", "linear2"):
        return f"feed.{'first' if module == 'linear1' else 'second'}.{rest}"
    if module.startswith("norm"):
        return f"{module if part == 'encoder' else _DECODER_NORMS.get(module, module)}.{rest}"
    if part == "decoder" and module == "self_attn":
        packed = {"in_proj_weight": "qkv.weight", "in_proj_bias": "qkv.bias"}
        return f"self_attention.{packed.get(rest, rest.replace('out_proj.', 'out.'))}"
    attention = {"encoder": "self_attn", "decoder": "cross_attn"}[part]
    if module == attention and (tensor := _ATTENTION.fullmatch(rest)) and tensor[1] in _DEFORMABLE:
        ours = "attention" if part == "encoder" else "cross_attention"
        return f"{ours}.{_DEFORMABLE[tensor[1]]}.{tensor[2]}"
    return None


def fold(state: Mapping[str, Tensor], shared: bool, inside: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return the tensors with each head once, by its first name outside the decoder.

    shared: all layers have one head, released under each layer's number. inside: the kinds of heads that the decoder
    carries a second time. Raises Misfit where a second name is missing or holds other numbers than the first.
    """
    kept = dict(state)
    for name in state:
        if (head := _HEAD.fullmatch(name)) is None:
            continue
        others = [f"{head[1]}.{number}.{head[3]}" for number in range(1, LAYERS)] if shared and head[2] == "0" else []
        if head[1] in inside:
            others.append(f"transformer.decoder.{name}")
        for other in others:
            if other not in kept:
                raise Misfit(f"these are not Deformable DETR's weights: {other} is missing, another name of {name}")
            if not _same(kept.pop(other), state[name]):
                raise Misfit(f"these are not Deformable DETR's weights: {other} and {name} are one tensor, but differ")
    return kept


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and (one.is_meta or torch.equal(one, other))


FOLDS: dict[str, Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]] = {
    "deformable_detr_single": partial(fold, shared=True),
    "deformable_detr_plain": partial(fold, shared=True),
    "deformable_detr_refine": partial(fold, shared=False, inside=("bbox_embed",)),
    "deformable_detr_two": partial(fold, shared=False, inside=("bbox_embed", "class_embed")),
}
"""Name of the checkpoint -> what takes second names of tensors away."""
