"""Trained networks for the command line: find one, and let it enlarge what a picture file holds."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, official
from course_lib.cli.errors import Refused
from course_lib.cli.referenced import Referenced, check_size
from course_lib.cli.strips import Strips
from course_lib.colour import luminance
from course_lib.datasets import Samples, read_samples
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.luminance import enlarge_rgb
from course_lib.super_resolution.tiles import Tiles
from course_lib.super_resolution.ttsr import TTSR

LEAST_TRAINED, MOST_TRAINED = 1, 4
"""Scales that networks for every scale are trained on, here as in the papers."""

_DEAR = 4.0
_HEAVY = 2**32  # bytes


class Colour(nn.Module):
    """A network for luminance as one for RGB: colour differences are enlarged bicubically, see `enlarge_rgb`."""

    def __init__(self, network: ESPCN) -> None:
        """Take the network."""
        super().__init__()
        self.network, self.scale, self.radius = network, network.scale, max(network.radius, 2)

    def forward(self, lr: Tensor) -> Tensor:
        """Enlarge (..., 3, h, w) in [0, 1] to (..., 3, scale h, scale w)."""
        return enlarge_rgb(self.network, lr, self.scale)


def find(model: str | None, checkpoint: Path | None = None, meant: str | None = None) -> tuple[str, nn.Module]:
    """Return the name and the network in eval mode on the CPU: one of the book, or what is in a checkpoint file.

    meant: name of the official checkpoint where the file fits several. The name is that of the book or of the official
    checkpoint, else that of the file. Raises CheckpointMissing, FileNotFoundError, and ValueError for a file that is no
    checkpoint, or none of a network that is known here.
    """
    if checkpoint is None:
        return str(model), checkpoints.load(str(model))
    if _is_ours(checkpoint):
        return re.sub(r"[^A-Za-z0-9_.-]", "-", f"file-{checkpoint.stem}"), checkpoints.read(checkpoint)
    if meant is not None and meant not in official.names():
        raise Refused(f"--as must be one of {', '.join(official.names())}; got {meant!r}")
    whole = official.contents(checkpoint)
    try:
        official.unwrap(whole)  # says what came instead of tensors
        name = meant or official.recognise(whole)
        network = official.load(name, whole)
    except (official.Misfit, official.UnreadableCheckpoint) as error:
        how = " by --as NAME" if meant is None and "say which" in str(error) else ""
        raise Refused(f"{checkpoint}: {error}{how}") from error
    if isinstance(network, ESPCN):
        network.output = "sigmoid"  # this port has one behind the shuffle
    return name, network


def _is_ours(path: Path) -> bool:
    """Return whether a file is one that `checkpoints.save` wrote: safetensors whose header names its class."""
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            return "model" in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False  # the reader of official files says what is wrong


def for_rgb(network: nn.Module) -> nn.Module:
    """Return a network that takes RGB: the same, or a network for luminance in `Colour`.

    Raises Refused for a network that does not enlarge pictures.
    """
    if isinstance(network, ESPCN) and network.channels == 1:
        return Colour(network)
    if not isinstance(network, AnyScale) and not (hasattr(network, "scale") and hasattr(network, "radius")):
        raise Refused(f"{type(network).__name__} does not enlarge pictures")
    return network


def find_reference(path: Path | None, network: nn.Module, name: str, device: str) -> nn.Module:
    """Return a network with the picture in a file as its reference; one of TTSR without, where there is none.

    The network is on the device. Raises UnreadablePicture, and Refused where the network takes no reference, or the
    picture is too small or too large.
    """
    if not isinstance(network, TTSR):
        if path is not None:
            raise Refused(f"{name} takes no reference; --reference goes with ttsr-tiny or a checkpoint of TTSR")
        return network
    if path is None:
        return Referenced(network)
    if path.is_dir():
        raise Refused(f"--reference must be one picture, and {path} is a folder")
    samples = read_samples(path)
    height, width, _ = samples.values.shape
    check_size(network, (height, width), str(path))
    return Referenced(network, _planes(samples).to(device))


def check_goal(name: str, network: nn.Module, scale: Fraction | None, size: tuple[int, int] | None) -> None:
    """Raise Refused where a network for every scale is not told which, or one for a single scale is told another."""
    if isinstance(network, AnyScale):
        if scale is None and size is None:
            raise Refused(f"{name} enlarges by any scale; say which: --scale 3.4, or --size 1080x1920")
        return
    own = int(network.scale)  # type: ignore[arg-type]
    if scale not in (None, own):
        raise Refused(f"{name} was trained for scale {own} and has no other; got --scale {float(scale or 0):g}")


class NetworkStrips:
    """The rows of a picture that a network enlarges, made on demand, as `Strips` makes them by interpolation.

    samples: the picture; grey is given to the network as three equal channels, whose luminance comes back; alpha is
    enlarged bicubically, and colours that nobody sees are replaced by those nearby, so that they do not bleed into what
    is seen. Other arguments as of `Tiles`; bar: show how far the search in a reference is. Raises as `Tiles` does.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        size: tuple[int, int] | None,
        scale: Fraction | None,
        tile: int | None = None,
        overlap: int | None = None,
        precision: torch.dtype | None = None,
        done: Callable[[int], Any] | None = None,
        bar: bool = False,
    ) -> None:
        """See the class."""
        self.samples = samples
        planes = _planes(samples)
        if isinstance(network, Referenced):
            network, planes = network.over(planes, samples.top > 255, bar)
        self.tiles = Tiles(network, planes, size, scale, tile, overlap, precision, done)
        self.shape = (*self.tiles.size, samples.values.shape[2])
        self.alpha: Strips | None = None
        if samples.alpha:
            rows = self.tiles.rows
            exact = None if rows.step == Fraction(rows.n_in, rows.n_out) else 1 / rows.step
            self.alpha = Strips(Samples(samples.values[..., -1:]), self.tiles.size, exact)

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        """Yield strips (rows, W, C) from top to bottom, in the picture's own numbers."""
        first, top, dtype = 0, self.samples.top, self.samples.values.dtype
        for planes in self.tiles:
            end = first + planes.shape[-2]
            if self.shape[2] < 3:
                planes = (255 * luminance(planes) - 16) / 219  # grey in, the same grey out
            whole = planes.mul_(top).add_(0.5).clamp_(0, top).to(torch.uint8 if top == 255 else torch.int32)
            strip = whole.permute(1, 2, 0).numpy().astype(dtype, copy=False)
            if self.alpha is not None:
                strip = np.concatenate([strip, self.alpha.rows(first, end)], axis=2)
            yield np.ascontiguousarray(strip)
            first = end

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the result before it is made."""
        found, tiles = [], self.tiles
        steps = [1 / float(tiles.rows.step), 1 / float(tiles.columns.step)]
        outside = [scale for scale in steps if not LEAST_TRAINED <= scale <= MOST_TRAINED]
        if isinstance(tiles.model, AnyScale) and outside:
            found.append(
                f"scale {max(outside):.4g} is outside x{LEAST_TRAINED} to x{MOST_TRAINED}, on which such networks are "
                "trained; expect less"
            )
        if not tiles.exact and len(tiles.bands) * len(tiles.parts) > 1:
            found.append(f"the network looks {_sight(tiles)} and tiles overlap by {tiles.overlap}: seams may show")
        if tiles.exact and tiles.cost > _DEAR:
            found.append(
                f"tiles without seams take {tiles.cost:.0f} times the arithmetic here, because this network looks "
                f"{_sight(tiles)}; a larger --tile takes more memory and less time, a smaller --overlap "
                "less time and may show seams"
            )
        if (heavy := tiles.memory) > _HEAVY:
            found.append(
                f"a tile takes about {heavy / 1e9:.1f} GB of memory, because this network looks {_sight(tiles)}; "
                "--tile 256 with --overlap 16 takes less and may show seams"
            )
        return found


def _sight(tiles: Tiles) -> str:
    radius = int(tiles.model.radius)  # type: ignore[arg-type]
    return "at the whole picture" if radius >= max(tiles.rows.n_in, tiles.columns.n_in) else f"{radius} pixels around"


def _planes(samples: Samples) -> Tensor:
    """Return the picture as the network gets it: (3, h, w) float32 in [0, 1]."""
    height, width, channels = samples.values.shape
    planes = torch.empty(3, height, width)
    for c in range(3):
        plane = samples.values[..., c if channels > 2 else 0]
        planes[c] = torch.from_numpy(plane.astype(np.float32))
    planes /= samples.top
    if samples.alpha:
        opacity = torch.from_numpy(samples.values[..., -1].astype(np.float32)) / samples.top
        if not bool(opacity.all()):
            return torch.where(opacity > 0, planes, _spread(planes, opacity[None]))
    return planes


def _spread(planes: Tensor, opacity: Tensor) -> Tensor:
    """Return colours for every place out of those that are seen, from near where there are some, else from farther."""
    if bool((opacity > 0).all()) or max(opacity.shape[-2:]) == 1:
        return planes
    both = torch.cat([planes * opacity, opacity])[None]
    coarse = F.avg_pool2d(both, 2, ceil_mode=True, count_include_pad=False)[0]
    colours = coarse[:-1] / coarse[-1:].clamp(min=1e-12)
    wide = _spread(colours, coarse[-1:])
    large = F.interpolate(wide[None], scale_factor=2, mode="nearest")[0][..., : planes.shape[-2], : planes.shape[-1]]
    return torch.where(opacity > 0, planes, large)
