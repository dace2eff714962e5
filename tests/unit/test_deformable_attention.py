"""Deformable attention. Oracles: grid_sample level by level, differences, numbers by hand, a process's memory."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.blocks import deformable_sampling
from course_lib.blocks.deformable_attention import DeformableAttention, deformable_attention
from course_lib.plain import deformable_attention_grid_sample

Case = tuple[Tensor, list[tuple[int, int]], Tensor, Tensor]
CASES: dict[str, tuple[int, int, list[tuple[int, int]], int, int, int]] = {
    "four levels": (2, 20, [(9, 11), (5, 6), (3, 3), (2, 2)], 4, 8, 4),
    "three heads": (1, 7, [(4, 5), (2, 3)], 3, 2, 2),
    "one of each": (1, 1, [(1, 1)], 1, 1, 1),
    "rows and columns": (3, 5, [(1, 6), (7, 1)], 2, 3, 3),
    "no query": (2, 0, [(3, 3)], 2, 4, 2),
    "more queries than cells": (1, 300, [(2, 3), (1, 1)], 2, 4, 4),
}
"""Pictures, queries, sizes of the maps, heads, channels of a head, points."""


def case(name: str, dtype: torch.dtype = torch.float64) -> Case:
    """Numbers of a case; some points lie on the border, some outside, some far outside."""
    batch, queries, shapes, heads, depth, points = CASES[name]
    g = torch.Generator().manual_seed(5)
    value = torch.randn(batch, sum(h * w for h, w in shapes), heads, depth, generator=g, dtype=torch.float64)
    locations = torch.rand(batch, queries, heads, len(shapes), points, 2, generator=g, dtype=torch.float64) * 1.8 - 0.4
    far = torch.rand(locations.shape, generator=g) < 0.03
    locations = torch.where(far, locations * 1e6, locations)
    weights = torch.rand(batch, queries, heads, len(shapes), points, generator=g, dtype=torch.float64)
    return value.to(dtype), shapes, locations.to(dtype), weights.to(dtype)


def derived(form: Any, given: Case) -> list[Tensor]:
    """What a form returns, and what flows back to value, locations and weights."""
    value, shapes, locations, weights = given
    wanted = [x.clone().requires_grad_() for x in (value, locations, weights)]
    out = form(wanted[0], shapes, wanted[1], wanted[2])
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(6), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad(out, wanted, cotangent)]


@pytest.fixture(params=["matrix", "rows"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute it, which sizes choose between."""
    monkeypatch.setattr(deformable_sampling, "FEW_PAIRS", 1 << 20 if request.param == "matrix" else 0)
    return str(request.param)


@pytest.mark.parametrize("block", [500, 1 << 20])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("form")
def test_the_textbook_form(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and gradients, however many points are held at once. Oracle: grid_sample."""
    monkeypatch.setattr(deformable_sampling, "ON_CPU", block)
    ours, theirs = (derived(form, case(name)) for form in (deformable_attention, deformable_attention_grid_sample))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("form")
def test_memory_of_any_layout() -> None:
    """Tensors that are views of others in another order. Oracle: their copies."""
    value, shapes, locations, weights = case("four levels")
    turned = value.transpose(1, 2).contiguous().transpose(1, 2)
    mirrored = locations.transpose(1, 3).contiguous().transpose(1, 3)
    assert not turned.is_contiguous()
    assert not mirrored.is_contiguous()
    ours = derived(deformable_attention, (turned, shapes, mirrored, weights))
    for one, other in zip(ours, derived(deformable_attention, case("four levels")), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["three heads", "rows and columns"])
@pytest.mark.usefixtures("form")
def test_gradients(name: str) -> None:
    """Oracle: differences."""
    value, shapes, locations, weights = case(name)
    sizes = torch.tensor([[w, h] for h, w in shapes])[:, None]
    place = (locations * sizes - 0.5).clamp(-3, 9)
    # off the kinks, which are at the cells' centres
    place = place.floor() + (place - place.floor()).clamp(0.05, 0.95)
    inputs = [x.clone().requires_grad_() for x in (value, (place + 0.5) / sizes, weights)]
    assert torch.autograd.gradcheck(lambda v, p, w: deformable_attention(v, shapes, p, w), inputs, fast_mode=True)


@pytest.mark.usefixtures("form")
def test_gradients_that_are_asked_for() -> None:
    """Oracle: all three together."""
    value, shapes, locations, weights = case("four levels")
    _, *all_three = derived(deformable_attention, (value, shapes, locations, weights))
    cotangent = torch.randn(2, 20, 32, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for place in range(3):
        given = [x.clone().requires_grad_(k == place) for k, x in enumerate((value, locations, weights))]
        out = deformable_attention(given[0], shapes, given[1], given[2])
        assert torch.equal(torch.autograd.grad(out, given[place], cotangent)[0], all_three[place])


@pytest.mark.usefixtures("form")
def test_gradients_are_not_differentiated_again() -> None:
    """Oracle: torch's refusal; a silent zero would be wrong."""
    value, shapes, locations, weights = case("three heads")
    locations.requires_grad_()
    out = deformable_attention(value.requires_grad_(), shapes, locations, weights)
    (first,) = torch.autograd.grad(out.square().sum(), locations, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        torch.autograd.backward(first.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("form")
def test_single_and_half_precision(dtype: torch.dtype) -> None:
    """The result has the value's dtype; half precision is computed in float32. Oracle: float64 of the same numbers."""
    given = case("four levels", dtype)
    wide = (given[0].double(), given[1], given[2].double(), given[3].double())
    out, expected = deformable_attention(*given), deformable_attention(*wide)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=2e-2 if dtype != torch.float32 else 1e-4, atol=1e-4)
    for gradient in derived(deformable_attention, given):
        assert gradient.dtype == dtype


@pytest.mark.usefixtures("form")
def test_half_precision_values_at_exact_places() -> None:
    """Under autocast values are half, places are not: a place in a map of 2000 columns is kept. Oracle: the ramp."""
    value = torch.linspace(0, 1, 2000, dtype=torch.bfloat16).view(1, 2000, 1, 1)
    place = torch.tensor([1234.25]).view(1, 1, 1, 1, 1, 1) + 0.5
    locations = torch.cat([place / 2000, torch.full_like(place, 0.5)], dim=-1)
    out = deformable_attention(value, [(1, 2000)], locations, torch.ones(1, 1, 1, 1, 1))
    assert out.dtype == torch.bfloat16
    assert float(out) == pytest.approx(1234.25 / 1999, rel=2**-8)


@pytest.mark.parametrize("far", [float("inf"), -float("inf"), 1e30, float("nan")])
@pytest.mark.usefixtures("form")
def test_places_that_are_nowhere(far: float) -> None:
    """Oracle: beyond the map is 0, and nothing flows back to it; of NaN comes NaN, and no other sum is touched."""
    value, shapes, locations, weights = case("three heads")
    moved = locations.clone()
    moved[0, 3] = far
    out = deformable_attention(value, shapes, moved, weights)
    expected = deformable_attention(value, shapes, locations, weights)
    expected[0, 3] = float("nan") if far != far else 0
    torch.testing.assert_close(out, expected, equal_nan=True, rtol=0, atol=0)
    if far == far:
        assert torch.equal(
            derived(deformable_attention, (value, shapes, moved, weights))[2][0, 3], torch.zeros(3, 2, 2, 2)
        )


@pytest.mark.usefixtures("form")
def test_numbers_by_hand() -> None:
    """A map of 0 to 15: x(1.5, 1.5) = 7.5, x(1.25, 2) = 9.25, x(-0.5, 0) = 0, since outside is 0.

    Around (1, 1), offsets (0.5, 0) and (0, 1.5) with logits (0, ln 3) weigh 1/4 and 3/4: 5.5 / 4 + 33 / 4 = 9.625.
    """
    value = torch.arange(16.0).view(1, 16, 1, 1)

    def read(places: list[tuple[float, float]], weights: Tensor) -> list[float]:
        at = (torch.tensor(places) + 0.5) / 4
        found = deformable_attention(value, [(4, 4)], at.view(1, -1, 1, 1, 1, 2), weights.view(1, -1, 1, 1, 1))
        return [float(x) for x in found.flatten()]

    assert read([(1.5, 1.5), (1.25, 2), (-0.5, 0)], torch.ones(3)) == [7.5, 9.25, 0]
    weights = torch.tensor([1.0, 3.0]).log().softmax(0)
    assert read([(1.5, 1), (1, 2.5)], torch.ones(2)) == [5.5, 11]
    assert sum(read([(1.5, 1), (1, 2.5)], weights)) == pytest.approx(9.625)


def module(**options: Any) -> DeformableAttention:
    torch.manual_seed(3)
    made = DeformableAttention(24, heads=3, levels=2, points=2, **options).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


SHAPES = [(5, 4), (3, 2)]


def inputs(coordinates: int, batch: int = 2, queries: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(4)
    query = torch.randn(batch, queries, 24, generator=g, dtype=torch.float64)
    references = torch.rand(batch, queries, 2, coordinates, generator=g, dtype=torch.float64)
    return query, references, torch.randn(batch, 26, 24, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("coordinates", [2, 4])
def test_the_module_is_the_equation(coordinates: int) -> None:
    """Sum over heads of W_m sum over levels and points of A W'_m x(p + offset). Oracle: that, head by head."""
    made, (query, references, source) = module(), inputs(coordinates)
    out = made(query, references, source, SHAPES)
    expected = made.out.bias.expand(2, 6, 24).clone()
    maps = [x.mT.reshape(2, 24, *size) for x, size in zip(torch.split(source, [20, 6], 1), SHAPES, strict=True)]
    offsets = made.offsets(query).view(2, 6, 3, 2, 2, 2)
    shares = made.weights(query).view(2, 6, 3, 4).softmax(-1).view(2, 6, 3, 2, 2)
    for head in range(3):
        w, rows = made.values.weight[8 * head : 8 * head + 8], made.values.bias[8 * head : 8 * head + 8]
        read = torch.zeros(2, 6, 8, dtype=torch.float64)
        for level, (height, width) in enumerate(SHAPES):
            projected = torch.einsum("nchw,dc->ndhw", maps[level], w) + rows[:, None, None]
            for point in range(2):
                step = offsets[:, :, head, level, point]
                scale = (
                    1 / torch.tensor([width, height]).double() if coordinates == 2 else references[:, :, level, 2:] / 4
                )
                grid = 2 * (references[:, :, level, :2] + step * scale) - 1
                found = nn.functional.grid_sample(projected, grid[:, :, None], align_corners=False)[..., 0].mT
                read += shares[:, :, head, level, point, None] * found
        expected += read @ made.out.weight[:, 8 * head : 8 * head + 8].T
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)


def test_padding_counts_as_zero() -> None:
    """Behind the projection, whose bias would fill it. Oracle: values set to zero by hand; the source there is free."""
    made, (query, references, source) = module(), inputs(2)
    padding = torch.zeros(2, 26, dtype=torch.bool)
    padding[1, 7:19] = True
    out = made(query, references, source, SHAPES, padding)
    values = made.values(source)
    values[1, 7:19] = 0
    expected = made.out(
        deformable_attention(values.view(2, 26, 3, 8), SHAPES, *made.sampling(query, references, SHAPES))
    )
    assert torch.equal(out, expected)
    other = torch.where(padding[..., None], torch.randn_like(source), source)
    assert torch.equal(made(query, references, other, SHAPES, padding), out)
    assert not torch.equal(made(query, references, other, SHAPES), out)


def test_a_new_module_looks_along_a_ring() -> None:
    """Oracle: by hand: head m along (1, 0), (1, 1), (0, 1), ..., point k k cells away; all points weigh the same."""
    made = DeformableAttention(32, heads=8, levels=2, points=3)
    at = torch.tensor([[0.5, 0.5]]).expand(1, 1, 2, 2)
    locations, weights = made.sampling(torch.randn(1, 1, 32), at, [(8, 16), (4, 4)])
    ring = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(ring):
        for level, (height, width) in enumerate([(8, 16), (4, 4)]):
            for k in range(3):
                expected = [0.5 + (k + 1) * x / width, 0.5 + (k + 1) * y / height]
                assert locations[0, 0, head, level, k].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(weights, torch.full((1, 1, 8, 2, 3), 1 / 6))
    boxes = torch.tensor([0.4, 0.6, 0.2, 0.1]).expand(1, 1, 2, 4)
    locations, _ = made.sampling(torch.randn(1, 1, 32), boxes, [(8, 16), (4, 4)])
    last = locations[0, 0, :, :, 2]  # the farthest points lie on the box, also at its corners
    assert last[1].tolist() == [pytest.approx([0.5, 0.65]), pytest.approx([0.5, 0.65])]
    assert last[4].tolist() == [pytest.approx([0.3, 0.6]), pytest.approx([0.3, 0.6])]


def test_counts_of_the_papers_module() -> None:
    """Oracle: 256 * 256 + 256 for offsets (2 * 128), values and out, 256 * 128 + 128 for weights: 384 channels."""
    made = DeformableAttention()
    assert sum(p.numel() for p in made.parameters()) == 230_272
    assert made.offsets.out_features + made.weights.out_features == 384


@pytest.mark.usefixtures("form")
def test_autocast_keeps_places() -> None:
    """Under bf16 the places stay float32, the result is as the linear layers give. Oracle: float32, roughly."""
    made = module().float()
    query, references, source = (x.float() for x in inputs(2))
    with torch.autocast("cpu", torch.bfloat16):
        locations, weights = made.sampling(query, references, SHAPES)
        out = made(query, references, source, SHAPES)
        exact = deformable_attention(source.view(2, 26, 3, 8), SHAPES, locations, weights)
    assert torch.equal(exact, deformable_attention(source.view(2, 26, 3, 8), SHAPES, locations, weights))
    assert locations.dtype == torch.float32 == weights.dtype
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), made(query, references, source, SHAPES), rtol=0.1, atol=0.1)
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())


def test_wrong_arguments_are_named() -> None:
    """Oracle: the names."""
    value, shapes, locations, weights = case("three heads")
    wrong: list[tuple[type[Exception], str, tuple[Any, ...]]] = [
        (TypeError, "value must be a floating point", (value.long(), shapes, locations, weights)),
        (TypeError, "locations must be a floating point torch.Tensor, got list", (value, shapes, [0.0], weights)),
        (ValueError, r"value must be \(N, S, heads, d\)", (value[0], shapes, locations, weights)),
        (ValueError, "shapes must be .* with 26 places", (value, [(4, 5), (2, 2)], locations, weights)),
        (ValueError, "shapes must be", (value, [(-4, -5), (2, 3)], locations, weights)),
        (ValueError, r"locations must be \(1, Q, 3, 2, points, 2\)", (value, shapes, locations[..., :1], weights)),
        (ValueError, "locations must be", (value, shapes, locations[:, :, :2], weights)),
        (ValueError, r"weights must be \(1, 7, 3, 2, 2\) as locations", (value, shapes, locations, weights[..., :1])),
    ]
    for kind, message, given in wrong:
        with pytest.raises(kind, match=message):
            deformable_attention(*given)
    with pytest.raises(ValueError, match="heads must divide width, 24, got 5"):
        DeformableAttention(24, heads=5)
    with pytest.raises(ValueError, match="points must be at least 1, got 0"):
        DeformableAttention(24, 3, 2, 0)
    made, (query, references, source) = module(), inputs(2)
    for message, arguments in (
        (r"query must be \(N, Q, 24\)", (query[..., :5], references, source, SHAPES)),
        (r"references must be \(2, 6, 2, 2 or 4\)", (query, references[..., :1], source, SHAPES)),
        (r"references must be", (query, references[:, :, :1], source, SHAPES)),
        (r"shapes must be 2", (query, references, source, [(13, 2)])),
        (r"source must be \(2, 26, 24\)", (query, references, source[:, 1:], SHAPES)),
        (r"padding must be bool \(2, 26\)", (query, references, source, SHAPES, torch.zeros(2, 26))),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            made(*arguments)


def test_memory_is_held_for_few_points_at_once() -> None:
    """Of 4000 queries * 8 heads * 64 rows of 32 numbers (250 MiB) few are held at once. Oracle: the process's peak."""
    script = """
import resource, torch
from course_lib.blocks.deformable_attention import deformable_attention
torch.set_num_threads(1)
value = torch.rand(1, 400, 8, 32, requires_grad=True)
locations = torch.rand(1, 4000, 8, 1, 16, 2, requires_grad=True)
weights = torch.rand(1, 4000, 8, 1, 16, requires_grad=True)
deformable_attention(value, [(20, 20)], locations[:, :9], weights[:, :9]).sum().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deformable_attention(value, [(20, 20)], locations, weights).sum().backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 180


def test_the_form_is_chosen_by_size() -> None:
    """A matrix for few cells and pairs. Oracle: the bounds; both forms are compared with grid_sample above."""
    for shape, queries, few in (
        ((16, 84, 4, 16), 84, True),
        ((1, 17821, 8, 32), 300, False),
        ((1, 257, 1, 1), 1, False),
        ((32, 180, 4, 16), 144, False),
        ((2, 9, 2, 4), 0, False),
    ):
        assert deformable_sampling._few(torch.empty(shape, device="meta"), queries) is few


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in CASES if name != "no query"])
@pytest.mark.usefixtures("form")
def test_on_a_gpu(name: str) -> None:
    """Oracle: the CPU, values and gradients, in float64."""
    value, shapes, locations, weights = case(name)
    there = derived(deformable_attention_on_gpu, (value, shapes, locations, weights))
    for one, other in zip(there, derived(deformable_attention, case(name)), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-9, atol=1e-9)


def deformable_attention_on_gpu(value: Tensor, shapes: Any, locations: Tensor, weights: Tensor) -> Tensor:
    found: Tensor = deformable_attention(value.to("cuda"), shapes, locations.to("cuda"), weights.to("cuda"))
    assert found.is_cuda
    return found.cpu()
