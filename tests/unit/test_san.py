"""SAN. Oracles: the paper's equations with torch's functions and our plain forms, counts by hand, our own resize."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import checkpoints
from course_lib.blocks.non_local import NonLocal, attended
from course_lib.plain.san import covariance_by_matrix, newton_schulz_loop, non_local_loop
from course_lib.super_resolution import metrics
from course_lib.super_resolution.layers import MEAN_COLOUR
from course_lib.super_resolution.san import SAN
from course_lib.super_resolution.tiles import tiled
from course_lib.upsampling import resize
from tests.unit.networks import Largest, keeps_the_dtype

SIZES = {"groups": 2, "blocks": 2, "channels": 8, "reduction": 2}


def made(scale: int, **options: Any) -> SAN:
    """A network in which nothing that starts at 0 is still there."""
    torch.manual_seed(0)
    model = SAN(scale, **(SIZES | {"data_range": 2.0} | options)).double()
    with torch.no_grad():
        for parameter in (model.gamma, *model.non_local.merge.parameters()):
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return model


def conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def cells(length: int) -> list[slice]:
    """The halves of a length; the second has the odd pixel. One pixel is one cell."""
    return [part for part in (slice(0, length // 2), slice(length // 2, length)) if part.start < part.stop]


def rl_nl(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Each cell of a 2 x 2 grid by itself; phi and g are the largest of 2 x 2 places."""
    theta, phi, g = (conv(state, f"{name}{part}", x) for part in ("theta", "phi", "g"))
    seen = torch.empty_like(theta)
    for rows in cells(x.shape[-2]):
        for columns in cells(x.shape[-1]):
            here = (..., rows, columns)
            window = [min(2, n) for n in theta[here].shape[-2:]]
            pooled = [F.max_pool2d(part[here], window) for part in (phi, g)]
            seen[here] = torch.stack([non_local_loop(*one) for one in zip(theta[here], *pooled, strict=True)])
    return x + conv(state, f"{name}merge", seen)


def group(state: dict[str, Tensor], name: str, blocks: int, attention: str, x: Tensor) -> Tensor:
    y = x
    for block in range(blocks):
        y = y + conv(state, f"{name}body.{block}.conv2", torch.relu(conv(state, f"{name}body.{block}.conv1", y)))
    if attention != "none":
        known = {
            "second": lambda: newton_schulz_loop(covariance_by_matrix(y)).mean(-1),
            "first": lambda: y.mean((2, 3)),
        }
        z = known[attention]()[..., None, None]
        y = y * torch.sigmoid(conv(state, f"{name}attention.up", torch.relu(conv(state, f"{name}attention.down", z))))
    return x + conv(state, f"{name}last", y)


def by_hand(model: SAN, state: dict[str, Tensor], lr: Tensor) -> Tensor:
    r = model.data_range
    head = conv(state, "head", conv(state, "sub_mean", r * lr))
    source = y = rl_nl(state, "non_local.", head)
    for g in range(model.groups):
        y = group(state, f"body.{g}.", model.blocks, model.attention, y) + state["gamma"] * source
    y = rl_nl(state, "non_local.", y) + head
    for stage, step in enumerate({1: [], 2: [2], 3: [3], 4: [2, 2]}[model.scale]):
        y = F.pixel_shuffle(conv(state, f"tail.stages.{stage}", y), step)
    y = conv(state, "tail.last", y)
    return (y if model.added else conv(state, "add_mean", y)) / r


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        (1, {"groups": 1, "blocks": 1, "channels": 16}),
        (2, {}),
        (2, {"attention": "first"}),
        (3, {"attention": "none", "data_range": 255.0}),
        (4, {"blocks": 1, "groups": 3, "reduction": 4}),
    ],
)
def test_the_paper_equation_by_equation(scale: int, options: dict[str, Any]) -> None:
    """Oracle: torch.nn.functional and the plain forms, a batch, odd sizes; gradients of lr and every parameter."""
    model = made(scale, **options)
    lr = torch.rand(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    state = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    came, expected = model(lr), by_hand(model, state, lr)
    assert expected.shape == (2, 3, 5 * scale, 7 * scale)
    torch.testing.assert_close(came, expected)
    seed = torch.randn_like(expected)
    ours = torch.autograd.grad((came * seed).sum(), [lr, *model.parameters()], allow_unused=True)
    theirs = torch.autograd.grad((expected * seed).sum(), [lr, *state.values()], allow_unused=True)
    for name, mine, other in zip(["lr", *state], ours, theirs, strict=True):
        assert mine is not None, name
        torch.testing.assert_close(mine, other)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), expected)


def test_parameters() -> None:
    """Oracle: the paper's network counted by hand; means need as many numbers as covariances."""
    conv3, conv1 = 64 * 64 * 9 + 64, 64 * 8 + 8
    groups = 20 * (10 * 2 * conv3 + 580 + conv3)
    non_local = 3 * conv1 + 8 * 64 + 64
    count = 24 + (28 * 64) + non_local + groups + 1 + (64 * 9 + 1) * 256 + (64 * 9 + 1) * 3
    with torch.device("meta"):
        counts = {
            kind: sum(p.numel() for p in SAN(2, attention=kind).parameters()) for kind in ("second", "first", "none")
        }
    assert counts == {"second": count, "first": count, "none": count - 20 * 580}
    assert count == 15_712_800 - 38_044


def test_a_new_network() -> None:
    """Oracle: the mean of DIV2K; the non-local block returns its input, and no group has its source added."""
    model = SAN(2, **SIZES)
    x = torch.randn(1, 8, 6, 5)
    assert torch.equal(model.non_local(x), x)
    assert model.gamma.tolist() == [0]
    assert model.gamma.requires_grad
    trained = dict(model.named_parameters())
    for part, sign in (("sub", -1), ("add", 1)):
        torch.testing.assert_close(trained[f"{part}_mean.bias"], sign * 255 * torch.tensor(MEAN_COLOUR))
        assert torch.equal(trained[f"{part}_mean.weight"], torch.eye(3).view(3, 3, 1, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 3), (3, 3), (5, 8), (9, 11)])
@pytest.mark.parametrize(("grid", "pool"), [(1, 1), (2, 1), (2, 2), (3, 2), (2, 3)])
def test_non_local_cell_by_cell(size: tuple[int, int], grid: int, pool: int) -> None:
    """Oracle: one place after the other; a cell less than `pool` long is one window, a cell of no pixel is none."""
    torch.manual_seed(0)
    block = NonLocal(4, 3, grid, pool).double()
    with torch.no_grad():
        block.merge.weight.normal_()
    x = 3 * torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    came = block(x)
    theta, phi, g = block.theta(x), block.phi(x), block.g(x)
    edges = [[k * n // grid for k in range(grid + 1)] for n in size]
    seen = torch.zeros_like(theta)
    for top, bottom in zip(edges[0][:-1], edges[0][1:], strict=True):
        for left, right in zip(edges[1][:-1], edges[1][1:], strict=True):
            here = (..., slice(top, bottom), slice(left, right))
            if theta[here].numel():
                window = [min(pool, bottom - top), min(pool, right - left)]
                few = [F.max_pool2d(part[here], window) for part in (phi, g)]
                seen[here] = torch.stack([non_local_loop(*one) for one in zip(theta[here], *few, strict=True)])
    expected = x + block.merge(seen)
    torch.testing.assert_close(came, expected)
    seed = torch.randn_like(came)
    ours, theirs = (torch.autograd.grad((y * seed).sum(), x, retain_graph=True)[0] for y in (came, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("grid", [1, 2])
def test_the_matrix_of_all_pairs_is_never_made(grid: int, together: bool) -> None:
    """Oracle: no tensor on the way has more values than the map itself, however it lies in memory."""
    x = torch.randn(1, 8, 32, 32)
    x = x.contiguous(memory_format=torch.channels_last) if together else x
    with Largest() as seen, torch.no_grad():
        NonLocal(8, 4, grid)(x)
    assert seen.numbers <= x.numel()


def test_attention_of_large_products() -> None:
    """Oracle: float64. Half precision would round products of 1000 to steps of 4, and exp(1000) is infinite."""
    torch.manual_seed(0)
    query, key, value = (scale * torch.randn(1, 3, 6, 6) for scale in (30, 30, 1))
    expected = attended(query.double(), key.double(), value.double())
    came = attended(query, key, value)
    torch.testing.assert_close(came.double(), expected, rtol=0, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(attended(query, key, value), came)
    halves = [part.bfloat16() for part in (query, key, value)]
    assert torch.equal(attended(*halves), attended(*(part.float() for part in halves)))


def test_added() -> None:
    """Oracle: the same weights without it, its mean colour taken away, and our bicubic."""
    lr = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    bicubic = resize(lr, scale=3, method="bicubic", a=-0.5, border="symmetric")
    mean = torch.tensor(MEAN_COLOUR).double().view(3, 1, 1)
    torch.testing.assert_close(made(3, added=True)(lr), made(3)(lr) - mean + bicubic, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("attention", "added"), [("second", False), ("second", True), ("first", True), ("none", False)]
)
def test_the_result_has_the_pictures_dtype(attention: str, added: bool) -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has; autocast decides about the layers, not about the result."""
    keeps_the_dtype(made(2, attention=attention, added=added, data_range=1.0).float(), mixed_error=0.02)


def test_batched_is_single_and_any_leading_axes() -> None:
    """Law: a batch is its pictures: none has a part in the statistics of another."""
    model = made(2, added=True)
    lr = torch.rand(2, 3, 3, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        rows = torch.stack([torch.stack([model(one) for one in row]) for row in lr])
        torch.testing.assert_close(model(lr), rows)
        assert model(lr[:0]).shape == (0, 3, 3, 12, 10)


def test_it_sees_the_whole_picture() -> None:
    """Oracle: gradients from corner to corner, which no convolution of the network spans: two non-local blocks do,
    also without attention. Tiles therefore see all of it, and a smaller overlap makes another picture."""
    lr = torch.rand(1, 3, 60, 64, dtype=torch.float64, requires_grad=True)
    for attention in ("second", "first", "none"):
        model = made(2, groups=1, blocks=1, attention=attention)
        (gradient,) = torch.autograd.grad(model(lr)[..., 0, 0].sum(), lr)
        assert gradient[..., -1, -1].abs().sum() > 0
    model = made(2, groups=1, blocks=1)
    whole = model(lr).detach()
    torch.testing.assert_close(tiled(model, lr.detach()), whole)
    torch.testing.assert_close(tiled(model, lr.detach(), tile=40), whole)
    assert (tiled(model, lr.detach(), tile=40, overlap=4) - whole).abs().max() > 1e-6


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("attention", ["second", "first"])
def test_constant_pictures(value: float, attention: str) -> None:
    """Finite, with finite gradients for the picture and all parameters; also a picture of one pixel."""
    model = made(2, attention=attention).float()
    for size in ((6, 7), (1, 1)):
        lr = torch.full((1, 3, *size), value, requires_grad=True)
        sr = model(lr)
        assert sr.isfinite().all()
        gradients = torch.autograd.grad(sr.sum(), [lr, *model.parameters()])
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_scored_by_the_benchmark() -> None:
    """Oracle: the network itself."""
    model, lr = made(2).float(), torch.rand(3, 6, 5)
    with torch.no_grad():
        torch.testing.assert_close(metrics.enlarger(model)(lr.double(), (12, 10)).float(), model(lr))


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 4, 4, 4), (3, 0, 4), (1, 3, 4, 0)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"lr must be \(\.\.\., 3, h, w\) with h, w >= 1"):
        made(2)(torch.zeros(shape))


@pytest.mark.parametrize("argument", ["groups", "blocks", "channels", "scale", "reduction"])
def test_wrong_arguments_are_named(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        SAN(**({"scale": 2} | SIZES | {argument: 0}))
    with pytest.raises(TypeError, match=rf"{argument} must be a whole number, got 1\.5"):
        SAN(**({"scale": 2} | SIZES | {argument: 1.5}))
    with pytest.raises(ValueError, match="scale must be 1, 2, 3, 4, 8 or another power of 2, got 7"):
        SAN(7)
    with pytest.raises(ValueError, match=r"data_range must be the distance from black to white \(1 or 255\), got 0"):
        SAN(2, data_range=0)
    with pytest.raises(ValueError, match="attention must be one of 'second', 'first', 'none', got 'third'"):
        SAN(2, attention="third")
    for part in ("grid", "pool", "inner"):
        with pytest.raises(ValueError, match=f"{part} must be at least 1, got 0"):
            NonLocal(**({"channels": 2, "inner": 2} | {part: 0}))


def test_kept_in_a_file(tmp_path: Any) -> None:
    """Oracle: the same picture from the network that was written and read."""
    model = SAN(3, **SIZES, data_range=2.0, attention="first", added=True)
    checkpoints.save(tmp_path / "san.safetensors", model)
    other = checkpoints.read(tmp_path / "san.safetensors")
    lr = torch.rand(3, 4, 5)
    assert torch.equal(other(lr), model(lr))
    assert {name: getattr(other, name) for name in SIZES} == SIZES
    assert (other.data_range, other.attention, other.added) == (2.0, "first", True)


@pytest.mark.gpu
@pytest.mark.parametrize("attention", ["second", "first"])
def test_on_a_gpu(attention: str) -> None:
    """Oracle: the CPU, gradients too, in float64."""
    model, lr = made(2, attention=attention), torch.rand(2, 3, 9, 10, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        net, x = model.to(device), lr.to(device).requires_grad_()
        sr = net(x)
        gradients = torch.autograd.grad(sr.square().sum(), [x, *net.parameters()])
        assert {one.device.type for one in (sr, *gradients)} == {device}
        results.append([one.detach().cpu() for one in (sr, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-8, atol=1e-8)
