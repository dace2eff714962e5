"""LIIF. The authors' code, github.com/yinboc/liif; files {"model": {"name", "args", "sd"}, "optimizer", "epoch"}.

Its encoder for EDSR keeps the tensors of two mean shifts that are never applied. Pictures are in [-1, 1] there, as
`LIIF` makes them from [0, 1].
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.official import edsr, rdn
from course_lib.super_resolution.liif import LIIF

_ENCODERS = {"liif_edsr": ("edsr-baseline", edsr.rename_encoder), "liif_rdn": ("rdn", rdn.rename_encoder)}
MODELS: dict[str, Callable[[], nn.Module]] = {name: partial(LIIF, encoder) for name, (encoder, _) in _ENCODERS.items()}
"""Name of the checkpoint -> our model with its configuration."""
NEVER_USED = (r"^encoder\.(sub|add)_mean\.",)
"""Official names that the code carries but never reads."""


def rename(name: str, rename_encoder: Callable[[str], str]) -> str:
    """Return what `LIIF` calls an official tensor; another name comes back as it is."""
    if name.startswith("imnet.layers."):
        return f"mlp.{name.removeprefix('imnet.layers.')}"
    inner = name.removeprefix("encoder.")
    ours = rename_encoder(inner)
    return name if inner == name or ours == inner else f"trunk.{ours}"


RENAMES: dict[str, Callable[[str], str]] = {
    name: partial(rename, rename_encoder=of_encoder) for name, (_, of_encoder) in _ENCODERS.items()
}
"""Name of the checkpoint -> official name of a tensor to ours."""
