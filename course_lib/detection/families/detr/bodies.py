"""Bodies of detectors that read maps: any network that makes maps, and which of them is read (chapters 19 and 22)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from course_lib.blocks.resnet import RESNET50, FrozenBatchNorm, ResNet
from course_lib.upsampling.grids import check_length


class OneMap(nn.Module):
    """One map of a network that makes several: pictures (N, 3, H, W) -> (N, channels, h, w).

    network: says the `channels` of its maps by their places or names, and gives the maps as a list, or by name from
    its `maps(pictures, [name])`. layer: the place (-1: the last, the coarsest) or the name. stride: pixels between
    neighbouring cells. Raises TypeError or ValueError for a stride below 1, and for a layer that is none.
    """

    def __init__(self, network: nn.Module, stride: int, layer: int | str = -1) -> None:
        """Keep the network."""
        super().__init__()
        self.network, self.layer, self.stride = network, layer, check_length("stride", stride)
        channels: Any = network.channels
        try:
            self.channels = int(channels[layer])
        except (LookupError, TypeError):
            raise ValueError(
                f"layer must be a place or name in the network's channels {channels}, got {layer!r}"
            ) from None

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the map."""
        network: Any = self.network
        maps: Sequence[Tensor]
        if isinstance(self.layer, str):
            maps, place = network.maps(pictures, [self.layer]), 0
        else:
            maps, place = network(pictures), self.layer
        return maps[place]


def resnet_body(blocks: Sequence[int] = RESNET50, dilated: bool = False, width: int = 64) -> OneMap:
    """Return the last map of a ResNet as DETR trains it: norms frozen, and the first convolution and stage too.

    blocks, width: as of `ResNet`. dilated: DC5, which has stride 16 in place of 32 and the same tensors (Carion et al.
    2020, section 4). What is frozen is not asked for gradients.
    """
    network = ResNet(blocks, width, dilated=(1, 2) if dilated else None, norm=FrozenBatchNorm)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(("conv1.", "layer1.")))
    whole = 2 ** (len(blocks) + 1)
    return OneMap(network, whole // 2 if dilated else whole, f"layer{len(blocks)}")


class SeveralMaps(nn.Module):
    """Several maps of a network: pictures (N, 3, H, W) -> list of maps (N, channels, h, w), the finest first.

    network, layers: as of `OneMap`, one layer for each map. strides: pixels between neighbouring cells of each. Raises
    TypeError or ValueError as `OneMap` does, and where layers and strides differ in number.
    """

    def __init__(self, network: nn.Module, strides: Sequence[int], layers: Sequence[int | str]) -> None:
        """Keep the network."""
        super().__init__()
        if not layers or len(layers) != len(strides):
            raise ValueError(f"strides must be one for each of the layers {tuple(layers)}, got {tuple(strides)}")
        several = [OneMap(network, stride, layer) for stride, layer in zip(strides, layers, strict=True)]
        self.network, self.layers = network, tuple(layers)
        self.channels = tuple(one.channels for one in several)
        self.strides = tuple(one.stride for one in several)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return the maps."""
        network: Any = self.network
        if isinstance(self.layers[0], str):
            return list(network.maps(pictures, list(self.layers)))
        maps: Sequence[Tensor] = network(pictures)
        return [maps[place] for place in self.layers if not isinstance(place, str)]
