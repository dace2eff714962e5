"""SRNTT in miniature: patches swapped with a reference's, found by fixed features (chapter 11; Zhang et al. 2019)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.super_resolution.borrowing import Borrowing
from course_lib.super_resolution.layers import as_batch
from course_lib.super_resolution.relevance import search
from course_lib.super_resolution.ttsr import SCALE
from course_lib.super_resolution.warping import inside, warp
from course_lib.upsampling import resize
from course_lib.upsampling.grids import check_length

Extractor = Callable[[Tensor], Tensor]
"""(B, 3, H, W) -> (B, C, H / 4, W / 4)."""


class FilterBank(nn.Module):
    """Features that nothing trains: how the brightness changes along some directions, at some sizes.

    First and second derivatives of Gaussians, of zero mean and unit length: exp(-r^2 / (2 sigma^2)) times u, and times
    u^2 / sigma^2 - 1, where u is the distance along one of `angles` directions. Their mean over windows of pool x pool
    pixels, one window every 4 pixels, is the feature; a wide window forgets where in it a texture is. rectified: the
    positive and the negative parts are averaged one by one, as behind VGG's ReLU.

    It stands for SRNTT's VGG19 up to relu3_1, trained to tell the classes of ImageNet apart and then fixed. Raises
    TypeError or ValueError for sigmas that are not positive, angles below 1, or a pool that is odd.
    """

    filters: Tensor

    def __init__(
        self, sigmas: Sequence[float] = (1.0, 2.0), angles: int = 4, pool: int = 4, rectified: bool = False
    ) -> None:
        """Make the filters."""
        super().__init__()
        if not sigmas or not all(0 < sigma < math.inf for sigma in sigmas):
            raise ValueError(f"sigmas must be positive numbers of pixels, got {sigmas!r}")
        if check_length("pool", pool, least=2) % 2:
            raise ValueError(f"pool must be even, for windows in the middle of 4 x 4 pixels, got {pool}")
        self.pool, self.rectified = pool, rectified
        self.register_buffer("filters", _derivatives(sigmas, check_length("angles", angles)), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Return (B, C, H / 4, W / 4) of pictures (B, 3, H, W) in [0, 1] with multiples of 4 pixels."""
        grey = as_batch("pictures", pictures).mean(1, keepdim=True)
        reach = self.filters.shape[-1] // 2 + (self.pool - SCALE) // 2
        with torch.autocast(grey.device.type, enabled=False):
            found = F.conv2d(F.pad(grey, (reach,) * 4, mode="replicate"), self.filters.to(grey.dtype))
        if self.rectified:
            found = torch.cat([found.relu(), (-found).relu()], dim=1)
        return F.avg_pool2d(found, self.pool, stride=SCALE)


class SRNTT(Borrowing):
    """Enlarge four times with patches of a reference that look alike: sr = lr_up + swap(ref - ref_down_up).

    extractor: features at a quarter of the size; None: a `FilterBank`. Each small pixel takes the 12 x 12 pixels around
    the place of the reference whose 3 x 3 features are most like its own, and where patches overlap they are averaged.
    weighted: False, all swapped patches count alike, as in SRNTT; True, each by its similarity to the power `power`, as
    TTSR's soft attention does (there the power is 1 and a trained extractor keeps false matches low; fixed features,
    of blurred patches, find something rather like everywhere). phases: places are compared at every pixel of the
    reference instead of at every fourth; SRNTT and TTSR leave the rest to their networks, and there are none here.

    What the paper does and this does not: VGG19 (see `FilterBank`); swaps its features at three sizes; residual blocks
    fuse them with those of the picture; a texture loss, which does weight by similarity. Raises TypeError or ValueError
    naming the argument. Zhang et al. 2019.
    """

    def __init__(
        self,
        extractor: Extractor | None = None,
        weighted: bool = False,
        power: float = 4.0,
        phases: bool = True,
    ) -> None:
        """Keep the settings; there is nothing to train unless the extractor has weights."""
        super().__init__()
        if not 0 < power < math.inf:
            raise ValueError(f"power must be a positive number, got {power!r}")
        self.extractor = FilterBank() if extractor is None else extractor
        self.weighted, self.power, self.phases = weighted, power, phases

    def borrowed(self, lr_up: Tensor, ref: Tensor, ref_down_up: Tensor) -> Tensor:
        """Return the swapped detail, (B, 3, 4h, 4w), of a reference of any size."""
        flow, score = match(lr_up, ref_down_up, self.extractor, self.phases)
        detail = swap(ref - ref_down_up, flow)
        if not self.weighted:
            return detail
        return resize(score.clamp(min=0) ** self.power, scale=SCALE, method="bilinear").to(detail) * detail


def match(lr_up: Tensor, ref_down_up: Tensor, extractor: Extractor, phases: bool = True) -> tuple[Tensor, Tensor]:
    """Return where in a reference each small pixel finds its like, and how like it is.

    lr_up (B, 3, 4h, 4w), ref_down_up (B, 3, H, W): equally blurred, in [0, 1], with multiples of 4 pixels. flow (B, 2,
    h, w): how many pixels down and right of the same place, of whole pixels; score (B, 1, h, w): the cosine in [-1, 1]
    of 3 x 3 features. phases: the reference is compared 16 times, each time without its first i rows and j columns, i
    and j = 0..3, so that every pixel of it has its turn; otherwise once, and only every fourth has.

    Raises as `relevance.search` does. Zhang et al. 2019, equations 1 and 2; both lengths are divided by, which leaves
    the best match the best.
    """
    query = extractor(lr_up)
    rows, columns = (SCALE * torch.arange(n, device=query.device) for n in query.shape[-2:])
    best: tuple[Tensor, Tensor] | None = None
    for phase in range(SCALE**2 if phases else 1):
        i, j = divmod(phase, SCALE)
        height, width = (n - n % SCALE for n in (ref_down_up.shape[-2] - i, ref_down_up.shape[-1] - j))
        if phase and not (height and width):
            continue  # the reference has four rows or columns
        key = extractor(ref_down_up[..., i : i + height, j : j + width])
        index, score = search(query, key)
        down = SCALE * (index // key.shape[-1]) + i - rows[:, None]
        right = SCALE * (index % key.shape[-1]) + j - columns
        flow = torch.stack([down, right], dim=1).to(score.dtype)
        if best is not None:
            better = score > best[1]
            flow, score = torch.where(better, flow, best[0]), torch.where(better, score, best[1])
        best = flow, score
    assert best is not None
    return best


def swap(value: Tensor, flow: Tensor, step: int = SCALE) -> Tensor:
    """Return patches of a reference, 3 step x 3 step pixels each, laid where they were asked for and averaged.

    value (B, C, H, W); flow (B, 2, h, w), as `match` finds it: patch (i, j) covers small pixel (i, j) and the 8 around
    it, and moves as a whole. Returns (B, C, step h, step w): at each pixel the mean of those of its (up to) nine
    patches that lie in the reference there, 0 where none does. A swap is a flow without smoothness, nine times over.
    Gradient to value. Raises as `warp` does.
    """
    h, w = flow.shape[-2:]
    around = F.pad(flow, (1, 1, 1, 1), value=math.inf)  # no patch is laid from outside the picture
    total, count = value.new_zeros(()), value.new_zeros(())
    for i in range(3):
        for j in range(3):
            patch = around[..., i : i + h, j : j + w].repeat_interleave(step, -2).repeat_interleave(step, -1)
            hits = inside(patch, (value.shape[-2], value.shape[-1])).to(value)
            total = total + hits * warp(value, patch)
            count = count + hits
    return total / count.clamp(min=1)


def _derivatives(sigmas: Sequence[float], angles: int) -> Tensor:
    """Return (2 len(sigmas) angles, 1, n, n), n = 6 max(sigmas) + 1: of each size and direction, both derivatives."""
    reach = math.ceil(3 * max(sigmas))
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    made = []
    for sigma in sigmas:
        hill = torch.exp(-(places[:, None] ** 2 + places**2) / (2 * sigma**2))
        for turn in range(angles):
            along = math.sin(math.pi * turn / angles) * places[:, None] + math.cos(math.pi * turn / angles) * places
            made += [along * hill, (along**2 / sigma**2 - 1) * hill]
    filters = torch.stack(made)
    filters = filters - filters.mean((-2, -1), keepdim=True)
    return (filters / filters.square().sum((-2, -1), keepdim=True).sqrt())[:, None]
