"""How many training examples a core makes in a second: generated scenes and super-resolution pairs."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.datasets import SHAPES, Scenes, SRPairs

BLOCK = 50
PROTOCOL = (
    f"one thread; blocks of {BLOCK} examples, none made twice, the first block not counted; the median over the blocks "
    "of examples per second of this process's own processor time, which work of others on the machine does not change"
)
_ALL = tuple(SHAPES)
SCENES: dict[str, Scenes] = {
    "default": Scenes(),
    "noise for textures": Scenes(textures=False),
    "all shapes": Scenes(classes=_ALL),
    "clutter": Scenes(classes=_ALL, clutter=2),
    "crowd": Scenes(classes=_ALL, count=(20, 30), object_size=(4, 12)),
    "tiny, 128 x 128": Scenes(size=(128, 128), classes=_ALL, count=(4, 10), object_size=(4, 8)),
    "320 x 320": Scenes(size=(320, 320), classes=_ALL, count=(4, 12), object_size=(10, 120), clutter=1),
}
"""What is timed: one difficulty at a time."""
_PAIRS = [(3, 17, "luminance"), (2, 48, "luminance"), (4, 48, "rgb")]


def run(repeats: int, progress: bool = False) -> dict[str, Any]:
    """Return {"scenes": rows of setting, per_second, objects (mean number), "pairs": rows of scale, patch, channels,
    per_second, "source", "pictures", "repeats"}.

    repeats: blocks that count. Raises ValueError for repeats < 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    scenes, pairs, made = [], [], None
    with tqdm(total=len(SCENES) + len(_PAIRS), unit=" cases", disable=not progress, leave=False) as bar:
        for setting, source in SCENES.items():
            rate = _rate(source.sample, repeats)
            objects = statistics.mean(len(source[index].labels) for index in range(BLOCK))
            scenes.append({"setting": setting, "per_second": round(rate), "objects": round(objects, 1)})
            bar.update()
        for scale, patch, channels in _PAIRS:
            made = SRPairs(scale, patch, channels=channels)  # type: ignore[arg-type]
            rate = _rate(made.sample, repeats)
            pairs.append({"scale": scale, "patch": patch, "channels": channels, "per_second": round(rate)})
            bar.update()
    assert made is not None
    return {
        "scenes": scenes,
        "pairs": pairs,
        "source": made.source,
        "pictures": len(made.names),
        "repeats": repeats,
    }


def _rate(sample: Callable[[int], Any], repeats: int) -> float:
    indices, rates = itertools.count(), []
    for _ in range(repeats + 1):
        start = time.process_time()
        for index in itertools.islice(indices, BLOCK):
            sample(index)
        rates.append(BLOCK / (time.process_time() - start))
    return statistics.median(rates[1:])


def table(values: dict[str, Any]) -> str:
    """Return the measurement as text."""
    lines = ["scenes a second on one core"]
    for row in values["scenes"]:
        lines.append(f"  {row['setting']:<20} {row['per_second']:>7,}   ({row['objects']} objects each)")
    lines += ["", f"pairs a second on one core, from {values['pictures']} pictures ({values['source']})"]
    for row in values["pairs"]:
        side = row["scale"] * row["patch"]
        what = f"{row['patch']} x {row['patch']} -> {side} x {side}, {row['channels']}"
        lines.append(f"  {what:<30} {row['per_second']:>7,}")
    return "\n".join(lines)
