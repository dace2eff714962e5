"""The recipes that are listed by name. Oracle: their own fields; the straight run of two steps."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib.training import Stopped, recipes, train
from tests.training.processes import Interrupt, read, same
from tests.training.toy import Toy


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"toy": Toy(), "toy-large": Toy(name="toy-large", batch=64)}
    monkeypatch.setattr(recipes, "_all", lambda: known)


@pytest.mark.usefixtures("toys")
def test_found_by_name_and_changed() -> None:
    """Oracle: the fields by hand; the listed recipe stays as it is."""
    assert recipes.names() == ["toy", "toy-large"]
    assert recipes.get("toy-large").batch == 64
    changed = recipes.get("toy", seed=9, steps=2)
    assert (changed.seed, changed.steps, changed.batch) == (9, 2, 4)
    assert recipes.get("toy") == Toy()


@pytest.mark.usefixtures("toys")
def test_unknown_names_and_fields_are_refused() -> None:
    """Oracle: the message shows what there is, similar names first."""
    with pytest.raises(ValueError, match=r"no recipe has the name 'toy-larg'; there are: toy-large") as caught:
        recipes.get("toy-larg")
    assert "course recipes" in str(caught.value)
    with pytest.raises(ValueError, match="there are: toy, toy-large"):
        recipes.get("espresso")
    with pytest.raises(ValueError, match="the recipe toy has no field 'epochs'; it has: name, steps"):
        recipes.get("toy", epochs=3)
    with pytest.raises(ValueError, match="steps of the recipe toy must be a whole number >= 1, got 0"):
        recipes.get("toy", steps=0)


def test_the_files_of_the_package_list_them() -> None:
    """Oracle: the package's folder: every module beside __init__ has recipes, and each says what it is."""
    modules = {path.stem for path in Path(recipes.__file__).parent.glob("*.py")} - {"__init__"}
    listed = [recipes.get(name) for name in recipes.names()]
    assert {type(recipe).__module__.rsplit(".", 1)[1] for recipe in listed} == modules
    assert [recipe.name for recipe in listed] == recipes.names()
    assert all(recipe.about and "\n" not in recipe.about for recipe in listed)
    assert all(recipe.fields()["seed"] == recipe.seed for recipe in listed)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("espcn-x3", "scale", [0, 2.5, True]),
        ("espcn-x3", "patch", [0]),
        ("espcn-x3", "warm_up", [-5, 0.5]),
        ("espcn-x3", "rate", [-1.0, 0, "x", math.nan, math.inf, True]),
        ("espcn-x3", "last", [0.0]),
        ("espcn-x3", "contrast", [-1]),
        ("espcn-x3", "aim", ["high"]),
        ("espcn-x3", "added", [1, "no"]),
        ("espcn-x3", "clip", [True, -1, "x"]),
        ("segment-bilinear", "decoder", ["x", None]),
        ("segment-bilinear", "side", [0, 24, "96"]),
        ("segment-bilinear", "rank", [0]),
        ("segment-bilinear", "fitted", [0]),
        ("segment-bilinear", "held_out", [0]),
        ("segment-bilinear", "warm_up", [-1]),
        ("segment-bilinear", "rate", [0.0]),
        ("segment-bilinear", "object_size", [(1, 500), (20, 10), 16]),
    ],
)
def test_fields_out_of_range_are_refused(name: str, field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and what came, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=rf"{field}.*got") as caught:
            recipes.get(name, **{field: value})
        assert name in str(caught.value)


ON_CELLS = [pytest.param(name, marks=pytest.mark.needs_data("BCCD")) for name in recipes.names() if "bccd" in name]


@pytest.mark.parametrize("name", [*(name for name in recipes.names() if "bccd" not in name), *ON_CELLS])
def test_a_real_recipe_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the straight run of two steps, to the bit, for one that is stopped after the first.

    Data and untrained model are made once, and nothing is measured: that would take longer than all steps.
    """
    recipe = recipes.get(name, steps=2, batch=2, validate_every=1)
    kind, data = type(recipe), recipe.data()
    torch.manual_seed(recipe.seed)
    model = recipe.model()
    monkeypatch.setattr(kind, "data", lambda self: data)
    monkeypatch.setattr(kind, "model", lambda self: copy.deepcopy(model))
    monkeypatch.setattr(kind, "validate", lambda self, model: {})
    train(recipe, tmp_path / "straight", device="cpu", progress=False)
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", device="cpu", progress=False, on_row=Interrupt(1))
    train(recipe, tmp_path / "run", device="cpu", progress=False)
    assert same(read(tmp_path / "run"), read(tmp_path / "straight"))
    assert data.description
    assert same(data.sample(5), data.sample(5))
