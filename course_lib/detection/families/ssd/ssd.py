"""SSD: one pass from a picture to class scores and box offsets at every place of several maps (chapter 14).

A member of the family is a body that makes maps, a neck that mixes them, heads that read them, and its anchors.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from course_lib.blocks.checks import check_picture
from course_lib.detection.anchors import SSD300_VOC, SSD512_VOC, Level, anchors
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.l2norm import L2Norm
from course_lib.detection.families.ssd.vgg_body import SSD512_EXTRAS, VGGBody
from course_lib.detection.prediction import CAFFE, Normalisation
from course_lib.upsampling.grids import check_length

Size = tuple[int, int]
Clip = Literal["centre_size"] | bool
SSD_PYTORCH = Normalisation((123, 117, 104), (1, 1, 1), scale=255)
"""As `CAFFE`, but red first: what ssd.pytorch and its descendants train and evaluate with."""


class SSD(nn.Module):
    """Pictures (N, 3, H, W), normalised -> {"logits": (N, P, classes), "offsets": (N, P, 4)}, one row an anchor.

    body: module (N, 3, H, W) -> list of maps; neck: module, list of maps -> list of maps; both say their maps'
    `channels`, a tuple. heads: for the neck's maps. levels: the anchors of each of these maps, in pixels. picture:
    (height, width) that the weights are made for; any other runs too, if it is large enough for the last map.
    normalisation: what turns pictures in [0, 1] into the input. clip: how the official code clips its anchors.

    classes: columns of logits, background (column 0) included. Raises TypeError or ValueError where the parts do not
    fit each other. Liu et al., "SSD: Single Shot MultiBox Detector", 2016, figure 2.
    """

    def __init__(
        self,
        body: nn.Module,
        neck: nn.Module,
        heads: Heads,
        levels: Sequence[Level],
        picture: Size,
        normalisation: Normalisation,
        clip: Clip = False,
    ) -> None:
        """Join the parts."""
        super().__init__()
        self.body, self.neck, self.heads = body, neck, heads
        self.levels = tuple(levels)
        self.picture = _size(picture)
        self.normalisation = normalisation
        self.clip: Clip = clip
        self.classes = heads.classes
        if heads.channels != neck.channels:
            raise ValueError(f"heads must be for the neck's {neck.channels} channels, got {heads.channels}")
        if (wanted := tuple(level.boxes for level in self.levels)) != heads.boxes:
            raise ValueError(f"heads must predict {wanted} boxes as the levels have them, got {heads.boxes}")
        self._shapes = _without_numbers(body), _without_numbers(neck)
        self._sizes: dict[Size, list[Size]] = {}
        self.map_sizes()  # parts that do not fit fail here, and not in a training

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the predictions for all anchors of `self.anchors((H, W))`.

        images: (N, 3, H, W) as `normalisation` returns them. mask: accepted, because other detectors need to know what
        is padding, and ignored: a convolution sees zeros there. Raises TypeError or ValueError for other images.
        """
        check_picture(images, "images")
        self.map_sizes((images.shape[2], images.shape[3]))
        maps = self.neck(self.body(images))
        predictions: dict[str, Tensor] = self.heads(maps)
        return predictions

    def map_sizes(self, picture: Size | None = None) -> list[Size]:
        """Return (height, width) of the maps that the heads read, for a picture of a size; None: the network's own.

        Nothing is computed: the layers run without numbers. Raises ValueError for a picture that is too small.
        """
        size = self.picture if picture is None else _size(picture)
        if size not in self._sizes:
            body, neck = self._shapes
            try:
                with torch.no_grad():
                    maps = neck(body(torch.empty(1, 3, *size, device="meta")))
            except (RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0]
                came = f"{size[0]} x {size[1]}"
                raise ValueError(f"picture must be large enough for all maps, got {came} ({reason})") from error
            if (channels := tuple(x.shape[1] for x in maps)) != self.heads.channels:
                raise ValueError(f"neck must return maps of {self.heads.channels} channels, it returned {channels}")
            self._sizes[size] = [(x.shape[2], x.shape[3]) for x in maps]
        return list(self._sizes[size])

    def anchors(
        self,
        picture: Size | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the anchors (P, 4), cxcywh in parts of a picture of that size; None: the network's own.

        A larger picture has more places, whose boxes have the same sizes in pixels. Where a level's `step` would begin
        its last cell outside a picture of another size (SSD300's 300), the centres are spread evenly instead. Raises as
        `map_sizes` does.
        """
        size = self.picture if picture is None else _size(picture)
        maps = self.map_sizes(size)
        levels = self.levels
        if size != self.picture:
            levels = tuple(_within(level, cells, size) for level, cells in zip(levels, maps, strict=True))
        return anchors(maps, levels, size, clip=self.clip, dtype=dtype, device=device)

    def anchor_levels(self, picture: Size | None = None) -> Tensor:
        """Return on which map each of `self.anchors(picture)` lies, int64 (P,) on the CPU: 0 for the finest.

        With `Detections.anchors` it tells the map that found something. Raises as `map_sizes` does.
        """
        sizes = zip(self.map_sizes(picture), self.levels, strict=True)
        counts = torch.tensor([h * w * level.boxes for (h, w), level in sizes], device="cpu")
        return torch.arange(len(counts), device="cpu").repeat_interleave(counts)


class Plain(nn.Module):
    """SSD's neck, which mixes nothing: the body's maps as they are, some of them behind an `L2Norm`.

    channels: of the maps. scales: where each map's L2Norm starts, None for a map without one. Raises ValueError where
    they differ in number.
    """

    def __init__(self, channels: Sequence[int], scales: Sequence[float | None] | None = None) -> None:
        """Make the normalisations."""
        super().__init__()
        self.channels = tuple(channels)
        starts = [None] * len(self.channels) if scales is None else scales
        if len(starts) != len(self.channels):
            raise ValueError(f"scales must be one for each of {len(self.channels)} maps, got {len(starts)}")
        self.norms = nn.ModuleList(
            nn.Identity() if scale is None else L2Norm(n, scale) for n, scale in zip(self.channels, starts, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the maps, normalised."""
        return [norm(x) for norm, x in zip(self.norms, maps, strict=True)]


def ssd300(
    classes: int = 21,
    levels: Sequence[Level] = SSD300_VOC,
    normalisation: Normalisation = SSD_PYTORCH,
    clip: Clip = "centre_size",
) -> SSD:
    """Return SSD300 as ssd.pytorch has it: VGG-16, six maps from 38 x 38 to 1 x 1, 8732 boxes."""
    body = VGGBody()
    neck = Plain(body.channels, scales=(20.0, *[None] * 5))
    heads = Heads(neck.channels, [level.boxes for level in levels], classes)
    return SSD(body, neck, heads, levels, (300, 300), normalisation, clip)


def caffe_ssd300(classes: int = 21, levels: Sequence[Level] = SSD300_VOC) -> SSD:
    """Return SSD300 as the authors' Caffe code has it: blue first, anchors not clipped."""
    return ssd300(classes, levels, CAFFE, clip=False)


def ssd512(classes: int = 21, levels: Sequence[Level] = SSD512_VOC) -> SSD:
    """Return SSD512 as the authors' Caffe code has it: seven maps from 64 x 64 to 1 x 1, 24,564 boxes."""
    body = VGGBody(SSD512_EXTRAS)
    neck = Plain(body.channels, scales=(20.0, *[None] * 6))
    heads = Heads(neck.channels, [level.boxes for level in levels], classes)
    return SSD(body, neck, heads, levels, (512, 512), CAFFE)


def _size(picture: Size) -> Size:
    if not isinstance(picture, tuple | list | torch.Size) or len(picture) != 2:
        raise TypeError(f"picture must be (height, width), got {picture!r}")
    return check_length("picture", picture[0]), check_length("picture", picture[1])


def _without_numbers(module: nn.Module) -> nn.Module:
    """Return a copy of a part that computes only shapes: its tensors are on the meta device and take no memory."""
    given: dict[int, object] = {id(p): nn.Parameter(_like(p), p.requires_grad) for p in module.parameters()}
    given |= {id(b): _like(b) for b in module.buffers()}
    return copy.deepcopy(module, given).eval()


def _like(tensor: Tensor) -> Tensor:
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty_like(tensor, dtype=kind, device="meta")


def _within(level: Level, cells: Size, picture: Size) -> Level:
    """Return a level for a picture of another size, without its step where that leads outside."""
    step = level.step if isinstance(level.step, tuple | None) else (level.step, level.step)
    if step is None or all((n - 1) * s < side for n, s, side in zip(cells, step, picture, strict=True)):
        return level
    return replace(level, step=None)
