"""DETR: queries ask a picture for its objects, each for one or none (chapter 19).

A body makes one map; an encoder lets its cells read each other; a decoder turns queries, which are learned, into
answers; two heads read a class and a box from each. No anchors, no suppression of doubles: which query stands for which
object is settled in training by a matching (course_lib.detection.assignment).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.checks import check_picture
from course_lib.blocks.mlp import MLP
from course_lib.blocks.positions import LearnedPositions, check_padding, sine
from course_lib.blocks.resnet import RESNET50, RESNET101
from course_lib.blocks.transformer import Activation, Decoder, Encoder
from course_lib.detection.checks import check_shown
from course_lib.detection.families.detr.bodies import resnet_body
from course_lib.detection.prediction import IMAGENET, Normalisation
from course_lib.upsampling.grids import check_choice, check_length

Positions = Literal["sine", "learned"]


class DETR(nn.Module):
    """Pictures (N, 3, H, W), normalised -> the class and the box that each query answers with.

    body: module (N, 3, H, W) -> map (N, channels, h, w) that says its `channels` and `stride`, such as `resnet_body()`
    or `OneMap`. width, heads, hidden, dropout, pre_norm, activation: of the transformer. encoder, decoder: its layers
    (no encoder: 0). queries: how many objects can be found. classes: columns of logits; the last is "no object".
    positions: of the map's cells, from sines (`temperature`: of `sine`) or learned (for maps up to 50 x 50). picture:
    (height, width) that it is trained at, or None: sides are then `shorter` to at most `longer`. normalisation: makes
    the input of pictures in [0, 1].

    Without padding a picture's results do not depend on the others of its batch. Padded to their size it gives other
    results than alone, as officially: attention does not read the padding and positions do not count it, but the body's
    convolutions see it from the cells at the border.

    Raises TypeError or ValueError for arguments that are none. Carion et al., "End-to-End Object Detection with
    Transformers", 2020.
    """

    background = True
    """The last column of logits is no class: probabilities are a softmax."""

    def __init__(
        self,
        body: nn.Module,
        width: int = 256,
        heads: int = 8,
        hidden: int = 2048,
        encoder: int = 6,
        decoder: int = 6,
        dropout: float = 0.1,
        pre_norm: bool = False,
        activation: Activation = "relu",
        queries: int = 100,
        classes: int = 92,
        positions: Positions = "sine",
        picture: tuple[int, int] | None = None,
        shorter: int = 800,
        longer: int = 1333,
        normalisation: Normalisation = IMAGENET,
        temperature: float = 10000.0,
    ) -> None:
        """Make the parts; the transformer's matrices are drawn after Glorot, as officially."""
        super().__init__()
        check_choice("positions", positions, Positions)
        channels, stride = (_told(body, name) for name in ("channels", "stride"))
        self.body, self.stride = body, stride
        self.queries, self.classes = check_length("queries", queries), check_length("classes", classes, 2)
        self.picture, self.shorter, self.longer = check_shown(picture, shorter, longer)
        self.normalisation = normalisation
        if check_length("width", width, 4) % 4:
            raise ValueError(f"width must be a multiple of 4, a sine and a cosine of x and of y, got {width}")
        self.project = nn.Conv2d(channels, width, 1)
        sines = partial(sine, width=width, temperature=temperature)
        self.positions = LearnedPositions(width) if positions == "learned" else sines
        self.encoder = Encoder(encoder, width, heads, hidden, dropout, pre_norm, activation)
        self.decoder = Decoder(decoder, width, heads, hidden, dropout, pre_norm, activation)
        self.query_positions = nn.Parameter(torch.randn(queries, width))
        self.class_head, self.box_head = nn.Linear(width, classes), MLP(width, width, 4, 3)
        for part in (self.encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return "logits" (N, Q, classes) and "boxes" (N, Q, 4), cxcywh in [0, 1], and those of earlier layers.

        images: (N, 3, H, W) as `normalisation` returns them, padded with zeros. mask: bool (N, H, W), True for padding;
        None: there is none. "aux_logits" (L - 1, N, Q, classes) and "aux_boxes" are those of the layers before the
        last, the first layer first; they are missing where there is one layer. Boxes are in parts of each picture
        without its padding. Raises TypeError or ValueError for other images or masks.
        """
        _, _, results, _ = self._run(images, mask, weights=False)
        return self._read(results, images.dtype)

    def inspect(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        """Return the outputs and what led to them; arguments as of `forward`.

        "size": (h, w) of the map; "padding": bool (N, h, w) or None; "memory": (N, h * w, width), the encoder's cells;
        "results": (L, N, Q, width), the decoder's queries; "encoder_weights" and "decoder_weights": for each layer who
        reads whom, (N, heads, h * w, h * w) and (N, heads, Q, h * w).
        """
        size, padding, results, kept = self._run(images, mask, weights=True)
        return self._read(results, images.dtype) | {"size": size, "padding": padding, "results": results} | kept

    def _run(
        self, images: Tensor, mask: Tensor | None, weights: bool
    ) -> tuple[tuple[int, int], Tensor | None, Tensor, dict[str, Any]]:
        check_images(images, mask)
        cells = self.project(self.body(images))
        size = (cells.shape[2], cells.shape[3])
        padding = None if mask is None else shrunk(mask, size)
        empty = torch.zeros(1, *size, dtype=torch.bool, device=images.device)
        places = self.positions(empty if padding is None else padding)
        places = _tokens(places.to(images.dtype))
        cells, unread = _tokens(cells), None if padding is None else padding.flatten(1)
        slots = self.query_positions
        start = torch.zeros(len(cells), *slots.shape, dtype=cells.dtype, device=cells.device)
        if not weights:
            memory = self.encoder(cells, places, unread)
            return size, padding, self.decoder(start, memory, slots, places, unread), {}
        memory, first = self.encoder(cells, places, unread, weights=True)
        results, second = self.decoder(start, memory, slots, places, unread, weights=True)
        return size, padding, results, {"memory": memory, "encoder_weights": first, "decoder_weights": second}

    def _read(self, results: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        # the images' dtype: under autocast half precision would round boxes to a pixel
        logits, boxes = self.class_head(results).to(dtype), self.box_head(results).to(dtype).sigmoid()
        outputs = {"logits": logits[-1], "boxes": boxes[-1]}
        if len(results) > 1:
            outputs |= {"aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}
        return outputs


def check_images(images: Tensor, mask: Tensor | None) -> None:
    """Raise TypeError or ValueError unless images are (N, 3, H, W), N >= 1, and a mask bool (N, H, W) of them."""
    check_picture(images, "images", least=1)
    if mask is not None:
        check_padding("mask", mask)
        expected = (images.shape[0], *images.shape[2:])
        if mask.shape != expected:
            raise ValueError(f"mask must be {expected} as the images, got {tuple(mask.shape)}")


def shrunk(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a mask bool (N, H, W) at the size of a map, (N, h, w): cell i is that of pixel floor(i H / h)."""
    return F.interpolate(mask[:, None].float(), size, mode="nearest")[:, 0].bool()


def _tokens(x: Tensor) -> Tensor:
    """Return a map (N, C, h, w) as a sequence, row by row: (N, h * w, C)."""
    return x.flatten(2).mT


def _told(body: nn.Module, name: str) -> int:
    """Return what a body says about its map."""
    told = getattr(body, name, None)
    if isinstance(told, bool) or not isinstance(told, int) or told < 1:
        raise TypeError(f"body must say the {name} of its map, a whole number >= 1, got {told!r}")
    return told


def _official(blocks: Sequence[int], dilated: bool) -> DETR:
    return DETR(resnet_body(blocks, dilated))


def detr_r50() -> DETR:
    """Return DETR on ResNet-50 for COCO's ids 0 to 90, with random weights: 42.0 AP as released."""
    return _official(RESNET50, dilated=False)


def detr_r50_dc5() -> DETR:
    """Return `detr_r50` with the last stage dilated, stride 16: 43.3 AP as released."""
    return _official(RESNET50, dilated=True)


def detr_r101() -> DETR:
    """Return DETR on ResNet-101: 43.5 AP as released."""
    return _official(RESNET101, dilated=False)


def detr_r101_dc5() -> DETR:
    """Return `detr_r101` with the last stage dilated, stride 16: 44.9 AP as released."""
    return _official(RESNET101, dilated=True)
