"""TTSR with one reference for pictures of any size: searched block by block, then enlarged tile by tile."""

import math

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.errors import Refused
from course_lib.super_resolution.layers import bicubic
from course_lib.super_resolution.relevance import search, transfer
from course_lib.super_resolution.ttsr import SCALE, TTSR, Offer, Textures, bicubic_up

MOST_BYTES = 2**30
"""Of the textures of a reference, which are all in memory."""

_PAIRS = 2**25  # of a row of small pixels and the whole reference, compared at once
_BLOCK = 128
_REACH = 6  # small pixels around its own that a query reads: its patch's neighbours, 5 convolutions and bicubic
_SLOW = 2e10


class Referenced(nn.Module):
    """TTSR with a reference, as a network that enlarges single pictures by 4: what `Tiles` takes.

    picture: the reference, (3, H, W) in [0, 1] on the network's device, cut to multiples of 4 at the bottom and right;
    None: none. deep: the pictures that are enlarged have more than 8 bits a sample; what the network's result is added
    to then keeps them (the paper rounds it to 8).
    """

    def __init__(self, network: TTSR, picture: Tensor | None = None, deep: bool = False) -> None:
        """Take the parts; `over` makes what goes through `forward`."""
        super().__init__()
        self.network, self.picture, self.deep = network, picture, deep
        self.scale, self.radius = network.scale, network.radius
        self.places = 0 if picture is None else math.prod(n // SCALE for n in picture.shape[-2:])
        self.offer: Offer | None = None

    def over(self, lr: Tensor, deep: bool = False, bar: bool = False) -> tuple["Referenced", Tensor]:
        """Return the network for one picture (3, h, w) in [0, 1], and the planes that `forward` takes instead of it.

        They are its three colours and, with a reference, two more: index and S of each pixel, searched here once, so
        that all tiles agree. bar: show how far the search is.
        """
        if self.picture is None:
            return Referenced(self.network, deep=deep), lr
        if self.offer is None:
            with torch.no_grad():
                self.offer = self.network.offer(self.picture)
        network = Referenced(self.network, self.picture, deep)
        network.offer = self.offer
        return network, torch.cat([lr, network._searched(self.offer, lr, bar)])

    def forward(self, planes: Tensor) -> Tensor:
        """Return (..., 3, 4h, 4w) of (..., 3 or 5, h, w), or of a window of that."""
        lr = planes[..., :3, :, :]
        small = lr.reshape(-1, *lr.shape[-3:])
        textures = None
        if self.offer is not None:
            found = planes.reshape(-1, *planes.shape[-3:])
            index = found[:, 3].to(torch.int64)
            levels = ((self.offer.fine, 4), (self.offer.middle, 2), (self.offer.coarse, 1))
            textures = Textures(index, found[:, 4:], *(transfer(maps, index, step) for maps, step in levels))
        base = bicubic(small, SCALE) if self.deep else bicubic_up(small)
        large = self.network.enlarge(small, base, textures)
        return large.reshape(*lr.shape[:-3], *large.shape[-3:])

    @torch.no_grad()
    def _searched(self, offer: Offer, lr: Tensor, bar: bool) -> Tensor:
        """Return index and S, (2, h, w): float32 holds whole numbers up to 2^24."""
        height, width = lr.shape[-2:]
        found = lr.new_empty(2, height, width)
        weight = next(self.network.parameters())
        side = max(1, min(_BLOCK, _PAIRS // self.places - 2))
        with tqdm(
            total=height * width, unit=" places", unit_scale=True, desc="search", leave=False, disable=not bar
        ) as progress:
            for top in range(0, height, _BLOCK):
                for left in range(0, width, side):
                    rows, columns = _Range(top, _BLOCK, height), _Range(left, side, width)
                    seen = lr[:, rows.first : rows.end, columns.first : columns.end].to(weight)
                    made = self._block(offer, seen, rows, columns)
                    found[:, top : top + made.shape[1], left : left + made.shape[2]] = made.to(lr)
                    progress.update(made.shape[1] * made.shape[2])
        return found

    def _block(self, offer: Offer, seen: Tensor, rows: "_Range", columns: "_Range") -> Tensor:
        """Return index and S of a block, of the pixels that are read for it."""
        query = self.network.extractor(bicubic_up(seen[None]))[-1]
        query = query[..., rows.near[0] : rows.near[1], columns.near[0] : columns.near[1]]
        index, soft = search(query, offer.key)
        both = torch.cat([index.to(soft)[:, None], soft], dim=1)[0]
        return both[:, rows.own[0] : rows.own[1], columns.own[0] : columns.own[1]]


class _Range:
    """Along one axis: first..end are read for a block; near: with the neighbours of its queries, counted from there;
    own: the block, counted from near.
    """

    def __init__(self, start: int, length: int, size: int) -> None:
        stop = min(size, start + length)
        self.first, self.end = max(0, start - _REACH), min(size, stop + _REACH)
        low, high = max(0, start - 1), min(size, stop + 1)
        self.near = low - self.first, high - self.first
        self.own = start - low, stop - low


def check_size(network: TTSR, size: tuple[int, int], name: str) -> None:
    """Raise Refused for a reference that is too small, or whose textures would not fit into memory."""
    height, width = size
    if min(size) < SCALE:
        raise Refused(f"the reference {name} must be at least {SCALE} x {SCALE} pixels, got {width} x {height}")
    fine, middle, coarse = network.widths
    most = int(MOST_BYTES // (4 * (fine + middle / 4 + 2 * coarse / 16)))
    if height * width > most:
        raise Refused(
            f"the reference {name} has {width} x {height} pixels, and this network takes {most / 1e6:.1f} million at "
            "most; cut out the part that shows the same things, or shrink it"
        )


def notes(network: Referenced, size: tuple[int, int]) -> list[str]:
    """Return what a reader should know before a picture (h, w) is enlarged."""
    if network.picture is None:
        return ["there is no --reference: the network works alone, as one for single pictures"]
    pairs = network.places * math.prod(size)
    if pairs < _SLOW:
        return []
    return [
        f"{math.prod(size):,} places of the picture are searched for in {network.places:,} of the reference; a smaller "
        "reference takes less time"
    ]
