"""ResNets of bottlenecks, by configuration (chapters 17 and 19).

Tensors are named as in torchvision's files, which load strictly without their classifier (fc.weight, fc.bias): conv1,
bn1, then layer<k>.<block> with conv1, bn1, conv2, bn2, conv3, bn3 and, where a block's skip is a convolution and its
norm, downsample.0 and downsample.1. The papers' conv2_x to conv5_x are layer1 to layer4.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.checks import check_picture
from course_lib.upsampling.grids import check_length

RESNET50 = (3, 4, 6, 3)
"""Bottlenecks in each of the four stages (He et al. 2016, table 1)."""
RESNET101 = (3, 4, 23, 3)
"""The same of the network with 101 layers."""

EXPANSION = 4
"""A bottleneck of a stage gives this many times the channels of its 3 x 3 convolution."""

Norm = Callable[..., nn.Module]
"""What makes a norm: called with a number of channels and eps."""


class FrozenBatchNorm(nn.Module):
    """Batch norm that is not trained: (x - mean) / sqrt(var + eps) * weight + bias with stored numbers, in any mode.

    Its tensors are buffers with BatchNorm2d's names and shapes, so that weights of a network with BatchNorm2d load;
    the count of batches in them is passed over. channels: of the maps (B, C, h, w).
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        """Begin as the identity, but for eps."""
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((check_length("channels", channels),), value))

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised maps, of x's shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *others)


class Bottleneck(nn.Module):
    """relu(skip(x) + F(x)), where F is 1 x 1, 3 x 3 and 1 x 1 convolutions with norms (He et al. 2016, figure 5 right).

    before, middle, after: channels of x, of the 3 x 3 convolution, of the result. stride, dilation: of the 3 x 3
    convolution. entry: kernel and stride of the first convolution and of the skip, without padding: (1, 1), (1, 2) in
    Caffe's ResNets, (2, 2) and (3, 1) where DSSD makes its maps smaller. project: the skip is a convolution with a
    norm; where None, only if the shape changes, otherwise it is x itself.

    Maps (B, before, h, w) -> (B, after, h', w'); h' = floor((h - k) / s) + 1 of the entry, then ceil(h' / stride).
    Raises TypeError or ValueError for numbers below 1, and ValueError where a skip that must project may not.
    """

    def __init__(
        self,
        before: int,
        middle: int,
        after: int,
        stride: int = 1,
        dilation: int = 1,
        entry: tuple[int, int] = (1, 1),
        project: bool | None = None,
        norm: Norm = nn.BatchNorm2d,
        eps: float = 1e-5,
    ) -> None:
        """Make the three convolutions and the skip."""
        super().__init__()
        sizes = {"before": before, "middle": middle, "after": after, "stride": stride, "dilation": dilation}
        for name, size in (sizes | {"entry's kernel": entry[0], "entry's stride": entry[1]}).items():
            check_length(name, size)
        changes = before != after or stride != 1 or tuple(entry) != (1, 1)
        if project is False and changes:
            raise ValueError(f"project must not be False where the shape changes: {before} to {after} channels")
        kernel, step = entry
        self.conv1 = _convolution(before, middle, kernel, step)
        self.bn1 = norm(middle, eps=eps)
        self.conv2 = _convolution(middle, middle, 3, stride, dilation, padding=dilation)
        self.bn2 = norm(middle, eps=eps)
        self.conv3 = _convolution(middle, after, 1)
        self.bn3 = norm(after, eps=eps)
        self.downsample: nn.Sequential | None = None
        if changes or project:
            skip = _convolution(before, after, kernel, step * stride)
            self.downsample = nn.Sequential(skip, norm(after, eps=eps))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's maps (B, after, h', w')."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class ResNet(nn.Module):
    """The stages of a ResNet, without its classifier: (B, 3, H, W) -> maps, by the names in `names`.

    blocks: bottlenecks in each stage: RESNET50, RESNET101 or others, any number of stages. width: channels of the first
    convolution and of the first stage's 3 x 3 convolutions; each stage doubles them, and gives EXPANSION times as many.
    dilated: None, or dilations of the last stage's first and other blocks, which then keeps the resolution: (2, 2) in
    DSSD, (1, 2) in DETR-DC5. caffe: as released first: a stage's stride in its first 1 x 1 convolution, and a pool
    without padding whose last window may be cut; otherwise as torchvision has it: in the 3 x 3 convolution, the pool
    padded by 1. norm, eps: of every norm, such as nn.BatchNorm2d or FrozenBatchNorm.

    names: "conv1" (stride 2, behind the ReLU), "pool1" (stride 4), "layer1" (4), "layer2" (8), "layer3" (16), "layer4"
    (32, or 16 where it is dilated). channels: {name: channels of its map}. Pictures come as the weights expect them
    (torchvision's: divided by the mean and standard deviation in course_lib.blocks.vgg). New convolutions are drawn
    after He et al. (2015). Raises TypeError or ValueError for arguments that are none.
    """

    def __init__(
        self,
        blocks: Sequence[int] = RESNET50,
        width: int = 64,
        dilated: tuple[int, int] | None = None,
        caffe: bool = False,
        norm: Norm = nn.BatchNorm2d,
        eps: float = 1e-5,
    ) -> None:
        """Make the first convolution, the pool and the stages."""
        super().__init__()
        given: Any = blocks
        if not isinstance(given, list | tuple) or not given:
            raise TypeError(f"blocks must be a list of numbers such as RESNET50, got {blocks!r}")
        check_length("width", width)
        self.conv1 = _convolution(3, width, 7, 2, padding=3)
        self.bn1 = norm(width, eps=eps)
        self.pool1 = nn.MaxPool2d(3, 2, padding=0 if caffe else 1, ceil_mode=caffe)
        self.channels = {"conv1": width, "pool1": width}
        before = width
        for place, count in enumerate(blocks):
            middle, stride, dilations = width << place, 1 if place == 0 else 2, (1, 1)
            if dilated is not None and place == len(blocks) - 1:
                stride, dilations = 1, dilated
            at = {"entry": (1, stride)} if caffe else {"stride": stride}
            first = {"dilation": dilations[0], "project": True, **at}
            stage = nn.Sequential()
            for number in range(check_length("blocks", count)):
                options: dict[str, Any] = {"dilation": dilations[1]} if number else first
                stage.append(Bottleneck(before, middle, EXPANSION * middle, norm=norm, eps=eps, **options))
                before = EXPANSION * middle
            self.add_module(f"layer{place + 1}", stage)
            self.channels[f"layer{place + 1}"] = before
        self.names = tuple(self.channels)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the last stage's map (B, C, h, w) of pictures (B, 3, H, W). Raises as `maps` does."""
        return self.maps(picture, self.names[-1:])[0]

    def maps(self, picture: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Return the maps of the named layers, in the order asked for; layers behind the deepest of them do not run.

        picture: (B, 3, H, W) floating point. Raises TypeError or ValueError for another picture, one too small for the
        first pool, and for an unknown name.
        """
        if isinstance(names, str) or not names:
            raise TypeError(f'names must be a list of layers such as ["layer4"], got {names!r}')
        if unknown := [name for name in names if name not in self.names]:
            raise ValueError(f"names: {unknown[0]!r} is no layer; they are {', '.join(self.names)}")
        check_picture(picture)
        height, width = picture.shape[2:]
        if self.pool1.padding == 0 and min(height, width) < 3:
            raise ValueError(f"picture must be at least 3 x 3 for a pool without padding, got {height} x {width}")
        deepest = max(self.names.index(name) for name in names)
        x = F.relu(self.bn1(self.conv1(picture)), inplace=True)
        kept = {"conv1": x}
        for name in self.names[1 : deepest + 1]:
            x = self.get_submodule(name)(x)
            kept[name] = x
        return [kept[name] for name in names]


def _convolution(
    before: int, after: int, kernel: int, stride: int = 1, dilation: int = 1, padding: int = 0
) -> nn.Conv2d:
    layer = nn.Conv2d(before, after, kernel, stride, padding, dilation, bias=False)
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    return layer
