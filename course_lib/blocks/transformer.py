"""DETR's transformer: an encoder of a map's cells and a decoder of queries (chapters 19, 20 and 23).

Vaswani et al. 2017 with two changes (Carion et al. 2020, appendix A.3): positions are added to queries and keys of
every attention and never to values, and the decoder works on all its queries at once, each layer giving an answer.
Tokens are (N, n, width); a True in `padding` means: may not be read.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.attention import MultiHeadAttention, check_share
from course_lib.upsampling.grids import check_choice, check_length

Activation = Literal["relu", "gelu", "gelu_tanh"]
_BENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """Two linear layers and what bends between them, for each token alone: (..., width) -> (..., width).

    activation: "relu", or "gelu", the exact one with erf, or "gelu_tanh", its approximation. dropout: of the hidden
    numbers, in training. Tensors: first, second. Raises TypeError or ValueError for arguments that are none. Vaswani
    et al. 2017, equation 2.
    """

    def __init__(self, width: int, hidden: int, activation: Activation = "relu", dropout: float = 0.0) -> None:
        """Make the layers with PyTorch's own random weights."""
        super().__init__()
        check_choice("activation", activation, Activation)
        self.first = nn.Linear(check_length("width", width), check_length("hidden", hidden))
        self.second = nn.Linear(hidden, width)
        self.bend: Callable[[Tensor], Tensor] = _BENDS[activation]
        self.dropout = nn.Dropout(check_share("dropout", dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Return the new tokens."""
        result: Tensor = self.second(self.dropout(self.bend(self.first(x))))
        return result


class Residual(nn.Module):
    """What all layers of DETR's line share: what a part reads is added to what was there, and LayerNorm follows.

    With `pre_norm` the norm stands before each part instead, which trains without a warm-up (Xiong et al. 2020). A
    subclass makes its attentions, then calls `finish`.
    """

    feed: FeedForward
    norm1: nn.LayerNorm
    norm2: nn.LayerNorm
    norm3: nn.LayerNorm

    def finish(
        self, norms: int, width: int, hidden: int, dropout: float, pre_norm: bool, activation: Activation
    ) -> None:
        """Make the feed-forward, norm1 to norm<norms>, and the dropout of what is added."""
        self.feed = FeedForward(width, hidden, activation, dropout)
        for number in range(1, norms + 1):
            self.add_module(f"norm{number}", nn.LayerNorm(width))
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def before(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        """Return what a part reads of tokens x (N, n, width)."""
        normed: Tensor = norm(x) if self.pre_norm else x
        return normed

    def after(self, norm: nn.LayerNorm, x: Tensor, read: Tensor) -> Tensor:
        """Return the tokens x with what a part has read, both (N, n, width)."""
        x = x + self.dropout(read)
        return x if self.pre_norm else norm(x)


class EncoderLayer(Residual):
    """Tokens read each other, then each is changed alone: (N, n, width) -> (N, n, width).

    pre_norm: as of `Residual`. hidden, activation: of FeedForward. dropout: of attention's weights, of hidden numbers
    and of what is added. Raises TypeError or ValueError for arguments that are none.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make attention, feed-forward and two norms."""
        super().__init__()
        self.attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.finish(2, width, hidden, dropout, pre_norm, activation)

    def forward(
        self, x: Tensor, positions: Tensor | None = None, padding: Tensor | None = None, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new tokens, and with `weights` who read whom, (N, heads, n, n), otherwise None.

        x (N, n, width); positions (N, n, width) or what broadcasts to it; padding bool (N, n).
        """
        y = self.before(self.norm1, x)
        read, shares = _read(self.attention, _placed(y, positions), None, y, padding, weights)
        x = self.after(self.norm1, x, read)
        return self.after(self.norm2, x, self.feed(self.before(self.norm2, x))), shares


class DecoderLayer(Residual):
    """Queries read each other, then the memory, then each is changed alone: (N, Q, width) -> (N, Q, width).

    Arguments as of `EncoderLayer`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make two attentions, feed-forward and three norms."""
        super().__init__()
        self.self_attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.cross_attention = MultiHeadAttention(width, heads, dropout=dropout)
        self.finish(3, width, hidden, dropout, pre_norm, activation)

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
        padding: Tensor | None = None,
        weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the new queries, and with `weights` what they read of the memory, (N, heads, Q, n), otherwise None.

        x, positions: (N, Q, width); memory, memory_positions: (N, n, width); positions may be what broadcasts to it.
        padding: bool (N, n), of the memory.
        """
        y = self.before(self.norm1, x)
        read, _ = _read(self.self_attention, _placed(y, positions), None, y, None, False)
        x = self.after(self.norm1, x, read)
        query, keys = _placed(self.before(self.norm2, x), positions), _placed(memory, memory_positions)
        read, shares = _read(self.cross_attention, query, keys, memory, padding, weights)
        x = self.after(self.norm2, x, read)
        return self.after(self.norm3, x, self.feed(self.before(self.norm3, x))), shares


class Encoder(nn.Module):
    """`depth` encoder layers, and with `pre_norm` a norm behind the last; other arguments as of `EncoderLayer`."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make the layers. A depth of 0 gives none: tokens come back as they are, or through the norm."""
        super().__init__()
        count = check_length("depth", depth, 0)
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, hidden, dropout, pre_norm, activation) for _ in range(count)
        )
        self.norm = nn.LayerNorm(width) if pre_norm else None

    @overload
    def forward(
        self,
        x: Tensor,
        positions: Tensor | None = None,
        padding: Tensor | None = None,
        weights: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self, x: Tensor, positions: Tensor | None = None, padding: Tensor | None = None, *, weights: Literal[True]
    ) -> tuple[Tensor, list[Tensor]]: ...

    def forward(
        self, x: Tensor, positions: Tensor | None = None, padding: Tensor | None = None, weights: bool = False
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return the tokens (N, n, width), and with `weights` who read whom in each layer, (N, heads, n, n).

        Arguments as of `EncoderLayer.forward`.
        """
        kept = []
        for layer in self.layers:
            x, shares = layer(x, positions, padding, weights)
            kept.append(shares)
        x = x if self.norm is None else self.norm(x)
        return (x, kept) if weights else x


class Decoder(nn.Module):
    """`depth` decoder layers whose every result goes through one common norm; arguments as of `EncoderLayer`."""

    def __init__(
        self,
        depth: int,
        width: int,
        heads: int,
        hidden: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        """Make the layers and the norm."""
        super().__init__()
        count = check_length("depth", depth)
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden, dropout, pre_norm, activation) for _ in range(count)
        )
        self.norm = nn.LayerNorm(width)

    @overload
    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
        padding: Tensor | None = None,
        weights: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
        padding: Tensor | None = None,
        *,
        weights: Literal[True],
    ) -> tuple[Tensor, list[Tensor]]: ...

    def forward(
        self,
        x: Tensor,
        memory: Tensor,
        positions: Tensor | None = None,
        memory_positions: Tensor | None = None,
        padding: Tensor | None = None,
        weights: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Return every layer's queries, (depth, N, Q, width), and with `weights` what each layer read of the memory.

        Arguments as of `DecoderLayer.forward`. The next layer gets what was not normed (Carion et al. 2020, 3.2).
        """
        results, kept = [], []
        for layer in self.layers:
            x, shares = layer(x, memory, positions, memory_positions, padding, weights)
            results.append(self.norm(x))
            kept.append(shares)
        stacked = torch.stack(results)
        return (stacked, kept) if weights else stacked


def _placed(x: Tensor, positions: Tensor | None) -> Tensor:
    return x if positions is None else x + positions


def _read(
    attention: MultiHeadAttention,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    padding: Tensor | None,
    weights: bool,
) -> tuple[Tensor, Tensor | None]:
    result: Any = attention(query, key, value, padding, weights=weights)
    return result if weights else (result, None)
