"""Second-order statistics. Oracles: NumPy, the formulas with matrices of full size, autograd, numbers by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.plain.san import centring_matrix, covariance_by_matrix, eigen_sqrt, newton_schulz_loop
from course_lib.super_resolution import second_order
from course_lib.super_resolution.second_order import SOCA, FirstOrder, covariance, newton_schulz
from tests.unit.networks import Largest


def maps(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def spread_out(size: int, condition: float) -> Tensor:
    """A symmetric matrix with eigenvalues from 1 down to 1 / condition."""
    vectors = torch.linalg.qr(maps(size, size)).Q
    return (vectors * torch.logspace(0, -np.log10(condition), size, dtype=torch.float64)) @ vectors.mT


@pytest.mark.parametrize("shape", [(2, 5, 4, 7), (1, 1, 3, 3), (3, 4, 1, 1), (1, 6, 1, 9), (2, 3, 20, 33)])
def test_covariance_is_numpys_and_the_papers(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracles: np.cov with bias; the product with the centring matrix, gradients too; contiguous or not; in blocks."""
    monkeypatch.setattr(second_order, "_IN_CACHE", 1)  # 256 places at a time
    x = 3 + maps(*shape).requires_grad_()
    came = covariance(x)
    for one, expected in zip(came.detach(), x.detach(), strict=True):
        np.testing.assert_allclose(one, np.cov(expected.flatten(1), bias=True).reshape(one.shape), atol=1e-14)
    plain = covariance_by_matrix(x)
    torch.testing.assert_close(came, plain, rtol=0, atol=1e-14)
    seed = maps(*came.shape)
    ours, theirs = (torch.autograd.grad((result * seed).sum(), x)[0] for result in (came, plain))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    last = x.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(covariance(last), came.detach(), rtol=0, atol=1e-14)
    assert covariance(x[:0]).shape == (0, shape[1], shape[1])


def test_the_centring_matrix() -> None:
    """Laws: it sends what is constant to 0, and s times it is its own square."""
    centring = centring_matrix(7)
    torch.testing.assert_close(centring @ torch.ones(7, dtype=torch.float64), torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(7 * centring @ centring, centring)


def test_the_numbers_of_the_chapter() -> None:
    """Oracle: by hand."""
    x = torch.tensor([[1.0, 2, 3, 4], [2, 0, 2, 0]], dtype=torch.float64).view(1, 2, 2, 2)
    sigma = covariance(x)
    assert sigma.tolist() == [[[1.25, -0.5], [-0.5, 1]]]
    root = eigen_sqrt(sigma)[0]
    np.testing.assert_allclose(root, [[1.09141, -0.24254], [-0.24254, 0.97014]], rtol=0, atol=5e-6)
    np.testing.assert_allclose(root.mean(1), [0.42444, 0.36380], rtol=0, atol=5e-6)
    assert x.mean((2, 3)).tolist() == [[2.5, 1]]


def test_steps_by_hand() -> None:
    """Oracle: printed digits for the matrix with eigenvalues 3 and 1, and for the number 1 / 4."""
    sigma = torch.tensor([[2.0, 1], [1, 2]], dtype=torch.float64)
    exact = eigen_sqrt(sigma)
    large, small = (3**0.5 + 1) / 2, (3**0.5 - 1) / 2
    torch.testing.assert_close(exact, torch.tensor([[large, small], [small, large]], dtype=torch.float64))
    assert exact.mean(0).tolist() == pytest.approx([0.8660, 0.8660], abs=5e-5)
    steps = [newton_schulz(sigma, n) for n in range(1, 6)]
    printed = ["1.1875", "1.2996", "1.3537", "1.3656", "1.366025"]
    assert [f"{float(y[0, 0]):.{len(text) - 2}f}" for y, text in zip(steps, printed, strict=True)] == printed
    errors = [f"{float((y - exact).abs().max()):.2g}" for y in steps]
    assert errors == ["0.18", "0.066", "0.012", "0.00045", "6.2e-07"]
    quarter = torch.tensor([[0.25]], dtype=torch.float64)
    walk = [f"{float(newton_schulz(quarter, n, trace=False)):.8f}" for n in range(6)]
    assert walk == ["0.25000000", "0.34375000", "0.43438721", "0.48764982", "0.49954619", "0.49999938"]


def test_five_steps_are_too_few_for_small_eigenvalues() -> None:
    """Oracle: printed shares of the root; and a relative error of 24 % at condition 10, gone after 20 steps."""
    for value, share in {1: "1.000", 0.5: "1.000", 0.1: "0.997", 0.01: "0.659", 0.001: "0.237"}.items():
        came = newton_schulz(torch.tensor([[value]], dtype=torch.float64), trace=False)
        assert f"{float(came) / value**0.5:.3f}" == share
    sigma = spread_out(64, 10)
    exact = eigen_sqrt(sigma)
    errors = [float((newton_schulz(sigma, n) - exact).norm() / exact.norm()) for n in (5, 8, 12, 20)]
    assert f"{errors[0]:.2f}" == "0.24"
    assert 0.001 < errors[1] < 0.01
    assert max(errors[2:]) < 1e-12


def test_without_the_trace() -> None:
    """Oracle: the eigenvalue 3 is sent to 0 at once, 3.5 to the negative root."""
    sigma = torch.tensor([[2.0, 1], [1, 2]], dtype=torch.float64)
    for n in (1, 2, 8, 30):
        assert newton_schulz(sigma, n, trace=False).tolist() == [[0.5, -0.5], [-0.5, 0.5]]
    wrong = newton_schulz(torch.tensor([[3.5]], dtype=torch.float64), 12, trace=False)
    assert float(wrong) == pytest.approx(-(3.5**0.5), abs=1e-12)


@pytest.mark.parametrize("trace", [True, False])
@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_newton_schulz_is_the_loop(iterations: int, trace: bool) -> None:
    """Oracle: the equations one by one, which start with a Z of 1; gradients too."""
    matrix = (covariance(maps(3, 6, 5, 5)) / 2).requires_grad_()
    came, expected = newton_schulz(matrix, iterations, trace), newton_schulz_loop(matrix, iterations, trace)
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-13)
    seed = maps(3, 6, 6)
    ours, theirs = (torch.autograd.grad((result * seed).sum(), matrix)[0] for result in (came, expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradients_are_differences() -> None:
    """Oracle: finite differences through both, at few places, where the covariance has no full rank."""
    x = maps(1, 4, 1, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: newton_schulz(covariance(x)), x)


def test_large_means_keep_their_digits() -> None:
    """Oracle: float64. The other two ways lose one digit for each digit of mean / spread, until none is left."""
    noise = maps(1, 16, 25, 40, dtype=torch.float32)
    lost = []
    for mean in (3.5, 35.0, 350.0, 3500.0):
        x = noise + mean
        exact = covariance(x.double())
        rows = x.flatten(2)
        late = rows @ rows.mT / 1000 - rows.mean(2)[..., None] * rows.mean(2)[:, None]
        ours, late_error, matrix = (
            float((came - exact).abs().max() / exact.abs().max())
            for came in (covariance(x), late, covariance_by_matrix(x))
        )
        assert ours < 1e-6
        lost.append((late_error, matrix))
    for k, (late_error, matrix) in enumerate(lost):
        assert late_error > 1e-6 * 60**k
        assert matrix > 5e-7 * 60**k
    assert min(lost[-1]) > 0.5


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -7.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constant_maps(value: float, dtype: torch.dtype) -> None:
    """Finite, with a finite gradient, where the plain form divides 0 by 0."""
    x = torch.full((2, 4, 3, 5), value, dtype=dtype).requires_grad_()
    root = newton_schulz(covariance(x))
    root.sum().backward()
    assert root.abs().max() < 1e-5
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.manual_seed(0)
    soca = SOCA(4, 2).to(dtype)
    weighted = soca(x)
    (gradient,) = torch.autograd.grad(weighted.sum(), x)
    assert weighted.isfinite().all()
    assert gradient.isfinite().all()


def test_a_trace_of_zero() -> None:
    """Oracle: it counts as 1: the result is 0, the gradient that of the iteration at 0, 1.5^5; other matrices of the
    batch get what they get alone, and the plain form makes NaN of it."""
    good = covariance(maps(1, 3, 4, 4))
    both = torch.cat([torch.zeros_like(good), good]).requires_grad_()
    came = newton_schulz(both)
    assert torch.equal(came[0], torch.zeros_like(good[0]))
    torch.testing.assert_close(came[1], newton_schulz(good)[0], rtol=0, atol=1e-14)
    (gradient,) = torch.autograd.grad(came.sum(), both)
    torch.testing.assert_close(gradient[0], torch.full_like(gradient[0], 1.5**5))
    assert gradient.isfinite().all()
    assert newton_schulz_loop(both)[0].isnan().all()
    for small in (1e-30, 1e-37, 1e-39, 1e-45):  # the last two are below the least normal number
        tiny = (small * good.float()).requires_grad_()
        (gradient,) = torch.autograd.grad(newton_schulz(tiny).sum(), tiny)
        assert gradient.isfinite().all(), small


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(kind: torch.dtype) -> None:
    """Oracle: the same numbers in float32; under autocast float32 stays as it is."""
    x = maps(2, 6, 5, 5).to(kind)
    expected = newton_schulz(covariance(x.float()))
    came = newton_schulz(covariance(x))
    assert came.dtype == torch.float32
    assert torch.equal(came, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(newton_schulz(covariance(x.float())), expected)
    torch.testing.assert_close(newton_schulz(covariance(x).to(kind)), expected, rtol=0, atol=0.02)


def test_nothing_large_is_made() -> None:
    """Oracle: the sizes of all tensors made on the way: some places at a time, which stay in a CPU's cache, not even a
    copy of the maps. The plain form makes a matrix of (H W)^2 numbers."""
    x = maps(1, 64, 64, 64, dtype=torch.float32)
    for function, given, numel in ((covariance, x, 2**17), (covariance_by_matrix, x[..., :9, :50], 450**2)):
        with Largest(x) as largest:
            function(given)
        assert largest.numbers == numel


def by_hand(attention: FirstOrder, x: Tensor, statistic: Tensor) -> Tensor:
    down, up = attention.down, attention.up
    hidden = torch.relu(statistic @ down.weight[:, :, 0, 0].T + down.bias)  # type: ignore[operator]
    return x * torch.sigmoid(hidden @ up.weight[:, :, 0, 0].T + up.bias)[:, :, None, None]  # type: ignore[operator]


@pytest.mark.parametrize("iterations", [1, 5])
def test_attention_by_hand(iterations: int) -> None:
    """Oracle: the equations with matrices, gradients for maps and all parameters."""
    torch.manual_seed(0)
    second, first = SOCA(6, 2, iterations).double(), FirstOrder(6, 3).double()
    x = maps(2, 6, 4, 5).requires_grad_()
    seed = maps(2, 6, 4, 5)
    pooled = newton_schulz_loop(covariance_by_matrix(x), iterations).mean(-1)
    for module, statistic in ((second, pooled), (first, x.mean((2, 3)))):
        came, expected = module(x), by_hand(module, x, statistic)
        torch.testing.assert_close(came, expected)
        wanted = [x, *module.parameters()]
        ours, theirs = (torch.autograd.grad((y * seed).sum(), wanted, retain_graph=True) for y in (came, expected))
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other)


def test_parameters() -> None:
    """Oracle: 64 * 4 + 4 + 4 * 64 + 64, and as many for the first order."""
    assert sum(p.numel() for p in SOCA(64).parameters()) == 580
    assert {name: p.shape for name, p in SOCA(64).named_parameters()} == {
        name: p.shape for name, p in FirstOrder(64).named_parameters()
    }


def test_maps_of_the_same_mean() -> None:
    """Oracle: by hand. Means are blind for how two maps vary, and the covariance for the means."""
    torch.manual_seed(0)
    first, second = FirstOrder(2, 1), SOCA(2, 1)
    flat, busy = torch.ones(4), torch.tensor([0.0, 2, 0, 2])
    x, y = (torch.stack([flat, other]).view(1, 2, 2, 2) for other in (flat, busy))
    assert covariance(y).tolist() == [[[0, 0], [0, 1]]]
    assert first.statistic(y).tolist() == [[1, 1]]
    assert torch.equal(first.weights(x), first.weights(y))
    assert (second.weights(x) - second.weights(y)).abs().max() > 1e-3
    brighter = y + torch.tensor([10.0, 20]).view(1, 2, 1, 1)
    assert torch.equal(second.weights(brighter), second.weights(y))
    assert (first.weights(brighter) - first.weights(y)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(3, 1200), (1200, 3), (999, 1000), (1000, 1000)])
def test_every_place_counts(size: tuple[int, int]) -> None:
    """Corners of a large picture change its statistic; the official code looks at 1000 x 1000 places at most."""
    soca, plain = SOCA(2, 1), torch.zeros(1, 2, *size)
    plain[..., ::2] = 1
    for corner in ((0, 0), (-1, -1)):
        x = plain.clone()
        x[:, :, *corner] = 1000
        assert (soca.statistic(x) - soca.statistic(plain)).abs().max() > 0.01


def test_the_weights_have_the_dtype_of_the_maps() -> None:
    """Oracle: float32, to the 8 bits of bfloat16."""
    torch.manual_seed(0)
    x = maps(1, 8, 5, 5, dtype=torch.float32)
    for module in (SOCA(8, 2), FirstOrder(8, 2)):
        expected = module(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(module(x).float(), expected, rtol=0, atol=0.03)
        came = module.bfloat16()(x.bfloat16())
        assert came.dtype == torch.bfloat16
        torch.testing.assert_close(came.float(), expected, rtol=0, atol=0.03)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"x must be \(B, C, H, W\) with C, H, W >= 1, got \(4, 5, 6\)"):
        covariance(torch.zeros(4, 5, 6))
    with pytest.raises(ValueError, match=r"x must be .* got \(1, 4, 0, 6\)"):
        SOCA(4, 2)(torch.zeros(1, 4, 0, 6))
    with pytest.raises(TypeError, match=r"x must be a floating-point torch\.Tensor, got torch\.int64"):
        covariance(torch.zeros(1, 4, 5, 6, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"x must be a floating-point torch\.Tensor, got ndarray"):
        covariance(np.zeros((1, 4, 5, 6)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"matrix must be \(\.\.\., C, C\) with C >= 1, got \(2, 3\)"):
        newton_schulz(torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"matrix must be a floating-point torch\.Tensor, got list"):
        newton_schulz([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="iterations must be at least 0, got -1"):
        newton_schulz(torch.eye(2), -1)
    for kind in (SOCA, FirstOrder):
        with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
            kind(0)
        with pytest.raises(ValueError, match="reduction must be at most the number of channels, 8; got 16"):
            kind(8)
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        SOCA(8, 2, 0)
