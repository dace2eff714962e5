"""Recipes of detectors that answer with a set. Oracles: the loop form of the loss, scenes by hand, autograd, fields."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib import checkpoints
from course_lib.classification import TinyClassifier, body_tensors
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.scenes import Scenes
from course_lib.detection.assignment import Costs
from course_lib.detection.boxes import to_pixels, to_xyxy
from course_lib.detection.evaluation import evaluate
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.vidt.distillation import token_matching
from course_lib.detection.set_losses import set_losses
from course_lib.training import recipes, train
from course_lib.training.recipes import sets
from course_lib.training.recipes.sets import SetRecipe

LINE = tuple(name for name in recipes.names() if name.startswith("line-"))
SHIPPED = ("detr-tiny", "deformable-tiny", "yolos-tiny", "vidt-tiny", "vidt-tiny-no-neck")
ON_SETS = tuple(name for name in (*LINE, *SHIPPED) if name != "line-ssd")
SMALL: dict[str, Any] = {"width": 16, "heads": 2, "feed": 16, "widths": (4, 6, 8, 8, 10, 10), "points": 2}


def small(name: str = "detr-tiny", **changes: Any) -> SetRecipe:
    parts = {"body": None, "body_rate": None, "teacher": None}
    recipe = recipes.get(name, **(SMALL | parts | changes))
    assert isinstance(recipe, SetRecipe)
    return recipe


def prepared(recipe: SetRecipe, count: int = 4) -> tuple[TinySetDetector, list[Labelled]]:
    torch.manual_seed(0)
    return recipe.model(), [recipe.data().sample(index) for index in range(count)]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of our own for checkpoints."""
    monkeypatch.setattr(checkpoints, "data_dir", lambda: tmp_path)
    (tmp_path / "checkpoints").mkdir()
    sets._teacher.cache_clear()
    yield tmp_path / "checkpoints"
    sets._teacher.cache_clear()


def put(shelf: Path, name: str, model: torch.nn.Module) -> None:
    checkpoints.save(shelf / f"{name}.safetensors", model)


def test_the_line_is_compared_fairly() -> None:
    """Oracle: the fields by name: all of the line share scenes, steps and batch, and who shares a body its widths."""
    fields = {name: recipes.get(name).fields() for name in LINE}
    assert [name.removeprefix("line-") for name in LINE] == [
        "deformable", "detr", "detr-vit", "distilled", "refine", "ssd", "student", "two-stage", "vidt",
        "vidt-no-neck", "yolos",
    ]  # fmt: skip
    alike = ("steps", "batch", "seed", "picture", "shapes", "count", "object_size", "overlap", "hidden", "clutter",
             "contrast", "grey", "held_out", "warm_up", "validate_every", "decay", "bands")  # fmt: skip
    for key in alike:
        assert len({repr(one[key]) for one in fields.values()}) == 1, key
    of_body = ("body", "body_width", "depths", "body_heads", "patch", "window")
    for group in (("detr-vit", "yolos"), ("vidt", "vidt-no-neck"), ("student", "distilled")):
        first, second = (fields[f"line-{name}"] for name in group)
        assert all(first[key] == second[key] for key in of_body)
    for name in ("ssd", "detr", "deformable", "refine", "two-stage"):
        assert (fields[f"line-{name}"]["body"], fields[f"line-{name}"]["widths"]) == (
            "body-conv", fields["line-detr"]["widths"]
        )  # fmt: skip
    changed = {key for key in fields["line-student"] if fields["line-student"][key] != fields["line-distilled"][key]}
    assert changed == {"name", "teacher"}
    steps = (("deformable", "refine"), ("refine", "two-stage"))
    for before, after in steps:
        first, second = fields[f"line-{before}"], fields[f"line-{after}"]
        assert {key for key in first if first[key] != second[key]} == {"name", "member"}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_small(name: str) -> None:
    """Oracle: bytes of the weights in float32, and a little for the header."""
    model = recipes.get(name, **({"body": None})).model()
    assert 4 * sum(tensor.numel() for tensor in model.state_dict().values()) < 1.97e6


def test_a_batch_holds_each_picture_with_its_truth() -> None:
    """Oracle: the scenes' own boxes, back in pixels; the picture as it was."""
    recipe = small()
    _, samples = prepared(recipe)
    images, truths = recipe.collate(samples)
    for image, truth, one in zip(images, truths, samples, strict=True):
        assert torch.equal(image, one.image)
        assert torch.equal(truth.labels, one.labels)
        torch.testing.assert_close(to_pixels(to_xyxy(truth.boxes), recipe.picture), one.boxes, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "focal", "cost"),
    [
        ("line-detr", False, 1.0),
        ("line-two-stage", True, 2.0),
        ("line-vidt", True, 2.0),
        ("line-vidt-no-neck", False, 2.0),
    ],
)
def test_the_loss_by_hand(name: str, focal: bool, cost: float) -> None:
    """Oracle: `set_losses` of what the model says of the normalised pictures, weighted by hand, all layers."""
    recipe = small(name)
    model, samples = prepared(recipe)
    images, truths = recipe.collate(samples)
    with torch.no_grad():
        loss, logs = recipe.loss(model, (images, truths))
        said = model((images - 0.5) / 0.25)
        losses = set_losses(said, truths, focal, Costs(classes=cost), eos=0.1 if focal else 0.4)
    weights = {"classes": 2.0 if focal else 1.0, "boxes": 5.0, "giou": 2.0}
    parts = {key: losses[key].sum() for key in losses if key.split("_")[-1] in weights}
    wanted = sum(weights[key.split("_")[-1]] * value for key, value in parts.items())
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert {key: float(value) for key, value in logs.items()} == {
        f"loss_{key}": pytest.approx(float(losses[key])) for key in weights
    }
    assert any(key.startswith("aux_") for key in parts) == (name != "line-vidt-no-neck")
    assert any(key.startswith("proposal_") for key in parts) == (name == "line-two-stage")


def test_processes_share_the_count_of_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the mean of the losses of two unequal parts is the loss of the whole, if both divide by their mean count."""
    recipe = small("line-refine")
    model, samples = prepared(recipe, 6)
    samples.sort(key=lambda one: len(one.labels))
    parts = [recipe.collate(samples[:3]), recipe.collate(samples[3:])]
    counts = [sum(len(truth) for truth in truths) for _, truths in parts]
    assert counts[0] != counts[1]
    with torch.no_grad():
        whole = float(recipe.loss(model.eval(), recipe.collate(samples))[0])
        monkeypatch.setattr(sets, "mean_over_processes", lambda value: torch.tensor(sum(counts) / 2))
        halves = [float(recipe.loss(model, part)[0]) for part in parts]
    assert sum(halves) / 2 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize(
    "member", ["detr", "deformable", "refine", "two_stage", "detr_vit", "yolos", "vidt", "vidt_no_neck"]
)
def test_one_batch_is_learned_by_heart(member: Any) -> None:
    """Oracle: the loss on the batch before and after some steps; every trained parameter has moved."""
    swin: dict[str, Any] = {"depths": (1, 1, 1), "body_heads": (1, 1, 2), "patch": 4, "body_width": 8}
    body: dict[str, Any] = swin if member.startswith("vidt") else {"body_width": 32, "depths": (2,)}
    recipe = small(member=member, rate=3e-3, width=32, queries=6, picture=(32, 32), object_size=(6, 16), **body)
    model, samples = prepared(recipe, 4)
    before = {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    batch, optimiser, seen = recipe.collate(samples), recipe.optimiser(model), []
    for _ in range(30):
        loss, _ = recipe.loss(model, batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seen.append(float(loss.detach()))
    assert min(seen[-3:]) < 0.7 * seen[0]
    assert [
        name
        for name, parameter in model.named_parameters()
        if torch.equal(before.get(name, parameter * 0 - 1), parameter)
    ] == []


def test_the_curve_shows_what_evaluate_measures() -> None:
    """Oracle: `evaluate` on scenes of the held-out seed, which no recipe trains on."""
    recipe = small(held_out=3)
    model, _ = prepared(recipe)
    model.eval()
    scenes = Scenes(**{**vars(recipe.scenes()), "seed": 1_000_003})
    assert all(torch.equal(one.image, scenes[k].image) for k, one in enumerate(recipe.examples()))
    found = evaluate(model, recipe.examples(), recipe.names)
    shown = recipe.validate(model)
    assert {"AP", "AP50", "AP_small", "duplicates", "AP50_disc"} <= set(shown)
    for key, value in shown.items():
        expected = found["per_class"][key[5:]] if key[5:] in found["per_class"] else found[key]
        assert value == pytest.approx(expected, nan_ok=True)


@pytest.mark.usefixtures("shelf")
@pytest.mark.parametrize(("name", "part"), [("line-ssd", "body-conv"), ("line-yolos", "body-vit")])
def test_a_missing_part_is_named(name: str, part: str) -> None:
    """Oracle: the message: which recipe, which part, and how it is made; nothing is written."""
    with pytest.raises(
        checkpoints.CheckpointMissing, match=rf"recipe {name} needs .*{part}.*course train {part} --save"
    ):
        train(recipes.get(name), progress=False)


def test_what_begins_with_a_body(shelf: Path) -> None:
    """Oracle: the classifier's tensors; both rates; a name in the data that another file changes."""
    small_body: dict[str, Any] = {"widths": SMALL["widths"], "cells": True}
    put(shelf, "body-conv", TinyClassifier("conv", **small_body))
    found = []
    for name in ("line-detr", "line-ssd"):
        changes = {key: value for key, value in SMALL.items() if name == "line-detr" or key == "widths"}
        recipe: Any = recipes.get(name, rate=1e-3, body_rate=1e-4, **changes)
        model = recipe.model()
        body = checkpoints.load("body-conv").body
        assert all(torch.equal(tensor, body.state_dict()[key]) for key, tensor in body_tensors(model).items())  # type: ignore[union-attr]
        first, second = recipe.optimiser(model).param_groups
        assert (first["lr"], second["lr"]) == (1e-3, 1e-4)
        of_body = {id(tensor) for tensor in body_tensors(model).values()}
        assert all(id(p) in of_body for p in second["params"])
        assert not any(id(p) in of_body for p in first["params"])
        assert len(first["params"]) + len(second["params"]) == len(list(model.parameters()))
        found.append(recipe.data().description)
        put(shelf, "body-conv", TinyClassifier("conv", **small_body))
        assert recipe.data().description != found[-1]
    assert all("trained parts: body-conv (sha256 " in text for text in found)
    put(shelf, "body-conv", TinyClassifier("vit", body_width=8, depths=(1,), body_heads=(1,)))
    with pytest.raises(ValueError, match="the recipe line-detr cannot begin with body-conv: classifier must"):
        recipes.get("line-detr", **SMALL).model()
    put(shelf, "body-conv", TinySetDetector("yolos", body_width=8, depths=(1,), body_heads=(1,)))
    with pytest.raises(ValueError, match="body of the recipe line-detr must be a classifier's, got TinySetDetector"):
        recipes.get("line-detr", **SMALL).model()


@pytest.mark.parametrize("official", [False, True])
def test_a_student_matches_its_teachers_tokens(shelf: Path, official: bool) -> None:
    """Oracle: the plain loss and `token_matching` of the two networks; the teacher stays as it is."""
    body = {"depths": (1, 1, 1), "body_heads": (1, 1, 2), "patch": 4}
    arguments: dict[str, Any] = {**SMALL, **body, "body_width": 12, "decoder": 2}
    torch.manual_seed(5)
    teacher = TinySetDetector("vidt", **arguments).eval()
    put(shelf, "vidt-tiny", teacher)
    changes: dict[str, Any] = {"body": None, "body_rate": None, **SMALL, **body, "body_width": 8}
    recipe: Any = recipes.get("line-distilled", official=official, matching=3.0, **changes)
    alone: Any = recipes.get("line-student", **changes)
    model, samples = prepared(recipe, 2)
    batch = recipe.collate(samples)
    loss, logs = recipe.loss(model, batch)
    images = (batch[0] - 0.5) / 0.25
    with torch.no_grad():
        known, said = teacher(images, tokens=True), model(images, tokens=True)
        tokens = float(token_matching(said, known, 3.0, official))
        assert float(logs["loss_tokens"]) == pytest.approx(tokens, rel=1e-5)
        assert float(loss.detach()) == pytest.approx(float(alone.loss(model, batch)[0]) + tokens, rel=1e-5)
    loss.backward()
    kept = sets._teacher("line-distilled", "vidt-tiny", torch.device("cpu"))
    assert all(p.grad is None for p in kept.parameters())
    assert all(torch.equal(p, q) for p, q in zip(kept.parameters(), teacher.parameters(), strict=True))
    assert "trained parts: vidt-tiny (sha256" in recipe.data().description


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("line-detr", "member", ["ssd", None]),
        ("line-detr", "queries", [0, 1.5]),
        ("line-detr", "width", [0, 12]),
        ("line-detr", "cell", [7]),
        ("line-detr", "eos", [0, -1.0, "x"]),
        ("line-detr", "rate", [0.0, math.nan]),
        ("line-detr", "body_rate", [0.0, -1.0]),
        ("line-ssd", "body_rate", [0.0, "x"]),
        ("line-detr", "teacher", ["vidt-tiny"]),
        ("line-distilled", "matching", [0, math.inf]),
        ("line-distilled", "official", ["yes", 1]),
        ("line-detr", "count", [(4, 1)]),
        ("line-detr", "held_out", [0]),
        ("line-vidt", "depths", [(2,), (0, 2)]),
    ],
)
def test_fields_out_of_range_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and of the recipe, and what came, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}.*got") as caught:
            recipes.get(name, **{field: value})
        assert name in str(caught.value)
