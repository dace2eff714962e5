"""Laws of deformable attention and of the transformer on it. Oracles: the laws, which tell results by themselves."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.blocks import deformable_sampling
from course_lib.blocks.deformable_attention import DeformableAttention, deformable_attention
from course_lib.detection.families.detr.deformable_transformer import (
    DeformableDecoder,
    DeformableEncoder,
    cell_centres,
    cell_references,
    inverse_sigmoid,
    moved,
    pyramid,
)
from course_lib.plain import deformable_attention_grid_sample

laws = settings(max_examples=25, deadline=None, derandomize=True)
SIZES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=3)


def by_rows(*given: Any) -> Tensor:
    """The form of large maps, which these small ones would not choose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deformable_sampling, "FEW_PAIRS", 0)
        return deformable_attention(*given)


FORMS = pytest.mark.parametrize("form", [deformable_attention, by_rows, deformable_attention_grid_sample])


def rand(*shape: int, seed: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inner(shapes: list[tuple[int, int]], seed: int) -> Tensor:
    """Locations (1, 4, 2, levels, 3, 2) between the centres of the outermost cells of each map."""
    sizes = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)[:, None]
    return (rand(1, 4, 2, len(shapes), 3, 2, seed=seed) * (sizes - 1) + 0.5) / sizes


@FORMS
@given(shapes=SIZES, seed=st.integers(0, 99))
@laws
def test_a_constant_stays_itself(form: Any, shapes: list[tuple[int, int]], seed: int) -> None:
    """Inside, and where weights sum to 1, a constant is read as itself; so the value's gradients sum to the queries."""
    weights = rand(1, 4, 2, len(shapes) * 3, seed=seed).softmax(-1).view(1, 4, 2, -1, 3)
    value = torch.full((1, sum(h * w for h, w in shapes), 2, 3), 2.5, dtype=torch.float64, requires_grad=True)
    out = form(value, shapes, inner(shapes, seed), weights)
    torch.testing.assert_close(out, torch.full_like(out, 2.5))
    out.sum().backward()
    assert value.grad is not None
    assert float(value.grad.sum()) == pytest.approx(4 * 2 * 3)


@FORMS
@given(shapes=SIZES, seed=st.integers(0, 99), slope=st.tuples(st.integers(-4, 4), st.integers(-4, 4)))
@laws
def test_a_ramp_is_read_exactly(form: Any, shapes: list[tuple[int, int]], seed: int, slope: tuple[int, int]) -> None:
    """a x + b y in parts of the map is read at the mean location, and its gradient to a location is A (a, b)."""
    maps = [cell_centres(shape, torch.ones(1).double()) / torch.tensor(shape[::-1]) for shape in shapes]
    ramp = (torch.cat(maps) @ torch.tensor(slope, dtype=torch.float64)).view(1, -1, 1, 1).expand(-1, -1, 2, 1)
    weights = rand(1, 4, 2, len(shapes), 3, seed=seed)
    locations = inner(shapes, seed).requires_grad_()
    out = form(ramp, shapes, locations, weights)
    at = (locations.detach() @ torch.tensor(slope, dtype=torch.float64) * weights).sum((-2, -1))
    torch.testing.assert_close(out.view(1, 4, 2), at)
    (found,) = torch.autograd.grad(out.sum(), locations)
    long = torch.tensor([(w > 1, h > 1) for h, w in shapes])[:, None]  # one cell has no neighbour to rise to
    expected = weights[..., None] * torch.tensor(slope, dtype=torch.float64)
    torch.testing.assert_close(found[..., :][long.expand_as(found)], expected[long.expand_as(found)])


@FORMS
@given(shapes=SIZES, seed=st.integers(0, 99))
@laws
def test_sums_are_linear(form: Any, shapes: list[tuple[int, int]], seed: int) -> None:
    """In the value, and in the weights; places are anywhere."""
    count = sum(h * w for h, w in shapes)
    values, shares = (rand(2, 1, count, 2, 3, seed=seed), rand(2, 1, 4, 2, len(shapes), 3, seed=seed + 1) - 0.5)
    locations = rand(1, 4, 2, len(shapes), 3, 2, seed=seed + 2) * 2 - 0.5
    one, two = (form(v, shapes, locations, shares[0]) for v in values)
    torch.testing.assert_close(form(values[0] - 3 * values[1], shapes, locations, shares[0]), one - 3 * two)
    other = form(values[0], shapes, locations, shares[1])
    torch.testing.assert_close(form(values[0], shapes, locations, shares[0] + 2 * shares[1]), one + 2 * other)


@given(seed=st.integers(0, 99))
@laws
def test_queries_levels_points_and_pictures_may_change_places(seed: int) -> None:
    """Permutations: of queries and pictures the result's too; of levels (with their cells) and points it stays."""
    shapes = [(3, 4), (2, 2), (1, 5)]
    value, weights = rand(3, 21, 2, 3, seed=seed), rand(3, 6, 2, 3, 4, seed=seed + 1)
    locations = rand(3, 6, 2, 3, 4, 2, seed=seed + 2) * 1.4 - 0.2
    out = deformable_attention(value, shapes, locations, weights)
    g = torch.Generator().manual_seed(seed)
    queries, pictures, points = (torch.randperm(n, generator=g) for n in (6, 3, 4))
    moved_queries = deformable_attention(value, shapes, locations[:, queries], weights[:, queries])
    torch.testing.assert_close(moved_queries, out[:, queries])
    one_by_one = [
        deformable_attention(value[k : k + 1], shapes, locations[k : k + 1], weights[k : k + 1]) for k in pictures
    ]
    torch.testing.assert_close(torch.cat(one_by_one), out[pictures])
    order = [2, 0, 1]
    cells = torch.cat([torch.split(value, [12, 4, 5], 1)[k] for k in order], 1)
    turned = deformable_attention(
        cells,
        [shapes[k] for k in order],
        locations[:, :, :, order][..., points, :],
        weights[:, :, :, order][..., points],
    )
    torch.testing.assert_close(turned, out)


@given(seed=st.integers(0, 99))
@laws
def test_every_cell_asked_for_is_attention_without_keys(seed: int) -> None:
    """A point on the centre of each cell: A x, a matrix product."""
    height, width = 3, 4
    centres = cell_centres((height, width), torch.ones(1).double()) / torch.tensor([width, height])
    value, weights = rand(2, 12, 2, 5, seed=seed), rand(2, 6, 2, 12, seed=seed + 1).softmax(-1)
    out = deformable_attention(value, [(height, width)], centres.expand(2, 6, 2, 1, 12, 2), weights[:, :, :, None])
    torch.testing.assert_close(out, torch.einsum("nqhs,nshd->nqhd", weights, value).flatten(2))


def test_a_new_attention_reads_the_mean_of_its_ring() -> None:
    """Zero weights do not silence it: far from edges, ring and mean of a ramp are the reference plus their centre."""
    made = DeformableAttention(16, heads=8, levels=1, points=2).double()
    size = 32
    ramp = cell_centres((size, size), torch.ones(1).double())[:, :1].expand(-1, 16)[None]
    with torch.no_grad():
        made.values.weight.copy_(torch.eye(16))
        made.out.weight.copy_(torch.eye(16))
    out = made(rand(1, 3, 16, seed=1), torch.full((1, 3, 1, 2), 0.5).double(), ramp, [(size, size)])
    direction = torch.tensor([1, 1, 0, -1, -1, -1, 0, 1]).double()
    torch.testing.assert_close(out, (16 + 1.5 * direction).repeat_interleave(2).expand(1, 3, 16))


def test_places_of_levels() -> None:
    """A reference of 0.375 lies at 1.0 of a map 4 wide and at 0.25 of one 2 wide: p W - 1/2."""
    for width, place in ((4, 1.0), (2, 0.25)):
        value = torch.arange(float(width)).view(1, width, 1, 1)
        at = torch.tensor([0.375, 0.5]).view(1, 1, 1, 1, 1, 2)
        assert float(deformable_attention(value, [(1, width)], at, torch.ones(1, 1, 1, 1, 1))) == place


def test_boxes_move_from_their_references() -> None:
    """sigmoid(inverse(0.5) + 0.4) = 0.598688, from 0.9 0.930683, 0.5 by -2 gives 0.1192; points move centres alone."""
    change = torch.tensor([0.4, 0.4, -2.0, 0.0])
    boxes = moved(change, torch.tensor([0.5, 0.9, 0.5, 0.3]))
    assert boxes.tolist() == pytest.approx([0.598688, 0.930683, 0.119203, 0.3], abs=1e-6)
    points = moved(change, torch.tensor([0.5, 0.9]))
    assert points.tolist() == pytest.approx([0.598688, 0.930683, 0.119203, 0.5], abs=1e-6)
    ends = inverse_sigmoid(torch.tensor([0.0, 1.0, -3.0, 7.0]))
    assert ends.tolist() == pytest.approx([-11.512925, 11.512925, -11.512925, 11.512925], rel=1e-3)


def test_tokens_of_the_papers_picture() -> None:
    """800 x 1066 at strides 8, 16, 32, 64: 13400 + 3350 + 850 + 221 = 17821 tokens, pairs of which 317.6 millions."""
    cells = [-(-800 // s) * -(-1066 // s) for s in (8, 16, 32, 64)]
    assert cells == [13400, 3350, 850, 221]
    assert sum(cells) == 17821
    assert round(sum(cells) ** 2 / 1e6, 1) == 317.6


def filled(module: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module.double().eval()


def test_padding_of_a_picture_changes_nothing_inside() -> None:
    """Maps padded to twice the size, by anything, with a mask: the picture's own cells stay, and so do the queries."""
    encoder = filled(DeformableEncoder(2, 16, 4, 24, levels=2, points=2))
    decoder = filled(DeformableDecoder(2, 16, 4, 24, levels=2, points=2))
    heads = [filled(nn.Linear(16, 4))] * 2
    queries, places, points = (rand(1, 5, n, seed=n) for n in (16, 17, 2))
    places = places[..., :16]
    maps = [rand(1, 16, 4, 6, seed=3), rand(1, 16, 2, 3, seed=4)]
    positions = [rand(1, 16, 4, 6, seed=5), rand(1, 16, 2, 3, seed=6)]

    def run(maps: list[Tensor], positions: list[Tensor], masks: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        memory = encoder(pyramid(maps, masks), pyramid(positions).source)
        _, boxes, _ = decoder(queries, places, points, memory, heads, refine=True)
        return memory.source, boxes

    alone, boxes = run(maps, positions, None)
    padded = [nn.functional.pad(x, (0, x.shape[3], 0, x.shape[2]), value=7.0) for x in (*maps, *positions)]
    masks = [torch.ones(1, 2 * h, 2 * w, dtype=torch.bool) for h, w in ((4, 6), (2, 3))]
    for mask, (h, w) in zip(masks, ((4, 6), (2, 3)), strict=True):
        mask[:, :h, :w] = False
    memory, found = run(padded[:2], padded[2:], masks)
    first, second = torch.split(memory, [96, 24], 1)
    own = [first.view(1, 8, 12, 16)[:, :4, :6], second.view(1, 4, 6, 16)[:, :2, :3]]
    torch.testing.assert_close(torch.cat([x.flatten(1, 2) for x in own], 1), alone)
    torch.testing.assert_close(found, boxes)


def test_cells_look_first_at_their_own_place() -> None:
    """On every level the same place of the picture; cells in padding lie beyond its end."""
    shapes, valid = [(4, 8), (2, 4)], torch.tensor([[[0.5, 0.75], [0.5, 0.5]]]).double()
    references = cell_references(shapes, valid) / valid[:, None]
    torch.testing.assert_close(references[:, :, 0], references[:, :, 1])
    first = references[0, :32, 0].view(4, 8, 2)
    assert first[0, 0].tolist() == pytest.approx([0.5 / 4, 0.5 / 3])
    assert (first[:, 4:, 0] > 1).all()
    assert (first[3:, :, 1] > 1).all()
    assert (first[:3, :4] < 1).all()


def test_queries_stand_in_any_order() -> None:
    """The decoder's self-attention and references turn with the queries: so do states, boxes and where it looked."""
    decoder = filled(DeformableDecoder(3, 16, 4, 24, levels=2, points=2))
    heads = [filled(nn.Linear(16, 4), seed) for seed in range(3)]
    memory = pyramid([rand(2, 16, 4, 5, seed=1), rand(2, 16, 2, 3, seed=2)])
    queries, places, points = rand(2, 6, 16, seed=3), rand(2, 6, 16, seed=4), rand(2, 6, 2, seed=5)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    first = decoder(queries, places, points, memory, heads, refine=True)
    second = decoder(queries[:, order], places[:, order], points[:, order], memory, heads, refine=True)
    torch.testing.assert_close(second[0], first[0][:, :, order])
    torch.testing.assert_close(second[1], first[1][:, :, order])
    for one, other in zip(second[2], first[2], strict=True):
        torch.testing.assert_close(one, other[:, order])
