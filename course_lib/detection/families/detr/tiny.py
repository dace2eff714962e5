"""Detectors that answer with a set, in small: the very classes of paper scale with fewer channels (chapters 19 to 24).

One argument says which member of the line, the others how large its parts are, so that a file of weights can say them.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from course_lib.blocks.vit import ViT
from course_lib.detection.families.detr.bodies import OneMap
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.ssd.tiny import STRIDES, PlainBody
from course_lib.detection.families.yolos.detr_vit import detr_vit
from course_lib.detection.families.yolos.yolos import YOLOS
from course_lib.detection.prediction import PLAIN, Normalisation
from course_lib.upsampling.grids import check_choice, check_length

Member = Literal["detr", "detr_vit", "yolos"]
"""Who of the line."""


class TinySetDetector(nn.Module):
    """A member of DETR's line for small pictures, with a few hundred thousand parameters.

    member: see `Member`. names: of the classes, label 0 first. picture: (height, width) it is trained on; others run
    too. width, heads, encoder, decoder: of the transformer; feed: hidden channels of its feed-forward layers. queries:
    how many objects can be found.

    widths: of the `PlainBody` of convolutional members, two convolutions at stride 2 and then the maps; maps that
    nobody reads are not made. cell: stride of the map that "detr" reads.

    body_width, depths, body_heads, patch: of the transformer that is the body of the others; "detr_vit" and "yolos"
    have one stage, so one depth and one number of heads. Of these, "yolos" has no other layers but its heads.

    network: the detector at work. Each argument is kept under its name. Raises TypeError or ValueError for arguments
    out of range.
    """

    def __init__(
        self,
        member: Member = "detr",
        names: Sequence[str] = ("disc", "square", "triangle"),
        picture: tuple[int, int] = (64, 64),
        width: int = 64,
        heads: int = 4,
        feed: int = 128,
        encoder: int = 2,
        decoder: int = 3,
        queries: int = 12,
        widths: Sequence[int] = (16, 24, 32, 48, 64, 64),
        cell: int = 16,
        body_width: int = 64,
        depths: Sequence[int] = (4,),
        body_heads: Sequence[int] = (4,),
        patch: int = 8,
    ) -> None:
        """Make the member's parts with random weights."""
        super().__init__()
        check_choice("member", member, Member)
        check_names(names)
        self.member, self.names, self.picture = member, tuple(names), _pair(picture)
        self.width, self.heads, self.feed = width, heads, feed
        self.encoder, self.decoder, self.queries = encoder, decoder, queries
        self.widths, self.cell = _whole("widths", widths, 2 + len(STRIDES)), check_choice_of("cell", cell, STRIDES)
        self.body_width, self.patch = body_width, patch
        self.depths, self.body_heads = (
            _whole(name, value, _STAGES.get(member, 1))
            for name, value in (("depths", depths), ("body_heads", body_heads))
        )
        made: Any = self._network()
        self.network: Any = made
        self.classes: int = made.classes
        self.background: bool = made.background
        self.stride: int = made.stride
        self.normalisation: Normalisation = made.normalisation

    def forward(self, images: Tensor, mask: Tensor | None = None, **asked: Any) -> dict[str, Tensor]:
        """Return what the network says of images (N, 3, H, W), with `mask` (N, H, W) of padding; asked: of it alone."""
        said: dict[str, Tensor] = self.network(images, mask, **asked)
        return said

    def _network(self) -> nn.Module:
        softmax = {"queries": self.queries, "classes": 1 + len(self.names)} | self._shown()
        match self.member:
            case "yolos":
                return YOLOS(**self._vit(), learned=self.picture, **softmax)
            case "detr_vit":
                body = ViT(**self._vit(), picture=self.picture, classes=None, pooling="mean")
                return detr_vit(body, **self._layers(), **softmax)
        return DETR(self._one_map(), **self._layers(), **softmax)

    def _shown(self) -> dict[str, Any]:
        return {"picture": self.picture, "normalisation": PLAIN}

    def _layers(self) -> dict[str, Any]:
        own = {"width": self.width, "heads": self.heads, "hidden": self.feed}
        return own | {"encoder": self.encoder, "decoder": self.decoder} | _FROM_NOTHING

    def _vit(self) -> dict[str, Any]:
        return {
            "width": self.body_width,
            "depth": self.depths[0],
            "heads": self.body_heads[0],
            "patch": self.patch,
        }

    def _one_map(self) -> OneMap:
        maps = 1 + STRIDES.index(self.cell)
        return OneMap(PlainBody(self.widths[: 2 + maps]), self.cell)


_STAGES: dict[str, int] = {}
_FROM_NOTHING: dict[str, Any] = {"dropout": 0.0, "pre_norm": True}
"""What lets a transformer learn from few steps: the norm before each part, and nothing dropped."""


def check_names(names: Any) -> None:
    """Raise TypeError or ValueError unless these are different names of classes, at least one."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a tuple of names of classes, got {names!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be different names, at least one; got {names!r}")


def check_choice_of(name: str, value: Any, known: Sequence[int]) -> int:
    """Return a number that is one of those known; raise ValueError for another."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
    return int(value)


def _whole(name: str, values: Any, count: int) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise ValueError(f"{name} must be {count} numbers, got {values!r}")
    return tuple(check_length(name, value) for value in values)


def _pair(picture: Any) -> tuple[int, int]:
    height, width = _whole("picture", picture, 2)
    return height, width
