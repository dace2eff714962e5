"""What `course compare line` adds: whom each detector is measured against, and how soon it finds how much."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_lib.training import Row

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""AP50 to be reached."""
CLOCKS = ("step", "seconds", "cpu_seconds")

BEFORE = {
    "line-detr": "line-ssd",
    "line-deformable": "line-detr",
    "line-refine": "line-deformable",
    "line-two-stage": "line-refine",
    "line-detr-vit": "line-detr",
    "line-yolos": "line-detr-vit",
    "line-vidt-no-neck": "line-yolos",
    "line-vidt": "line-vidt-no-neck",
    "line-student": "line-vidt",
    "line-distilled": "line-student",
}
"""The recipe that each one changes something of."""


def courses(curves: "Sequence[Sequence[Row]]") -> list[dict[str, list[float | None]]]:
    """Return of each run its AP50 and AP with the clocks beside: {"step": [...], "seconds", "cpu_seconds", ...}."""
    return [{key: [row.get(key) for row in curve] for key in (*CLOCKS, "AP50", "AP")} for curve in curves]


def reached(curves: "Sequence[Sequence[Row]]") -> dict[str, dict[str, Any]]:
    """Return for each of `LEVELS` when runs first had that AP50: {"0.5": {"step": [...], "seconds", "cpu_seconds"}}.

    A run is looked at only where it was measured; None for one that never was so good.
    """
    found: dict[str, dict[str, Any]] = {}
    for level in LEVELS:
        firsts = [next((row for row in curve if row.get("AP50", 0.0) >= level), None) for curve in curves]
        found[f"{level:g}"] = {clock: [None if row is None else row[clock] for row in firsts] for clock in CLOCKS}
    return found
