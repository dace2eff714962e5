"""ViDT: a detector of attention alone, with a fast body and a fast neck (chapter 23).

Song et al., "ViDT: An Efficient and Effective Fully Transformer-based Object Detector", 2022. Swin's body is made to
detect by itself (`body`, `ram`), and a decoder without an encoder refines what it found (`neck`). Without the neck the
body's tokens are read by two heads, as YOLOS does.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from course_lib.blocks.mlp import MLP
from course_lib.detection.checks import check_shown
from course_lib.detection.families.detr.deformable_heads import GROUPS, Projection, class_head
from course_lib.detection.families.detr.detr import check_images
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.neck import EncoderFreeNeck
from course_lib.detection.prediction import IMAGENET, Normalisation
from course_lib.upsampling.grids import check_length

SIZES: Mapping[str, Mapping[str, Any]] = {
    "nano": {"width": 48, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
    "tiny": {"width": 96, "depths": (2, 2, 6, 2), "heads": (3, 6, 12, 24)},
    "small": {"width": 96, "depths": (2, 2, 18, 2), "heads": (3, 6, 12, 24)},
    "base": {"width": 128, "depths": (2, 2, 18, 2), "heads": (4, 8, 16, 32)},
}
"""Bodies of the paper, as arguments of `RAMBody`."""


class ViDT(nn.Module):
    """Pictures (N, 3, H, W), normalised -> the class and the box that each [DET] token answers with.

    body: its [DET] tokens are the queries; it makes one more map (`extra`) where there is a neck. neck: whether the
    decoder stands behind it. width: of the projections and all behind them. layers, heads, points, hidden, dropout: of
    the neck. classes: columns of logits; None: 91 with neck, each class asked for by itself, and 92 without, the last
    of which is "no object". picture: (height, width) it is trained at, or None: sides are then `shorter` to at most
    `longer`. groups: of the projections' norms. normalisation: makes the input of pictures in [0, 1].

    Pictures may have any size; what is missing to whole patches, windows and pairs is zeros. Without padding a
    picture's results do not depend on the others of its batch. With padding they do: windows read it, and the norms of
    the neck's projections count it, as in the official code; attention of [DET] tokens and of the neck does not.
    Raises TypeError or ValueError for arguments that are none.
    """

    def __init__(
        self,
        body: RAMBody,
        neck: bool = True,
        width: int = 256,
        layers: int = 6,
        heads: int = 8,
        points: int = 4,
        hidden: int = 1024,
        dropout: float = 0.1,
        classes: int | None = None,
        picture: tuple[int, int] | None = None,
        shorter: int = 800,
        longer: int = 1333,
        groups: int = GROUPS,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        """Make neck and heads, drawn as the official code draws them."""
        super().__init__()
        self.background = not neck
        self.classes = check_length(
            "classes", (91 if neck else 92) if classes is None else classes, 1 + self.background
        )
        self.picture, self.shorter, self.longer = check_shown(picture, shorter, longer)
        self.normalisation = normalisation
        self.body, self.stride = body, body.stride
        self.queries, positions = body.det_tokens.shape[1], body.det_positions.shape[2]
        if neck:
            self.neck = EncoderFreeNeck(
                body.channels, body.width, positions, width, layers, heads, points, hidden, dropout, groups
            )
            self.class_heads = nn.ModuleList(class_head(width, self.classes) for _ in range(layers + 1))
        else:
            if body.extra:
                raise ValueError(f"body must have extra=None where there is no neck, got {body.extra}")
            # nobody reads the patches of the last block, so that their biases alone would have no gradient
            cast(Any, body.stages[-1]).blocks[-1].windows.table.requires_grad_(False)
            self.project = Projection(body.width, width, groups)
            self.class_head, self.box_head = MLP(width, width, self.classes, 3), MLP(width, width, 4, 3)

    def forward(self, images: Tensor, mask: Tensor | None = None, tokens: bool = False) -> dict[str, Any]:
        """Return "logits" (N, Q, classes) and "boxes" (N, Q, 4), cxcywh in [0, 1] of the images; earlier ones too.

        images: (N, 3, H, W) as `normalisation` returns them, padded with zeros. mask: bool (N, H, W), True for padding;
        None: there is none. With neck "aux_logits" (L, N, Q, classes) and "aux_boxes" are those of the body's own
        tokens and of all but the last of L layers. tokens: add what distillation compares: "patch_tokens", the
        projected maps (N, width, h, w); "det_tokens" (N, Q, width), the projected tokens of the body; "neck_tokens"
        (L + 1, N, Q, width), the same and those behind every layer. Raises TypeError or ValueError for other images or
        masks, and where tokens are asked of a network without neck.
        """
        check_images(images, mask)
        if tokens and self.background:
            raise ValueError("tokens must be False for a ViDT without neck, which projects no patches, got True")
        body = self.body(images, mask)
        if self.background:
            queries = self.project.tokens(body.dets)
            # the images' dtype: under autocast half precision would round boxes to a pixel
            logits, boxes = self.class_head(queries), self.box_head(queries).to(images.dtype).sigmoid()
            return {"logits": logits.to(images.dtype), "boxes": boxes}
        read = self.neck(body, mask)
        every = [head(state) for head, state in zip(self.class_heads, read.states, strict=True)]
        logits, boxes = torch.stack(every).to(images.dtype), read.boxes.to(images.dtype)
        outputs = {"logits": logits[-1], "boxes": boxes[-1], "aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}
        if tokens:
            outputs |= {"patch_tokens": read.maps, "det_tokens": read.states[0], "neck_tokens": read.states}
        return outputs


def _official(size: str, neck: bool) -> ViDT:
    return ViDT(RAMBody(**SIZES[size], extra=256 if neck else None), neck)


def vidt_nano() -> ViDT:
    """Return ViDT on the nano body for COCO's ids 0 to 90, with random weights: 40.4 AP as released."""
    return _official("nano", neck=True)


def vidt_tiny() -> ViDT:
    """Return ViDT on Swin-T's body: 44.9 AP as released."""
    return _official("tiny", neck=True)


def vidt_small() -> ViDT:
    """Return ViDT on Swin-S's body: 47.4 AP as released."""
    return _official("small", neck=True)


def vidt_base() -> ViDT:
    """Return ViDT on Swin-B's body: 49.4 AP as released."""
    return _official("base", neck=True)


def vidt_without_neck_nano() -> ViDT:
    """Return the nano body with two heads and no neck: 28.7 AP as published."""
    return _official("nano", neck=False)


def vidt_without_neck_tiny() -> ViDT:
    """Return Swin-T's body with two heads and no neck: 36.3 AP as published."""
    return _official("tiny", neck=False)


def vidt_without_neck_small() -> ViDT:
    """Return Swin-S's body with two heads and no neck: 41.6 AP as published."""
    return _official("small", neck=False)


def vidt_without_neck_base() -> ViDT:
    """Return Swin-B's body with two heads and no neck."""
    return _official("base", neck=False)
