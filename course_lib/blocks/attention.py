"""Attention: every token reads from others, by how well its query fits their keys (chapters 19 to 24).

Vaswani et al. 2017, equation 1 and section 3.2.2. A True in a mask means: may not be read. The slow form that shows
every step is `course_lib.plain.attention.attention_loop`.
"""

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.upsampling.grids import check_length


@overload
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    weights: Literal[False] = False,
    dropout: float = 0.0,
) -> Tensor: ...


@overload
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    weights: Literal[True],
    dropout: float = 0.0,
) -> tuple[Tensor, Tensor]: ...


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    weights: bool = False,
    dropout: float = 0.0,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return softmax(q k^T / sqrt(d) + bias) v, and the softmax too where `weights` is True (Vaswani et al. 2017, 1).

    q (..., n, d), k (..., m, d), v (..., m, e) -> (..., n, e), and weights (..., n, m), whose rows sum to 1. mask:
    bool, True where a query may not read a key; bias: finite numbers added to the scores; both broadcast to
    (..., n, m). A query that may read nothing gets 0. dropout: part of the weights set to 0, the others made larger,
    at every call (a module passes 0 when it is not trained). Raises TypeError or ValueError for shapes that do not fit.
    """
    _check(q, k, v, mask, bias)
    # Measured on a CPU (float32, with and without gradients): the fused form takes 1/6.5 (1,024 tokens, padding) to
    # 1/0.9 (36 tokens) of the visible form's time, and never holds the n x m matrix. Where a bias learns it has to,
    # and takes 1 to 1.9 times as long.
    if weights or (bias is not None and bias.requires_grad and torch.is_grad_enabled()):
        out, read = _visible(q, k, v, mask, bias, dropout)
        return (out, read) if weights else out
    added = mask if mask is None else ~mask
    if bias is not None:
        added = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(mask, float("-inf"))
    if added is not None and added.dim() == 3:
        added = added[None]  # with three axes torch leaves its fused kernel, and takes twice as long
    few = max(0, 4 - q.dim())  # the fused kernels want (N, heads, n, d); a mask broadcasts from the right by itself
    q, k, v = (x[(None,) * few] for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=added, dropout_p=dropout)
    return out.reshape(out.shape[few:])


def _visible(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, dropout: float
) -> tuple[Tensor, Tensor]:
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        # not -inf: a row of nothing else would be 0 / 0. Even weights there, then zeros, are finite, gradients too
        scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
    read = scores.softmax(-1)
    if mask is not None:
        read = read.masked_fill(mask, 0.0)
    used = F.dropout(read, dropout) if dropout else read
    return used.to(v.dtype) @ v, read


def _check(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        given: Any = x
        if not isinstance(given, Tensor) or not given.is_floating_point():
            came = given.dtype if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"{name} must be a floating point torch.Tensor, got {came}")
        if x.dim() < 2 or x.shape[:-2] != q.shape[:-2]:
            raise ValueError(
                f"{name} must be (..., tokens, channels) with q's leading sizes, got {tuple(x.shape)} "
                f"beside q {tuple(q.shape)}"
            )
    if q.shape[-1] != k.shape[-1] or q.shape[-1] < 1:
        raise ValueError(f"k must have the channels of q, {q.shape[-1]}, at least 1, got {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ValueError(f"v must have one row for each of the {k.shape[-2]} keys, got {v.shape[-2]}")
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(f"mask must be bool, True where a key may not be read, got {mask.dtype}")
    if bias is not None and not bias.is_floating_point():
        raise TypeError(f"bias must be floating point, got {bias.dtype}")
    pairs = (*q.shape[:-1], k.shape[-2])
    for name, matrix in (("mask", mask), ("bias", bias)):
        if matrix is not None and not _broadcasts(tuple(matrix.shape), pairs):
            raise ValueError(f"{name} must broadcast to (..., queries, keys) = {pairs}, got {tuple(matrix.shape)}")


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return len(shape) <= len(target) and all(size in (1, wanted) for size, wanted in pairs)


class MultiHeadAttention(nn.Module):
    """Several attentions side by side, each in its own part of the channels (Vaswani et al. 2017, section 3.2.2).

    width: channels of tokens, a multiple of heads. Tensors: qkv (3 width, width), whose rows are those of all heads'
    queries, then keys, then values; out (width, width). bias: of both. dropout: of the weights, in training.
    Drawn as torch.nn.MultiheadAttention draws: Xavier for qkv, zeros for the biases. Raises TypeError or ValueError
    for numbers that are not whole and >= 1, and where heads does not divide width.
    """

    def __init__(self, width: int, heads: int, bias: bool = True, dropout: float = 0.0) -> None:
        """Make the two layers."""
        super().__init__()
        self.width, self.heads = check_length("width", width), check_length("heads", heads)
        if width % heads:
            raise ValueError(f"heads must divide width, {width}, got {heads}")
        self.dropout = check_share("dropout", dropout)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias), nn.Linear(width, width, bias)
        nn.init.xavier_uniform_(self.qkv.weight)
        if bias:
            nn.init.zeros_(self.qkv.bias)
            nn.init.zeros_(self.out.bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of one input (N, n, width), each (N, heads, n, width / heads)."""
        self._check("x", x)
        q, k, v = self._part(x, 0, 3)
        return q, k, v

    def join(self, x: Tensor) -> Tensor:
        """Return what the heads read, (N, heads, n, width / heads), side by side and through `out`: (N, n, width)."""
        result: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return result

    @overload
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        weights: Literal[False] = False,
    ) -> Tensor: ...

    @overload
    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        *,
        weights: Literal[True],
    ) -> tuple[Tensor, Tensor]: ...

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        padding: Tensor | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
        weights: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Return what each query read, (N, n, width), and with `weights` also how much of what: (N, heads, n, m).

        query (N, n, width); key (N, m, width), query itself where None; value (N, m, width), key where None. padding:
        bool (N, m), True for keys that no query may read; mask (bool, the same) and bias broadcast to
        (N, heads, n, m). Raises TypeError or ValueError for shapes that do not fit.
        """
        q, k, v = self._three(query, key, value)
        if padding is not None:
            if padding.dtype != torch.bool:
                raise TypeError(f"padding must be bool, True for keys that may not be read, got {padding.dtype}")
            if padding.shape != (k.shape[0], k.shape[2]):
                expected = (k.shape[0], k.shape[2])
                raise ValueError(f"padding must be (N, keys) = {expected}, got {tuple(padding.shape)}")
            unread = padding[:, None, None, :]
            if mask is not None and mask.dtype != torch.bool:
                raise TypeError(f"mask must be bool, True where a key may not be read, got {mask.dtype}")
            mask = unread if mask is None else mask | unread
        dropout = self.dropout if self.training else 0.0
        if weights:
            out, read = attend(q, k, v, mask, bias, weights=True, dropout=dropout)
            return self.join(out), read
        return self.join(attend(q, k, v, mask, bias, dropout=dropout))

    def _three(self, query: Tensor, key: Tensor | None, value: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        key = query if key is None else key
        value = key if value is None else value
        if key is query and value is query:
            return self.project(query)
        for name, x in (("query", query), ("key", key), ("value", value)):
            self._check(name, x)
            if x.shape[0] != query.shape[0]:
                raise ValueError(f"{name} must have query's batch, {query.shape[0]}, got {x.shape[0]}")
        if key is query:
            q, k = self._part(query, 0, 2)
            return q, k, self._part(value, 2, 3)[0]
        if value is key:
            k, v = self._part(key, 1, 3)
            return self._part(query, 0, 1)[0], k, v
        return self._part(query, 0, 1)[0], self._part(key, 1, 2)[0], self._part(value, 2, 3)[0]

    def _part(self, x: Tensor, first: int, end: int) -> Tensor:
        """Return the thirds first to end of the packed layer of x, (end - first, N, heads, n, width / heads)."""
        rows = slice(first * self.width, end * self.width)
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        made = F.linear(x, self.qkv.weight[rows], bias)
        return made.reshape(*x.shape[:2], end - first, self.heads, self.width // self.heads).permute(2, 0, 3, 1, 4)

    def _check(self, name: str, x: Any) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a floating point torch.Tensor, got {came}")
        if x.dim() != 3 or x.shape[-1] != self.width:
            raise ValueError(f"{name} must be (N, tokens, {self.width}), got {tuple(x.shape)}")


def check_share(name: str, share: float) -> float:
    """Return `share` if it is a number from 0 to below 1, such as of dropout; raise ValueError otherwise."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ValueError(f"{name} must be a number from 0 to below 1, got {share!r}")
    return float(share)
