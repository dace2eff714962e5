"""SSD321 on ResNet-101 and DSSD. The authors' code, github.com/chengyangfu/caffe (branch dssd), Caffe; BGR pictures.

Tensors go by their layers' names, as course_lib.official.caffe says. The released anchors are built from steps and
offsets of another unit than the layer takes, and lie outside the picture; `build` makes them as released, because the
weights were trained with them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from course_lib.detection.families.ssd.dssd import dssd321, dssd513, ssd321_resnet101
from course_lib.official.caffe import head, normalised

MODELS: dict[str, Callable[[], nn.Module]] = {
    "ssd321_resnet101": partial(ssd321_resnet101, official=True),
    "dssd321": partial(dssd321, official=True),
    "dssd513_coco": partial(dssd513, official=True),
}
"""Name of the checkpoint -> our model with its configuration."""

_PARTS = {"branch1": "downsample.0", "branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3"}
_STAGE = re.compile(r"res([2-5])(a|b|c|b\d+)_(branch\w+)")
_EXTRA = re.compile(r"res([6-9]|10)_(branch\w+)")


def _renaming(extras: int, decoder: bool) -> Callable[[str], str]:
    """Return what gives our name of a tensor, for a network of `extras` maps behind the ResNet."""
    maps = ["res3b3", "res5c", *(f"res{6 + k}" for k in range(extras))]
    numbers = ["3", "5", *(str(6 + k) for k in range(extras - 1))] if decoder else []
    predicted = [f"res{m}_relu_inter256" for m in [f"combined_{k}_EltwisePROD" for k in numbers] or maps[:-1]]
    predicted.append(f"res{maps[-1]}_relu_inter256")
    neck = "neck.1" if decoder else "neck"
    table = {"conv1": "body.resnet.conv1"}
    for level, source in enumerate(predicted):
        table |= {f"{source}_{theirs}": f"{neck}.{level}.0.{ours}" for theirs, ours in _PARTS.items()}
    for level, number in enumerate(numbers):
        ours = f"neck.0.levels.{level}"
        table |= {f"deconv_{number}": f"{ours}.up", f"deconv_{number}_pre": f"{ours}.above.0"}
        table |= {f"{maps[level]}_relu_pre1": f"{ours}.across.0", f"{maps[level]}_relu_pre2": f"{ours}.across.3"}
    return partial(_rename, table, predicted)


def _rename(table: Mapping[str, str], predicted: Sequence[str], name: str) -> str:
    """Return what our model calls an official tensor; another name comes back as it is."""
    layer, _, tensor = name.rpartition(".")
    convolution = normalised(layer) or layer
    ours = table.get(convolution) or _in_body(convolution)
    if found := head(layer, predicted):
        ours = f"heads.{found[0]}.{found[1]}"
    if ours is None:
        return name
    return f"{ours if layer == convolution else _norm_behind(ours)}.{tensor}"


def _in_body(layer: str) -> str | None:
    if stage := _STAGE.fullmatch(layer):
        block = {"a": 0, "b": 1, "c": 2}.get(stage[2]) if len(stage[2]) == 1 else int(stage[2][1:])
        return f"body.resnet.layer{int(stage[1]) - 1}.{block}.{_PARTS.get(stage[3], stage[3])}"
    if extra := _EXTRA.fullmatch(layer):
        return f"body.extras.{int(extra[1]) - 6}.{_PARTS.get(extra[2], extra[2])}"
    return None


def _norm_behind(convolution: str) -> str:
    """Return the name of the norm behind one of our convolutions: bn2 of conv2, the next number of a number."""
    parent, _, last = convolution.rpartition(".")
    return f"{parent}.{int(last) + 1}" if last.isdigit() else f"{parent}.{last.replace('conv', 'bn')}"


RENAMES: dict[str, Callable[[str], str]] = {
    "ssd321_resnet101": _renaming(extras=4, decoder=False),
    "dssd321": _renaming(extras=4, decoder=True),
    "dssd513_coco": _renaming(extras=5, decoder=True),
}
"""Name of the checkpoint -> official name of a tensor to ours."""
