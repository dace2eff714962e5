"""DSOD. The authors' code, github.com/szq0214/DSOD, DSOD300_pascal.py with model_libs.py; Caffe's tensors.

Layers of the body are numbered in the order in which they are made, convolutions by themselves and norms by themselves;
one convolution has a name, First. Our modules are made in the same order.
"""

import functools
import re
from collections.abc import Callable

import torch
from torch import nn

from course_lib.detection.families.ssd.dsod import DenseBody, dsod300
from course_lib.official import caffe

SOURCES = tuple(f"{name}_norm" for name in ("First", "Second", "Third", "Fourth", "Fifth", "Sixth"))
"""The layers whose maps the heads read, finest first."""

MODELS: dict[str, Callable[[], nn.Module]] = {"dsod300": dsod300}
"""Name of the checkpoint -> what makes our model in its configuration."""


def rename(name: str) -> str:
    """Return what `dsod300()` calls an official tensor; another name comes back as it is."""
    layer, _, tensor = name.rpartition(".")
    numbered = re.sub(r"^Scale(?=\d+$)", "BatchNorm", layer)  # the weights of the norm of that number
    if numbered in _body():
        return f"body.{_body()[numbered]}.{tensor}"
    if layer in SOURCES:
        return f"neck.norms.{SOURCES.index(layer)}.{tensor}"
    convolution = caffe.normalised(layer)
    if head := caffe.head(convolution or layer, SOURCES):
        return f"heads.{head[0]}.{head[1]}.{1 if convolution else 0}.{tensor}"
    return name


@functools.cache
def _body() -> dict[str, str]:
    """Return {official layer: ours} of the body, but for its Scale layers."""
    with torch.device("meta"):
        body = DenseBody()
    found = list(body.named_modules())
    norms = [name for name, module in found if isinstance(module, nn.BatchNorm2d)]
    convolutions = [name for name, module in found if isinstance(module, nn.Conv2d)]
    first = next(name for name in reversed(convolutions) if name.startswith("trunk."))
    convolutions.remove(first)
    layers = {f"BatchNorm{k}": name for k, name in enumerate(norms, 1)}
    return layers | {f"Convolution{k}": name for k, name in enumerate(convolutions, 1)} | {"First": first}


RENAMES: dict[str, Callable[[str], str]] = dict.fromkeys(MODELS, rename)
"""Name of the checkpoint -> official name of a tensor to ours."""
