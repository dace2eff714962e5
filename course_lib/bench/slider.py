"""How long a live slider takes from its message to the encoded picture."""

import math
import random
import time
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.bench.timing import cpu_threads
from course_lib.datasets import photograph
from course_lib.upsampling import resize

SIDE, AIM_MS = 512, 70
PROTOCOL = (
    "bicubic, scales from 1 to 8 in hundredths, none twice (so that no cache answers), the viewport of "
    f"{SIDE} x {SIDE} pixels of a photograph; time from the value message at the slider's widget to the encoded "
    "picture in the image widget; transport excluded"
)


def run(threads: int | None, moves: int, seed: int = 0) -> dict[str, Any]:
    """Return {"p50_ms", "p95_ms", "worst_ms", "moves", "threads"} of a live slider.

    Raises ValueError when the extra `book` (ipywidgets) is not installed.
    """
    try:
        from course_lib import show
    except ImportError as error:
        raise ValueError(str(error)) from error
    picture = photograph("astronaut", (SIDE, SIDE))

    def render(scale: float) -> Tensor:
        seen = math.ceil(SIDE / scale)
        window = picture[:, :seen, :seen]
        return resize(window, scale=scale)[..., :SIDE, :SIDE]

    with cpu_threads(threads) as used:
        live = show.live(
            render, scale=show.slider(1, 8, 0.01, value=3.4), watch="the hair", alt="An astronaut, enlarged."
        )
        control, times = live.controls["scale"], []
        path = _fresh(live.values("scale"), control.value, moves, seed)
        for value in tqdm(path, unit=" moves", leave=False):
            before = live.image.value
            start = time.perf_counter()
            control.set_state({"value": value})  # what the widget does with a message from the browser
            times.append(1e3 * (time.perf_counter() - start))
            if live.image.value == before:
                raise ValueError(f"the picture did not change at scale {value}; the slider is broken")
    p50, p95 = np.percentile(times, [50, 95])
    return {
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "worst_ms": round(max(times), 2),
        "moves": moves,
        "threads": used,
        "side": SIDE,
        "aim_p95_ms": AIM_MS,
    }


def _fresh(values: list[float], start: float, moves: int, seed: int) -> list[float]:
    """Return `moves` different values in a seeded order, without the start; raise ValueError if there are too few."""
    others = [value for value in values if value != start]
    if not 1 <= moves <= len(others):
        raise ValueError(f"moves must be from 1 to {len(others)}, the values not shown yet, got {moves}")
    return random.Random(seed).sample(others, moves)


def table(values: dict[str, Any]) -> str:
    """Return the measurement as text."""
    verdict = "reached" if values["p95_ms"] < values["aim_p95_ms"] else "missed"
    return (
        f"{values['moves']} moves at {values['side']} x {values['side']}, {values['threads']} CPU threads\n"
        f"median {values['p50_ms']:.1f} ms, 95th percentile {values['p95_ms']:.1f} ms, "
        f"worst {values['worst_ms']:.1f} ms\n"
        f"aim: 95th percentile under {values['aim_p95_ms']} ms: {verdict}"
    )
