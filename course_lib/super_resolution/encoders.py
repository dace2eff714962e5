"""The encoders by name: what turns a small picture into features for a decoder of any scale."""

from collections.abc import Callable
from functools import partial

from torch import nn

from course_lib.super_resolution.edsr import EDSREncoder
from course_lib.super_resolution.rdn import RDNEncoder

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "edsr-baseline": EDSREncoder,
    "edsr-tiny": partial(EDSREncoder, blocks=8, channels=32),
    "rdn": RDNEncoder,
    "rdn-tiny": partial(RDNEncoder, blocks=4, layers=4, growth=16, channels=32),
}
"""Name -> makes the encoder. "rdn" is configuration B; the tiny ones have about 0.16 million parameters each."""


def make_encoder(name: str) -> nn.Module:
    """Return a new encoder: (B, 3, h, w) -> (B, channels, h, w), with the attributes `channels` and `radius`.

    name: one of `ENCODERS`. Raises ValueError for another.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}; got {name!r}")
    return ENCODERS[name]()
