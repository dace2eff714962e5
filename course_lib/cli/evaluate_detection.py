"""`course evaluate detection`: how well a detector finds the shapes of generated scenes, or the cells of BCCD."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from course_lib.cli.errors import Refused
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.bccd import BCCD, CLASSES
from course_lib.datasets.scenes import Scenes
from course_lib.detection.evaluation import BANDS, SURE
from course_lib.detection.evaluation import evaluate as measure
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.training.recipes.detection import SCENES, held_out
from course_lib.training.recipes.segmentation import HELD_OUT_SEED

DATA = (*(f"scenes-{name}" for name in SCENES), "BCCD-val", "BCCD-test")
"""What can be measured on."""
PICTURES = 500
"""How many scenes; the first of them are those of the training's curve."""
CELL_BANDS = (32.0, 96.0)
"""COCO's own, in pixels of BCCD's pictures as they are."""
_SCORES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")


def evaluate(model: SSD, data: str, pictures: int = PICTURES) -> dict[str, Any]:
    """Return what `course_lib.detection.evaluation.evaluate` measures of a detector in eval mode on one of `DATA`.

    Scenes are seen as they are; the pictures of BCCD, 480 x 640, at the size that the detector was made for. None
    stands where there is nothing to say (JSON has no NaN). pictures: how many scenes; of BCCD all are taken. Raises
    Refused for another set and for a detector of other classes; DataMissing.
    """
    if data not in DATA:
        raise Refused(f"data must be one of {', '.join(DATA)}; got {data!r}")
    names, samples = _samples(data, pictures)
    if tuple(getattr(model, "names", ())) != names:
        own = ", ".join(getattr(model, "names", ())) or f"{model.classes - 1} others"
        raise Refused(f"{data} has the classes {', '.join(names)}; this detector has {own}")
    on_cells = data.startswith("BCCD")
    size, bands = (model.picture, CELL_BANDS) if on_cells else (None, BANDS)
    found: dict[str, Any] = _plain(measure(model, samples, names, size, bands, batch=8 if on_cells else 25))
    return found


def _samples(data: str, pictures: int) -> tuple[tuple[str, ...], Iterable[Labelled]]:
    """Return the classes and the pictures of a set, which are read while they are asked for."""
    kind, _, part = data.partition("-")
    if kind == "scenes":
        scenes = _unseen(data)
        return scenes.classes, held_out(scenes, pictures)
    cells = BCCD("val" if part == "val" else "test")
    return CLASSES, (cells.sample(index) for index in range(len(cells)))


def _unseen(data: str) -> Scenes:
    """Return scenes of a seed that no recipe trains with."""
    return replace(SCENES[data.removeprefix("scenes-")], seed=HELD_OUT_SEED)


def _plain(value: Any) -> Any:
    """Return a measurement as JSON can hold it, with six digits."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def protocol(data: str) -> str:
    """Return in a sentence how a set is measured."""
    if data.startswith("BCCD"):
        what = f'BCCD, part "{data[5:]}", whole, seen at the size that the detector was made for'
        bands = CELL_BANDS
    else:
        what = f"the first of {_unseen(data)}"
        bands = BANDS
    small, large = bands
    return (
        f"{what}; COCO's rules: mean precision at 101 recalls, at most 100 boxes of a class in a picture, AP the mean "
        f"over IoU 0.50, 0.55, ..., 0.95; small, medium and large part at sides (roots of areas) of {small:g} and "
        f"{large:g} pixels; scores above 0.01, NMS at IoU 0.45; duplicates: boxes of score {SURE:g} and more per found "
        "object, besides its first, before NMS"
    )


def table(name: str, data: str, values: dict[str, Any]) -> str:
    """Return a measurement for people to read."""
    lines = [f"{name} on {data}: {values['pictures']} pictures, {values['objects']} objects"]
    lines += [f"  {score:<10} {_shown(values[score])}" for score in _SCORES]
    lines += [f"  AP50 of {one}: {_shown(value)}" for one, value in values["per_class"].items()]
    lines.append(f"  duplicates {_shown(values['duplicates'])}")
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
