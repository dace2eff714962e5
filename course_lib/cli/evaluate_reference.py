"""`course evaluate reference`: what related and unrelated references are worth to TTSR, in PSNR and SSIM."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib import checkpoints, datasets
from course_lib.cli.errors import Refused
from course_lib.cli.networks import find as find_network
from course_lib.cli.referenced import Referenced
from course_lib.super_resolution import metrics
from course_lib.super_resolution.tiles import tiled
from course_lib.super_resolution.ttsr import SCALE, TTSR

SINGLE = "edsr-tiny-x4"
"""The network for single pictures that stands beside."""

PROTOCOL = (
    "RGB picture cut at the bottom and right to a multiple of 4; shrunk by 4 bicubically (a=-1/2, antialiased, "
    "symmetric border) and rounded to 8 bits; result rounded to 8 bits; compared in luminance (BT.601, not rounded) "
    "without 4 pixels of border; SSIM 11x11, sigma 1.5; references whole, in 8 bits, cut to multiples of 4; unrelated: "
    "the first references of the next two scenes; soft: mean of the soft attention S"
)
_STEREO = ("kitti2012_000000_10", "flickr1024_0026")
_CUFED = "001"
_CUFED_REFERENCES = 5
_UNRELATED = 2
# free photographs of which both target and reference are made: how the reference looks at them
_MADE: dict[str, dict[str, Any]] = {
    "astronaut": {"shift": (14.4, -20.7), "degrees": 6, "zoom": 1.08, "gain": 0.9},
    "chelsea": {"shift": (-16.3, 12.6), "degrees": -9, "zoom": 0.93, "offset": 0.03},
    "coffee": {"shift": (10.5, 17.2), "degrees": 3, "zoom": 1.12, "cast": (1.03, 1, 0.97)},
}
_SIDE = 256


@dataclass(frozen=True)
class Scene:
    """A picture (3, H, W) in whole 255ths, and related references by name, the most alike first."""

    name: str
    picture: Tensor
    references: dict[str, Tensor]


def scenes() -> tuple[list[Scene], list[str]]:
    """Return what is measured, and what is missing for the rest, in words.

    A stereo pair and pairs made of free photographs are always there; two more stereo pairs and a scene of CUFED5 with
    five references are in a mirror that COURSE_DATA names, or nowhere.
    """
    left, right, _ = skimage.data.stereo_motorcycle()  # type: ignore[no-untyped-call]
    found = [Scene("motorcycle", datasets.from_uint8(left), {"right": datasets.from_uint8(right)})]
    missing = []
    try:
        names = [f"{name}_{eye}.png" for name in _STEREO for eye in "LR"]
        folder = datasets.mirror("stereo_samples", names)
        for name in _STEREO:
            eyes = [datasets.read_picture(folder / f"{name}_{eye}.png") for eye in "LR"]
            found.append(Scene(name, eyes[0], {"right": eyes[1]}))
    except datasets.DataMissing as error:
        missing.append(str(error))
    try:
        names = [f"test/{_CUFED}_{k}.png" for k in range(_CUFED_REFERENCES + 1)]
        folder = datasets.mirror("CUFED5_sample", names)
        target, *others = (datasets.read_picture(folder / name) for name in names)
        references = {f"{_CUFED}_{k}": other for k, other in enumerate(others, 1)}
        found.append(Scene(f"CUFED5 {_CUFED}_0", target, references))
    except datasets.DataMissing as error:
        missing.append(str(error))
    for name, knobs in _MADE.items():
        target, other = datasets.related(datasets.photograph(name), (_SIDE, _SIDE), **knobs)
        found.append(Scene(name, target, {"made": other}))
    return found, missing


def find(name: str | None, checkpoint: Path | None, device: str) -> tuple[str, TTSR]:
    """Return the name and the network. Raises Refused where it takes no reference, and what `networks.find` raises."""
    label, network = find_network(name, checkpoint)
    if not isinstance(network, TTSR):
        raise Refused(f"{label} takes no reference; a network of TTSR is measured here, such as ttsr-tiny")
    return label, network.to(device)


def measure(network: TTSR, found: Sequence[Scene], single: nn.Module | None) -> dict[str, Any]:
    """Return {scene: {"size", "bicubic", "single", "none", "related": {reference: row}, "unrelated"}}.

    A row is {"psnr", "ssim"} in dB and [-1, 1], with "soft" where there is a reference; that of "unrelated" is the mean
    over two references, with "worst", the row of the lower PSNR, and their names. single: a network for single
    pictures, or None.
    """
    values: dict[str, Any] = {}
    with tqdm(total=sum(len(scene.references) + 2 + _UNRELATED for scene in found), unit=" pictures") as bar:
        for k, scene in enumerate(found):
            bar.set_postfix_str(scene.name)
            lr, hr = metrics.pair(scene.picture, SCALE)
            row: dict[str, Any] = {"size": list(hr.shape[-2:])}
            row["bicubic"] = _scored(metrics.enlarger("bicubic")(lr, (hr.shape[-2], hr.shape[-1])), hr)
            if single is not None:
                row["single"] = _scored(tiled(single, lr), hr)
            bar.update()
            row["none"] = _with(Referenced(network), lr, hr)
            bar.update()
            row["related"] = {}
            for name, reference in scene.references.items():
                row["related"][name] = _with(_asked(network, reference), lr, hr)
                bar.update()
            others = [found[(k + step) % len(found)] for step in range(1, min(_UNRELATED, len(found) - 1) + 1)]
            rows = []
            for other in others:
                rows.append(_with(_asked(network, next(iter(other.references.values()))), lr, hr))
                bar.update()
            row["unrelated"] = _mean(rows) | {
                "worst": min(rows, key=lambda one: one["psnr"]),
                "references": [other.name for other in others],
            }
            values[scene.name] = row
    return values


def _asked(network: TTSR, reference: Tensor) -> Referenced:
    return Referenced(network, reference.to(next(network.parameters())))


def _with(network: Referenced, lr: Tensor, hr: Tensor) -> dict[str, float]:
    model, planes = network.over(lr.to(torch.float32))
    soft = {} if network.picture is None else {"soft": round(float(planes[4].mean()), 4)}
    return _scored(tiled(model, planes), hr) | soft


def _scored(sr: Tensor, hr: Tensor) -> dict[str, float]:
    result, original = metrics.compared(sr, hr, SCALE)
    return {
        "psnr": round(float(metrics.psnr(result, original)), 4),
        "ssim": round(float(metrics.ssim(result, original)), 5),
    }


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {key: round(float(np.mean([row[key] for row in rows])), 5) for key in rows[0]}


def yardstick() -> nn.Module | None:
    """Return the network for single pictures, None where it does not come with this copy of the book."""
    return checkpoints.load(SINGLE) if SINGLE in checkpoints.names() else None


def record(option: str, values: dict[str, Any], found: Sequence[Scene]) -> dict[str, Any]:
    """Return what is kept of a measurement."""
    return {
        "values": {"single": SINGLE, "scenes": values},
        "command": f"course evaluate reference {option}",
        "protocol": PROTOCOL,
        "data": ", ".join(scene.name for scene in found),
    }


def table(label: str, values: dict[str, Any]) -> str:
    """Return the PSNR of each scene, with one line for each related reference."""
    heads = ["bicubic", SINGLE, "none", "related", "unrelated", "worst", "S related", "S unrelated"]
    lines = [f"{label}, PSNR in dB", "  ".join([f"{'scene':<28}", *(f"{head:<12}" for head in heads)]).rstrip()]
    for scene, row in values.items():
        other = row["unrelated"]
        for name, related in row["related"].items():
            cells = [row["bicubic"], row.get("single"), row["none"], related, other, other["worst"]]
            shown = [f"{cell['psnr']:.2f}" if cell else "-" for cell in cells]
            shown += [f"{one['soft']:.3f}" for one in (related, other)]
            title = scene if len(row["related"]) == 1 else f"{scene} {name}"
            lines.append("  ".join([f"{title:<28}", *(f"{cell:<12}" for cell in shown)]).rstrip())
    return "\n".join(lines)
