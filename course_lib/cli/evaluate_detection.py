"""`course evaluate detection`: how well detectors find shapes of generated scenes, cells of BCCD, coins, or the objects
of files with boxes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

from course_lib.cli.detection_sets import Set, find, told
from course_lib.cli.errors import Refused
from course_lib.cli.networks import find as find_network
from course_lib.datasets.coins import coins
from course_lib.detection import detectors, finding
from course_lib.detection.detectors import Detector, answers_with_set, is_detector
from course_lib.detection.evaluation import SURE
from course_lib.detection.evaluation import evaluate as measure
from course_lib.detection.metrics import Truth, match_detections
from course_lib.detection.prediction import Detections

COINS = "coins"
"""The photograph of coins, on which every detector is measured, whatever its classes are called."""
HALF = Fraction(1, 2)
"""The scale at which coins are as large as the shapes of the scenes."""
_SCORES = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")

Values = dict[str, Any]


@dataclass(frozen=True)
class Contestant:
    """A detector in eval mode on its device, its name in tables and records, and what says it on the command line."""

    name: str
    option: str
    model: Detector


def contestants(names: Sequence[str], checkpoint: Path | None, meant: str | None, device: str) -> list[Contestant]:
    """Return detectors by name and the one in a checkpoint file, ssd-tiny where neither is given.

    Raises Refused for a network that finds no objects, and what `networks.find` raises.
    """
    chosen = list(dict.fromkeys(names)) or ([] if checkpoint else ["ssd-tiny"])
    found = [(f"--model {name}", *find_network(name)) for name in chosen]
    if checkpoint is not None:
        found.append((f"--checkpoint {checkpoint.name}", *find_network(None, checkpoint, meant)))
    made = []
    for option, name, network in found:
        if not is_detector(network):
            raise Refused(f"{name} ({type(network).__name__}) finds no objects; course evaluate sr measures it")
        model: Any = network.to(device).eval()
        made.append(Contestant(name, option, model))
    return made


def evaluate(model: Detector, data: str | Set, pictures: int | None = None, progress: str | None = None) -> Values:
    """Return what `course_lib.detection.evaluation.evaluate` measures of a detector in eval mode on a set.

    data: the set, or a name that `detection_sets.find` takes, as it takes `pictures`. None stands where there is
    nothing to say (JSON has no NaN). progress: what a bar calls it. Raises what `detection_sets.find` raises, and
    UnreadablePicture.
    """
    names = detectors.names(model)
    found = find(data, names, pictures) if isinstance(data, str) else data
    size = None if found.as_they_are else partial(finding.looks_at, model)
    # photographs of any size are no batch, and large ones take memory
    batch = 25 if found.as_they_are else 8 if model.picture else 1
    with tqdm(
        found.samples(), total=found.count, desc=progress, unit=" pictures", leave=False, disable=progress is None
    ) as bar:
        values: Values = _plain(measure(model, bar, names, size, found.bands, batch))
    return values


def on_coins(model: Detector, scale: Fraction = HALF) -> Values:
    """Return {"coins": how many there are, "found": by a box of score >= `SURE` at IoU >= 0.5 each, "others": how many
    boxes are no coin or a second one of the same, "called": {class: boxes on coins}, "scale", "seen_at": [H, W]}.

    scale: at which the detector is shown the photograph. Raises ValueError where that is too small for it.
    """
    photograph = coins()
    size = finding.looks_at(model, photograph.size, scale)
    said = finding.find(model, photograph.image[None], size, score=SURE)[0]
    # a coin is found whatever it is called
    alike = Detections(said.boxes, said.scores, torch.zeros_like(said.labels))
    correct, _ = match_detections(alike, Truth(photograph.boxes, photograph.labels))
    names = detectors.names(model)
    labels = said.labels[correct].tolist()
    return {
        "coins": len(photograph.boxes),
        "found": int(correct.sum()),
        "others": int((~correct).sum()),
        "called": {names[label]: labels.count(label) for label in sorted(set(labels))},
        "scale": str(scale),
        "seen_at": list(size),
    }


def measure_all(
    found: Sequence[Contestant],
    asked: Sequence[str],
    pictures: int | None = None,
    images: Path | None = None,
    from_zero: bool = False,
    scale: Fraction = HALF,
) -> tuple[dict[str, dict[str, Values]], dict[str, dict[str, str]]]:
    """Return {set: {detector: values}} and {set: {detector: protocol}}; all sets are found, and refused, before any is
    measured.

    asked: sets by name, folders and files, or `COINS`; the other arguments as of `detection_sets.find` and `on_coins`.
    Raises what these raise.
    """
    plan = [
        (one, COINS if name == COINS else find(name, detectors.names(one.model), pictures, images, from_zero))
        for name in asked
        for one in found
    ]
    _check_names(asked, [chosen if isinstance(chosen, str) else chosen.name for _, chosen in plan[:: len(found)]])
    sets: dict[str, dict[str, Values]] = {}
    protocols: dict[str, dict[str, str]] = {}
    for one, chosen in plan:
        if isinstance(chosen, Set):
            name, values = chosen.name, evaluate(one.model, chosen, progress=f"{one.name} on {chosen.name}")
        else:
            name, values = COINS, on_coins(one.model, scale)
        sets.setdefault(name, {})[one.name] = values
        protocols.setdefault(name, {})[one.name] = protocol(chosen, one.model)
    return sets, protocols


def _check_names(asked: Sequence[str], names: Sequence[str]) -> None:
    for k, name in enumerate(names):
        if name in names[:k]:
            raise Refused(f"{asked[names.index(name)]} and {asked[k]} would both be called {name}; rename one")


def _plain(value: Any) -> Any:
    """Return a measurement as JSON can hold it, with six digits."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def protocol(data: str | Set, model: Detector | None = None) -> str:
    """Return in a sentence how a set is measured: one of `DATA`, `COINS`, or what `detection_sets.find` returned.

    model: who is measured; None: a detector of SSD's line.
    """
    of_set = model is not None and answers_with_set(model)
    if data == COINS:
        suppressed = "nothing is suppressed" if of_set else "NMS at IoU 0.45"
        return (
            f"the photograph coins of scikit-image; boxes of score {SURE:g} and more; one finds a coin at IoU 0.5 "
            f"and more, whatever its class; {suppressed}; the others are no coin, or found already"
        )
    what, as_they_are, (small, large) = (
        (data.what, data.as_they_are, data.bands) if isinstance(data, Set) else told(data)
    )
    seen = "" if as_they_are else ", whole, seen at the size that the detector was made for"
    return (
        f"{what}{seen}; COCO's rules: mean precision at 101 recalls, at most 100 boxes of a class in a picture, "
        f"AP the mean over IoU 0.50, 0.55, ..., 0.95; small, medium and large part at sides (roots of areas) of "
        f"{small:g} and {large:g} pixels; {_read(of_set)}; duplicates: boxes of score {SURE:g} and more per found "
        f"object, besides its first{'' if of_set else ', before NMS'}"
    )


def _read(of_set: bool) -> str:
    return "the 100 best boxes of the set, nothing is suppressed" if of_set else "scores above 0.01, NMS at IoU 0.45"


def table(data: str, values: Mapping[str, Values]) -> str:
    """Return the measurements of detectors on a set, by their names, for people to read: a column for each."""
    first, columns = next(iter(values.values())), list(values.values())
    if "coins" in first:
        head = f"coins: {first['coins']} coins, score {SURE:g}, IoU 0.5"
        rows = [(key, [str(one[key]) for one in columns]) for key in ("found", "others", "scale")]
        called = [", ".join(f"{name} {count}" for name, count in one["called"].items()) or "-" for one in columns]
        return _columns(head, values, [*rows, ("called", called)])
    head = f"{data}: {first['pictures']} pictures, {first['objects']} objects"
    rows = [(score, [_shown(one[score]) for one in columns]) for score in (*_SCORES, "duplicates")]
    rows += [(f"AP50 of {name}", [_shown(one["per_class"][name]) for one in columns]) for name in first["per_class"]]
    return _columns(head, values, rows)


def _columns(head: str, names: Iterable[str], rows: Sequence[tuple[str, list[str]]]) -> str:
    every = [("", list(names)), *rows]
    first = max(len(name) for name, _ in every)
    wide = [max(map(len, column)) for column in zip(*(cells for _, cells in every), strict=True)]
    lines = [
        f"  {name:<{first}}  {'  '.join(f'{cell:>{w}}' for cell, w in zip(cells, wide, strict=True))}"
        for name, cells in every
    ]
    return "\n".join([head, *lines])


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def record(
    found: Sequence[Contestant],
    sets: Mapping[str, Values],
    told: Mapping[str, Mapping[str, str]],
    options: Mapping[str, Any],
) -> Values:
    """Return what is kept of measurements {set: {detector: values}}: of a single one its values alone.

    told: {set: {detector: protocol}}. options: of the command, besides detectors and sets; of "--scale" only coins
    know, and of the others all but coins.
    """
    alone = len(found) == len(sets) == 1
    given = {name: value for name, value in options.items() if value and (COINS in sets or name != "--scale")}
    if set(sets) == {COINS}:
        given = {"--scale": options["--scale"]}
    words = [name if value is True else f"{name} {value}" for name, value in given.items()]
    command = " ".join([*(one.option for one in found), *(f"--data {name}" for name in sets), *words])
    return {
        "values": sets[next(iter(sets))][found[0].name] if alone else dict(sets),
        "command": f"course evaluate detection {command}",
        "protocol": _joined({name: _joined({one.name: told[name][one.name] for one in found}) for name in sets}),
        "data": ", ".join(sets),
    }


def _joined(told: Mapping[str, str]) -> str:
    """Return what all say in common, else what each says behind its name."""
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{name}: {said}" for name, said in told.items())
