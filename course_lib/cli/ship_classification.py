"""What the card of a small classifier says beside that of every network: how often it is right."""

from dataclasses import replace
from typing import Any

import torch

from course_lib import datasets
from course_lib.classification import TinyClassifier
from course_lib.detection.prediction import preprocess
from course_lib.training.recipes.classifiers import ClassifierRecipe, measured
from course_lib.training.recipes.segmentation import HELD_OUT_SEED

PHOTOGRAPH = "coffee"
PICTURES = 2000
"""How many scenes a card measures on; nobody trains on them."""


def card(model: TinyClassifier, recipe: ClassifierRecipe) -> dict[str, Any]:
    """Return "metrics", "protocol", "aim" and "photograph" of a classifier's card."""
    scenes = replace(recipe.scenes(), seed=HELD_OUT_SEED)
    values = {name: round(value, 6) for name, value in measured(model, scenes, PICTURES).items()}
    first = next(iter(values))
    what = (
        "mean intersection over union of background and classes on the finest map: of each cell the pixel at its centre"
        if model.cells
        else "share of right answers"
    )
    reached = recipe.aim is not None and values[first] >= recipe.aim
    return {
        "metrics": {"scenes": values | {"pictures": PICTURES}},
        "protocol": f"{first}: {what}; the first {PICTURES} of {scenes}",
        "aim": None if recipe.aim is None else {"set": "scenes", first: recipe.aim, "reached": reached},
        "photograph": {"name": PHOTOGRAPH, "score": photograph_score(model)},
    }


@torch.no_grad()
def photograph_score(model: TinyClassifier) -> float:
    """Return the mean probability of the first column on a photograph that comes with scikit-image: whoever loads the
    weights can check them by it.
    """
    picture = datasets.photograph(PHOTOGRAPH)
    logits = model(preprocess(picture, model.picture, model.normalisation))
    return round(float(logits.softmax(1)[:, 0].mean()), 6)


def lines(card: dict[str, Any]) -> list[str]:
    """Return what a card says of the metrics and the aim, for people to read."""
    values = card["metrics"]["scenes"]
    shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items() if name != "pictures")
    found = [f"{values['pictures']} scenes: {shown}"]
    if aim := card["aim"]:
        name, value = next((key, value) for key, value in aim.items() if key not in ("set", "reached"))
        found.append(f"aim: {name} {value:g}, {'reached' if aim['reached'] else 'not reached'}")
    return found
