"""Detectors that answer with a set, in small: the very classes of paper scale with fewer channels (chapters 19 to 24).

One argument says which member of the line, the others how large its parts are, so that a file of weights can say them.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from course_lib.blocks.positions import sine
from course_lib.blocks.vit import ViT
from course_lib.detection.families.detr.bodies import OneMap, SeveralMaps
from course_lib.detection.families.detr.deformable import DeformableDETR
from course_lib.detection.families.detr.detr import DETR
from course_lib.detection.families.ssd.tiny import STRIDES, PlainBody
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.vidt import ViDT
from course_lib.detection.families.yolos.detr_vit import detr_vit
from course_lib.detection.families.yolos.yolos import YOLOS
from course_lib.detection.prediction import PLAIN, Normalisation
from course_lib.upsampling.grids import check_choice, check_length

Member = Literal["detr", "deformable", "refine", "two_stage", "detr_vit", "yolos", "vidt", "vidt_no_neck"]
"""Who of the line; "deformable" without and "refine" with refinement of boxes, "two_stage" with proposals besides."""

GROUPS = 8
"""Groups of the norms behind projections: `width` is a multiple of it."""
APART = 0.7
"""Standard deviation of [DET] tokens at the beginning.

The authors of YOLOS and ViDT draw them with 0.02, beside which whatever all tokens read alike is large.
"""


class TinySetDetector(nn.Module):
    """A member of DETR's line for small pictures, with a few hundred thousand parameters.

    member: see `Member`. names: of the classes, label 0 first. picture: (height, width) it is trained on; others run
    too. queries: how many objects can be found. width: of what stands behind the body, with heads, feed (hidden
    channels of feed-forward layers), encoder and decoder (layers), points (of deformable attention), as far as a member
    has them.

    widths: of the `PlainBody` of the first four, two convolutions at stride 2 and then the maps. "detr" reads the map
    with stride `cell`, and deeper ones are not made; the other three read the `levels` deepest.

    The others have a transformer for a body: body_width, depths, body_heads, patch, and in ViDT window, as of `ViT` and
    `RAMBody`; a ViT has one depth and one number of heads, ViDT one for each stage (the second of them and later ones
    give maps, and one more follows). Of ViDT the last stage's tokens read the patches. temperature: of all sines;
    the learned positions of a ViT begin with them.

    network: the detector at work. Each argument is kept under its name. Raises TypeError or ValueError for arguments
    out of range.
    """

    def __init__(
        self,
        member: Member = "detr",
        names: Sequence[str] = ("disc", "square", "triangle"),
        picture: tuple[int, int] = (64, 64),
        queries: int = 12,
        width: int = 64,
        heads: int = 4,
        feed: int = 128,
        encoder: int = 2,
        decoder: int = 3,
        points: int = 4,
        widths: Sequence[int] = (16, 24, 32, 48, 64, 64),
        cell: int = 16,
        levels: int = 3,
        body_width: int = 64,
        depths: Sequence[int] = (4,),
        body_heads: Sequence[int] = (4,),
        patch: int = 8,
        window: int = 4,
        temperature: float = 10000.0,
    ) -> None:
        """Make the member's parts with random weights."""
        super().__init__()
        check_choice("member", member, Member)
        check_names(names)
        self.member, self.names, self.queries = member, tuple(names), check_length("queries", queries)
        height, wide = check_several("picture", picture, 2)
        self.picture = height, wide
        self.width, self.heads, self.feed = check_length("width", width), heads, check_length("feed", feed)
        self.encoder, self.decoder = check_length("encoder", encoder, 0), check_length("decoder", decoder)
        self.points = check_length("points", points)
        self.widths = check_several("widths", widths, 2 + len(STRIDES))
        self.cell, self.levels = _one_of("cell", cell, STRIDES), check_length("levels", levels)
        self.body_width, self.patch, self.window, self.temperature = body_width, patch, window, temperature
        self.depths, self.body_heads = check_several("depths", depths), check_several("body_heads", body_heads)
        if width % GROUPS:
            raise ValueError(f"width must be a multiple of {GROUPS}, got {width}")
        made: Any = self._network()
        self.network: Any = made
        self.classes: int = made.classes
        self.background: bool = made.background
        self.stride: int = made.stride
        self.normalisation: Normalisation = made.normalisation

    def forward(self, images: Tensor, mask: Tensor | None = None, **asked: Any) -> dict[str, Tensor]:
        """Return what the network says of images (N, 3, H, W) and the `mask` (N, H, W) of their padding.

        asked: what else a member takes, such as ViDT's `tokens`.
        """
        said: dict[str, Tensor] = self.network(images, mask, **asked)
        return said

    def _network(self) -> nn.Module:
        count = len(self.names)
        shown: dict[str, Any] = {"picture": self.picture, "normalisation": PLAIN}
        softmax: dict[str, Any] = {"classes": count + 1, "queries": self.queries} | shown
        match self.member:
            case "detr":
                return DETR(self._one_map(), **self._layers(), **softmax)
            case "detr_vit":
                body = ViT(**self._vit(), picture=self.picture, classes=None, pooling="mean")
                begin_with_sines(body, self.temperature)
                return detr_vit(body, **self._layers(), **softmax)
            case "yolos":
                yolos = YOLOS(**self._vit(), learned=self.picture, **softmax)
                begin_with_sines(yolos, self.temperature)
                nn.init.normal_(yolos.det_tokens, std=APART)
                return yolos
            case "vidt" | "vidt_no_neck":
                return self._vidt(self.member == "vidt", shown)
        return DeformableDETR(
            self._maps(),
            self.levels,
            self.member != "deformable",
            self.member == "two_stage",
            points=self.points,
            groups=GROUPS,
            classes=count,
            queries=self.queries,
            **self._layers(),
            **shown,
        )

    def _layers(self) -> dict[str, Any]:
        """Return a transformer's arguments; the norm stands before each part: what few steps suffice for."""
        own = {"width": self.width, "heads": self.heads, "hidden": self.feed}
        depths: dict[str, Any] = {"encoder": self.encoder, "decoder": self.decoder}
        return own | depths | {"pre_norm": True, "dropout": 0.0, "temperature": self.temperature}

    def _one_map(self) -> OneMap:
        maps = 1 + STRIDES.index(self.cell)
        return OneMap(PlainBody(self.widths[: 2 + maps]), self.cell)

    def _maps(self) -> SeveralMaps:
        read = min(self.levels, len(STRIDES))
        return SeveralMaps(PlainBody(self.widths), STRIDES[-read:], range(len(STRIDES) - read, len(STRIDES)))

    def _vit(self) -> dict[str, Any]:
        if len(self.depths) != 1 or len(self.body_heads) != 1:
            raise ValueError(f"depths and body_heads must be one number each, got {self.depths}, {self.body_heads}")
        own = {"depth": self.depths[0], "heads": self.body_heads[0], "patch": self.patch}
        return {"width": self.body_width} | own

    def _vidt(self, neck: bool, shown: dict[str, Any]) -> ViDT:
        body = RAMBody(
            self.body_width,
            self.depths,
            self.body_heads,
            self.window,
            self.patch,
            dets=self.queries,
            positions=self.width,
            cross_stages=(len(self.depths) - 1,),
            extra=self.width if neck else None,
            temperature=self.temperature,
        )
        nn.init.normal_(body.det_tokens, std=APART)
        own: dict[str, Any] = {"layers": self.decoder, "heads": self.heads, "points": self.points, "hidden": self.feed}
        classes = len(self.names) + (not neck)
        return ViDT(body, neck, self.width, dropout=0.0, classes=classes, groups=GROUPS, **own, **shown)


@torch.no_grad()
def begin_with_sines(network: ViT | YOLOS, temperature: float) -> None:
    """Let the learned positions of the patches begin as sines of their places instead of small random numbers.

    What few pictures do not teach: a random table hardly says where a patch is. Raises ValueError for a width that is
    no multiple of 4.
    """
    if network.width % 4:
        raise ValueError(f"body_width must be a multiple of 4, as sines of y and x have it, got {network.width}")
    (h, w), before = network.learned, network.extras if isinstance(network, ViT) else 1
    table = sine(torch.zeros(1, h, w, dtype=torch.bool), network.width, temperature).flatten(2).mT
    network.positions[:, before : before + h * w] = table


def check_names(names: Any) -> None:
    """Raise TypeError or ValueError unless these are different names of classes, at least one."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"names must be a tuple of names of classes, got {names!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"names must be different names, at least one; got {names!r}")


def check_several(name: str, values: Any, count: int | None = None) -> tuple[int, ...]:
    """Return whole numbers >= 1 as a tuple; raise TypeError or ValueError for others, and for another `count`."""
    if not isinstance(values, list | tuple) or not values or (count and len(values) != count):
        raise ValueError(f"{name} must be {count or 'some'} numbers, got {values!r}")
    return tuple(check_length(name, value) for value in values)


def _one_of(name: str, value: Any, known: Sequence[int]) -> int:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
    return int(value)
