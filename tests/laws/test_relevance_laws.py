"""What the search of patches and the transfer of textures promise, over random features (Hypothesis draws them)."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from course_lib.plain import ttsr as plain
from course_lib.super_resolution import relevance
from course_lib.super_resolution.relevance import search, transfer

laws = settings(max_examples=15, deadline=None, derandomize=True)
SIZES = st.tuples(st.integers(1, 6), st.integers(1, 6))
SEEDS = st.integers(0, 999)
BLOCKS = st.sampled_from([(None, 2**18), (1, 1), (2, 60), (3, 150)])  # rows of the picture, and pairs at once


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@laws
@given(size=SIZES, other=SIZES, seed=SEEDS, blocks=BLOCKS, patch=st.sampled_from([1, 3, 5]))
def test_is_the_largest_of_all_pairs(
    size: tuple[int, int], other: tuple[int, int], seed: int, blocks: tuple[int | None, int], patch: int
) -> None:
    """Oracle: the matrix of all pairs."""
    query, key = randn(2, 3, *size, seed=seed), randn(2, 3, *other, seed=seed + 1)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(relevance, "_FEW_CPU", blocks[1])
        index, score = search(query, key, patch, blocks[0])
    expected = plain.hard_and_soft(plain.relevance(query, key, patch), size)
    assert torch.equal(index, expected[0])
    torch.testing.assert_close(score, expected[1], rtol=0, atol=1e-12)


@laws
@given(size=SIZES, other=SIZES, seed=SEEDS)
def test_a_batch_is_its_pictures(size: tuple[int, int], other: tuple[int, int], seed: int) -> None:
    """Oracle: one picture at a time."""
    query, key, value = (randn(3, 2, *of, seed=seed + k) for k, of in enumerate((size, other, other)))
    index, score = search(query, key)
    made = transfer(value, index)
    for k in range(3):
        here = slice(k, k + 1)
        alone = search(query[here], key[here])
        assert torch.equal(alone[0], index[here])
        torch.testing.assert_close(alone[1], score[here], rtol=0, atol=1e-13)
        assert torch.equal(transfer(value[here], alone[0]), made[here])


@laws
@given(seed=SEEDS, factor=st.floats(1e-4, 1e4), channels=st.permutations(range(4)))
def test_only_directions_count(seed: int, factor: float, channels: list[int]) -> None:
    """Longer features, and channels in another order, are as relevant as before."""
    query, key = randn(1, 4, 4, 5, seed=seed), randn(1, 4, 6, 3, seed=seed + 1)
    index, score = search(query, key)
    for q, k in ((query * factor, key), (query, key * factor), (query[:, channels], key[:, channels])):
        found = search(q, k)
        assert torch.equal(found[0], index)
        torch.testing.assert_close(found[1], score, rtol=0, atol=1e-12)


@laws
@given(seed=SEEDS, down=st.integers(0, 3), right=st.integers(0, 3))
def test_finds_what_was_moved(seed: int, down: int, right: int) -> None:
    """A picture cut out of its reference is found where it was cut; at its rim, zeros stand for what lies around."""
    key = randn(1, 4, 9, 10, seed=seed)
    query = key[..., down : down + 6, right : right + 7]
    index, score = search(query, key)
    rows, columns = torch.arange(down, down + 6), torch.arange(right, right + 7)
    place = rows[:, None] * 10 + columns
    assert torch.equal(index[0, 1:-1, 1:-1], place[1:-1, 1:-1])
    torch.testing.assert_close(score[..., 1:-1, 1:-1], torch.ones(1, 1, 4, 5, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(score.max()) <= 1 + 1e-12


@laws
@given(seed=SEEDS)
def test_finds_itself(seed: int) -> None:
    """A picture that is its own reference: every place finds itself, and the textures come back but at the border."""
    features = randn(1, 4, 5, 6, seed=seed)
    index, score = search(features, features)
    assert torch.equal(index[0], torch.arange(30).view(5, 6))
    torch.testing.assert_close(score, torch.ones_like(score), rtol=0, atol=1e-12)
    value = randn(1, 2, 10, 12, seed=seed)
    expected = value * transfer(torch.ones_like(value), index, 2)
    torch.testing.assert_close(transfer(value, index, 2), expected, rtol=0, atol=1e-12)


@laws
@given(seed=SEEDS, step=st.sampled_from([1, 2, 3]), size=SIZES, other=SIZES)
def test_transfer_is_unfold_and_fold(seed: int, step: int, size: tuple[int, int], other: tuple[int, int]) -> None:
    """Oracle: patches made, chosen and laid down, and their gradient; any index, not only one that was searched."""
    places = other[0] * other[1]
    index = torch.randint(places, (2, *size), generator=torch.Generator().manual_seed(seed))
    value = randn(2, 3, step * other[0], step * other[1], seed=seed).requires_grad_()
    made, expected = transfer(value, index, step), plain.transfer_folded(value, index, step)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-12)
    weights = randn(*made.shape, seed=seed + 1)
    gradients = [torch.autograd.grad(result, value, weights)[0] for result in (made, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)


@laws
@given(seed=SEEDS, step=st.sampled_from([1, 2, 4]))
def test_ones_are_damped_at_the_border(seed: int, step: int) -> None:
    """Oracle: how many of nine patches cover a place, where all were found inside: 4 in a corner, 6 at an edge."""
    index = torch.randint(1, 4, (2, 1, 4, 5), generator=torch.Generator().manual_seed(seed))
    place = index[0] * 5 + index[1]  # rows and columns 1 to 3 of 5 x 5
    made = transfer(torch.ones(1, 1, 5 * step, 5 * step), place, step)[0, 0]
    rows, columns = torch.tensor([2.0, 3, 3, 2]), torch.tensor([2.0, 3, 3, 3, 2])
    expected = (rows[:, None] * columns / 9).repeat_interleave(step, 0).repeat_interleave(step, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert float(made[0, 0]) == pytest.approx(0.444, abs=5e-4)
    assert float(made[0, 2 * step]) == pytest.approx(0.667, abs=5e-4)


@laws
@given(seed=SEEDS, blocks=BLOCKS)
def test_the_first_of_equals(seed: int, blocks: tuple[int | None, int]) -> None:
    """Oracle: torch.max over all pairs, in whole numbers, of which many are equal, and with lengths that are too."""
    signs = torch.randint(2, (2, 1, 1, 5, 6), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(relevance, "_FEW_CPU", blocks[1])
        index, _ = search(signs[0], signs[1], 3, blocks[0])
    columns = [plain.patches(features)[0] for features in signs]
    inner, squares = columns[1].T @ columns[0], columns[1].square().sum(0)  # whole numbers, exact
    expected = (inner * (1 / squares.sqrt())[:, None]).max(0)[1]
    assert torch.equal(index.flatten(), expected)
