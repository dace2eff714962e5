"""Laws of the closed form, over random label maps and vectors (Hypothesis draws them)."""

from itertools import pairwise

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from course_lib.upsampling import DUpsampling, fit_projection, label_windows, pixel_unshuffle

laws = settings(max_examples=60, deadline=None, derandomize=True)
SIZES = st.integers(1, 5)


def draw(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def problems(draw_one):
    """Vectors (n, N), of either shape, and a rank that fits them."""
    n, length = draw_one(st.integers(1, 14)), draw_one(st.integers(1, 14))
    rank = draw_one(st.integers(1, min(n, length)))
    return draw(n, length, seed=draw_one(st.integers(0, 999))) - 0.3, rank


def lost(projection, vectors):
    return (projection.restore(projection.compress(vectors)) - vectors).square().sum()


@laws
@given(problem=problems(), centre=st.booleans())
def test_the_error_is_the_sum_of_the_dropped_squares(problem, centre):
    """Eckart-Young, and all squares together are the vectors' own."""
    vectors, rank = problem
    projection = fit_projection(vectors, rank, centre=centre)
    torch.testing.assert_close(
        lost(projection, vectors), torch.tensor(projection.residual, dtype=torch.float64), atol=1e-10, rtol=0
    )
    whole = (vectors - projection.mean).square().sum()
    torch.testing.assert_close(projection.singular_values.square().sum(), whole, atol=1e-10, rtol=0)


@laws
@given(problem=problems(), seed=st.integers(0, 999))
def test_no_random_projection_is_better(problem, seed):
    """Any other pair (W, P) of the same rank loses at least as much; so does the best P for a random W."""
    vectors, rank = problem
    best = float(lost(fit_projection(vectors, rank), vectors)) - 1e-10
    length = vectors.shape[1]
    for k in range(4):
        up, down = draw(length, rank, seed=seed + k) - 0.5, draw(rank, length, seed=seed + 100 + k) - 0.5
        assert (vectors - vectors @ down.T @ up.T).square().sum() >= best
        basis = torch.linalg.qr(up).Q  # an orthonormal W: its best P is its transpose
        assert (vectors - vectors @ basis @ basis.T).square().sum() >= best


@laws
@given(problem=problems(), seed=st.integers(0, 999))
def test_nor_is_a_small_step_away_from_it(problem, seed):
    """The projection is a minimum in every direction of (W, P)."""
    vectors, rank = problem
    found = fit_projection(vectors, rank)
    best = float(lost(found, vectors)) - 1e-10
    up_step, down_step = draw(*found.up.shape, seed=seed) - 0.5, draw(*found.down.shape, seed=seed + 1) - 0.5
    for size in (-0.1, -0.01, 0.01, 0.1):
        near = vectors @ (found.down + size * down_step).T @ (found.up + size * up_step).T
        assert (vectors - near).square().sum() >= best


@laws
@given(problem=problems(), seed=st.integers(0, 999))
def test_w_is_unique_only_up_to_a_change_of_basis(problem, seed):
    """(W A, A^-1 P) restores exactly what (W, P) does, for any invertible A."""
    vectors, rank = problem
    found = fit_projection(vectors, rank)
    change = draw(rank, rank, seed=seed) + 2 * torch.eye(rank)
    other = vectors @ (torch.linalg.inv(change) @ found.down).T @ (found.up @ change).T
    torch.testing.assert_close(other, found.restore(found.compress(vectors)), atol=1e-9, rtol=0)


@laws
@given(problem=problems(), centre=st.booleans())
def test_the_columns_are_orthonormal_and_projecting_twice_changes_nothing(problem, centre):
    vectors, rank = problem
    found = fit_projection(vectors, rank, centre=centre)
    torch.testing.assert_close(found.up.T @ found.up, torch.eye(rank).double(), atol=1e-10, rtol=0)
    once = found.restore(found.compress(vectors))
    torch.testing.assert_close(found.restore(found.compress(once)), once, atol=1e-10, rtol=0)


@laws
@given(problem=problems())
def test_more_rank_never_hurts_and_full_rank_is_exact(problem):
    vectors, _ = problem
    losses = [fit_projection(vectors, k).residual for k in range(1, min(vectors.shape) + 1)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(losses))
    assert losses[-1] < 1e-10
    assert fit_projection(vectors, 1, centre=True).residual <= losses[0] + 1e-10


@laws
@given(h=SIZES, w=SIZES, r=st.integers(1, 4), classes=st.integers(1, 4), seed=st.integers(0, 999))
def test_windows_are_space_to_depth(h, w, r, classes, seed):
    """Oracle: our pixel_unshuffle of the one-hot map, class fastest; the module with W = 1 puts it back."""
    labels = torch.randint(classes, (2, h * r, w * r), generator=torch.Generator().manual_seed(seed))
    one_hot = torch.nn.functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()
    vectors = pixel_unshuffle(one_hot, r, order="tensorflow")  # (2, N, h, w)
    assert torch.equal(label_windows(labels, r, classes), vectors.movedim(1, -1).flatten(0, 2))
    module = DUpsampling(r * r * classes, classes, r)
    with torch.no_grad():
        module.conv_w.weight.copy_(torch.eye(r * r * classes)[:, :, None, None])
    assert torch.equal(module(vectors), one_hot)


@laws
@given(h=SIZES, w=SIZES, seed=st.integers(0, 999))
def test_transposing_the_map_transposes_the_result(h, w, seed):
    """Swap rows and columns in the features and within W's windows, and the output is swapped."""
    module, swapped = (DUpsampling(3, 2, 3).double() for _ in range(2))
    weight = module.conv_w.weight.detach()
    turned = weight.view(3, 3, 2, 3).transpose(0, 1).reshape_as(weight)
    with torch.no_grad():
        swapped.conv_w.weight.copy_(turned)
    x = draw(1, 3, h, w, seed=seed)
    torch.testing.assert_close(swapped(x.mT), module(x).mT, atol=1e-12, rtol=0)
