"""What the card of a detector says beside that of every network: how much it finds, and where."""

from collections.abc import Sequence
from typing import Any

import torch

from course_lib import datasets
from course_lib.cli.evaluate_detection import evaluate, protocol
from course_lib.datasets.bccd import CLASSES
from course_lib.detection.detectors import Detector, answers_with_set, names
from course_lib.detection.evaluation import SURE
from course_lib.detection.prediction import preprocess

SETS = {"cells": ("BCCD-test", "BCCD-val"), "scenes": ("scenes-easy",)}
"""What a card measures on where its recipe has no `sets`; the first is that of the aim, which is an AP50."""
PHOTOGRAPH = "coffee"


def measured(model: Detector, aim: float | None, sets: Sequence[str] = ()) -> dict[str, Any]:
    """Return "metrics" by set, "protocol", "aim" and "photograph" of a detector's card.

    sets: what `evaluate` measures on, the first for the aim; none: those of `SETS`. Raises DataMissing.
    """
    sets = tuple(sets) or SETS["cells" if names(model) == CLASSES else "scenes"]
    metrics = {data: evaluate(model, data) for data in sets}
    reached = aim is not None and metrics[sets[0]]["AP50"] >= aim
    return {
        "metrics": metrics,
        "protocol": "; ".join(f"{data}: {protocol(data, model)}" for data in sets),
        "aim": None if aim is None else {"set": sets[0], "AP50": aim, "reached": reached},
        "photograph": {"name": PHOTOGRAPH, "score": photograph_score(model)},
    }


@torch.no_grad()
def photograph_score(model: Detector) -> float:
    """Return the mean over all anchors or queries of what is not background, on a photograph that comes with
    scikit-image: whoever loads the weights can check them by it without any set. Where classes are asked for one by
    one, the mean over these, too.
    """
    picture = datasets.photograph(PHOTOGRAPH)
    logits = model(preprocess(picture, model.picture, model.normalisation))["logits"]
    line: Any = model
    if not answers_with_set(model):
        return round(1 - float(logits.softmax(-1)[..., 0].mean()), 6)
    if line.background:
        return round(1 - float(logits.softmax(-1)[..., -1].mean()), 6)
    return round(float(logits.sigmoid().mean()), 6)


def _duplicates(row: dict[str, Any]) -> str:
    if row.get("duplicates") is None:
        return f"no object has a box of score {SURE:g} and more"
    return f"boxes of score {SURE:g} and more for each object found, besides its first: {row['duplicates']:.3f}"


def lines(card: dict[str, Any]) -> list[str]:
    """Return what a card says of the metrics and the aim, for people to read."""
    found = []
    for data, row in card["metrics"].items():
        sizes = (
            f"{size} {row[f'AP_{size}']:.3f}" for size in ("small", "medium", "large") if row[f"AP_{size}"] is not None
        )
        classes = (f"{name} {value:.3f}" for name, value in row["per_class"].items() if value is not None)
        found += [
            f"{data}: AP50 {row['AP50']:.4f}, AP {row['AP']:.4f} ({', '.join(sizes)}), {row['pictures']} pictures",
            f"  AP50 by class: {', '.join(classes)}",
            f"  {_duplicates(row)}",
        ]
    aim = card["aim"]
    if aim:
        found.append(f"aim: AP50 {aim['AP50']:g} on {aim['set']}, {'reached' if aim['reached'] else 'not reached'}")
    return found
