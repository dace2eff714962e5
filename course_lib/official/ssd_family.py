"""SSD and FSSD with VGG-16, as five public codes name their tensors.

ssd300: github.com/amdegroot/ssd.pytorch, a raw state dict. ssd300_lufficc: github.com/lufficc/SSD, in {"model": ...}.
caffe_ssd300: the authors', github.com/weiliu89/caffe (branch ssd), fssd300 and fssd512: github.com/lzx1413/CAFFE_SSD
(branch fssd), <layer>.weight and so on for the blobs of a layer. fssd300_pytorch_port, fssd512_pytorch_port: that
author's github.com/lzx1413/PytorchSSD, raw. All are trained on the 20 classes of VOC. Their inputs are in [0, 255] less
the mean: blue first in Caffe and in PytorchSSD, red first in the other two.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import nn

from course_lib.detection.families.ssd import fssd, ssd
from course_lib.official import caffe

MODELS: dict[str, Callable[[], nn.Module]] = {
    "ssd300": ssd.ssd300,
    "ssd300_lufficc": ssd.ssd300,
    "caffe_ssd300": ssd.caffe_ssd300,
    "fssd300": fssd.fssd300,
    "fssd512": fssd.fssd512,
    "fssd300_pytorch_port": fssd.fssd300_pytorch_port,
    "fssd512_pytorch_port": fssd.fssd512_pytorch_port,
}
"""Name of the checkpoint -> our model with its configuration."""

CAFFE = ("caffe_ssd300", "fssd300", "fssd512")
"""Those of Caffe, whose normalisations keep sums: `caffe.fold` before the renaming."""

LEFT_AS_INITIALISED = caffe.LEFT_AS_INITIALISED
"""Regular expressions of our names that no Caffe file has, nor one of PyTorch before 0.4.1."""

_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))  # numbers of VGG's convolutions
_VGG = {f"conv{stage}_{k}": n for stage, numbers in enumerate(_STAGES, 1) for k, n in enumerate(numbers, 1)}
_SSD = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
_PYRAMID = tuple(f"fea_concat_bn_ds_{2**k}" for k in range(7))
_LAYERS = {
    "conv4_3_norm": "neck.norms.0",
    "conv4_3_reduce": "neck.reduce.0.0",
    "fc7_reduce": "neck.reduce.1.0",
    "fea_concat_bn": "neck.norm",
    "fc6": "body.fc6",
    "fc7": "body.fc7",
}
_SSD_PYTORCH = {"vgg.": "vgg.", "extras.": "extras.", "L2Norm.": "l2_norm.", "loc.": "loc.", "conf.": "conf."}
_LUFFICC = {
    "backbone.": "",
    "box_head.predictor.reg_headers.": "loc.",
    "box_head.predictor.cls_headers.": "conf.",
}
_PORT = {"base.": "vgg.", "extras.": "extras.", "fea_bn.": "fea_bn.", "loc.": "loc.", "conf.": "conf."} | {
    "ft_module.": "ft_module.",
    "pyramid_ext.": "pyramid_ext.",
}
_INNER = {"l2_norm": "neck.norms.0", "fea_bn": "neck.norm", "vgg.31": "body.fc6", "vgg.33": "body.fc7"}
_LISTS = {"vgg": "body.vgg.features", "loc": "heads.offsets", "conf": "heads.logits"}


def rename(name: str, prefixes: Mapping[str, str]) -> str:
    """Return what our `SSD` calls a tensor of one of the PyTorch codes; another name comes back as it is.

    prefixes: how the names of that code begin -> how lufficc's backbone or ssd.pytorch has it.
    """
    theirs = next((ours + name.removeprefix(start) for start, ours in prefixes.items() if name.startswith(start)), "")
    module, _, last = theirs.rpartition(".")
    if module in _INNER:
        return f"{_INNER[module]}.{last}"
    if found := re.fullmatch(r"(ft_module|pyramid_ext)\.(\d+)\.conv", module):
        return f"neck.{'reduce' if found[1] == 'ft_module' else 'pyramid'}.{found[2]}.0.{last}"
    if found := re.fullmatch(r"extras\.(\d+)", module):
        return _extra(int(found[1]), last)
    if found := re.fullmatch(r"(vgg|loc|conf)\.(\d+)", module):
        return f"{_LISTS[found[1]]}.{found[2]}.{last}"
    return name


def rename_caffe(name: str, sources: Sequence[str]) -> str:
    """Return what our `SSD` calls a tensor of one of the Caffe codes, whose heads read the layers `sources`."""
    layer, _, last = name.rpartition(".")
    if layer in _LAYERS:
        return f"{_LAYERS[layer]}.{last}"
    if found := caffe.head(layer, sources):
        return f"heads.{found[0]}.{found[1]}.{last}"
    if layer in _PYRAMID:
        return f"neck.pyramid.{_PYRAMID.index(layer)}.0.{last}"
    if layer in _VGG:
        return f"body.vgg.features.{_VGG[layer]}.{last}"
    if found_extra := re.fullmatch(r"conv([6-9])_([12])", layer):
        return _extra(2 * int(found_extra[1]) + int(found_extra[2]) - 13, last)
    return name


def _extra(number: int, last: str) -> str:
    """Return our name of the n-th convolution behind fc7."""
    return f"body.extras.{number // 2}.{'wide' if number % 2 else 'narrow'}.{last}"


RENAMES: dict[str, Callable[[str], str]] = {
    "ssd300": partial(rename, prefixes=_SSD_PYTORCH),
    "ssd300_lufficc": partial(rename, prefixes=_LUFFICC),
    "caffe_ssd300": partial(rename_caffe, sources=_SSD),
    "fssd300": partial(rename_caffe, sources=_PYRAMID),
    "fssd512": partial(rename_caffe, sources=_PYRAMID),
    "fssd300_pytorch_port": partial(rename, prefixes=_PORT),
    "fssd512_pytorch_port": partial(rename, prefixes=_PORT),
}
"""Name of the checkpoint -> official name of a tensor to ours."""
