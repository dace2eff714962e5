"""How long the networks for every scale take beside the bare matrix products and convolutions that they cannot do
without, and beside their plain forms.
"""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.bench.resize import _check_device
from course_lib.bench.timing import cpu_threads, medians
from course_lib.plain.liif import liif_plain
from course_lib.plain.meta_sr import meta_upscale_chunked
from course_lib.super_resolution.any_scale import AnyScale, Span
from course_lib.super_resolution.encoders import make_encoder
from course_lib.super_resolution.liif import LIIF
from course_lib.super_resolution.meta_sr import MetaSR

PROTOCOL = (
    "features of random numbers, random weights of the papers' sizes (LIIF: 64 channels, four hidden layers of 256; "
    "Meta-SR: 64 channels, 256 hidden), float32, no gradients; medians, one warm-up run, rivals by turns. bare: LIIF's "
    "first layer as one convolution and four rows per pixel through its other layers in blocks of 1,024 rows (CUDA: "
    "131,072); Meta-SR x2: a convolution 64 -> 12 and PixelShuffle; encoders: their convolutions alone. plain: "
    "the official way, 30,000 places at once, codes unfolded for each; Meta-SR: filters predicted for each pixel. "
    "extra_mib: peak memory above what is there before (CPU: of the process, reset before; CUDA: of the allocator)"
)
_QUERIES = 30_000


def run(device: str, threads: int | None, repeats: int, progress: bool = False, small: bool = False) -> dict[str, Any]:
    """Return {"cases": rows of case, ours_ms, bare_ms, plain_ms, over_bare, plain_over, extra_mib, "half": rows of what
    bfloat16 and float16 cost in error, "threads", "device", "repeats"}; what a case has not is None.

    small: sizes for tests. Raises ValueError for a device that is not there.
    """
    _check_device(device)
    rows = []
    with cpu_threads(threads) as used, torch.no_grad():
        torch.manual_seed(0)
        cases = _cases(device, small)
        for name, functions in tqdm(cases, unit=" cases", disable=not progress, leave=False):
            seconds = medians(functions, repeats, device)
            row: dict[str, Any] = {"case": name} | {
                f"{rival}_ms": round(1e3 * seconds[rival], 3) if rival in seconds else None
                for rival in ("ours", "bare", "plain")
            }
            row["over_bare"] = round(seconds["ours"] / seconds["bare"], 2) if "bare" in seconds else None
            row["plain_over"] = round(seconds["plain"] / seconds["ours"], 2) if "plain" in seconds else None
            row["extra_mib"] = _extra_mib(functions["ours"], device)
            rows.append(row)
        half = _half(device, repeats, small)
    return {"threads": used, "device": device, "repeats": repeats, "cases": rows, "half": half}


def _cases(device: str, small: bool) -> list[tuple[str, dict[str, Callable[[], Any]]]]:
    sides = [(8, 16), (6, 30)] if small else [(64, 256), (48, 1440)]
    liif = LIIF("edsr-baseline").eval().to(device)
    cases = [(f"LIIF {n} -> {m}", _liif(liif, n, m, device, plain=k == 0)) for k, (n, m) in enumerate(sides)]
    meta = MetaSR("edsr-tiny" if small else "edsr-baseline", mean_shift=False).eval().to(device)
    side = 8 if small else 48
    for r in (Fraction(2), Fraction(17, 5), Fraction("3.1415926")):
        cases.append((f"Meta-SR {side} x{float(r):g}", _meta(meta, side, r, device)))
    for name in ("edsr-tiny", "rdn-tiny") if small else ("edsr-baseline", "rdn"):
        cases.append((f"encoder {name} {side}", _encoder(name, side, device)))
    return cases


def _features(model: AnyScale, side: int, device: str) -> Tensor:
    channels = int(model.trunk.channels)  # type: ignore[arg-type]
    made = torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    return made.contiguous(memory_format=torch.channels_last)


def _liif(model: LIIF, n: int, m: int, device: str, plain: bool) -> dict[str, Callable[[], Any]]:
    span, features = Span.whole(n, m), _features(model, n, device)
    linear = [layer for layer in model.mlp if isinstance(layer, nn.Linear)]
    width, channels = linear[0].out_features, features.shape[1]
    kernel = linear[0].weight[:, : 9 * channels].reshape(width, channels, 3, 3).contiguous()
    block = 1024 if device == "cpu" else 2**17
    rows = torch.randn(min(block, 4 * m * m), width, device=device)

    def bare() -> None:
        F.conv2d(features, kernel, padding=1)
        for _ in range(-(-4 * m * m // len(rows))):
            x = rows
            for layer in linear[1:]:
                x = x @ layer.weight.T

    functions: dict[str, Callable[[], Any]] = {"ours": lambda: model.decode(features, span, span), "bare": bare}
    if plain and device == "cpu":
        centres = (2 * torch.arange(m) + 1) / m - 1
        places = torch.cartesian_prod(centres, centres)
        cells = torch.full_like(places, 2 / m)
        parts = list(zip(torch.split(places, _QUERIES), torch.split(cells, _QUERIES), strict=True))
        functions["plain"] = lambda: [liif_plain(features[0], model.mlp, *part) for part in parts]
    return functions


def _meta(model: MetaSR, side: int, r: Fraction, device: str) -> dict[str, Callable[[], Any]]:
    features = _features(model, side, device)
    rows, columns = model.spans((side, side), scale=r)
    functions: dict[str, Callable[[], Any]] = {"ours": lambda: model.decode(features, rows, columns)}
    if r == 2:
        kernel = torch.randn(12, features.shape[1], 3, 3, device=device)
        functions["bare"] = lambda: F.pixel_shuffle(F.conv2d(features, kernel, padding=1), 2)
    if device == "cpu":
        size = (rows.n_out, columns.n_out)
        functions["plain"] = lambda: meta_upscale_chunked(features[0], model.filters, r, size)
    return functions


def _encoder(name: str, side: int, device: str) -> dict[str, Callable[[], Any]]:
    model = make_encoder(name).eval().to(device)
    picture = torch.rand(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    given = {
        n: torch.rand(1, n, side, side, device=device).contiguous(memory_format=torch.channels_last)
        for n in {layer.in_channels for layer in convolutions}
    }

    def bare() -> None:
        for layer in convolutions:
            layer(given[layer.in_channels])

    return {"ours": lambda: model(picture), "bare": bare}


def _extra_mib(function: Callable[[], Any], device: str) -> float | None:
    """Return how far memory rises while a function runs, in MiB; None where the system does not tell."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak begins anew
        before = _resident("VmRSS")
        function()
        return round((_resident("VmHWM") - before) / 1024, 1)
    except OSError:
        return None


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _half(device: str, repeats: int, small: bool) -> list[dict[str, Any]]:
    """Return time and error of LIIF's decoder under autocast: the error as signal to noise in dB, and at most."""
    model = LIIF("edsr-baseline").eval().to(device)
    n, m = (8, 16) if small else (64, 256)
    span, features = Span.whole(n, m), _features(model, n, device)
    exact = model.decode(features, span, span)
    found = []
    for kind in (torch.bfloat16, torch.float16):

        def short(kind: torch.dtype = kind) -> Tensor:
            with torch.autocast(device, kind):
                return model.decode(features, span, span).float()

        error = short() - exact
        seconds = medians({"short": short, "full": lambda: model.decode(features, span, span)}, repeats, device)
        noise = float(10 * torch.log10(exact.var() / error.square().mean().clamp(min=1e-30)))
        found.append(
            {
                "dtype": str(kind).removeprefix("torch."),
                "ratio": round(seconds["short"] / seconds["full"], 2),
                "signal_to_error_db": round(noise, 1),
                "largest_error": float(f"{float(error.abs().max()):.3g}"),
            }
        )
    return found


def table(values: dict[str, Any]) -> str:
    """Return the measurement as text."""
    lines = [f"device {values['device']}, {values['threads']} CPU threads", ""]
    lines.append(f"{'case':<28}{'ours':>10} ms  over bare  plain over ours  extra MiB")
    for row in values["cases"]:
        bare, plain, extra = (
            "-" if row[key] is None else f"{row[key]:.2f}" for key in ("over_bare", "plain_over", "extra_mib")
        )
        lines.append(f"{row['case']:<28}{row['ours_ms']:>10.1f}     {bare:>9}  {plain:>15}  {extra:>9}")
    lines += ["", "LIIF's decoder in fewer digits: time / float32, signal to error, largest error"]
    for row in values["half"]:
        lines.append(
            f"  {row['dtype']:<10} x{row['ratio']:.2f}  {row['signal_to_error_db']:.1f} dB  {row['largest_error']:.2g}"
        )
    return "\n".join(lines)
