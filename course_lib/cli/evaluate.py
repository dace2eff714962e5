"""`course evaluate sr`: PSNR and SSIM of a model on a benchmark, in the protocol of the published tables."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib import checkpoints, datasets
from course_lib.super_resolution.metrics import benchmark, network
from course_lib.upsampling import resize

PROTOCOL = (
    "luminance (BT.601, rounded to 8 bits) of the picture cut to a multiple of the scale; shrunk bicubically (a=-1/2, "
    "antialiased, symmetric border), not rounded; result rounded to 8 bits; border of `scale` pixels cut; SSIM 11x11, "
    "sigma 1.5; mean over pictures"
)
# Rows that papers print for bicubic interpolation
PUBLISHED: dict[tuple[str, str], dict[int, tuple[str, str]]] = {
    ("bicubic", "Set5"): {2: ("33.66", "0.9299"), 3: ("30.39", "0.8682"), 4: ("28.42", "0.8104")},
    ("bicubic", "Set14"): {2: ("30.24", ""), 3: ("27.55", ""), 4: ("26.00", "")},
}


METHODS = ("nearest", "bilinear", "bicubic")
SCALES = (2, 3, 4)

Model = Callable[[Tensor, int], Tensor]


def method(name: Any) -> Model:
    """Return an interpolation method as `benchmark` takes it."""
    return lambda low, scale: resize(low, scale=scale, method=name, border="symmetric")


def find(name: str, scales: Sequence[int] | None) -> tuple[Model, list[int]]:
    """Return a model by name, and the scales to measure it at: those asked for, or all that it has.

    Raises ValueError where a network was trained for another scale.
    """
    if name in METHODS:
        return method(name), list(scales or SCALES)
    trained = checkpoints.load(name)
    own = int(trained.scale)  # type: ignore[arg-type]
    others = [scale for scale in scales or () if scale != own]
    if others:
        raise ValueError(f"{name} was trained for scale {own} and has no other; got {', '.join(map(str, others))}")
    return network(trained), [own]


def measure(model: Model, data: str, scales: Sequence[int], label: str = "model") -> dict[str, Any]:
    """Return {"2": {"psnr", "ssim", "pictures": {name: [psnr, ssim]}}, ...} of a model on a set, in dB and [-1, 1].

    label: what the progress bar calls the model. Raises DataMissing where the set is not on this machine.
    """
    pictures = [(name, datasets.from_uint8(array)) for name, array in datasets.pictures(data)]
    values: dict[str, Any] = {}
    with tqdm(total=len(scales) * len(pictures), unit=" pictures", desc=f"{label} on {data}", leave=False) as bar:
        for scale in scales:
            scores = {}
            for name, picture in pictures:
                scores[name] = [round(score, 6) for score in benchmark(picture, model, scale)]
                bar.update()
            psnr, ssim = torch.tensor(list(scores.values()), dtype=torch.float64).mean(dim=0).tolist()
            values[str(scale)] = {"psnr": round(psnr, 4), "ssim": round(ssim, 5), "pictures": scores}
    return values


def table(model: str, data: str, values: dict[str, Any]) -> str:
    """Return the means as text, beside the published row where there is one, else beside that of bicubic."""
    rows = PUBLISHED.get((model if model in METHODS else "bicubic", data), {})
    lines = [f"scale   PSNR (dB)   SSIM     published{'' if model in METHODS else ' for bicubic'}"]
    for scale, row in values.items():
        published = " / ".join(filter(None, rows.get(int(scale), ())))
        lines.append(f"x{scale:<6} {row['psnr']:<11.2f} {row['ssim']:<8.4f} {published or '-'}")
    return "\n".join(lines)
