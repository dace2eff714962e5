"""What is kept of Meta-SR's filters is never stale. Oracle: the same call with gradients on, which keeps nothing."""

import copy
import pickle
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from course_lib.super_resolution.any_scale import Span
from course_lib.super_resolution.kept import Kept
from course_lib.super_resolution.meta_upscale import FilterNetwork, upscale

FEATURES = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network() -> FilterNetwork:
    torch.manual_seed(0)
    return FilterNetwork(3, 5).double().eval()


def made(net: FilterNetwork, r: int = 2) -> Tensor:
    rows, columns = (Span.whole(n, r * n, Fraction(1, r)) for n in (4, 5))
    return upscale(FEATURES.to(net.last.weight.dtype), net, rows, columns)


def check(net: FilterNetwork, r: int = 2) -> None:
    with torch.no_grad():
        got = made(net, r)
    torch.testing.assert_close(got, made(net, r).detach(), rtol=0, atol=0)


def step(net: FilterNetwork, kind: type[torch.optim.Optimizer], **options: Any) -> None:
    optimiser = kind(net.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    made(net).square().mean().backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def other() -> FilterNetwork:
    net = network()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3)
    return net


def by_hand(name: str) -> Callable[[FilterNetwork], None]:
    @torch.no_grad()
    def change(net: FilterNetwork) -> None:
        net.get_parameter(name).add_(0.5)

    return change


def new_memory(net: FilterNetwork) -> None:
    for _ in range(2):  # the second may get the address that was freed by the first
        net.last.weight.data = net.last.weight.data * 2


def replaced(net: FilterNetwork) -> None:
    net.last = other().last


def replaced_parameter(net: FilterNetwork) -> None:
    net.last.weight = other().last.weight


def inference(net: FilterNetwork) -> None:
    with torch.inference_mode():
        made(net)
        made(net, 3)
        net.last.bias.mul_(3)


def between(net: FilterNetwork) -> None:
    loss = made(net).square().mean()
    with torch.no_grad():
        made(net)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.optim.AdamW(net.parameters(), lr=0.1, fused=True).step()


def there_and_back(net: FilterNetwork) -> None:
    net.float()
    check(net)
    net.double()


def adapted(net: FilterNetwork) -> None:
    net.last.register_forward_hook(lambda module, given, result: 2 * result)


def recomputed(net: FilterNetwork) -> None:
    nn.utils.parametrize.register_parametrization(net.last, "weight", nn.Tanh())


CHANGES: dict[str, Callable[[FilterNetwork], object]] = {
    **{f"{name} by hand": by_hand(name) for name in ("first.weight", "first.bias", "last.weight", "last.bias")},
    "sgd": lambda net: step(net, torch.optim.SGD),
    "adam": lambda net: step(net, torch.optim.Adam, foreach=True),
    "fused adam": lambda net: step(net, torch.optim.AdamW, fused=True),
    "load": lambda net: net.load_state_dict(other().state_dict()),
    "assign": lambda net: net.load_state_dict(other().state_dict(), assign=True),
    "init": lambda net: nn.init.normal_(net.last.weight),
    "fused adam between": between,
    "data": lambda net: net.last.weight.data.mul_(2),
    "numpy": lambda net: net.first.bias.detach().numpy().__iadd__(1),
    "new memory": new_memory,
    "layer": replaced,
    "parameter": replaced_parameter,
    "inference": inference,
    "dtype": there_and_back,
    "hook": adapted,
    "parametrization": recomputed,
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    """Oracle: the same call with gradients on; and it is another picture than before the change."""
    net = network()
    with torch.no_grad():
        before = made(net)
    assert net.kept._made is not None
    CHANGES[name](net)
    check(net)
    check(net)
    if name != "dtype":
        assert not torch.allclose(made(net), before, atol=1e-4)


def few(weight: Tensor) -> Tensor:
    """Add to numbers that are not in the sample of every 15th."""
    weight.view(-1)[1:15] += 1e3
    return weight


def forgotten(net: FilterNetwork) -> None:
    few(net.last.weight.data)
    net.kept.forget()


def new_kind(net: FilterNetwork) -> None:
    net.last.weight.data = net.last.weight.float()
    net.double()


FEW: dict[str, Callable[[FilterNetwork], object]] = {
    "counted": lambda net: few(net.last.weight),
    "new memory": lambda net: setattr(net.last.weight, "data", few(net.last.weight.detach().clone())),
    "forgotten": forgotten,
    "new kind": new_kind,
}


@pytest.mark.parametrize("name", FEW)
def test_a_few_numbers(name: str) -> None:
    """Oracle: gradients on; the numbers that change are none of those compared."""
    net = FilterNetwork(3, 50).double().eval()
    with torch.no_grad():
        before = made(net)
        FEW[name](net)
        assert (name == "new kind") == torch.allclose(made(net), before, atol=1e-4)
    check(net)


def test_filters_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the calls of the last layer; it is asked in training mode, with gradients, and for another scale."""
    net, calls = network(), 0
    whole = FilterNetwork.kernels

    def counted(self: FilterNetwork, hidden: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return whole(self, hidden)

    monkeypatch.setattr(FilterNetwork, "kernels", counted)
    with torch.no_grad():
        for _ in range(3):
            made(net)
        assert calls == 1
        made(net, 3)
        made(net, 2)
        assert calls == 3  # one scale is kept
        net.train()
        made(net)
        assert calls == 4
    net.eval()
    made(net)
    assert calls == 5


def test_copies_and_files_begin_with_nothing() -> None:
    """Oracle: names of tensors before anything was kept; each copy has its own weights."""
    net = network()
    names = list(net.state_dict())
    with torch.no_grad():
        made(net)
    assert list(net.state_dict()) == names
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.kept is not net.kept
        assert twin.kept._made is None
        check(twin)
        by_hand("last.weight")(twin)
        check(twin)
        check(net)


def test_stand_ins_are_not_kept() -> None:
    """Oracle: torch.func.functional_call and forward-mode derivatives with weights that are no parameters."""
    net, second = network(), other()
    with torch.no_grad():
        given = torch.func.functional_call(_Asks(net), {f"net.{k}": v for k, v in second.state_dict().items()}, ())
        torch.testing.assert_close(given, made(second), rtol=0, atol=0)
    check(net)
    with torch.inference_mode():
        born = network()  # its parameters count no changes
        before = made(born)
        born.last.bias.add_(1)
        assert born.kept._made is None
        assert not torch.allclose(made(born), before, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own
def test_forward_derivatives() -> None:
    """Oracle: two pictures that differ by a small change of the weights; a stand-in shares the weights' memory."""
    net = network()
    change = torch.randn(net.last.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        before = made(net)
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(net.last.weight, change)
            asked = torch.func.functional_call(_Asks(net), {"net.last.weight": dual}, ())
            slope = forward_ad.unpack_dual(asked).tangent
        assert slope is not None
        net.last.weight += change
        torch.testing.assert_close(before + slope, made(net))  # the picture is linear in the last layer


class _Asks(nn.Module):
    def __init__(self, net: FilterNetwork) -> None:
        super().__init__()
        self.net = net

    def forward(self) -> Tensor:
        return made(self.net)


def test_precision_is_part_of_the_key() -> None:
    """Oracle: a network that was never asked in half precision, and one that was never asked without it."""
    first, second = network().float(), network().float()
    with torch.no_grad():
        exact = made(first)
        with torch.autocast("cpu", torch.bfloat16):
            half = made(first)
            torch.testing.assert_close(made(second), half, rtol=0, atol=0)
        torch.testing.assert_close(made(first), exact, rtol=0, atol=0)
    assert half.dtype == torch.bfloat16


def test_weights_changed_while_filters_are_made() -> None:
    """Oracle: what was made of weights that another thread wrote to meanwhile is not kept."""
    kept, weight = Kept(), nn.Parameter(torch.zeros(2))

    @torch.no_grad()
    def make() -> Tensor:
        result = weight.clone()
        weight.add_(1)  # as another thread may
        return result

    with torch.no_grad():
        assert [float(kept.get([weight], 0, make)[0]) for _ in range(3)] == [0, 1, 2]


def test_threads_share_one_network() -> None:
    """Oracle: each thread's own scale, made before."""
    net = network()
    expected = {r: made(net, r).detach() for r in (1, 2, 3)}
    wrong: list[int] = []

    def ask(r: int) -> None:
        with torch.no_grad():
            for _ in range(50):
                if not torch.equal(made(net, r), expected[r]):
                    wrong.append(r)

    threads = [threading.Thread(target=ask, args=(r,)) for r in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_recorded_program_keeps_nothing() -> None:
    """Oracle: the compiled program after a change of the weights, beside the same call with gradients on."""
    net = network()
    program = torch.compile(_Asks(net), backend="eager")
    for change in (lambda _: None, by_hand("last.weight"), by_hand("first.bias")):
        change(net)
        with torch.no_grad():
            torch.testing.assert_close(program(), made(other_of(net)), rtol=0, atol=1e-12)


def other_of(net: FilterNetwork) -> FilterNetwork:
    twin = network()
    twin.load_state_dict(net.state_dict())
    return twin


@pytest.mark.gpu
def test_a_move_to_cuda_is_seen() -> None:
    """Oracle: the result on the CPU."""
    net = network()
    with torch.no_grad():
        expected = made(net)
        moved = net.to("cuda")
        rows, columns = (Span.whole(n, 2 * n, Fraction(1, 2)) for n in (4, 5))
        for _ in range(2):
            torch.testing.assert_close(upscale(FEATURES.to("cuda"), moved, rows, columns).cpu(), expected)
        check(net.to("cpu"))
