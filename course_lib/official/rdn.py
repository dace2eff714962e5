"""RDN. The authors' code is Torch7; these are the names of its PyTorch form, github.com/sanghyun-son/EDSR-PyTorch,
src/model/rdn.py; raw state dicts, no mean shift. Pictures are in [0, 255] in both, as `RDN` makes them from [0, 1].
"""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.super_resolution.rdn import RDN

_SCALES = {f"rdn_B_x{scale}": scale for scale in (2, 3, 4)}
MODELS: dict[str, Callable[[], nn.Module]] = {name: partial(RDN, scale) for name, scale in _SCALES.items()}
"""Name of the checkpoint -> our model with its configuration."""

_LAYER = re.compile(r"RDBs\.(\d+)\.convs\.(\d+)\.conv\.0\.(\w+)")
_FUSION = re.compile(r"RDBs\.(\d+)\.LFF\.(\w+)")
_OUTER = {"SFENet1.": "shallow1.", "SFENet2.": "shallow2.", "GFF.0.": "fusion1.", "GFF.1.": "fusion2."}
_STAGE = re.compile(r"UPNet\.([024])\.(\w+)")


def rename_encoder(name: str) -> str:
    """Return what `RDNEncoder` calls an official tensor of the trunk; another name comes back as it is."""
    if layer := _LAYER.fullmatch(name):
        return f"body.{layer[1]}.body.{layer[2]}.{layer[3]}"
    if fusion := _FUSION.fullmatch(name):
        return f"body.{fusion[1]}.fusion.{fusion[2]}"
    for theirs, ours in _OUTER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def rename(name: str, last: int) -> str:
    """Return what `RDN` calls an official tensor; another name comes back as it is.

    last: the index in UPNet of its last convolution, 2 for one stage of enlargement, 4 for two.
    """
    if stage := _STAGE.fullmatch(name):
        index = int(stage[1])  # between the convolutions there are shuffles
        return f"tail.last.{stage[2]}" if index == last else f"tail.stages.{index // 2}.{stage[2]}"
    ours = rename_encoder(name)
    return name if ours == name else f"encoder.{ours}"


RENAMES: dict[str, Callable[[str], str]] = {
    name: partial(rename, last=4 if scale == 4 else 2) for name, scale in _SCALES.items()
}
"""Name of the checkpoint -> official name of a tensor to ours."""
