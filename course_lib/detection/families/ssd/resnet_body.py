"""DSSD's body: a dilated ResNet, and smaller and smaller maps of bottlenecks behind it (chapter 17)."""

from collections.abc import Sequence

from torch import Tensor, nn

from course_lib.blocks.resnet import RESNET101, Bottleneck, Norm, ResNet

EPS = 1e-3
"""What the released networks add to every variance."""

Entry = tuple[int, int]
"""(kernel, stride) with which a bottleneck makes its map smaller, without padding."""

EXTRAS_321: Sequence[Entry] = ((2, 2), (2, 2), (3, 1), (3, 1))
"""20 -> 10 -> 5 -> 3 -> 1."""
EXTRAS_513: Sequence[Entry] = ((2, 2),) * 5
"""32 -> 16 -> 8 -> 4 -> 2 -> 1."""


class ResNetBody(nn.Module):
    """Pictures (N, 3, H, W), normalised as the weights expect -> maps of a ResNet's layers, then of every extra.

    The ResNet is Caffe's, its last stage dilated by 2 and with stride 16: in a picture of 321, layer2 (res3b3) is
    40 x 40 and layer4 (res5c) 20 x 20. blocks, width: as in `ResNet`. sources: the layers whose maps are given, finest
    first; the extras begin at the last of them. extras: how each of them makes the map before it smaller. middle,
    after: the extras' channels in the 3 x 3 convolution and in the result. norm, eps: of every norm. With norm =
    FrozenBatchNorm the statistics and weights of norms stay as they are loaded, in training too.

    channels: of the maps. A map h is floor((h - kernel) / stride) + 1 after an extra, so that a picture must have at
    least 289 x 289 pixels for EXTRAS_321 and 497 x 497 for EXTRAS_513. Raises TypeError or ValueError for arguments
    that are none. Fu et al., "DSSD: Deconvolutional Single Shot Detector", 2017, section 3.
    """

    def __init__(
        self,
        extras: Sequence[Entry] = EXTRAS_321,
        blocks: Sequence[int] = RESNET101,
        width: int = 64,
        sources: Sequence[str] = ("layer2", "layer4"),
        middle: int = 256,
        after: int = 1024,
        norm: Norm = nn.BatchNorm2d,
        eps: float = EPS,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.resnet = ResNet(blocks, width, dilated=(2, 2), caffe=True, norm=norm, eps=eps)
        if unknown := [name for name in sources if name not in self.resnet.names]:
            raise ValueError(f"sources: {unknown[0]!r} is no layer; they are {', '.join(self.resnet.names)}")
        self.sources = tuple(sources)
        self.channels = tuple(self.resnet.channels[name] for name in sources)
        self.extras = nn.ModuleList()
        self.kernels = tuple(kernel for kernel, _ in extras)
        for entry in extras:
            self.extras.append(Bottleneck(self.channels[-1], middle, after, entry=entry, norm=norm, eps=eps))
            self.channels += (after,)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, the finest first. Raises as `ResNet.maps` does, and ValueError for too small a picture."""
        maps = self.resnet.maps(images, self.sources)
        for number, (extra, kernel) in enumerate(zip(self.extras, self.kernels, strict=True)):
            if min(maps[-1].shape[2:]) < kernel:
                height, width = images.shape[2:]
                raise ValueError(f"images must be large enough for extra {number}, got {height} x {width}")
            maps.append(extra(maps[-1]))
        return maps
