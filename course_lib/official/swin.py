"""Swin as released: github.com/microsoft/Swin-Transformer, PyTorch; and ViDT's smallest body, trained with that code.

Released files also hold two tables that follow from the architecture: which bias belongs to which pair of tokens, and
which pairs of a shifted map at 224 x 224 must not read each other. `without_tables` compares them with ours and drops
them. Pictures come divided by ImageNet's mean and standard deviation (course_lib.blocks.vgg).
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.blocks.swin import swin_base, swin_nano, swin_small, swin_tiny
from course_lib.blocks.windows import relative_index, shift_mask
from course_lib.official.fitting import Misfit

MODELS: dict[str, Callable[[], nn.Module]] = {
    "swin_tiny": swin_tiny,
    "swin_small": swin_small,
    "swin_base": swin_base,
    "swin_nano_vidt": swin_nano,
}
"""Name of the checkpoint -> our model with its configuration."""

_PARTS = {
    "attn.qkv": "windows.attention.qkv",
    "attn.proj": "windows.attention.out",
    "mlp.fc1": "feed.first",
    "mlp.fc2": "feed.second",
    "norm1": "norm1",
    "norm2": "norm2",
}
_BLOCK = re.compile(rf"layers\.(\d+)\.blocks\.(\d+)\.({'|'.join(map(re.escape, _PARTS))})\.(weight|bias)")
_TABLE = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table")
_MERGE = re.compile(r"layers\.(\d+)\.downsample\.(norm\.weight|norm\.bias|reduction\.weight)")
_EMBEDDING = {"proj": "projection", "norm": "norm"}
_FIRST = re.compile(r"patch_embed\.(proj|norm)\.(weight|bias)")
_BUFFER = re.compile(r"(?P<block>.*\bblocks\.(?P<number>\d+))\.(attn\.relative_position_index|attn_mask)")


def rename(name: str) -> str:
    """Return what our `Swin` calls an official tensor; another name comes back as it is."""
    if block := _BLOCK.fullmatch(name):
        return f"stages.{block[1]}.blocks.{block[2]}.{_PARTS[block[3]]}.{block[4]}"
    if table := _TABLE.fullmatch(name):
        return f"stages.{table[1]}.blocks.{table[2]}.windows.table"
    if merge := _MERGE.fullmatch(name):
        return f"stages.{merge[1]}.merge.{merge[2]}"
    if first := _FIRST.fullmatch(name):
        return f"embedding.{_EMBEDDING[first[1]]}.{first[2]}"
    return name


def without_tables(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without `...blocks.<i>.attn.relative_position_index` and `...blocks.<i>.attn_mask`.

    The window's side is read from the table of biases beside them; without such a table they stay. Raises Misfit that
    names the first which is not what `relative_index` and `shift_mask` give: masks belong to blocks of odd number and
    to a square map of more than one window, displaced by half a window. Of tensors on the meta device, which hold no
    numbers, the shapes are compared.
    """
    kept = {}
    for name, tensor in state.items():
        buffer = _BUFFER.fullmatch(name)
        table = state.get(f"{buffer['block']}.attn.relative_position_bias_table") if buffer else None
        if buffer is None or table is None or table.dim() != 2:
            kept[name] = tensor
            continue
        window = (math.isqrt(len(table)) + 1) // 2
        if name.endswith("attn_mask"):
            _compare_mask(name, tensor, window, int(buffer["number"]))
        else:
            shape, what = (window**2, window**2), f"the index of windows of {window} x {window}"
            _compare(name, tensor, shape, partial(relative_index, window), what)
    return kept


def _compare_mask(name: str, came: Tensor, window: int, block: int) -> None:
    windows = len(came) if came.dim() == 3 else 0
    side = math.isqrt(windows)
    what = f"the mask of a square map in shifted windows of {window} x {window}"
    if block % 2 == 0 or side < 2 or side * side != windows:
        raise Misfit(f"these are not the weights of a Swin: {name} is {tuple(came.shape)}, must be {what}")
    size, shape = (side * window, side * window), (windows, window**2, window**2)
    _compare(name, came, shape, partial(shift_mask, size, window, window // 2), what)


def _compare(name: str, came: Tensor, shape: tuple[int, ...], make: Callable[[], Tensor], what: str) -> None:
    """Raise Misfit unless `came` is what `make` makes, which is not called for a tensor without numbers."""
    if came.shape != shape:
        shapes = f"is {tuple(came.shape)}, must be {shape}"
        raise Misfit(f"these are not the weights of a Swin: {name} {shapes}, {what}")
    if not came.is_meta and not torch.equal(came.to(expected := make()), expected):
        raise Misfit(f"these are not the weights of a Swin: {name} holds other numbers than {what}")
