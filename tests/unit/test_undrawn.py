"""Official networks are made without drawing weights.

Oracles: the same networks made as usual, the state of the random numbers, and the means of what would be drawn.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch.nn import init

from course_lib import official
from course_lib.official import adapters
from course_lib.official.undrawn import Undrawn

MEANS: dict[str, tuple[Any, float]] = {
    "uniform_": (lambda x: x.uniform_(), 0.5),
    "uniform_ of a range": (lambda x: x.uniform_(2, 4), 3.0),
    "uniform_ by name": (lambda x: x.uniform_(**{"from": 1, "to": 3}), 2.0),
    "normal_": (lambda x: x.normal_(3, 2), 3.0),
    "normal_ by name": (lambda x: x.normal_(std=2, mean=-1), -1.0),
    "init.uniform_": (lambda x: init.uniform_(x, 2, 3), 2.5),
    "init.normal_": (lambda x: init.normal_(x, mean=1.5, std=2), 1.5),
    "init.kaiming_uniform_": (lambda x: init.kaiming_uniform_(x, a=5**0.5), 0.0),
    "init.kaiming_normal_": (lambda x: init.kaiming_normal_(x, nonlinearity="relu"), 0.0),
    "init.xavier_uniform_": (lambda x: init.xavier_uniform_(x), 0.0),
    "init.trunc_normal_": (lambda x: init.trunc_normal_(x, std=0.02), 0.0),
    "init.trunc_normal_, narrow": (lambda x: init.trunc_normal_(x, std=2, a=-0.1, b=0.1), 0.0),
    "init.constant_": (lambda x: init.constant_(x, 7.0), 7.0),
}


@pytest.mark.parametrize("name", MEANS)
def test_the_mean_stands_there(name: str) -> None:
    """Oracle: the mean by hand; nothing is drawn, in the block, and all is as before behind it."""
    draw, mean = MEANS[name]
    before, x = torch.get_rng_state(), torch.nn.Parameter(torch.full((4, 5), torch.nan))
    with Undrawn():
        draw(x)
    assert x.requires_grad
    assert torch.equal(x.detach(), torch.full((4, 5), mean))
    assert torch.equal(torch.get_rng_state(), before)
    if mean != 7:
        assert float(torch.empty(9, 9).normal_().std()) > 0


@pytest.mark.parametrize("name", ["espcn_x3", "liif_edsr", "ttsr"])
def test_loaded_networks_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the network made as usual: every tensor, and every buffer that no file holds; random numbers stay."""
    torch.manual_seed(1)
    made = official.adapter(name).build()
    absent = official.adapter(name).left_as_initialised
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in made.state_dict().items()
    }
    monkeypatch.setitem(
        adapters._ADAPTERS, name, adapters.Adapter(official.adapter(name).build, left_as_initialised=absent)
    )
    before, found = torch.get_rng_state(), []
    for mode in (Undrawn, nullcontext):
        monkeypatch.setattr(adapters, "Undrawn", mode)
        found.append(official.load(name, state))
    assert torch.equal(torch.get_rng_state(), before)
    mine, usual = ({**dict(one.named_parameters()), **dict(one.named_buffers())} for one in found)
    assert mine.keys() == usual.keys()
    assert all(torch.equal(mine[key], usual[key]) for key in usual)
