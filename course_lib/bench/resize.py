"""How long `resize` takes beside PyTorch, Pillow and scikit-image."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.bench.timing import check_device, cpu_threads, fresh_memory, medians
from course_lib.upsampling import resize

SMALL, LARGE = 512, 2048
PROTOCOL = (
    f"3 x {SMALL} x {SMALL} -> {LARGE} (up) and back (down), float32; medians, one warm-up run, rivals by turns, "
    "results in new memory; every case beside torch's nearest equivalent: F.interpolate with the same method, "
    "antialias and align_corners (half_pixel and origin: False); Pillow on 8-bit RGB; scikit-image order 3 on "
    "float32; copy: each method enlarging, without antialiasing, beside copying its result and filling as much with "
    "one number"
)
_DIRECTIONS = {"up": (SMALL, LARGE), "down": (LARGE, SMALL)}
_GRIDS = ("half_pixel", "align_corners", "origin")
_BORDERS = ("replicate", "symmetric", "renormalise")


def run(
    device: str,
    threads: int | None,
    repeats: int,
    progress: bool = False,
    small: int = SMALL,
    own_process: bool = False,
) -> dict[str, Any]:
    """Return the times in milliseconds and their ratios to PyTorch's.

    own_process: whether the memory rules of the whole process may be changed (`timing.fresh_memory`).
    small: side of the smaller picture (the larger is four times that). Returns {"threads", "device", "rivals": bicubic
    antialiased in every library, "copy": see `_beside_copy`, "cases": every method, antialias, grid and border}; on
    CUDA each case also has "of_bandwidth": bytes read and written once, per second, over what a plain copy moves.
    Raises ValueError for a device that is not there.
    """
    check_device(device)
    if own_process:
        fresh_memory()
    pictures = {
        "up": torch.rand(3, small, small, generator=torch.Generator().manual_seed(0)).to(device),
        "down": torch.rand(3, 4 * small, 4 * small, generator=torch.Generator().manual_seed(0)).to(device),
    }
    sizes = {"up": 4 * small, "down": small}
    cases = list(_cases())
    with (
        cpu_threads(threads) as used,
        tqdm(total=len(cases) + 3, unit=" cases", disable=not progress, leave=False) as bar,
    ):
        bandwidth = _bandwidth(device)
        rivals = {}
        for direction, picture in pictures.items():
            rivals[direction] = _compare(_rivals(picture, sizes[direction]), repeats, device)
            bar.update()
        copy = _beside_copy(pictures["up"], sizes["up"], repeats, device)
        bar.update()
        rows = []
        for case in cases:
            picture, size = pictures[case["direction"]], sizes[case["direction"]]
            times = _compare(_pair(picture, size, case), repeats, device)
            row = {**case, **times}
            if bandwidth is not None:
                moved = 4 * 3 * (picture.shape[-1] ** 2 + size**2)
                row["of_bandwidth"] = round(moved / (times["ours_ms"] / 1e3) / bandwidth, 3)
            rows.append(row)
            bar.update()
    about = {"threads": used, "device": device, "side": small, "repeats": repeats}
    return {**about, "rivals": rivals, "copy": copy, "cases": rows}


def _cases() -> Any:
    for direction, grid in itertools.product(_DIRECTIONS, _GRIDS):
        yield {"direction": direction, "method": "nearest", "antialias": False, "grid": grid, "border": "replicate"}
    everything = itertools.product(_DIRECTIONS, ("bilinear", "bicubic"), (True, False), _GRIDS, _BORDERS)
    for direction, method, antialias, grid, border in everything:
        yield {"direction": direction, "method": method, "antialias": antialias, "grid": grid, "border": border}


def _pair(picture: Tensor, size: int, case: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    options = {name: case[name] for name in ("method", "antialias", "grid", "border")}
    method, batch = case["method"], picture[None]
    if method == "nearest":
        rival: dict[str, Any] = {"mode": "nearest" if case["grid"] == "origin" else "nearest-exact"}
    else:
        corners = case["grid"] == "align_corners"
        rival = {"mode": method, "antialias": case["antialias"], "align_corners": corners}
    return {
        "ours": lambda: resize(picture, size=size, **options),
        "torch": lambda: F.interpolate(batch, size=(size, size), **rival),
    }


def _rivals(picture: Tensor, size: int) -> dict[str, Callable[[], Any]]:
    """Return bicubic, antialiased resizing by every library at hand; the last two work on the CPU only."""
    import skimage.transform as transform

    case = {"method": "bicubic", "antialias": True, "grid": "half_pixel", "border": "renormalise"}
    array = picture.permute(1, 2, 0).cpu().numpy()
    eight_bit = Image.fromarray((255 * array).astype(np.uint8))
    functions = _pair(picture, size, case)
    if picture.device.type == "cpu":
        functions["pillow"] = lambda: eight_bit.resize((size, size), Image.Resampling.BICUBIC)
        functions["scikit_image"] = lambda: transform.resize(  # type: ignore[no-untyped-call]
            array, (size, size), order=3, anti_aliasing=True
        )
    return functions


def _beside_copy(picture: Tensor, size: int, repeats: int, device: str) -> dict[str, Any]:
    """Return what enlarging costs beside a plain copy of the result: times, ratios to the copy, and bytes moved.

    "<what>_ms" for copy, fill and each of our methods, "<what>_over_copy" for all but the first; all of them write into
    new memory. "copy_bytes" and "resize_bytes": read and written once each.
    """
    result = resize(picture, size=size, method="nearest")
    functions: dict[str, Callable[[], Any]] = {"copy": result.clone, "fill": lambda: torch.full_like(result, 0.5)}
    for method in ("nearest", "bilinear", "bicubic"):
        functions[method] = functools.partial(resize, picture, size=size, method=method, antialias=False)
    seconds = medians(functions, repeats, device)
    times = {f"{name}_ms": round(1e3 * value, 3) for name, value in seconds.items()}
    ratios = {f"{name}_over_copy": round(seconds[name] / seconds["copy"], 2) for name in functions if name != "copy"}
    moved = {"copy_bytes": 2 * result.nbytes, "resize_bytes": picture.nbytes + result.nbytes}
    return {**times, **ratios, **moved}


def _compare(functions: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, float]:
    seconds = medians(functions, repeats, device)
    times = {f"{name}_ms": round(1e3 * value, 3) for name, value in seconds.items()}
    return {**times, "ratio": round(seconds["ours"] / seconds["torch"], 2)}


def _bandwidth(device: str) -> float | None:
    """Return the bytes per second that copying a large tensor reads and writes on a GPU; None on the CPU."""
    if device != "cuda":
        return None
    source = torch.zeros(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = medians({"copy": lambda: target.copy_(source)}, 20, device)["copy"]
    return 2 * source.numel() / seconds


def table(values: dict[str, Any]) -> str:
    """Return the measurement as text."""
    side = values["side"]
    names = {"up": f"3 x {side} x {side} -> {4 * side}", "down": f"3 x {4 * side} x {4 * side} -> {side}"}
    lines = [f"device {values['device']}, {values['threads']} CPU threads; milliseconds, and our time / torch's", ""]
    lines.append("bicubic, antialiased, border as torch's (renormalise)")
    for direction, times in values["rivals"].items():
        shown = "  ".join(f"{name.removesuffix('_ms')} {value:.1f}" for name, value in times.items() if name != "ratio")
        lines.append(f"  {names[direction]:<22} {shown}  ratio {times['ratio']:.2f}")
    copy = values["copy"]
    beside = "  ".join(
        f"{name} x{copy[f'{name}_over_copy']:.2f}" for name in ("fill", "nearest", "bilinear", "bicubic")
    )
    lines += ["", f"beside a plain copy of the enlarged picture, {copy['copy_ms']:.1f} ms", f"  {beside}"]
    for direction, title in names.items():
        lines += ["", f"{title}: method, antialias, grid, border"]
        for row in (row for row in values["cases"] if row["direction"] == direction):
            what = (
                f"{row['method']:<9}{'antialias' if row['antialias'] else '-':<10}{row['grid']:<14}{row['border']:<12}"
            )
            moved = f"  {row['of_bandwidth']:.0%} of bandwidth" if "of_bandwidth" in row else ""
            times = f"{row['ours_ms']:8.1f} {row['torch_ms']:8.1f}"
            lines.append(f"  {what}{times}  x{row['ratio']:.2f}{moved}")
    worst = max(values["cases"], key=lambda row: float(row["ratio"]))
    lines += [
        "",
        f"worst ratio: x{worst['ratio']:.2f} ({worst['direction']}, {worst['method']}, {worst['grid']}, "
        f"{worst['border']}, antialias {worst['antialias']})",
    ]
    return "\n".join(lines)
