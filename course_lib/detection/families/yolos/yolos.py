"""YOLOS: a vision transformer whose sequence has places for objects, and nothing else (chapter 22).

Fang et al., "You Only Look at One Sequence: Rethinking Transformer in Vision through Object Detection", 2021.
"""

from typing import Any

import torch
from torch import Tensor, nn

from course_lib.blocks.mlp import MLP
from course_lib.blocks.patches import Grid, PatchEmbedding, interpolate_between
from course_lib.blocks.vit import EPS, Block, draw, learned_grid
from course_lib.detection.checks import check_shown
from course_lib.detection.families.detr.detr import check_images
from course_lib.detection.prediction import IMAGENET, Normalisation
from course_lib.upsampling.grids import check_length

Size = tuple[int, int]


class YOLOS(nn.Module):
    """Pictures (N, 3, H, W), normalised -> {"logits": (N, queries, classes), "boxes": (N, queries, 4) cxcywh}.

    The sequence is a class token, the patches and the [DET] tokens, and all of them read each other in every block. The
    class token is there because the released code keeps it (the paper drops it); no head reads it. The heads read the
    [DET] tokens: two MLPs of three layers. There is no output of earlier layers.

    width, depth, heads, hidden, patch: of the transformer, as in `ViT`. queries: [DET] tokens. classes: columns of the
    logits, the last one "no object". learned: (height, width) of the pictures whose positions are learned; for any
    other they are interpolated, as `interpolate_positions` says. middle: the same of further positions, added behind
    every block but the last; None: there are none. dropout: as in `Block`. picture, shorter, longer, normalisation: as
    of `DETR`: what the weights want to be shown.

    Pictures may have any size of at least one patch; rows and columns behind the last whole patch are not seen.
    Tensors: embedding, class_token, det_tokens, positions (1, 1 + h * w + queries, width), middle_positions
    (depth - 1, 1, ...), blocks, norm, class_head, box_head. Raises TypeError or ValueError by argument.
    """

    background = True
    """The last column of logits is no class: probabilities are a softmax."""

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        hidden: int | None = None,
        patch: int = 16,
        queries: int = 100,
        classes: int = 92,
        learned: Size = (800, 1333),
        middle: Size | None = None,
        dropout: float = 0.0,
        picture: Size | None = None,
        shorter: int = 800,
        longer: int = 1333,
        normalisation: Normalisation = IMAGENET,
    ) -> None:
        """Make the embedding, the tokens, the blocks and the heads."""
        super().__init__()
        self.width, self.depth = check_length("width", width), check_length("depth", depth)
        self.queries, self.classes = check_length("queries", queries), check_length("classes", classes, 2)
        self.picture, self.shorter, self.longer = check_shown(picture, shorter, longer)
        self.normalisation = normalisation
        self.embedding = PatchEmbedding(patch, width)
        self.stride = patch
        self.learned = learned_grid(self.embedding, learned, "learned")
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.det_tokens = nn.Parameter(torch.empty(1, queries, width))
        self.positions = nn.Parameter(torch.empty(1, self._length(self.learned), width))
        self.middle = None if middle is None else learned_grid(self.embedding, middle, "middle")
        self.middle_positions: nn.Parameter | None = None
        if self.middle is not None:
            self.middle_positions = nn.Parameter(torch.empty(depth - 1, 1, self._length(self.middle), width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout=dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)
        draw(self)
        self.class_head, self.box_head = MLP(width, width, classes, 3), MLP(width, width, 4, 3)

    def _length(self, grid: Grid) -> int:
        return 1 + grid[0] * grid[1] + self.queries

    def forward(self, images: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return the predictions of all [DET] tokens.

        images: (N, 3, H, W) as `normalisation` returns them. mask: (N, H, W), True where a picture is padding; it is
        accepted, because other detectors need it, and ignored as in the official code: patches of padding are read like
        any others, and a picture in a padded batch gives other boxes than alone. Raises TypeError or ValueError for
        other images or masks.
        """
        check_images(images, mask)
        tokens, _ = self.tokens(images)
        found = tokens[:, -self.queries :]
        # the images' dtype: under autocast half precision would round boxes to a pixel
        logits, boxes = self.class_head(found).to(images.dtype), self.box_head(found).to(images.dtype)
        return {"logits": logits, "boxes": boxes.sigmoid()}

    def tokens(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return all tokens behind the last norm, (N, 1 + h * w + queries, width), and the grid (h, w)."""
        x, grid = self.sequence(images)
        middle = self._middle(grid)
        for block, positions in zip(self.blocks, [*middle, None], strict=True):
            x = block(x)
            x = x if positions is None else x + positions
        return self.norm(x), grid

    def sequence(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return what the first block reads, (N, 1 + h * w + queries, width), positions added, and the grid."""
        patches, grid = self.embedding(images)
        first, last = (token.expand(len(patches), -1, -1) for token in (self.class_token, self.det_tokens))
        positions = interpolate_between(self.positions, self.learned, grid, before=1, after=self.queries)
        return self.dropout(torch.cat((first, patches, last), 1) + positions), grid

    def attention_maps(self, images: Tensor) -> tuple[list[Tensor], Grid]:
        """Return what every block's heads read of what, each (N, heads, n, n), and the grid (h, w).

        Tokens stand in the order class, patches, [DET]. Needs memory for all these matrices together.
        """
        x, grid = self.sequence(images)
        maps = []
        for block, positions in zip(self.blocks, [*self._middle(grid), None], strict=True):
            x, read = block(x, weights=True)
            x = x if positions is None else x + positions
            maps.append(read)
        return maps, grid

    def _middle(self, grid: Grid) -> list[Tensor | None]:
        """Return what is added behind each block but the last, for a grid."""
        if self.middle is None or self.middle_positions is None:
            return [None] * (self.depth - 1)
        made = interpolate_between(self.middle_positions, self.middle, grid, before=1, after=self.queries)
        return list(made)


def yolos_ti(**options: Any) -> YOLOS:
    """Return YOLOS-Ti, 6,488,736 parameters with 92 classes; options: those of `YOLOS`."""
    settings: dict[str, Any] = {"width": 192, "heads": 3, "shorter": 512, "longer": 853}
    return YOLOS(**settings | options)


def yolos_s(**options: Any) -> YOLOS:
    """Return YOLOS-S, 30,684,768 parameters, 7,725,696 of which are positions in the middle; options as `yolos_ti`."""
    settings: dict[str, Any] = {"width": 384, "heads": 6, "learned": (512, 864), "middle": (512, 864)}
    return YOLOS(**settings | options)


def yolos_s_dwr(**options: Any) -> YOLOS:
    """Return YOLOS-S (dWr), 27,561,696 parameters, deeper and narrower than `yolos_s`; options as `yolos_ti`."""
    return yolos_s(**{"width": 330, "depth": 14} | options)


def yolos_b(**options: Any) -> YOLOS:
    """Return YOLOS-B, 127,798,368 parameters; options as `yolos_ti`."""
    settings: dict[str, Any] = {"width": 768, "heads": 12, "learned": (800, 1344), "middle": (800, 1344)}
    return YOLOS(**settings | options)
