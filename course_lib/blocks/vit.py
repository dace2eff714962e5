"""The vision transformer: a picture as a sequence of patches that all read each other (chapter 21).

Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; the sizes Ti and S and the distillation token are of Touvron
et al., "Training data-efficient image transformers", 2021 (DeiT).
"""

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention
from course_lib.blocks.patches import Grid, PatchEmbedding, interpolate_between
from course_lib.blocks.transformer import Activation, FeedForward
from course_lib.upsampling.grids import check_choice, check_length

EPS = 1e-6
"""What the norms add to the variance, in the released networks (torch's own choice is 1e-5)."""
Pooling = Literal["class", "mean"]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (Dosovitskiy et al. 2021, equations 2 and 3).

    width: channels of tokens (N, n, width). heads: must divide it. hidden: of the feed-forward layer, 4 width where
    None. activation: "gelu" by the error function as in DeiT, "gelu_tanh" its approximation as in the Flax release.
    dropout: in training, of the attention's weights and of what is added. Raises TypeError or ValueError by argument.
    """

    def __init__(
        self, width: int, heads: int, hidden: int | None = None, activation: Activation = "gelu", dropout: float = 0.0
    ) -> None:
        """Make the two norms and the two layers."""
        super().__init__()
        hidden = 4 * check_length("width", width) if hidden is None else check_length("hidden", hidden)
        self.attention_norm = nn.LayerNorm(width, eps=EPS)
        self.attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.feed_forward_norm = nn.LayerNorm(width, eps=EPS)
        self.feed_forward = FeedForward(width, hidden, activation, dropout)
        self.dropout = nn.Dropout(dropout)

    @overload
    def forward(self, x: Tensor, weights: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, weights: Literal[True]) -> tuple[Tensor, Tensor]: ...

    def forward(self, x: Tensor, weights: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return the tokens (N, n, width), and with `weights` also what each head read of what: (N, heads, n, n)."""
        normed = self.attention_norm(x)
        if weights:
            added, read = self.attention(normed, weights=True)
        else:
            added, read = self.attention(normed), None
        x = x + self.dropout(added)
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x if read is None else (x, read)


class ViT(nn.Module):
    """Pictures (N, 3, H, W), normalised as the weights want them -> logits (N, classes), for any H, W >= patch.

    width, heads, hidden, activation, dropout: as in `Block`; depth: how many. patch: side in pixels. picture: (height,
    width) that the positions are learned for; for any other they are interpolated, as `interpolate_positions` says.
    classes: of the head; None: without one, `forward` returns what it would read. pooling: the head reads the token
    "class", or the "mean" of the patches (then there is no class token). distilled: a second token and a head that
    reads it (DeiT).

    Tensors: embedding, class_token, distillation_token (1, 1, width), positions (1, tokens + h * w, width), blocks,
    norm, head, distillation_head. Weights and tokens are drawn from a normal distribution of 0.02, cut at two of them.
    Raises TypeError or ValueError by argument. Dosovitskiy et al. 2021, section 3.1.
    """

    def __init__(
        self,
        width: int = 192,
        depth: int = 12,
        heads: int = 3,
        hidden: int | None = None,
        patch: int = 16,
        picture: tuple[int, int] = (224, 224),
        classes: int | None = 1000,
        pooling: Pooling = "class",
        distilled: bool = False,
        activation: Activation = "gelu",
        dropout: float = 0.0,
    ) -> None:
        """Make the embedding, the tokens, the blocks and the heads."""
        super().__init__()
        check_choice("pooling", pooling, Pooling)
        if distilled and pooling == "mean":
            raise ValueError("distilled needs pooling='class', got pooling='mean'")
        self.width, self.classes, self.pooling = width, classes, pooling
        self.embedding = PatchEmbedding(patch, width)
        self.learned = learned_grid(self.embedding, picture)
        self.class_token = nn.Parameter(torch.empty(1, 1, width)) if pooling == "class" else None
        self.distillation_token = nn.Parameter(torch.empty(1, 1, width)) if distilled else None
        self.extras = len(self._tokens())
        self.positions = nn.Parameter(torch.empty(1, self.extras + self.learned[0] * self.learned[1], width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(width, heads, hidden, activation, dropout) for _ in range(check_length("depth", depth))
        )
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.head = None if classes is None else nn.Linear(width, check_length("classes", classes))
        self.distillation_head = None if classes is None or not distilled else nn.Linear(width, classes)
        draw(self)

    def _tokens(self) -> list[Tensor]:
        return [token for token in (self.class_token, self.distillation_token) if token is not None]

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes), with two heads their mean; without a head the features (N, width).

        images: (N, 3, H, W). Raises TypeError or ValueError for other images and for pictures without a whole patch.
        """
        if self.head is None:
            return self.features(images).mean(1)
        return self.logits(images).mean(1)

    def logits(self, images: Tensor) -> Tensor:
        """Return what each head says, (N, heads, classes): the class head and, in a distilled network, the second.

        A distillation teaches them apart. Raises ValueError in a network without heads; images as in `forward`.
        """
        heads = [head for head in (self.head, self.distillation_head) if head is not None]
        if not heads:
            raise ValueError("this network has no head: it was made with classes=None")
        features = self.features(images)
        return torch.stack([head(features[:, place]) for place, head in enumerate(heads)], 1)

    def features(self, images: Tensor) -> Tensor:
        """Return what the heads read, (N, 1, width), or (N, 2, width) where distilled; images as in `forward`."""
        tokens, _ = self.tokens(images)
        return tokens.mean(1, keepdim=True) if self.pooling == "mean" else tokens[:, : self.extras]

    def map(self, images: Tensor) -> Tensor:
        """Return the patches' tokens as a map (N, width, h, w) of stride `patch`; images as in `forward`."""
        tokens, (h, w) = self.tokens(images)
        return tokens[:, self.extras :].mT.reshape(len(tokens), self.width, h, w)

    def tokens(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return all tokens behind the last norm, (N, extras + h * w, width), and the grid (h, w); as `forward`."""
        x, grid = self.sequence(images)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), grid

    def sequence(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Return what the first block reads, positions added (z_0 of the paper), and the grid; as `forward`."""
        patches, grid = self.embedding(images)
        first = [token.expand(len(patches), -1, -1) for token in self._tokens()]
        positions = interpolate_between(self.positions, self.learned, grid, before=self.extras)
        return self.dropout(torch.cat((*first, patches), 1) + positions), grid

    def attention_maps(self, images: Tensor) -> tuple[list[Tensor], Grid]:
        """Return what every block's heads read of what, each (N, heads, n, n), and the grid; images as in `forward`.

        Tokens stand in the order class, distillation, patches. Needs memory for all these matrices together.
        """
        x, grid = self.sequence(images)
        maps = []
        for block in self.blocks:
            x, read = block(x, weights=True)
            maps.append(read)
        return maps, grid


def learned_grid(embedding: PatchEmbedding, picture: Any, name: str = "picture") -> Grid:
    """Return the patches (h, w) of a picture (height, width).

    name: what messages call it. Raises TypeError or ValueError for what is no size, or smaller than a patch.
    """
    if not isinstance(picture, tuple | list) or len(picture) != 2:
        raise ValueError(f"{name} must be (height, width), got {picture!r}")
    height, width = (check_length(name, side, embedding.patch) for side in picture)
    return embedding.grid(height, width)


def draw(network: nn.Module) -> None:
    """Draw the weights of all linear layers, and all tokens and positions that are the network's own, anew.

    A normal distribution of 0.02, cut at two of them; biases become 0; convolutions and norms stay as they are.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for parameter in network.parameters(recurse=False):
        nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)


def vit_tiny(**options: Any) -> ViT:
    """Return ViT-Ti, 5,717,416 parameters with 1000 classes at 224 x 224; options: those of `ViT` (DeiT's too)."""
    return ViT(**{"width": 192, "depth": 12, "heads": 3} | options)


def vit_small(**options: Any) -> ViT:
    """Return ViT-S, 22,050,664 parameters; options as in `vit_tiny`."""
    return ViT(**{"width": 384, "depth": 12, "heads": 6} | options)


def vit_base(**options: Any) -> ViT:
    """Return ViT-B, 86,567,656 parameters; options as in `vit_tiny`."""
    return ViT(**{"width": 768, "depth": 12, "heads": 12} | options)


def vit_large(**options: Any) -> ViT:
    """Return ViT-L, 304,326,632 parameters; options as in `vit_tiny`."""
    return ViT(**{"width": 1024, "depth": 24, "heads": 16} | options)


def vit_huge(**options: Any) -> ViT:
    """Return ViT-H with patches of 14 pixels, 632,045,800 parameters; options as in `vit_tiny`."""
    return ViT(**{"width": 1280, "depth": 32, "heads": 16, "patch": 14} | options)
