"""Deformable DETR: DETR on maps of several sizes, each query reading a few points of them (chapter 20).

Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", 2021.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.blocks.positions import sine
from course_lib.blocks.resnet import RESNET50
from course_lib.blocks.transformer import Activation
from course_lib.detection.checks import check_shown
from course_lib.detection.families.detr.bodies import SeveralMaps, resnet_body
from course_lib.detection.families.detr.deformable_heads import (
    GROUPS,
    Projection,
    begin_small,
    box_head,
    class_head,
    draw,
)
from course_lib.detection.families.detr.deformable_transformer import (
    DeformableDecoder,
    DeformableEncoder,
    Pyramid,
    pyramid,
)
from course_lib.detection.families.detr.detr import check_images, shrunk
from course_lib.detection.families.detr.two_stage import Proposals, TwoStage
from course_lib.detection.prediction import IMAGENET, Normalisation
from course_lib.upsampling.grids import check_length


class DeformableDETR(nn.Module):
    """Pictures (N, 3, H, W), normalised -> the classes and the box that each query answers with.

    body: module (N, 3, H, W) -> list of maps, the finest first, that says their `channels` and `strides`, such as
    `SeveralMaps`. levels: maps that are read: the body's, and where that are fewer, more of half the size by 3 x 3
    convolutions, the first on the body's last map. groups: of the GroupNorm behind each map's projection. width, heads,
    hidden, points, dropout, pre_norm, activation: of the transformer. encoder, decoder: its layers. queries: how many
    objects can be found. classes: columns of logits, each a sigmoid of its own; none stands for "no object".
    temperature: of all sines of positions; on maps of a few cells 10000 leaves most channels constant.

    Without padding a picture's results do not depend on the others of its batch. With padding they do, though no
    attention reads it: convolutions and norms do, as in the official code.

    refine: each decoder layer looks around the boxes of the one before, and has heads of its own. two_stage: the
    queries are the encoder's best proposals; needs `refine`. picture, shorter, longer, normalisation: as of `DETR`.
    Raises TypeError or ValueError for arguments that are none.
    """

    background = False
    """No column of logits stands for "no object": probabilities are sigmoids."""

    def __init__(
        self,
        body: nn.Module,
        levels: int = 4,
        refine: bool = False,
        two_stage: bool = False,
        width: int = 256,
        heads: int = 8,
        hidden: int = 1024,
        encoder: int = 6,
        decoder: int = 6,
        points: int = 4,
        dropout: float = 0.1,
        pre_norm: bool = False,
        activation: Activation = "relu",
        queries: int = 300,
        classes: int = 91,
        groups: int = GROUPS,
        temperature: float = 10000.0,
        picture: tuple[int, int] | None = None,
        shorter: int = 800,
        longer: int = 1333,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        """Make the parts, drawn as officially."""
        super().__init__()
        if two_stage and not refine:
            raise ValueError("refine must be True where two_stage is, got False")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        channels, strides = (_told(body, name) for name in ("channels", "strides"))
        self.body, self.stride = body, strides[-1]
        self.queries, self.classes = check_length("queries", queries), check_length("classes", classes)
        self.refine, self.width = refine, check_length("width", width, 4)
        self.picture, self.shorter, self.longer = check_shown(picture, shorter, longer)
        self.normalisation, self.temperature = normalisation, temperature
        self.project = _projections(channels, check_length("levels", levels), width, groups)
        self.level = nn.Parameter(torch.randn(levels, width))
        options: dict[str, Any] = {"levels": levels, "points": points, "dropout": dropout, "activation": activation}
        self.encoder = DeformableEncoder(encoder, width, heads, hidden, pre_norm, **options)
        self.decoder = DeformableDecoder(decoder, width, heads, hidden, pre_norm, **options)
        for part in (self.encoder, self.decoder):
            draw(part)
        classes_of, boxes_of = class_head(width, classes), box_head(width)
        count = decoder if refine else 1
        first_boxes = copy.deepcopy(boxes_of)
        if not two_stage:  # layers behind the first begin with boxes as their references are
            begin_small(first_boxes)
        self.class_heads = nn.ModuleList(copy.deepcopy(classes_of) for _ in range(count))
        self.box_heads = nn.ModuleList([first_boxes, *(copy.deepcopy(boxes_of) for _ in range(count - 1))])
        self.first = TwoStage(width, queries, classes_of, boxes_of, temperature) if two_stage else None
        if not two_stage:
            self.slots = nn.Parameter(torch.randn(queries, 2 * width))
            self.reference = nn.Linear(width, 2)
            nn.init.xavier_uniform_(self.reference.weight)
            nn.init.zeros_(self.reference.bias)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return "logits" (N, Q, classes) and "boxes" (N, Q, 4), cxcywh in [0, 1] of the images; earlier layers' too.

        images: (N, 3, H, W) as `normalisation` returns them, padded with zeros. mask: bool (N, H, W), True for padding,
        which is to the right and below; None: there is none. "aux_logits" (L - 1, N, Q, classes) and "aux_boxes" are
        those of the layers before the last, the first layer first, missing where there is one layer. In two stages
        "proposal_logits" (N, S, classes) and "proposal_boxes" (N, S, 4) are those of all cells. Boxes are in parts of
        the picture without padding. Raises TypeError or ValueError for other images or masks.
        """
        return self._run(images, mask)[0]

    def inspect(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
        """Return the outputs and what led to them; arguments as of `forward`.

        "memory": the encoder's `Pyramid`; "results": (L, N, Q, width), the decoder's queries; "references": for each
        decoder layer the points (N, Q, 2) or boxes (N, Q, 4) it looked around; in two stages "proposals": `Proposals`.
        Which points were read, `DeformableAttention.sampling` tells to a hook.
        """
        outputs, led = self._run(images, mask)
        return outputs | led

    def _run(self, images: Tensor, mask: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
        cells, positions = self._cells(images, mask)
        memory = self.encoder(cells, positions)
        outputs: dict[str, Tensor] = {}
        led: dict[str, Any] = {"memory": memory}
        if self.first is None:
            queries, places, references = self._learned(memory)
        else:
            proposals: Proposals = self.first(memory)
            queries, places, references = proposals.queries, proposals.positions, proposals.references
            logits = proposals.logits.to(images.dtype)
            outputs |= {"proposal_logits": logits, "proposal_boxes": proposals.boxes.to(images.dtype)}
            led["proposals"] = proposals
        depth = len(self.decoder.layers)
        class_heads, box_heads = ([*heads] * (depth // len(heads)) for heads in (self.class_heads, self.box_heads))
        results, boxes, looked = self.decoder(queries, places, references, memory, box_heads, self.refine)
        logits = torch.stack([head(x) for head, x in zip(class_heads, results, strict=True)]).to(images.dtype)
        boxes = boxes.to(images.dtype)
        outputs |= {"logits": logits[-1], "boxes": boxes[-1]}
        if depth > 1:
            outputs |= {"aux_logits": logits[:-1], "aux_boxes": boxes[:-1]}
        return outputs, led | {"results": results, "references": looked}

    def _cells(self, images: Tensor, mask: Tensor | None) -> tuple[Pyramid, Tensor]:
        """Return all maps' cells, and their positions: sines of the place, and what tells the levels apart."""
        check_images(images, mask)
        found = self.body(images)
        maps: list[Tensor] = []
        for number, layer in enumerate(self.project):
            before = found[min(number, len(found) - 1)] if number <= len(found) else maps[-1]
            maps.append(layer(before))
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        masks = None if mask is None else [shrunk(mask, size) for size in sizes]
        none = [torch.zeros(1, *size, dtype=torch.bool, device=images.device) for size in sizes]
        places = []
        for padding, level in zip(none if masks is None else masks, self.level, strict=True):
            place = sine(padding, self.width, self.temperature, centred=True, dtype=self.level.dtype)
            places.append(place.flatten(2).mT + level)
        return pyramid(maps, masks), torch.cat(places, dim=1)

    def _learned(self, memory: Pyramid) -> tuple[Tensor, Tensor, Tensor]:
        positions, queries = self.slots.chunk(2, dim=-1)
        references = self.reference(positions).to(memory.valid.dtype).sigmoid()
        batch = len(memory.source)
        first, second, third = (x.expand(batch, -1, -1) for x in (queries, positions, references))
        return first, second, third


def _told(body: nn.Module, name: str) -> tuple[int, ...]:
    told = getattr(body, name, None)
    if not isinstance(told, tuple) or not told:
        raise TypeError(f"body must say the {name} of its maps, a tuple of whole numbers, got {told!r}")
    return tuple(check_length(f"body's {name}", n) for n in told)


def _projections(channels: tuple[int, ...], levels: int, width: int, groups: int) -> nn.ModuleList:
    """Return what makes each level: 1 x 1 of the body's maps, then 3 x 3 at stride 2 of what came last."""
    if levels < len(channels):
        raise ValueError(f"levels must be at least the body's {len(channels)} maps, got {levels}")
    layers = nn.ModuleList()
    for number in range(levels):
        before = channels[min(number, len(channels) - 1)] if number <= len(channels) else width
        layers.append(Projection(before, width, groups, halve=number >= len(channels)))
    return layers


def _official(levels: int = 4, refine: bool = False, two_stage: bool = False) -> DeformableDETR:
    network = resnet_body(RESNET50).network
    deepest = {"layer2": 8, "layer3": 16, "layer4": 32}
    layers = list(deepest)[-min(levels, 3) :]
    body = SeveralMaps(network, [deepest[layer] for layer in layers], layers)
    return DeformableDETR(body, levels, refine, two_stage)


def deformable_detr_single() -> DeformableDETR:
    """Return Deformable DETR on ResNet-50's last map for COCO's ids 0 to 90, random weights: 39.4 AP as released."""
    return _official(levels=1)


def deformable_detr_plain() -> DeformableDETR:
    """Return Deformable DETR on four maps of ResNet-50: 44.5 AP as released."""
    return _official()


def deformable_detr_refine() -> DeformableDETR:
    """Return `deformable_detr_plain` with iterative refinement of boxes: 46.2 AP as released."""
    return _official(refine=True)


def deformable_detr_two() -> DeformableDETR:
    """Return `deformable_detr_refine` in two stages: 46.9 AP as released."""
    return _official(refine=True, two_stage=True)
