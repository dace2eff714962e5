"""How long the networks for every scale take beside the bare matrix products and convolutions that they cannot do
without, and beside their plain forms.
"""

import copy
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.bench.sr_cases import CASES, Case, Make
from course_lib.bench.sr_memory import allocated, extra_mib
from course_lib.bench.timing import check_device, cpu_threads, least
from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.liif import LIIF, Neighbours

PROTOCOL = (
    "features of random numbers, random weights of the papers' sizes (LIIF: 64 channels, four hidden layers of 256; "
    "Meta-SR: 64 channels, 256 hidden), float32, no gradients; the least of all runs but the first, rivals by turns "
    "(of 20 ms where they are fast), with one CPU thread its processor time, which work of others on the machine "
    "changes little. bare: LIIF's first layer as one convolution and four rows per pixel through its other layers in "
    "blocks of 1,024 rows a thread (CUDA: 131,072); Meta-SR x2: a convolution 64 -> 12 and PixelShuffle; encoders: "
    "their convolutions alone. plain: the official way, 30,000 places at once, codes unfolded for each; Meta-SR: "
    "filters predicted for each pixel. LIIF 48 -> 1440: times of 48 rows of the 1440, memory of all. Meta-SR x2: "
    "filters kept from the run before; anew: predicted in each run. mib: peak memory above what is there before (CPU: "
    "of a fresh process for each, after a run at a small size, what is freed goes back at once; CUDA: of the "
    "allocator). of_limit: arithmetic a second, as a share of a large matrix product's. half: ours under autocast "
    "beside float32; compile: torch.compile of LIIF's layers, 64 -> 256"
)
_SECONDS = 1.0


def run(
    device: str,
    threads: int | None,
    repeats: int,
    progress: bool = False,
    small: bool = False,
    cases: Mapping[str, Make] | None = None,
) -> dict[str, Any]:
    """Return {"cases": rows of case, ours_ms, bare_ms, plain_ms, over_bare, plain_over, ours_mib, bare_mib, plain_mib,
    of_limit, "half": rows of case, dtype and what it costs in error, "compile": the same of torch.compile, "limits":
    arithmetic a second by dtype, "threads", "device", "repeats"}; what a case has not is None.

    small: sizes for tests. cases: others, of which neither fewer digits nor torch.compile are measured ("half" is
    empty, "compile" None). Raises ValueError for a device that is not there.
    """
    check_device(device)
    kinds = [torch.bfloat16, *([torch.float16] if device == "cuda" else [])] if cases is None else []
    chosen = CASES if cases is None else cases
    steps = 3 * len(chosen) + 2 if cases is None else 2 * len(chosen) + 1
    rows: list[dict[str, Any]] = []
    compiled: dict[str, Any] | None = None
    half: list[dict[str, Any]] = []
    with (
        cpu_threads(threads) as used,
        torch.no_grad(),
        tqdm(total=steps, unit=" steps", disable=not progress, leave=False) as bar,
    ):
        clock = functools.partial(least, repeats=repeats, device=device, seconds=0 if small else _SECONDS)
        limits = {kind: _limit(device, kind, small, clock) for kind in (torch.float32, *kinds)}
        bar.update()
        for name, make in chosen.items():
            bar.set_description(name)
            case = make(device, small)
            rows.append(_row(name, case, clock, limits[torch.float32]))
            bar.update()
            rows[-1] |= {
                f"{form}_mib": _mib(name, case, form, device, used, small) for form in ("ours", "bare", "plain")
            }
            bar.update()
            if cases is None:
                half += [_half(name, case, kind, device, clock, limits[kind]) for kind in kinds]
                bar.update()
        if cases is None:
            bar.set_description("torch.compile")
            compiled = _compiled(device, clock, small)
            bar.update()
    return {
        "threads": used,
        "device": device,
        "repeats": repeats,
        "cases": rows,
        "half": half,
        "compile": compiled,
        "limits": {_short(kind): round(limit) for kind, limit in limits.items()},
    }


Clock = Callable[[dict[str, Callable[[], Any]]], dict[str, float]]


def _limit(device: str, kind: torch.dtype, small: bool, clock: Clock) -> float:
    """Return the multiplications and additions a second of a large product of matrices."""
    n = 64 if small else 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device, dtype=kind) for _ in range(2))
    return 2 * n**3 / clock({"product": lambda: a @ b})["product"]


def _row(name: str, case: Case, clock: Clock, limit: float) -> dict[str, Any]:
    seconds = clock(case.forms)
    row: dict[str, Any] = {"case": name} | {
        f"{form}_ms": round(1e3 * seconds[form], 4) if form in seconds else None for form in ("ours", "bare", "plain")
    }
    row["over_bare"] = round(seconds["ours"] / seconds["bare"], 3) if "bare" in seconds else None
    row["plain_over"] = round(seconds["plain"] / seconds["ours"], 2) if "plain" in seconds else None
    return row | {"of_limit": _share(case, seconds["ours"], limit)}


def _share(case: Case, seconds: float, limit: float) -> float | None:
    return None if case.flops is None else round(case.flops / seconds / limit, 3)


def _mib(name: str, case: Case, form: str, device: str, threads: int, small: bool) -> float | None:
    if form not in case.forms:
        return None
    return allocated(case.for_memory(form)) if device == "cuda" else extra_mib(name, form, threads, small)


def _half(name: str, case: Case, kind: torch.dtype, device: str, clock: Clock, limit: float) -> dict[str, Any]:
    """Return time and error of ours under autocast beside float32."""
    full = case.forms["ours"]

    def short() -> Tensor:
        with torch.autocast(device, kind):
            result: Tensor = full()
            return result.float()

    seconds = clock({"short": short, "full": full})
    row = {"case": name, "dtype": _short(kind), **_beside(short(), full()), "ratio": _ratio(seconds, "short", "full")}
    return row | {"of_limit": _share(case, seconds["short"], limit)}


def _beside(got: Tensor, exact: Tensor) -> dict[str, float]:
    error = got - exact
    noise = float(10 * torch.log10(exact.var() / error.square().mean().clamp(min=1e-30)))
    return {"signal_to_error_db": round(noise, 1), "largest_error": float(f"{float(error.abs().max()):.3g}")}


def _ratio(seconds: dict[str, float], above: str, below: str) -> float:
    return round(seconds[above] / seconds[below], 3)


def _compiled(device: str, clock: Clock, small: bool) -> dict[str, Any]:
    """Return time and error of LIIF's decoder with compiled layers; "note" says why not where that fails."""
    torch.manual_seed(0)
    model = LIIF("edsr-baseline").eval().to(device)
    n, m = (8, 16) if small else (64, 256)
    span, features = Span.whole(n, m), torch.randn(1, model.channels, n, n, device=device)
    fast = copy.copy(model)
    block = torch.compile(model._block, backend="eager" if small else "inductor", dynamic=False)

    def without_scratch(
        codes: Tensor, down: Neighbours, right: Neighbours, width: int, scratch: object = None
    ) -> Tensor:
        result: Tensor = block(codes, down, right, width)  # what is compiled has memory of its own
        return result

    fast._block = without_scratch  # type: ignore[method-assign]
    forms = {"compiled": lambda: fast.decode(features, span, span), "ours": lambda: model.decode(features, span, span)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            error = _beside(forms["compiled"](), forms["ours"]())
        except Exception as reason:  # no compiler, or one that fails: the rest of the table stands
            return {"note": type(reason).__name__}
        return {"ratio": _ratio(clock(forms), "compiled", "ours"), **error, "note": None}


def _short(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def table(values: dict[str, Any]) -> str:
    """Return the measurement as text."""
    lines = [f"device {values['device']}, {values['threads']} CPU threads", ""]
    lines.append(f"{'':<29}{'ours':>10} {'ours /':>7} {'plain /':>8} {'share of':>9}   extra MiB of ours, bare, plain")
    lines.append(f"{'':<29}{'ms':>10} {'bare':>7} {'ours':>8} {'limit':>9}")
    for row in values["cases"]:
        bare, plain, *mib = (
            "-" if row[key] is None else form.format(row[key])
            for key, form in (
                ("over_bare", "{:.2f}"),
                ("plain_over", "{:.1f}"),
                *((f"{of}_mib", "{:.0f}") for of in ("ours", "bare", "plain")),
            )
        )
        share = "-" if row["of_limit"] is None else f"{row['of_limit']:.0%}"
        beside = "".join(f"{number:>8}" for number in mib)
        lines.append(f"{row['case']:<29}{row['ours_ms']:>10.3f} {bare:>7} {plain:>8} {share:>9}   {beside}")
    if values["half"]:
        lines += ["", "ours in fewer digits: time / float32, signal to error, largest error, share of limit"]
    lines += [_line(f"{row['case']}, {row['dtype']}", row) + f" {row['of_limit']:>6.0%}" for row in values["half"]]
    limits = ", ".join(f"{limit / 1e9:,.0f} ({kind})" for kind, limit in values["limits"].items())
    compiled = values["compile"]
    if compiled is not None:
        said = _line("LIIF 64 -> 256", compiled) if compiled["note"] is None else f"  not possible: {compiled['note']}"
        lines += ["", "torch.compile: time / ours, signal to the difference, largest difference", said]
    return "\n".join([*lines, "", f"limit: a large matrix product's thousand million operations a second: {limits}"])


def _line(name: str, row: dict[str, Any]) -> str:
    error = f"{row['signal_to_error_db']:>7.1f} dB {row['largest_error']:>9.2g}"
    return f"  {name:<40} x{row['ratio']:.2f} {error}"
