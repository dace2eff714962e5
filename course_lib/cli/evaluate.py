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

    option: what says it on the command line. usual: whether this protocol is the one that such models are measured by
    when none is asked for.
    """

    name: str
    option: str
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
        plain = method(name) if chosen == "luminance" else enlarger(name)
        return Contestant(name, f"--model {name}", plain, wanted, chosen, chosen == "luminance")
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
    option = f"--model {name}" if checkpoint is None else f"--checkpoint {checkpoint.name}"
    return Contestant(label, option, model, wanted, chosen, chosen == usual)


def find_all(
    models: Sequence[str],
    scales: Sequence[Fraction],
    checkpoint: Path | None = None,
    protocol: str | None = None,
    device: str = "cpu",
) -> list[Contestant]:
    """Return models by name and the one in a checkpoint file, bicubic where neither is given.

    protocol: of all of them; None for the usual one, which for several is "benchmark", because it suits every model and
    scale. Raises what `find` raises.
    """
    names = list(dict.fromkeys(models)) or ([] if checkpoint else ["bicubic"])
    if len(names) + (checkpoint is not None) > 1:
        protocol = protocol or "benchmark"
    found = [find(name, scales, None, protocol, device) for name in names]
    return found + ([find("", scales, checkpoint, protocol, device)] if checkpoint else [])


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


def record(found: Sequence[Contestant], data: str, values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what is kept of one model's measurement on a set, or of several: the values are then by model."""
    same = all(one.scales == found[0].scales for one in found)  # else each has those that it has by itself
    chosen = "".join(f" --scale {shown(scale)}" for scale in found[0].scales) if same else ""
    by = "" if len(found) == 1 and found[0].usual else f" --protocol {found[0].protocol}"
    return {
        "values": values[0] if len(found) == 1 else {one.name: v for one, v in zip(found, values, strict=True)},
        "command": f"course evaluate sr {' '.join(one.option for one in found)} --data {data}{chosen}{by}",
        "protocol": PROTOCOLS[found[0].protocol],
        "data": data,
    }


def text(found: Sequence[Contestant], data: str, values: Sequence[dict[str, Any]]) -> str:
    """Return the table of one model, or one with a column for each of several."""
    if len(found) == 1:
        one = found[0]
        return f"{one.name} on {data}, protocol {one.protocol}\n{table(one.name, data, values[0], one.protocol)}"
    wide = [max(len(one.name), 14) for one in found]
    lines = [f"PSNR (dB) / SSIM on {data}, protocol {found[0].protocol}"]
    lines.append("  ".join(["scale  ", *(f"{one.name:<{w}}" for one, w in zip(found, wide, strict=True))]).rstrip())
    for scale in sorted({scale for one in found for scale in one.scales}):
        rows = [one.get(shown(scale)) for one in values]
        cells = [f"{row['psnr']:.2f} / {row['ssim']:.4f}" if row else "-" for row in rows]
        line = [f"x{shown(scale):<6}", *(f"{cell:<{w}}" for cell, w in zip(cells, wide, strict=True))]
        lines.append("  ".join(line).rstrip())
    return "\n".join(lines)


def table(model: str, data: str, values: dict[str, Any], protocol: str = "luminance") -> str:
    """Return the means as text, beside the published row where there is one, else beside that of bicubic."""
    own = model in METHODS or (model, data) in PUBLISHED
    rows = PUBLISHED.get((model if own else "bicubic", data), {}) if protocol != "div2k" else {}
    lines = [f"scale   PSNR (dB)   SSIM     published{'' if own else ' for bicubic'}"]
    for scale, row in values.items():
        published = " / ".join(filter(None, rows.get(int(scale), ()) if scale.isdigit() else ()))
        lines.append(f"x{scale:<6} {row['psnr']:<11.2f} {row['ssim']:<8.4f} {published or '-'}")
    return "\n".join(lines)
