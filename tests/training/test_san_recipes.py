"""Recipes of SAN. Oracles: their fields, counts of parameters, photographs."""

from typing import Any

import pytest
import torch

from course_lib import datasets
from course_lib.super_resolution.san import SAN
from course_lib.training import recipes

ORDERS = ("order-second", "order-first", "order-none")


@pytest.mark.parametrize("name", ORDERS)
def test_only_the_attention_differs(name: str) -> None:
    """Oracle: the fields by name; the networks but for their attention."""
    second, other = recipes.get("order-second").fields(), recipes.get(name).fields()
    kind = name.removeprefix("order-")
    differs = {"name", "attention"} if kind != "second" else set()
    assert {key for key in second if second[key] != other[key]} == differs
    assert other["attention"] == kind
    shapes, own = (
        {key: value.shape for key, value in recipes.get(each).model().state_dict().items() if "attention" not in key}
        for each in ("order-second", name)
    )
    assert shapes == own


def test_the_same_network_in_all_of_them_starts_with_as_many_numbers() -> None:
    """Oracle: the counts; first and second order have as many, none has fewer by the attention's alone."""
    counts = [sum(p.numel() for p in recipes.get(name).model().parameters()) for name in ORDERS]
    groups, channels, hidden = 3, 24, 3
    assert counts[0] == counts[1] == counts[2] + groups * (2 * channels * hidden + channels + hidden)


@pytest.mark.parametrize("name", ["order-second", "order-first", "san-tiny"])
def test_attention_can_adapt_from_the_start(name: str) -> None:
    """Weights differ between pictures: by data_range 2 a second order's would be equal to 3 digits, as the statistic is
    proportional to it, and what is compared would be constants."""
    torch.manual_seed(0)
    spread = {}
    for data_range in (recipes.get(name).fields()["data_range"], 2.0):
        torch.manual_seed(0)
        model = recipes.get(name, data_range=data_range).model()
        assert isinstance(model, SAN)
        seen: list[Any] = []
        model.body[-1].attention.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0]))
        with torch.no_grad():
            for photograph in ("astronaut", "chelsea", "coffee", "rocket"):
                model(datasets.photograph(photograph, (30, 40))[None])
            weights = torch.stack([model.body[-1].attention.weights(x).flatten() for x in seen])
        spread[data_range] = float(weights.std(0).mean())
    assert spread[255.0] > 0.005
    assert spread[255.0] > 5 * spread[2.0]


@pytest.mark.parametrize(
    ("field", "values"), [("groups", [0, 1.5]), ("reduction", [0]), ("attention", ["third", None, 2])]
)
def test_fields_out_of_range_are_refused(field: str, values: list[Any]) -> None:
    """Oracle: the name of the field and of the recipe, before anything is trained."""
    for value in values:
        with pytest.raises(ValueError, match=f"{field} of the recipe san-tiny must be"):
            recipes.get("san-tiny", **{field: value})
