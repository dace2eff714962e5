"""The convolutions that predict: at every place of every map class scores and offsets of its boxes (chapter 14)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length


class Heads(nn.Module):
    """Two convolutions for every map: maps (N, C_l, h_l, w_l) -> {"logits": (N, P, classes), "offsets": (N, P, 4)}.

    channels, boxes: channels and boxes a place of every map, in the order of the maps; P = sum_l h_l w_l boxes_l, by
    map, row, column, box. classes: background, which is column 0, included. kernels: odd side of the convolutions, one
    number or one for every map. shared: ONE pair of convolutions serves all maps, which then must agree in channels,
    boxes and kernels. normalised: the convolutions have no bias, and batch normalisation follows them.

    offsets, logits: ModuleLists of these convolutions, of length one where they are shared. New weights are Xavier's,
    biases 0. Raises TypeError or ValueError for arguments that are none.
    Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.1.
    """

    def __init__(
        self,
        channels: Sequence[int],
        boxes: Sequence[int],
        classes: int,
        kernels: int | Sequence[int] = 3,
        shared: bool = False,
        normalised: bool = False,
    ) -> None:
        """Make the convolutions."""
        super().__init__()
        self.channels = tuple(check_length("channels", n) for n in channels)
        self.boxes = tuple(check_length("boxes", n) for n in boxes)
        self.classes = check_length("classes", classes, 2)
        sides = [kernels] * len(self.channels) if isinstance(kernels, int) else list(kernels)
        if not len(self.channels) == len(self.boxes) == len(sides) > 0:
            raise ValueError(
                "channels, boxes and kernels must have one entry for every map, "
                f"got {len(self.channels)}, {len(self.boxes)} and {len(sides)}"
            )
        if even := [side for side in sides if check_length("kernels", side) % 2 == 0]:
            raise ValueError(f"kernels must be odd, got {even[0]}")
        self.shared = shared
        different = sorted(set(zip(self.channels, self.boxes, sides, strict=True)))
        if shared and len(different) > 1:
            raise ValueError(f"shared heads need equal channels, boxes and kernels in all maps, got {different}")
        levels = different if shared else list(zip(self.channels, self.boxes, sides, strict=True))
        self.offsets = nn.ModuleList(_predictor(n, 4 * k, side, normalised) for n, k, side in levels)
        self.logits = nn.ModuleList(_predictor(n, self.classes * k, side, normalised) for n, k, side in levels)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the predictions of all maps, one behind the other. Raises ValueError for maps of other channels."""
        came = tuple(x.shape[1] for x in maps)
        if came != self.channels:
            raise ValueError(f"maps must have {self.channels} channels, got {came}")
        return {"logits": _all(self.logits, maps, self.classes), "offsets": _all(self.offsets, maps, 4)}


def _all(predictors: nn.ModuleList, maps: Sequence[Tensor], width: int) -> Tensor:
    """Return (N, P, width) of every map's predictor, or of the one that all share."""
    each = predictors if len(predictors) == len(maps) else [predictors[0]] * len(maps)
    return torch.cat([_rows(predict(x), width) for predict, x in zip(each, maps, strict=True)], 1)


def _rows(x: Tensor, width: int) -> Tensor:
    """Return (N, boxes width, h, w) as (N, h w boxes, width): channels are the last to count, as in Caffe's Permute."""
    pictures, channels, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(pictures, h * w * channels // width, width)


def _predictor(before: int, after: int, side: int, normalised: bool) -> nn.Module:
    convolution = nn.Conv2d(before, after, side, padding=side // 2, bias=not normalised)
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is None:
        return nn.Sequential(convolution, nn.BatchNorm2d(after, eps=1e-3))  # DSOD's heads; its body has Caffe's 1e-5
    nn.init.zeros_(convolution.bias)
    return convolution
