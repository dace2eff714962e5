"""The recipe of TTSR. Oracles: the losses by hand, TTSR asked directly, and its own fields."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import default_collate

from course_lib import datasets
from course_lib.datasets import references
from course_lib.super_resolution import metrics
from course_lib.super_resolution.ttsr import TTSR
from course_lib.training import recipes
from course_lib.training.recipes import ttsr
from course_lib.training.recipes.ttsr import TtsrRecipe
from course_lib.upsampling import resize


def pairs(count: int, side: int = 32) -> list[dict[str, Tensor]]:
    """Pairs of small photographs, related by turns."""
    found = []
    for k in range(count):
        target, reference = references.related(
            datasets.photograph("coffee", (64, 96)), (side, side), (3 * k, 5 * k), shift=(2 * k, -k), gain=0.9
        )
        found.append(references.inputs(target, reference) | {"related": torch.tensor(float(k % 2))})
    return found


def small(**changes: Any) -> tuple[TtsrRecipe, TTSR, dict[str, Tensor]]:
    recipe = recipes.get("ttsr-tiny", channels=4, blocks=(1, 1, 1, 1), widths=(4, 4, 4), small=1.0, **changes)
    assert isinstance(recipe, TtsrRecipe)
    torch.manual_seed(0)
    return recipe, recipe.model(), default_collate(pairs(4))


@pytest.mark.parametrize(("alone", "strength"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_loss_by_hand(alone: float, strength: float) -> None:
    """Oracle: mean distance of what the network makes, and of S of the two samples whose reference is unrelated."""
    recipe, model, batch = small(alone=alone, distrust=0.01)
    inputs = [batch[name] for name in ("lr", "lr_up", "ref", "ref_down_up")]
    with torch.no_grad():
        soft = model.textures(*inputs[1:]).soft
        expected = (model(*inputs, strength=strength) - batch["hr"]).abs().mean() + 0.01 * soft[::2].mean() / 2
        assert float(recipe.loss(model, batch)) == pytest.approx(float(expected), abs=1e-6)


def test_some_samples_are_trained_alone() -> None:
    """Oracle: the share of fields, and the same generator drawn again; related samples alone have a transferal loss."""
    recipe, model, batch = small(alone=0.5, distrust=0.0, transferal=0.1)
    inputs = [batch[name] for name in ("lr", "lr_up", "ref", "ref_down_up")]
    with torch.no_grad():
        torch.manual_seed(7)
        came = float(recipe.loss(model, batch))
        torch.manual_seed(7)
        strength = (torch.rand(4) >= 0.5).float()
        assert 0 < strength.sum() < 4
        sr = model(*inputs, strength=strength)
        found, kept = model.textures(*inputs[1:]), (strength * batch["related"]).view(-1, 1, 1, 1)
        levels = zip(model.extractor(sr), (found.fine, found.middle, found.coarse), strict=True)
        far = sum(float((kept * (a - b)).square().mean()) for a, b in levels) / 3
    assert came == pytest.approx(float((sr - batch["hr"]).abs().mean()) + 0.1 * far, rel=1e-5)


def test_training_starts_near_bicubic_with_textures_of_one_size() -> None:
    """Oracle: bicubic; the mean squares of the three levels of textures."""
    recipe = recipes.get("ttsr-tiny")
    torch.manual_seed(0)
    model = recipe.model()
    assert isinstance(model, TTSR)
    assert sum(p.numel() for p in model.parameters()) == 414_955
    pair = pairs(2)[1]
    with torch.no_grad():
        sr = model(pair["lr"], pair["lr_up"], pair["ref"], pair["ref_down_up"])
        sizes = [float(level.square().mean()) for level in model.extractor(pair["ref"])]
    assert (sr - resize(pair["lr"], scale=4, border="symmetric")).abs().mean() < 0.02
    assert min(sizes) > 0.2 * max(sizes)


def test_every_parameter_is_trained() -> None:
    """Oracle: autograd; also where no sample of a batch has a reference."""
    recipe, model, batch = small(alone=1.0, distrust=0.0)
    loss = recipe.loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters())
    groups = recipe.optimiser(model).param_groups
    assert [group["lr"] for group in groups] == [1e-3, 1e-3]
    assert sum(p.numel() for g in groups for p in g["params"]) == sum(p.numel() for p in model.parameters())
    assert {id(p) for p in groups[1]["params"]} == {id(p) for p in model.extractor.parameters()}
    changed = recipes.get("ttsr-tiny", extractor=0.1)
    assert [group["lr"] for group in changed.optimiser(changed.model()).param_groups] == [1e-3, 1e-4]


def test_the_curve_shows_what_references_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: `metrics.compared` of what the network makes with a pair's own, the next one's and no reference."""
    few = tuple({k: v for k, v in pair.items() if k != "related"} for pair in pairs(3))
    monkeypatch.setattr(ttsr, "shown", lambda: few)
    recipe, model, _ = small()
    with torch.no_grad():
        found = recipe.validate(model)
        for kind, others in (("related", few), ("unrelated", (*few[1:], few[0])), ("alone", (None,) * 3)):
            psnrs = []
            for pair, other in zip(few, others, strict=True):
                sr = (
                    model(pair["lr"], pair["lr_up"])
                    if other is None
                    else model(pair["lr"], pair["lr_up"], other["ref"])
                )
                psnrs.append(float(metrics.psnr(*metrics.compared(sr, pair["hr"], 4))))
            assert found[f"psnr_{kind}"] == pytest.approx(sum(psnrs) / 3, abs=0.01)
    assert set(found) == {f"psnr_{kind}" for kind in ("related", "unrelated", "alone")} | {
        "soft_related", "soft_unrelated"
    }  # fmt: skip
    assert 0 < found["soft_unrelated"] <= 1


def test_the_pairs_shown_are_photographs_seen_again() -> None:
    """Oracle: shapes; the middle of target and reference show nearly the same, but not quite."""
    for pair in ttsr.shown():
        assert pair["hr"].shape == pair["ref"].shape == (3, 160, 160)
        apart = (pair["hr"] - pair["ref"]).abs().mean()
        assert 0.01 < apart < 0.3


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("channels", [0, 2.5]),
        ("blocks", [(1, 1, 1), (1, 1, 1, 0), (1, 1, 1, 1.5)]),
        ("widths", [(16, 32), (0, 1, 1)]),
        ("patch", [0]),
        ("related", [1.5, "x", True]),
        ("alone", [-0.1, None]),
        ("transferal", [math.nan]),
        ("distrust", [-1]),
        ("rate", [0.0]),
        ("extractor", [-1]),
        ("warm_up", [-1]),
        ("added", [1]),
        ("small", [0]),
    ],
)
def test_fields_out_of_range_are_refused(field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and what came, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=rf"{field} of the recipe ttsr-tiny must be .*got"):
            recipes.get("ttsr-tiny", **{field: value})


def test_the_floor_belongs_to_the_finished_network() -> None:
    """Law: no step and no checkpoint knows of it; only the network that a training returns has it."""
    recipe = recipes.get("ttsr-tiny")
    assert "floor" not in recipe.fields()
    assert recipe.floor > 0
    model = recipe.model()
    assert model.floor == 0
    assert recipe.finished(model).floor == recipe.floor
    with pytest.raises(ValueError, match=r"floor must be in \[0, 1\), the relevance that counts as none, got 1\.0"):
        recipes.get("ttsr-tiny", floor=1.0)
