"""What `course compare` adds for detectors: what they cost, how they differ with the same seeds, and how they learn."""

import math
import statistics
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from course_lib.bench.timing import cpu_threads, least
from course_lib.cli import compare_line
from course_lib.detection.detectors import answers_with_set
from course_lib.detection.evaluation import SURE, multiply_adds
from course_lib.training.detectors import DetectorRecipe

if TYPE_CHECKING:
    from course_lib.training import Result

BATCH = 8
"""Pictures that are seen at once when the clock runs."""


def yardstick(name: str, names: Sequence[str]) -> str | None:
    """Return the recipe that one is compared with: DSOD's for its plain form, else SSD's; in the line see `BEFORE` of
    `compare_line`. None where it is missing.
    """
    family = name.partition("-")[0]
    usual = f"{family}-dsod" if name == f"{family}-dsod-plain" else f"{family}-ssd"
    other = compare_line.BEFORE.get(name, usual)
    return other if other != name and other in names else None


def complete(results: "dict[str, list[Result]]", values: dict[str, Any], repeats: int = 20) -> str:
    """Add to the values of each recipe "cost" and "differences", and return what the protocol says of them.

    cost: {"parameters", "multiply_adds" and "anchors" or "queries" of one picture, "milliseconds" of `BATCH` pictures,
    "times": the same by those of the fastest recipe}. differences, of recipes with a `yardstick`: as of `differences`.
    Where there are detectors that answer with a set, also "runs" and "reached", as of `compare_line`. Where a recipe is
    not of a detector nothing is added, and nothing said.
    """
    recipes = [some[0].recipe for some in results.values()]
    if not all(isinstance(recipe, DetectorRecipe) for recipe in recipes):
        return ""
    models: dict[str, Any] = {name: some[0].model.cpu().eval() for name, some in results.items()}
    seconds = _seconds(models, repeats)
    for name, model in models.items():
        values[name]["cost"] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "multiply_adds": multiply_adds(model),
            **_places(model),
            "milliseconds": round(1000 * seconds[name], 3),
            "times": round(seconds[name] / min(seconds.values()), 3),
        }
        other = yardstick(name, list(models))
        if other is not None:
            values[name]["differences"] = differences(values, name, other)
    told = ""
    if any(answers_with_set(model) for model in models.values()):
        for name, some in results.items():
            curves = [result.curve for result in some]
            values[name] |= {"runs": compare_line.courses(curves), "reached": compare_line.reached(curves)}
        told = "; reached: when a run first had an AP50, of the times when it was measured"
    small, large = recipes[0].bands  # type: ignore[attr-defined]  # of a DetectorRecipe
    return told + (
        f"; AP: COCO's, mean over IoU 0.50 to 0.95; small, medium and large part at sides (roots of areas) of "
        f"{small:g} and {large:g} pixels; duplicates: boxes of score {SURE:g} and more per found object, besides its "
        f"first, before NMS (in a set there is none); milliseconds: of {BATCH} pictures through the network alone, on "
        f"one thread, the least of {repeats} runs by turns; differences: of runs with the same seed, mean and 95 % bar "
        "by Student's law"
    )


def _places(model: Any) -> dict[str, int]:
    return {"queries": model.queries} if answers_with_set(model) else {"anchors": len(model.anchors())}


def differences(values: dict[str, Any], name: str, other: str) -> dict[str, Any]:
    """Return how the last scores of a recipe differ from another's: {"from": `other`, score: what `paired` returns}."""
    both = {key: (runs, values[other]["last"][key]["runs"]) for key, runs in _scores(values, name, other)}
    return {"from": other} | {key: paired(*runs) for key, runs in both.items()}


def _scores(values: dict[str, Any], name: str, other: str) -> list[tuple[str, list[float]]]:
    """Return the runs of every score that both have in their last rows."""
    last = values[name]["last"]
    return [(k, row["runs"]) for k, row in last.items() if k in values[other]["last"] and not k.endswith("seconds")]


def paired(runs: list[float], others: list[float]) -> dict[str, Any]:
    """Return the mean of the differences of paired runs, and the half width of its 95 % interval by Student's law.

    {"mean", "bar", "runs"}; the bar of a single pair is None.
    """
    from scipy.stats import t  # type: ignore[import-untyped]

    gaps = [a - b for a, b in zip(runs, others, strict=True)]
    many = len(gaps)
    bar = float(t.ppf(0.975, many - 1)) * statistics.stdev(gaps) / math.sqrt(many) if many > 1 else None
    return {"mean": statistics.fmean(gaps), "bar": bar, "runs": gaps}


def _seconds(models: dict[str, Any], repeats: int) -> dict[str, float]:
    """Return the least seconds of each network for a batch, on the CPU."""
    pictures = torch.rand(BATCH, 3, *next(iter(models.values())).picture)
    with cpu_threads(1), torch.inference_mode():
        return least({name: partial(model, pictures) for name, model in models.items()}, repeats)
