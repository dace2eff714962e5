"""Recipes of small detectors. Oracles: the loop form of the loss, single pictures, their own fields, scenes by hand."""

import math
from typing import Any

import pytest
import torch

from course_lib.datasets.annotations import Labelled
from course_lib.datasets.scenes import Scenes
from course_lib.detection.boxes import to_normalised
from course_lib.detection.evaluation import evaluate, multiply_adds
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.losses import Targets, targets
from course_lib.plain.detection import multibox_loop
from course_lib.training import recipes
from course_lib.training.recipes import detection
from course_lib.training.recipes.detection import BccdRecipe, ScenesRecipe

FAMILY = tuple(name for name in recipes.names() if name.startswith("family-"))
ON_SCENES = ("ssd-tiny", *FAMILY)


def small(name: str = "ssd-tiny", **changes: Any) -> ScenesRecipe:
    recipe = recipes.get(name, widths=(4, 6, 8, 8, 10, 10), width=8, **changes)
    assert isinstance(recipe, ScenesRecipe)
    return recipe


def prepared(recipe: ScenesRecipe, count: int = 4) -> tuple[TinyDetector, list[Labelled]]:
    torch.manual_seed(0)
    return recipe.model().eval(), [recipe.data().sample(index) for index in range(count)]


def rows(batch: tuple[torch.Tensor, Targets], some: slice) -> tuple[torch.Tensor, Targets]:
    images, wanted = batch
    return images[some], Targets(wanted.labels[some], wanted.offsets[some])


def test_the_family_differs_by_its_members() -> None:
    """Oracle: the fields by name; DSOD's two forms, and SSD's, differ by one of them."""
    assert [name.removeprefix("family-") for name in FAMILY] == [
        "dsod", "dsod-plain", "dssd", "fssd", "rssd", "ssd", "ssd-wide"
    ]  # fmt: skip
    ssd = recipes.get("family-ssd").fields()
    for name in FAMILY:
        other = recipes.get(name).fields()
        differs = {key for key in ssd if ssd[key] != other[key]}
        assert differs <= ({"name", "widths"} if name == "family-ssd-wide" else {"name", "member", "width"})
        assert other["member"] == name.removeprefix("family-").removesuffix("-wide").replace("-", "_")
    dense, plain = (recipes.get(f"family-dsod{x}").fields() for x in ("", "-plain"))
    assert {key for key in dense if dense[key] != plain[key]} == {"name", "member"}


COSTS = {
    "family-dsod": (193_072, 38_495_232),
    "family-dsod-plain": (191_256, 38_481_984),
    "family-dssd": (339_224, 53_621_136),
    "family-fssd": (282_728, 49_600_512),
    "family-rssd": (346_464, 79_409_664),
    "family-ssd": (253_760, 34_338_816),
    "family-ssd-wide": (403_908, 60_134_400),
    "ssd-tiny": (455_928, 28_689_408),
    "ssd-tiny-bccd": (455_928, 135_498_240),
}
"""Parameters, and multiply-adds of one picture."""


@pytest.mark.parametrize("name", COSTS)
def test_what_a_detector_costs(name: str) -> None:
    """Oracle: what was counted when the recipes were made."""
    model = recipes.get(name).model()
    assert isinstance(model, TinyDetector)
    assert (sum(p.numel() for p in model.parameters()), multiply_adds(model)) == COSTS[name]


def test_the_wide_ssd_costs_what_the_ideas_cost() -> None:
    """Oracle: the mean multiply-adds of the three members that put a neck behind the plain body, to 2 %."""
    ideas = sum(COSTS[f"family-{name}"][1] for name in ("dssd", "fssd", "rssd")) / 3
    assert COSTS["family-ssd-wide"][1] == pytest.approx(ideas, rel=0.02)


@pytest.mark.parametrize("name", ON_SCENES)
def test_a_batch_holds_each_picture_with_its_targets(name: str) -> None:
    """Oracle: `targets` of the single picture with the model's own anchors; the picture as it was."""
    recipe = small(name)
    model, samples = prepared(recipe)
    images, wanted = recipe.collate(samples)
    assert torch.equal(recipe.anchors(), model.anchors())
    assert int((wanted.labels > 0).sum()) >= sum(len(one.labels) for one in samples)
    for k, one in enumerate(samples):
        assert torch.equal(images[k], one.image)
        alone = targets([to_normalised(one.boxes, recipe.picture)], [one.labels], model.anchors(), "greedy", 0.5)
        assert torch.equal(wanted.labels[k], alone.labels[0])
        assert torch.equal(wanted.offsets[k], alone.offsets[0])


def test_the_loss_is_that_of_the_loops() -> None:
    """Oracle: `multibox_loop` on what the model says of the normalised pictures."""
    recipe = small()
    model, samples = prepared(recipe)
    batch = images, wanted = recipe.collate(samples)
    with torch.no_grad():
        loss, logs = recipe.loss(model, batch)
        out = model((images - 0.5) / 0.25)
        confidence, localisation = multibox_loop(out["logits"], out["offsets"], wanted)
    assert float(logs["loss_classes"]) == pytest.approx(float(confidence), rel=1e-4)
    assert float(logs["loss_offsets"]) == pytest.approx(float(localisation), rel=1e-4)
    assert float(loss) == pytest.approx(float(confidence + localisation), rel=1e-4)


def test_processes_share_the_count_of_positives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: the mean of the losses of two unequal parts is the loss of the whole, if both divide by their mean count."""
    recipe = small()
    model, samples = prepared(recipe, 6)
    batch = recipe.collate(samples)
    counts = [(batch[1].labels[part] > 0).sum() for part in (slice(0, 4), slice(4, 6))]
    assert counts[0] != counts[1]
    with torch.no_grad():
        whole = float(recipe.loss(model, batch)[0])
        mean = (counts[0] + counts[1]) / 2
        monkeypatch.setattr(detection, "mean_over_processes", lambda value: mean)
        parts = [float(recipe.loss(model, rows(batch, part))[0]) for part in (slice(0, 4), slice(4, 6))]
    assert sum(parts) / 2 == pytest.approx(whole, rel=1e-5)


def test_pictures_without_objects_teach_nothing() -> None:
    """Oracle: a loss of 0, and gradients of 0 for everything that is trained."""
    recipe = small()
    model, samples = prepared(recipe, 2)
    empty = [Labelled(one.image, one.boxes[:0], one.labels[:0]) for one in samples]
    loss, _ = recipe.loss(model, recipe.collate(empty))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("name", ON_SCENES)
def test_what_is_measured_is_never_trained_on(name: str) -> None:
    """Oracle: the scenes' seeds; every seed of a recipe is measured on the same scenes."""
    first, second = (small(name, seed=seed, held_out=2) for seed in (0, 1))
    shown = Scenes(**{**vars(first.scenes()), "seed": 1_000_003})
    for k, one in enumerate(first.examples()):
        assert torch.equal(one.image, shown[k].image)
        assert torch.equal(one.boxes, shown[k].boxes)
        assert torch.equal(one.image, second.examples()[k].image)
    assert not torch.equal(first.data().sample(0).image, second.data().sample(0).image)
    assert f"seed={second.seed}" in second.data().description


def test_some_scenes_are_grey() -> None:
    """Oracle: the colourful scene's mean, the same boxes, and about the share that was asked for."""
    colour, grey = small(grey=0.0).data(), small(grey=0.4).data()
    assert grey.description == f"{colour.description}; 0.4 of them grey"
    count = 0
    for k in range(60):
        one, other = colour.sample(k), grey.sample(k)
        assert torch.equal(one.boxes, other.boxes)
        if not torch.equal(one.image, other.image):
            count += 1
            torch.testing.assert_close(other.image, one.image.mean(0).expand(3, -1, -1), rtol=0, atol=1e-6)
    assert 12 <= count <= 36


def test_the_curve_shows_what_evaluate_measures() -> None:
    """Oracle: `evaluate` on the held-out scenes."""
    recipe = small(held_out=3)
    model, _ = prepared(recipe)
    found = evaluate(model, recipe.examples(), recipe.names)
    shown = recipe.validate(model)
    assert set(shown) == {
        "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "duplicates",
        *(f"AP50_{name}" for name in ("disc", "square", "triangle")),
    }  # fmt: skip
    for name, value in shown.items():
        expected = found["per_class"][name[5:]] if name[5:] in found["per_class"] else found[name]
        assert value == pytest.approx(expected, nan_ok=True)


@pytest.mark.needs_data("BCCD")
def test_cells_are_changed_and_watched_as_they_are() -> None:
    """Oracle: sizes and classes; the part "val" by name."""
    recipe = recipes.get("ssd-tiny-bccd")
    assert isinstance(recipe, BccdRecipe)
    data, whole = recipe.data(), recipe.examples()
    one = data.sample(7)
    assert one.size == recipe.picture
    assert not torch.equal(one.image, data.sample(7 + 240).image)
    assert "240 pictures of BCCD (train" in data.description
    assert len(whole) == 60
    assert all(each.size == recipe.picture for each in whole)
    assert recipe.names == ("RBC", "WBC", "Platelets")
    assert recipe.collate([one, data.sample(8)])[1].labels.max() <= 3


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("family-dssd", "member", ["yolo", None]),
        ("ssd-tiny", "picture", [(64,), (64, 0), 64]),
        ("ssd-tiny", "widths", [(1, 2), (4, 6, 8, 8, 10, 0)]),
        ("ssd-tiny", "sizes", [(8, 16), (9, 8, 7, 6, 5)]),
        ("ssd-tiny", "ratios", [2, ("x",)]),
        ("ssd-tiny", "width", [0, 1.5]),
        ("ssd-tiny", "threshold", [0, 1.5, "x", math.nan]),
        ("ssd-tiny", "negatives", [0, -1.0, math.inf]),
        ("ssd-tiny", "rate", [0.0, math.nan]),
        ("ssd-tiny", "decay", [-1, "x"]),
        ("ssd-tiny", "warm_up", [-1, 0.5]),
        ("ssd-tiny", "bands", [(24, 12), (1,), (0, 5), 3]),
        ("ssd-tiny", "aim", ["high"]),
        ("ssd-tiny", "count", [(4, 1), 3]),
        ("ssd-tiny", "object_size", [(1, 500)]),
        ("ssd-tiny", "overlap", [2]),
        ("ssd-tiny", "hidden", [-1]),
        ("ssd-tiny", "clutter", ["x"]),
        ("ssd-tiny", "contrast", [0.9]),
        ("ssd-tiny", "grey", [2, -0.1, "x", math.nan]),
        ("ssd-tiny", "held_out", [0]),
        ("ssd-tiny-bccd", "read", [(0, 3), 5]),
        ("ssd-tiny-bccd", "flip", [2]),
        ("ssd-tiny-bccd", "patch", [-1]),
        ("ssd-tiny-bccd", "hue", [400]),
    ],
)
def test_fields_out_of_range_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and of the recipe, and what came, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}.*got") as caught:
            recipes.get(name, **{field: value})
        assert name in str(caught.value)
