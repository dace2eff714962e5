"""Laws of second-order attention, for shapes and numbers that Hypothesis chooses."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.blocks.non_local import NonLocal
from course_lib.plain.san import non_local_loop
from course_lib.super_resolution.san import SAN, ResidualGroup
from course_lib.super_resolution.second_order import SOCA, FirstOrder, covariance, newton_schulz

FEW = settings(max_examples=25, deadline=None)
SIZES = {
    "channels": st.integers(1, 6),
    "height": st.integers(1, 7),
    "width": st.integers(1, 7),
    "seed": st.integers(0, 99),
}


def maps(channels: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


def drawn(module: torch.nn.Module, seed: int) -> Any:
    """The module in float64, all parameters drawn, those that start at 0 too."""
    torch.manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


def rotation(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(
        torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ).Q


@FEW
@given(**SIZES, shift=st.floats(-100, 100))
def test_covariance_does_not_see_a_constant(channels: int, height: int, width: int, seed: int, shift: float) -> None:
    """Law: a number added to each channel changes nothing; scaling by c scales by c^2."""
    x = maps(channels, height, width, seed)
    constants = shift * torch.linspace(-1, 1, channels, dtype=torch.float64).view(-1, 1, 1)
    torch.testing.assert_close(covariance(x + constants), covariance(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(covariance(-3 * x), 9 * covariance(x))


@FEW
@given(**SIZES)
def test_covariance_is_symmetric_and_not_negative(channels: int, height: int, width: int, seed: int) -> None:
    """Law: eigenvalues are >= 0, at most as many positive ones as places less one; the diagonal holds variances."""
    x = maps(channels, height, width, seed)
    sigma = covariance(x)
    torch.testing.assert_close(sigma, sigma.mT, rtol=0, atol=1e-15)
    values = torch.linalg.eigvalsh(sigma)
    assert values.min() > -1e-12
    assert ((values > 1e-9).sum(-1) <= height * width - 1).all()
    torch.testing.assert_close(sigma.diagonal(dim1=1, dim2=2), x.var((2, 3), correction=0), rtol=0, atol=1e-12)


@FEW
@given(**SIZES)
def test_places_have_no_order_and_channels_go_along(channels: int, height: int, width: int, seed: int) -> None:
    """Laws: shuffled places leave covariance and weights as they are; mixed channels mix rows and columns."""
    x = maps(channels, height, width, seed)
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(height * width, generator=generator)
    shuffled = x.flatten(2)[..., places].view_as(x)
    torch.testing.assert_close(covariance(shuffled), covariance(x), rtol=0, atol=1e-12)
    for kind in (SOCA, FirstOrder):
        attention = drawn(kind(channels, 1), seed)
        torch.testing.assert_close(attention(shuffled), attention(x).flatten(2)[..., places].view_as(x))
    mixing = torch.randn(channels, channels, generator=generator, dtype=torch.float64)
    mixed = torch.einsum("ij,bjhw->bihw", mixing, x)
    torch.testing.assert_close(covariance(mixed), mixing @ covariance(x) @ mixing.T, rtol=1e-9, atol=1e-11)


@FEW
@given(size=st.integers(1, 7), seed=st.integers(0, 99), iterations=st.integers(0, 8), trace=st.booleans())
def test_newton_schulz_rotates_along(size: int, seed: int, iterations: int, trace: bool) -> None:
    """Law: the root of Q A Q' is Q times the root of A times Q', at every step; symmetric stays symmetric."""
    a, q = covariance(maps(size, 5, 6, seed)) / 2, rotation(size, seed)
    root = newton_schulz(a, iterations, trace)
    torch.testing.assert_close(newton_schulz(q @ a @ q.T, iterations, trace), q @ root @ q.T, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(root, root.mT, rtol=1e-7, atol=1e-9)


@FEW
@given(size=st.integers(1, 6), seed=st.integers(0, 99), factor=st.floats(1e-6, 1e6))
def test_newton_schulz_scales_and_converges(size: int, seed: int, factor: float) -> None:
    """Laws: the root of c A is sqrt(c) times the root of A, by any number of steps; many steps square back to A."""
    a = covariance(maps(size, 6, 6, seed))
    expected = factor**0.5 * newton_schulz(a)
    torch.testing.assert_close(newton_schulz(factor * a), expected, rtol=1e-9, atol=1e-9 * factor**0.5)
    root = newton_schulz(a, 40)
    torch.testing.assert_close(root @ root, a, rtol=1e-7, atol=1e-8)


@FEW
@given(**(SIZES | {"height": st.integers(1, 9), "width": st.integers(1, 9)}), grid=st.integers(1, 3))
def test_cells_do_not_see_each_other(channels: int, height: int, width: int, seed: int, grid: int) -> None:
    """Laws: a cell is what one place after the other makes of it; another cell's numbers do not matter."""
    block, x = drawn(NonLocal(channels, 2, grid, pool=1), seed), maps(channels, height, width, seed)
    rows, columns = (slice(n // grid * 0, n // grid) for n in (height, width))
    here = (..., rows, columns)
    came = block(x)
    if x[here].numel():
        first = x[here]
        seen = [non_local_loop(*one) for one in zip(block.theta(first), block.phi(first), block.g(first), strict=True)]
        torch.testing.assert_close(came[here], first + block.merge(torch.stack(seen)))
        other = torch.zeros_like(x)
        other[here] = first
        torch.testing.assert_close(block(other)[here], came[here])


@FEW
@given(channels=st.integers(1, 5), seed=st.integers(0, 99), factor=st.integers(1, 3))
def test_places_of_a_cell_have_no_order(channels: int, seed: int, factor: int) -> None:
    """Law: without windows, non-local attention commutes with any shuffle of the places of its one cell."""
    x = maps(channels, 2 * factor, 5, seed)
    block = drawn(NonLocal(channels, 2, grid=1, pool=1), seed)
    places = torch.randperm(10 * factor, generator=torch.Generator().manual_seed(seed))
    shuffled = x.flatten(2)[..., places].view_as(x)
    torch.testing.assert_close(block(shuffled), block(x).flatten(2)[..., places].view_as(x))


def symmetric(model: torch.nn.Module) -> None:
    """Make every 3 x 3 kernel its own mirror image and transpose, and all parts of a large pixel alike."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.shape[-2:] == (3, 3):
                flipped = [parameter, parameter.flip(-1), parameter.flip(-2), parameter.flip(-1, -2)]
                parameter.copy_(sum(part + part.mT for part in flipped) / 8)
            if "stages" in name:
                parts = parameter.unflatten(0, (-1, 4))
                parameter.copy_(parts.mean(1, keepdim=True).expand_as(parts).flatten(0, 1))


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99), attention=st.sampled_from(["second", "first", "none"]))
def test_symmetric_kernels_make_a_symmetric_network(seed: int, attention: Any) -> None:
    """Law: then the network commutes with mirrors and transposition, where cells and windows are mirrored too."""
    torch.manual_seed(seed)
    model = SAN(2, 2, 1, 4, 2, data_range=1.0, attention=attention).double()
    with torch.no_grad():
        for parameter in (model.gamma, *model.non_local.merge.parameters()):
            parameter.copy_(torch.randn(parameter.shape))
    lr = maps(3, 8, 12, seed)
    assert (model(lr.flip(-1)) - model(lr).flip(-1)).abs().max() > 1e-4
    symmetric(model)
    sr = model(lr)
    for change in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.mT):
        torch.testing.assert_close(model(change(lr)), change(sr))
    assert isinstance(model.body[0], ResidualGroup)
