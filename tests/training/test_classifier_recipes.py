"""Recipes of small classifiers. Oracles: scenes by hand, losses by hand, autograd, their own fields."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate
from typer.testing import CliRunner

from course_lib import checkpoints
from course_lib.classification import Kind, TinyClassifier
from course_lib.cli import app, options, ship_classification
from course_lib.datasets.scenes import Scenes
from course_lib.training import recipes
from course_lib.training.detectors import LINE
from course_lib.training.recipes.classifiers import ClassifierRecipe, NamedScenes, at_cells, labelled, measured

BODIES = tuple(name for name in recipes.names() if name.startswith("body-"))
FEW = ("conv-scenes", "swin-scenes", "vit-scenes")
SMALL: dict[str, dict[str, Any]] = {
    "conv": {"widths": (4, 6, 8, 8, 10, 10)},
    "vit": {"body_width": 16, "depths": (1,), "body_heads": (2,)},
    "swin": {"body_width": 8, "depths": (1, 1, 2), "body_heads": (1, 2, 2)},
}


def small(name: str, **changes: Any) -> ClassifierRecipe:
    listed: Any = recipes.get(name)
    recipe = recipes.get(name, **(SMALL[listed.kind] | changes))
    assert isinstance(recipe, ClassifierRecipe)
    return recipe


def prepared(recipe: ClassifierRecipe, count: int = 4) -> tuple[TinyClassifier, list[Tensor]]:
    torch.manual_seed(0)
    return recipe.model(), default_collate([recipe.data().sample(index) for index in range(count)])


def test_few_pictures_are_compared_fairly() -> None:
    """Oracle: the fields by name; the three differ by their bodies alone."""
    assert set(BODIES) == {"body-conv", "body-swin", "body-swin-small", "body-vit"}
    first, *others = (recipes.get(name).fields() for name in FEW)
    body = {"name", "kind", "widths", "body_width", "depths", "body_heads", "patch", "window"}
    for other in others:
        assert {key for key in first if first[key] != other[key]} <= body
    for name in BODIES:
        recipe: Any = recipes.get(name)
        assert recipe.cells
        assert (recipe.count, recipe.object_size, recipe.picture) == (LINE.count, LINE.object_size, LINE.size)


def test_few_pictures_come_again_in_another_order() -> None:
    """Oracle: every picture once in each turn; the scenes of the same index and seed; other seeds, other pictures."""
    scenes = Scenes(seed=3, size=(32, 32), count=(1, 1), object_size=(12, 28))
    data = NamedScenes(scenes, pictures=7)
    turns = [[data.sample(7 * turn + k) for k in range(7)] for turn in range(3)]
    known = [scenes[k] for k in range(7)]
    orders = []
    for turn in turns:
        places = [next(k for k, one in enumerate(known) if torch.equal(one.image, image)) for image, _ in turn]
        assert sorted(places) == list(range(7))
        assert [int(label) for _, label in turn] == [int(known[k].labels[0]) for k in places]
        orders.append(tuple(places))
    assert len(set(orders)) > 1
    assert data.description.endswith("; 7 of them")
    assert torch.equal(data.sample(16)[0], NamedScenes(scenes, pictures=7).sample(16)[0])


def test_one_label_needs_one_object() -> None:
    """Oracle: the number of objects by hand; every listed scene has one."""
    crowded = Scenes(count=(3, 3), object_size=(6, 12))[0]
    with pytest.raises(ValueError, match="a scene must have one object, got 3"):
        labelled(crowded, cells=False)
    shown: Any = recipes.get("vit-scenes")
    assert Counter(len(shown.scenes()[k].labels) for k in range(50)) == {1: 50}


def test_a_cell_is_called_as_the_pixel_at_its_centre() -> None:
    """Oracle: indices by hand, at three strides."""
    labels = torch.randint(4, (2, 16, 24), generator=torch.Generator().manual_seed(0))
    for stride in (4, 8):
        found = at_cells(labels, torch.zeros(2, 4, 16 // stride, 24 // stride))
        for i in range(16 // stride):
            for j in range(24 // stride):
                assert torch.equal(found[:, i, j], labels[:, i * stride + stride // 2, j * stride + stride // 2])


@pytest.mark.parametrize("name", [*BODIES, *FEW])
def test_the_loss_by_hand_and_every_parameter_learns(name: str) -> None:
    """Oracle: cross-entropies of the heads by hand, their mean; autograd."""
    recipe = small(name)
    model, (images, labels) = prepared(recipe)
    loss, logs = recipe.loss(model, (images, labels))
    said = model.all((images - 0.5) / 0.25)
    wanted = [at_cells(labels, one) if recipe.cells else labels for one in said]
    each = [F.cross_entropy(one, other) for one, other in zip(said, wanted, strict=True)]
    assert len(each) == {"conv": 3, "vit": 1, "swin": 2}[recipe.kind] if recipe.cells else len(each) == 1
    assert float(loss.detach()) == pytest.approx(float(sum(each).detach()) / len(each), rel=1e-4)  # type: ignore[union-attr]
    assert float(logs["right"]) == pytest.approx(float((said[0].argmax(1) == wanted[0]).double().mean()))
    loss.backward()  # type: ignore[no-untyped-call]
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kind", ["conv", "vit", "swin"])
@pytest.mark.parametrize("cells", [False, True])
def test_a_file_makes_the_same_classifier(kind: Kind, cells: bool, tmp_path: Path) -> None:
    """Oracle: the classifier that was written."""
    torch.manual_seed(0)
    model = TinyClassifier(kind, ("cat", "dog"), cells, (64, 32), **SMALL[kind] | {"patch": 4}).eval()
    checkpoints.save(tmp_path / "x.safetensors", model)
    again = checkpoints.read(tmp_path / "x.safetensors")
    picture = torch.rand(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(model(picture), again(picture))
        assert model(picture).shape == ((2, 3, *model(picture).shape[2:]) if cells else (2, 2))
        torch.testing.assert_close(model(picture)[:1], model(picture[:1]), rtol=1e-4, atol=1e-5)


class Knowing(TinyClassifier):
    """Says what it was told to say, picture after picture."""

    def __init__(self, answers: Tensor, cells: bool) -> None:
        super().__init__(cells=cells, picture=(32, 32), **SMALL["conv"])
        self.answers, self.seen = answers, 0

    def forward(self, images: Tensor) -> Tensor:
        some = self.answers[self.seen : self.seen + len(images)]
        self.seen += len(images)
        return F.one_hot(some, 3 + self.cells).float().movedim(-1, 1)


def test_how_well_it_does() -> None:
    """Oracle: shares by hand; who is right everywhere has mean IoU 1."""
    scenes = Scenes(seed=9, size=(32, 32), count=(1, 1), object_size=(12, 28))
    labels = torch.stack([labelled(scenes[k], False)[1] for k in range(12)])
    said = labels.clone()
    said[:3] = (said[:3] + 1) % 3
    found = measured(Knowing(said, False), scenes, 12)
    assert found["accuracy"] == 0.75
    for k, name in enumerate(("disc", "square", "triangle")):
        assert found[f"accuracy_{name}"] == pytest.approx(float((said == labels)[labels == k].double().mean()))
    maps = torch.stack([labelled(scenes[k], True)[1] for k in range(12)])
    cells = at_cells(maps, torch.zeros(12, 4, 4, 4))
    assert measured(Knowing(cells, True), scenes, 12)["miou"] == 1
    nothing = measured(Knowing(torch.zeros_like(cells), True), scenes, 12)
    assert nothing["iou_background"] == pytest.approx(float((cells == 0).double().mean()))
    assert nothing["miou"] == pytest.approx(nothing["iou_background"] / 4)


@pytest.mark.parametrize("name", ["body-conv", "vit-scenes"])
def test_what_a_curve_is_measured_on_is_never_trained_on(name: str) -> None:
    """Oracle: `measured` on scenes of the held-out seed, whatever the recipe's own is."""
    recipes_of = [small(name, seed=seed, held_out=40) for seed in (0, 1)]
    model = prepared(recipes_of[0], 1)[0].eval()
    scenes = Scenes(**{**vars(recipes_of[0].scenes()), "seed": 1_000_003})
    wanted = measured(model, scenes, 40)
    assert [recipe.validate(model) for recipe in recipes_of] == [pytest.approx(wanted, nan_ok=True)] * 2
    assert measured(model, recipes_of[0].scenes(), 40) != pytest.approx(wanted, nan_ok=True)


@pytest.mark.parametrize("name", ["body-conv", "vit-scenes"])
def test_a_card_says_how_often_it_is_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: `measured` on scenes of the held-out seed; an aim of nothing is reached."""
    monkeypatch.setattr(ship_classification, "PICTURES", 6)
    recipe = small(name, aim=1e-9)
    model = prepared(recipe, 1)[0].eval()
    card = ship_classification.card(model, recipe)
    scenes = Scenes(**{**vars(recipe.scenes()), "seed": 1_000_003})
    first = "miou" if recipe.cells else "accuracy"
    assert card["metrics"]["scenes"][first] == pytest.approx(measured(model, scenes, 6)[first], abs=1e-6)
    assert card["aim"] == {"set": "scenes", first: 1e-9, "reached": card["metrics"]["scenes"][first] >= 1e-9}
    assert 0 < card["photograph"]["score"] < 1
    shown = ship_classification.lines(card)
    assert shown[0].startswith(f"6 scenes: {first} 0.")
    assert shown[1].startswith(f"aim: {first} 1e-09")


@pytest.mark.parametrize("name", BODIES)
def test_cards_and_weights_agree(name: str) -> None:
    """Oracle: hash and size of the file, parameters counted again, a score measured again on a free photograph."""
    card, model = checkpoints.card(name), checkpoints.load(name)
    weights = checkpoints.paths(name)[0]
    assert isinstance(model, TinyClassifier)
    assert (card["sha256"], card["bytes"]) == (checkpoints.sha256(weights), weights.stat().st_size)
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert ship_classification.photograph_score(model) == pytest.approx(card["photograph"]["score"], abs=1e-4)
    assert card["recipe"]["kind"] == model.kind
    assert name not in options.networks() + options.detectors()
    said = CliRunner().invoke(app, ["card", name])
    assert f"miou {card['metrics']['scenes']['miou']:.4f}" in said.stdout


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("body-conv", "kind", ["rnn", None]),
        ("body-conv", "cells", ["yes", 1]),
        ("body-conv", "widths", [(1, 2), (4, 6, 8, 8, 10, 0)]),
        ("body-vit", "depths", [(), (2, 2), (0,)]),
        ("body-swin", "depths", [(2,), ()]),
        ("body-vit", "patch", [0]),
        ("vit-scenes", "count", [(1, 2)]),
        ("vit-scenes", "pictures", [0, 1.5]),
        ("vit-scenes", "grey", [0.5]),
        ("vit-scenes", "rate", [0.0, math.inf]),
        ("vit-scenes", "decay", [-1]),
        ("vit-scenes", "warm_up", [-1]),
        ("vit-scenes", "aim", ["high"]),
        ("vit-scenes", "held_out", [0]),
    ],
)
def test_fields_out_of_range_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and of the recipe, and what came, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}.*got") as caught:
            recipes.get(name, **{field: value})
        assert name in str(caught.value)
