"""SAN. The authors' code, github.com/daitao/SAN, TrainCode/model/san.py; raw state dicts, pictures in [0, 255].

It loads without strictness, so that a misspelt tensor goes unseen. Its mean shifts are parameters that were trained.
26 tensors of 38,044 numbers are in its files and in no computation: a last convolution, a gamma for each group beside
the one that all share, and a second-order attention inside the non-local block.
"""

import re
from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.super_resolution.san import SAN

MODELS: dict[str, Callable[[], nn.Module]] = {f"san_x{scale}": partial(SAN, scale) for scale in (2, 3, 4)}
"""Name of the checkpoint -> our model with its configuration."""

NEVER_USED = (
    r"^conv_last\.(weight|bias)$",
    r"^RG\.([0-9]|1[0-9])\.gamma$",
    r"^non_local\.soca\.conv_du\.[02]\.(weight|bias)$",
)
"""Official names of tensors that the official code carries and never reads."""

_BLOCK = re.compile(r"RG\.(\d+)\.rcab\.(\d+)\.conv_first\.([02])\.(\w+)")
_ATTENTION = re.compile(r"RG\.(\d+)\.soca\.conv_du\.([02])\.(\w+)")
_LAST = re.compile(r"RG\.(\d+)\.conv_last\.(\w+)")
_STAGE = re.compile(r"tail\.0\.([02])\.(\w+)")
_OUTER = {
    "head.0.": "head.",
    "tail.1.": "tail.last.",
    "non_local.non_local.g.0.": "non_local.g.",
    "non_local.non_local.phi.0.": "non_local.phi.",
    "non_local.non_local.theta.": "non_local.theta.",
    "non_local.non_local.W.": "non_local.merge.",
}


def rename(name: str) -> str:
    """Return what `SAN` calls an official tensor; another name comes back as it is."""
    if block := _BLOCK.fullmatch(name):
        return f"body.{block[1]}.body.{block[2]}.conv{1 + int(block[3]) // 2}.{block[4]}"
    if attention := _ATTENTION.fullmatch(name):
        return f"body.{attention[1]}.attention.{'up' if attention[2] == '2' else 'down'}.{attention[3]}"
    if last := _LAST.fullmatch(name):
        return f"body.{last[1]}.last.{last[2]}"
    if stage := _STAGE.fullmatch(name):
        return f"tail.stages.{int(stage[1]) // 2}.{stage[2]}"  # between the convolutions there are shuffles
    for theirs, ours in _OUTER.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


RENAMES: dict[str, Callable[[str], str]] = dict.fromkeys(MODELS, rename)
"""Name of the checkpoint -> official name of a tensor to ours."""
