"""Laws of attention in windows, for maps, windows and shifts that Hypothesis chooses; all in float64."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.blocks.locality import reach
from course_lib.blocks.swin import Stage
from course_lib.blocks.windows import WindowAttention, pad_map, padded, partition, reverse, shift_mask
from course_lib.plain.windows import window_attention_masked

FEW = settings(max_examples=15, deadline=None)
SEEDS = st.integers(0, 99)
WIDTH, HEADS = 4, 2


def drawn(module: Any, seed: int) -> Any:
    """The module in float64, every parameter drawn, so that no bias is 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


def maps(height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, height, width, WIDTH, generator=generator, dtype=torch.float64)


@FEW
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), window=st.integers(1, 5), seed=SEEDS)
def test_reverse_undoes_partition(rows: int, columns: int, window: int, seed: int) -> None:
    """Law: there and back is the same map, and back and there the same windows; nothing is lost or doubled."""
    x = maps(rows * window, columns * window, seed)
    cut = partition(x, window)
    assert cut.shape == (2 * rows * columns, window**2, WIDTH)
    back = reverse(cut, window, (rows * window, columns * window))
    assert torch.equal(back, x)
    assert torch.equal(partition(back, window), cut)


@FEW
@given(height=st.integers(1, 7), width=st.integers(1, 7), window=st.integers(1, 4), part=st.integers(0, 3), seed=SEEDS)
def test_windows_are_full_attention_with_a_block_mask(
    height: int, width: int, window: int, part: int, seed: int
) -> None:
    """Law: the same as all tokens of the filled map reading each other where the mask lets them, gradients too.

    Oracle: the plain form, which knows no roll and no -100.
    """
    shift = min(part, window - 1)
    attention = drawn(WindowAttention(WIDTH, HEADS, window), seed)
    x = maps(height, width, seed).requires_grad_()
    size = padded((height, width), window)
    whole = pad_map(x, size).flatten(1, 2)
    q, k, v = attention.attention.project(whole)
    each = [window_attention_masked(*(p[n] for p in (q, k, v)), size, attention.table, window, shift) for n in (0, 1)]
    plain = attention.attention.join(torch.stack(each)).reshape(2, *size, WIDTH)[:, :height, :width]
    came = attention.over_map(x, shift)
    torch.testing.assert_close(came, plain)
    inputs = [x, *attention.parameters()]
    gradients = (torch.autograd.grad(out.pow(3).sum(), inputs, retain_graph=True) for out in (came, plain))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():  # the fused kernel
        torch.testing.assert_close(attention.over_map(x, shift), plain)


@FEW
@given(dy=st.integers(0, 2), dx=st.integers(0, 2), window=st.integers(1, 4), shift=st.integers(0, 3), seed=SEEDS)
def test_rolling_by_whole_windows_commutes(dy: int, dx: int, window: int, shift: int, seed: int) -> None:
    """Law: without a mask, on a map that closes on itself, attention of windows rolled by whole windows is rolled.

    A map with shifted windows loses the law at its border only, where the mask is.
    """
    attention = drawn(WindowAttention(WIDTH, HEADS, window), seed)
    size = (3 * window, 3 * window)
    x = maps(*size, seed)
    move = (dy * window, dx * window)

    def periodic(x: Tensor) -> Tensor:
        back = min(shift, window - 1)
        read = attention(partition(x.roll((-back, -back), (1, 2)), window))
        return reverse(read, window, size).roll((back, back), (1, 2))

    torch.testing.assert_close(periodic(x.roll(move, (1, 2))), periodic(x).roll(move, (1, 2)))
    torch.testing.assert_close(attention.over_map(x.roll(move, (1, 2))), attention.over_map(x).roll(move, (1, 2)))
    inner = slice(window, 2 * window)
    shifted = min(shift, window - 1)
    inside = attention.over_map(x, shifted)[:, inner, inner]
    torch.testing.assert_close(inside, periodic(x)[:, inner, inner])


@FEW
@given(rows=st.integers(1, 3), columns=st.integers(1, 3), window=st.integers(2, 4), part=st.integers(1, 3), seed=SEEDS)
def test_other_regions_are_not_read(rows: int, columns: int, window: int, part: int, seed: int) -> None:
    """Law: a token reads less than 1e-30 of a token that came from another side of the map."""
    shift = min(part, window - 1)
    attention = drawn(WindowAttention(WIDTH, HEADS, window), seed)
    mask = shift_mask((rows * window, columns * window), window, shift, dtype=torch.float64)
    _, read = attention(partition(maps(rows * window, columns * window, seed), window), mask, weights=True)
    apart = (mask < 0)[None, :, None].expand(2, -1, HEADS, -1, -1).flatten(0, 1)
    assert apart.any()
    assert read[apart].max() < 1e-30
    assert (read[~apart] > 1e-30).all()


@FEW
@given(
    height=st.integers(5, 12), width=st.integers(5, 12), depth=st.integers(0, 4), place=st.integers(0, 143), seed=SEEDS
)
def test_reach_is_what_a_change_reaches(height: int, width: int, depth: int, place: int, seed: int) -> None:
    """Law: a change of one token changes exactly these after k blocks. Oracle: derivatives, by autograd."""
    window = 4
    stage = drawn(Stage(WIDTH, HEADS, window, [0.0] * depth, merge=False), seed)
    y, u = divmod(place % (height * width), width)
    x = maps(height, width, seed)[:1].flatten(1, 2).requires_grad_()
    change = torch.zeros_like(x)
    change[0, y * width + u] = torch.randn(WIDTH)
    # J' v is linear in v, so that its derivative for v, along a change, is J times the change
    v = torch.ones_like(x).requires_grad_()
    (back,) = torch.autograd.grad(stage(x, (height, width)), x, v, create_graph=True)
    (changed,) = torch.autograd.grad(back, v, change)
    reached = changed[0].abs().amax(-1).reshape(height, width) > 1e-30
    assert torch.equal(reached, reach((height, width), window, depth, (y, u))[-1])


@FEW
@given(height=st.integers(1, 9), width=st.integers(1, 9), shift=st.integers(0, 3), seed=SEEDS)
def test_a_batch_is_its_maps_one_by_one(height: int, width: int, shift: int, seed: int) -> None:
    """Law: maps of a batch do not see each other; a batch in another order gives the results in that order."""
    attention = drawn(WindowAttention(WIDTH, HEADS, 4), seed)
    x = maps(height, width, seed)
    together = attention.over_map(x, shift)
    for n in (0, 1):
        torch.testing.assert_close(together[n], attention.over_map(x[n : n + 1], shift)[0])
    torch.testing.assert_close(attention.over_map(x.flip(0), shift), together.flip(0))
