"""`course evaluate sr`: PSNR and SSIM of a model on a benchmark, in the protocol of the published tables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib import datasets
from course_lib.cli.errors import Refused
from course_lib.cli.networks import find as find_network
from course_lib.cli.networks import for_rgb
from course_lib.super_resolution.any_scale import AnyScale
from course_lib.super_resolution.espcn import ESPCN
from course_lib.super_resolution.metrics import benchmark, enlarger, network, score
from course_lib.super_resolution.tiles import tiled
from course_lib.upsampling import resize

PROTOCOL = (
    "luminance (BT.601, rounded to 8 bits) of the picture cut to a multiple of the scale; shrunk bicubically (a=-1/2, "
    "antialiased, symmetric border), not rounded; result rounded to 8 bits; border of `scale` pixels cut; SSIM 11x11, "
    "sigma 1.5; mean over pictures"
)
_ANY_SCALE = (
    "RGB picture cut at the bottom and right to round(floor(size / scale) * scale); shrunk bicubically (a=-1/2, "
    "antialiased, symmetric border) and rounded to 8 bits; result rounded to 8 bits; "
)
_REST = "; SSIM 11x11, sigma 1.5; mean over pictures"
PROTOCOLS = {
    "luminance": PROTOCOL,
    "benchmark": f"{_ANY_SCALE}compared in luminance (BT.601, not rounded) without ceil(scale) pixels of border{_REST}",
    "div2k": f"{_ANY_SCALE}compared in RGB without ceil(scale) + 6 pixels of border{_REST}",
}
"""What the protocols are, by name; "luminance" is that of interpolation and of networks for luminance."""

# Rows that papers print: bicubic interpolation, and LIIF's table 2 for networks whose released weights are measured
PUBLISHED: dict[tuple[str, str], dict[int, tuple[str, str]]] = {
    ("bicubic", "Set5"): {2: ("33.66", "0.9299"), 3: ("30.39", "0.8682"), 4: ("28.42", "0.8104")},
    ("bicubic", "Set14"): {2: ("30.24", ""), 3: ("27.55", ""), 4: ("26.00", "")},
    ("rdn_B_x2", "Set5"): {2: ("38.24", "")},
    ("rdn_B_x3", "Set5"): {3: ("34.71", "")},
    ("rdn_B_x4", "Set5"): {4: ("32.47", "")},
    ("rdn_B_x2", "Set14"): {2: ("34.01", "")},
    ("rdn_B_x3", "Set14"): {3: ("30.57", "")},
    ("rdn_B_x4", "Set14"): {4: ("28.81", "")},
    ("liif_rdn", "Set5"): {2: ("38.17", ""), 3: ("34.68", ""), 4: ("32.50", ""), 6: ("29.15", ""), 8: ("27.14", "")},
    ("liif_rdn", "Set14"): {2: ("33.97", ""), 3: ("30.53", ""), 4: ("28.80", ""), 6: ("26.64", ""), 8: ("25.15", "")},
}


METHODS = ("nearest", "bilinear", "bicubic")
SCALES = (2, 3, 4)

Model = Callable[[Tensor, int], Tensor]
"""(1, h, w) and a whole scale -> the enlarged luminance, as protocol "luminance" asks."""
RGBModel = Callable[[Tensor, tuple[int, int]], Tensor]
"""(3, h, w) and (H, W) -> the enlarged picture, as the other protocols ask."""


@dataclass(frozen=True)
class Contestant:
    """What is measured: its name in tables and records, how it enlarges, at which scales, by which protocol.

    usual: whether this protocol is the one that such models are measured by when none is asked for.
    """

    name: str
    model: Model | RGBModel
    scales: list[Fraction]
    protocol: str
    usual: bool


def method(name: Any) -> Model:
    """Return an interpolation method as `benchmark` takes it."""
    return lambda low, scale: resize(low, scale=scale, method=name, border="symmetric")


def find(
    name: str,
    scales: Sequence[Fraction],
    checkpoint: Path | None = None,
    protocol: str | None = None,
    device: str = "cpu",
) -> Contestant:
    """Return a model by name or from a file, with the scales to measure it at: those asked for, or all that it has.

    checkpoint: a file that `networks.find` reads; the name is not looked at then. protocol: None for the usual one.
    Raises ValueError where the network was trained for another scale, or does not go with the protocol, and what
    `networks.find` raises.
    """
    if checkpoint is None and name in METHODS:
        chosen = protocol or "luminance"
        wanted = list(scales or map(Fraction, SCALES))
        _check_whole(chosen, wanted)
        return Contestant(
            name, method(name) if chosen == "luminance" else enlarger(name), wanted, chosen, chosen == "luminance"
        )
    label, trained = find_network(name, checkpoint)
    usual = "luminance" if isinstance(trained, ESPCN) and trained.channels == 1 else "benchmark"
    chosen = protocol or usual
    if chosen == "luminance" and usual != chosen:
        raise Refused(
            f"protocol luminance is of networks for luminance, {label} takes RGB; benchmark or div2k measure it"
        )
    for_rgb(trained).to(device)
    if isinstance(trained, AnyScale):
        wanted = list(scales or map(Fraction, SCALES))
    else:
        own = int(trained.scale)  # type: ignore[arg-type]
        others = [shown(scale) for scale in scales if scale != own]
        if others:
            raise ValueError(f"{label} was trained for scale {own} and has no other; got {', '.join(others)}")
        wanted = [Fraction(own)]
    model = network(trained) if chosen == "luminance" else _by_tiles(for_rgb(trained))
    return Contestant(label, model, wanted, chosen, chosen == usual)


def _check_whole(protocol: str, scales: Sequence[Fraction]) -> None:
    broken = [shown(scale) for scale in scales if scale.denominator > 1]
    if protocol == "luminance" and broken:
        raise Refused(f"protocol luminance takes whole scales, got {', '.join(broken)}; --protocol benchmark takes any")


def _by_tiles(trained: nn.Module) -> RGBModel:
    return lambda lr, size: tiled(trained, lr, size=size)


def shown(scale: Fraction) -> str:
    """Return a scale as records and tables have it: 2, 3.5, or 10/3 where decimals do not end."""
    decimal = f"{float(scale):.12g}"
    return decimal if Fraction(decimal) == scale else str(scale)


def measure(
    model: Model | RGBModel,
    data: str,
    scales: Sequence[int | Fraction],
    label: str = "model",
    protocol: str = "luminance",
) -> dict[str, Any]:
    """Return {"2": {"psnr", "ssim", "pictures": {name: [psnr, ssim]}}, ...} of a model on a set, in dB and [-1, 1].

    label: what the progress bar calls the model. Raises DataMissing where the set is not on this machine.
    """
    pictures = [(name, datasets.from_uint8(array)) for name, array in datasets.pictures(data)]
    values: dict[str, Any] = {}
    with tqdm(total=len(scales) * len(pictures), unit=" pictures", desc=f"{label} on {data}", leave=False) as bar:
        for scale in map(Fraction, scales):
            scores = {}
            for name, picture in pictures:
                chosen: Any = model
                if protocol == "luminance":
                    found = benchmark(picture, chosen, int(scale))
                else:
                    found = score(picture, chosen, scale, protocol)  # type: ignore[arg-type]
                scores[name] = [round(value, 6) for value in found]
                bar.update()
            psnr, ssim = torch.tensor(list(scores.values()), dtype=torch.float64).mean(dim=0).tolist()
            if not math.isfinite(psnr):
                raise ValueError(f"{label} at scale {shown(scale)} has no finite PSNR on {data}: {scores}")
            values[shown(scale)] = {"psnr": round(psnr, 4), "ssim": round(ssim, 5), "pictures": scores}
    return values


def table(model: str, data: str, values: dict[str, Any], protocol: str = "luminance") -> str:
    """Return the means as text, beside the published row where there is one, else beside that of bicubic."""
    own = model in METHODS or (model, data) in PUBLISHED
    rows = PUBLISHED.get((model if own else "bicubic", data), {}) if protocol != "div2k" else {}
    lines = [f"scale   PSNR (dB)   SSIM     published{'' if own else ' for bicubic'}"]
    for scale, row in values.items():
        published = " / ".join(filter(None, rows.get(int(scale), ()) if scale.isdigit() else ()))
        lines.append(f"x{scale:<6} {row['psnr']:<11.2f} {row['ssim']:<8.4f} {published or '-'}")
    return "\n".join(lines)
