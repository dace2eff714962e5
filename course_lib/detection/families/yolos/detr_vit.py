"""DETR with a vision transformer for its body: the plain combination that ViDT is measured against (chapter 22).

Described by Song et al., "ViDT", 2022, figure 2a. No official code of it exists: this is DETR as released on DeiT as
released, and numbers of it are this book's own.
"""

from typing import Any

from torch import Tensor, nn

from course_lib.blocks.vit import ViT, vit_base, vit_small, vit_tiny
from course_lib.detection.families.detr.detr import DETR


class ViTBody(nn.Module):
    """The patches of a ViT as one map: pictures (N, 3, H, W) -> (N, channels, h, w) behind the last norm.

    network: a `ViT`; its class token stays in the sequence, where weights of a classifier expect it, and is not part of
    the map; a head is not used. stride: the patch's side. Padding is read like the picture.
    """

    def __init__(self, network: ViT) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network
        self.channels, self.stride = network.width, network.embedding.patch

    def forward(self, images: Tensor) -> Tensor:
        """Return the map. Raises as `ViT` does for other images."""
        return self.network.map(images)


def detr_vit(network: ViT, **options: Any) -> DETR:
    """Return DETR that reads the map of a ViT; options: those of `DETR`."""
    return DETR(ViTBody(network), **options)


def detr_vit_tiny(**options: Any) -> DETR:
    """Return DETR on DeiT-Ti without a head; options: those of `DETR`."""
    return detr_vit(vit_tiny(classes=None), **options)


def detr_vit_small(**options: Any) -> DETR:
    """Return DETR on DeiT-S without a head; options: those of `DETR`."""
    return detr_vit(vit_small(classes=None), **options)


def detr_vit_base(**options: Any) -> DETR:
    """Return DETR on DeiT-B without a head; options: those of `DETR`."""
    return detr_vit(vit_base(classes=None), **options)
