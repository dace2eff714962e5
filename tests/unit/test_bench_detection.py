"""`course bench detection`. Oracles: rivals do the same work; convolutions are counted by hand."""

import pytest
import torch
from torch import Tensor, nn

from course_lib.bench.detection_cases import CASES

PLAIN = [name for name, make in CASES.items() if "plain" in make("cpu", True).forms]


@torch.no_grad()
@pytest.mark.parametrize("name", PLAIN)
def test_rivals_do_the_same_work(name: str) -> None:
    """Oracle: the plain form's numbers, of losses with gradients too."""
    case = CASES[name]("cpu", True)
    ours, plain = (case.forms[form]() for form in ("ours", "plain"))
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6, check_dtype=False)
    assert case.flops is None
    assert len(torch.as_tensor(ours).flatten() if name == "average precision" else ours) > 0


def test_plain_loops_are_measured() -> None:
    """Oracle: the list of what has one."""
    assert len(PLAIN) == 9
    assert {name for name in CASES if name not in PLAIN} == {"SSD300"} | {name for name in CASES if "family" in name}


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name not in PLAIN])
def test_what_networks_must_compute_is_counted(name: str) -> None:
    """Oracle: each convolution's kernels times the places of its result (transposed: of what it gets), seen by itself.

    The bare form of SSD300 has all of its convolutions, that of a member is family-ssd.
    """
    case = CASES[name]("cpu", True)
    count = 0

    def seen(layer: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal count
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            places = args[0] if isinstance(layer, nn.ConvTranspose2d) else result
            count += 2 * layer.weight.numel() * places[:, 0].numel()

    hook = nn.modules.module.register_module_forward_hook(seen)
    try:
        case.forms["bare" if name == "SSD300" else "ours"]()
    finally:
        hook.remove()
    assert count == case.flops
    if "bare" in case.forms and name != "SSD300":
        first = CASES["family-ssd 96 x 96"]("cpu", True).forms["ours"]()
        assert torch.equal(case.forms["bare"]()["logits"], first["logits"])
