"""Tensors of Caffe's detectors: batch norms in two layers, heads named by the map that they read.

Caffe's BatchNorm layer keeps sums: running_mean and running_var are to be divided by scale_factor. It has no weights;
a Scale layer behind it may have them (weight, bias). Names are <layer>.<tensor>, the tensors of a layer's blobs being
weight, bias of a convolution or Scale layer, and running_mean, running_var, scale_factor of a BatchNorm layer.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from course_lib.official.fitting import Misfit

LEFT_AS_INITIALISED = (r"\.num_batches_tracked$",)
"""Our names of tensors that Caffe's files have not: how many batches a norm has seen."""

_FACTOR = ".scale_factor"
_STATISTICS = (".running_mean", ".running_var")
_HEAD = re.compile(r"(.+)_mbox_(loc|conf)(?:new)?")
_HEADS = {"loc": "offsets", "conf": "logits"}


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with running_mean and running_var divided by their layer's scale_factor, which goes.

    A factor of 0 gives statistics of 0, as in Caffe. Other tensors stay as they are; all may be on the meta device.
    Raises Misfit for statistics without a scale_factor of shape (1,), which would be wrong by an unknown factor.
    """
    kept = dict.fromkeys(_module(name) for name in state if name.endswith(_STATISTICS))
    wrong = [layer + _FACTOR for layer in kept if getattr(state.get(layer + _FACTOR), "shape", None) != (1,)]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise Misfit(f"these are not Caffe's weights: missing or not (1,): {', '.join(wrong[:4])}{more}")
    folded = {}
    for name, tensor in state.items():
        if name.endswith(_STATISTICS):
            factor = state[_module(name) + _FACTOR]
            folded[name] = (
                tensor if tensor.is_meta else torch.where(factor == 0, torch.zeros_like(tensor), tensor / factor)
            )
        elif not (name.endswith(_FACTOR) and _module(name) + _STATISTICS[0] in state):
            folded[name] = tensor
    return folded


def normalised(layer: str) -> str | None:
    """Return the convolution that a BatchNorm or Scale layer stands behind; None where the layer is neither.

    The three ways of the published networks: bn_conv1 and scale_conv1 of conv1, bn2a_branch1 and scale2a_branch1 of
    res2a_branch1, deconv_8_pre_bn and deconv_8_pre_scale of deconv_8_pre.
    """
    if found := re.fullmatch(r"(.+)_(bn|scale)", layer):
        return found[1]
    if found := re.fullmatch(r"(?:bn|scale)_(.+)", layer):
        return found[1]
    if found := re.fullmatch(r"(?:bn|scale)(.+)", layer):
        return f"res{found[1]}"
    return None


def head(layer: str, sources: Sequence[str]) -> tuple[str, int] | None:
    """Return ("offsets" or "logits", level) of the head <source>_mbox_loc or <source>_mbox_conf, None for other layers.

    sources: the layers whose maps the heads read, finest first. DSSD calls its heads <source>_mbox_locnew.
    """
    found = _HEAD.fullmatch(layer)
    if not found or found[1] not in sources:
        return None
    return _HEADS[found[2]], list(sources).index(found[1])


def _module(name: str) -> str:
    return name.rpartition(".")[0]
