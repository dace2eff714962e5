"""What comparing detectors that answer with a set adds, and comparing classifiers. Oracles: numbers by hand, hooks."""

from typing import Any

import pytest
import torch
from torch import nn

from course_lib.cli import compare_classification, compare_detection, compare_line
from course_lib.cli.compare import GROUPS, summary
from course_lib.training import Recipe, Result, recipes

CURVES: list[list[dict[str, float]]] = [
    [
        {"step": 0, "seconds": 1.0, "cpu_seconds": 0.5, "AP50": 0.0, "AP": 0.0},
        {"step": 10, "seconds": 3.0, "cpu_seconds": 2.0, "AP50": 0.3, "AP": 0.1, "loss": 2.0},
        {"step": 20, "seconds": 5.0, "cpu_seconds": 4.0, "AP50": 0.2, "AP": 0.1, "loss": 1.0},
    ],
    [
        {"step": 0, "seconds": 1.5, "cpu_seconds": 0.7, "AP50": 0.0, "AP": 0.0},
        {"step": 10, "seconds": 4.0, "cpu_seconds": 3.0, "AP50": 0.1, "AP": 0.05, "loss": 2.0},
        {"step": 20, "seconds": 6.0, "cpu_seconds": 5.0, "AP50": 0.6, "AP": 0.3, "loss": 1.0},
    ],
]


def result(recipe: Recipe, model: nn.Module, curve: list[dict[str, float]]) -> Result:
    return Result(recipe, model, curve, 20, 5.0, 4.0, "a test", None, [])


def test_when_a_level_is_reached_first() -> None:
    """Oracle: the curves read by hand; a later fall changes nothing, and who never comes has None."""
    found = compare_line.reached(CURVES)
    assert list(found) == ["0.1", "0.25", "0.5", "0.75", "0.9"]
    assert found["0.1"] == {"step": [10, 10], "seconds": [3.0, 4.0], "cpu_seconds": [2.0, 3.0]}
    assert found["0.25"] == {"step": [10, 20], "seconds": [3.0, 6.0], "cpu_seconds": [2.0, 5.0]}
    assert found["0.5"]["step"] == [None, 20]
    assert found["0.75"]["seconds"] == [None, None]
    assert compare_line.courses(CURVES)[1] == {
        "step": [0, 10, 20], "seconds": [1.5, 4.0, 6.0], "cpu_seconds": [0.7, 3.0, 5.0],
        "AP50": [0.0, 0.1, 0.6], "AP": [0.0, 0.05, 0.3],
    }  # fmt: skip


def test_every_recipe_of_the_line_has_somebody_before_it() -> None:
    """Oracle: the listed names; from each one the way leads to SSD."""
    line = [name for name in recipes.names() if name.startswith("line-")]
    for name in line:
        seen = [name]
        while (other := compare_detection.yardstick(seen[-1], line)) is not None:
            assert other not in seen
            seen.append(other)
        assert seen[-1] == "line-ssd"
    assert compare_detection.yardstick("line-refine", ["line-refine", "line-ssd"]) is None
    assert compare_detection.yardstick("family-dsod-plain", ["family-dsod"]) == "family-dsod"
    assert compare_detection.yardstick("family-rssd", ["family-ssd"]) == "family-ssd"


def test_what_is_added_for_sets_and_for_ssd() -> None:
    """Oracle: differences and counts by hand; every number of the record comes from one of the two runs."""
    small: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8, "body": None, "body_rate": None}
    ssd, detr = (recipes.get(name, **small) for name in ("line-ssd", "line-detr"))
    models: dict[str, Any] = {one.name: one.model().eval() for one in (ssd, detr)}
    results = {
        "line-ssd": [result(ssd, models["line-ssd"], curve) for curve in CURVES],
        "line-detr": [result(detr, models["line-detr"], curve) for curve in reversed(CURVES)],
    }
    values: dict[str, Any] = {name: summary([one.curve for one in some]) for name, some in results.items()}
    told = compare_detection.complete(results, values, repeats=1)
    assert "reached: when a run first had an AP50" in told
    assert values["line-detr"]["differences"]["from"] == "line-ssd"
    assert values["line-detr"]["differences"]["AP50"]["runs"] == pytest.approx([0.4, -0.4])
    assert "differences" not in values["line-ssd"]
    assert values["line-detr"]["reached"]["0.5"]["step"] == [20, None]
    assert values["line-ssd"]["runs"][0]["AP50"] == [0.0, 0.3, 0.2]
    for name, model in models.items():
        cost = values[name]["cost"]
        assert cost["parameters"] == sum(p.numel() for p in model.parameters())
        assert cost["multiply_adds"] > 0
        assert cost["milliseconds"] > 0
    assert values["line-detr"]["cost"]["queries"] == 12
    assert values["line-ssd"]["cost"]["anchors"] == len(models["line-ssd"].anchors())


def test_what_is_added_for_classifiers() -> None:
    """Oracle: parameters counted, multiplications of the layers by hand for the convolutions, differences by hand."""
    kept = {name: recipes.get(name, widths=(2, 2, 4, 4, 4, 4)) for name in GROUPS["classifiers"]}
    curves = [[{"step": 5, "accuracy": v}] for v in (0.5, 0.7)]
    results = {name: [result(one, one.model(), curve) for curve in curves] for name, one in kept.items()}
    values: dict[str, Any] = {name: summary([one.curve for one in some]) for name, some in results.items()}
    assert "accuracy" in compare_classification.complete(results, values)
    assert values["vit-scenes"]["differences"] == {
        "from": "conv-scenes", "accuracy": {"mean": 0.0, "bar": 0.0, "runs": [0.0, 0.0]}
    }  # fmt: skip
    seen = 0

    def count(layer: Any, given: Any, out: torch.Tensor) -> None:
        nonlocal seen
        seen += out[0].numel() // len(layer.weight) * layer.weight.numel()

    model = results["conv-scenes"][0].model
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    assert values["conv-scenes"]["cost"]["multiply_adds"] == seen > 0
    assert compare_classification.complete({"line-ssd": [result(recipes.get("line-ssd"), model, curves[0])]}, {}) == ""
