"""Laws of warping, over random pictures and flows (Hypothesis draws them)."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from course_lib.super_resolution.srntt import swap
from course_lib.super_resolution.warping import inside, warp

laws = settings(max_examples=60, deadline=None, derandomize=True)
SIDES = st.tuples(st.integers(1, 7), st.integers(1, 7))
SEEDS = st.integers(0, 99)


def rand(*shape, seed):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(size, to, seed):
    """A batch of two pictures, and flows that leave them now and then."""
    return rand(2, 3, *size, seed=seed), 10 * rand(2, 2, *to, seed=seed + 1) - 5


@laws
@given(size=SIDES, to=SIDES, seed=SEEDS)
def test_a_batch_is_its_pictures(size, to, seed):
    """Oracle: one picture at a time; and the channels one by one."""
    picture, flow = draw(size, to, seed)
    whole = warp(picture, flow)
    assert torch.equal(whole[1:], warp(picture[1:], flow[1:]))
    assert torch.equal(whole[:, 2:], warp(picture[:, 2:], flow))


@laws
@given(size=SIDES, to=SIDES, seed=SEEDS)
def test_rows_and_columns_are_alike(size, to, seed):
    """Equivariance: a transposed picture under the transposed flow, its two parts exchanged."""
    picture, flow = draw(size, to, seed)
    turned = warp(picture.mT, flow.flip(1).mT)
    torch.testing.assert_close(turned.mT, warp(picture, flow), rtol=0, atol=1e-14)


@laws
@given(size=SIDES, to=SIDES, seed=SEEDS)
def test_mirrors(size, to, seed):
    """Equivariance: a mirrored picture under the mirrored flow; the grids may have different widths."""
    picture, flow = draw(size, to, seed)
    # column x reads x + v; in the mirror, column n - 1 - x reads m - 1 - (x + v)
    mirrored = flow.flip(-1).clone()
    mirrored[:, 1] = (size[1] - to[1]) - mirrored[:, 1]
    torch.testing.assert_close(warp(picture.flip(-1), mirrored), warp(picture, flow).flip(-1), rtol=0, atol=1e-13)


@laws
@given(size=SIDES, to=SIDES, seed=SEEDS)
def test_a_warp_is_a_weighted_mean(size, to, seed):
    """Linear in the picture; constants stay; nothing leaves the picture's range."""
    picture, flow = draw(size, to, seed)
    other = rand(2, 3, *size, seed=seed + 2)
    moved = warp(picture, flow)
    torch.testing.assert_close(warp(2 * picture - other, flow), 2 * moved - warp(other, flow), rtol=0, atol=1e-13)
    torch.testing.assert_close(warp(torch.full_like(picture, 0.3), flow), torch.full_like(moved, 0.3))
    assert picture.min() - 1e-14 <= moved.min() <= moved.max() <= picture.max() + 1e-14


@laws
@given(size=SIDES, down=st.integers(-3, 3), right=st.integers(-3, 3), seed=SEEDS)
def test_whole_pixels_are_copied(size, down, right, seed):
    """Oracle: indexing; and `inside` says which of them are the picture's own."""
    picture = rand(1, 2, *size, seed=seed)
    flow = torch.tensor([down, right], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, *size)
    rows, columns = (torch.arange(n) + by for n, by in zip(size, (down, right), strict=True))
    copied = picture[:, :, rows.clamp(0, size[0] - 1)][..., columns.clamp(0, size[1] - 1)]
    assert torch.equal(warp(picture, flow), copied)
    own = ((rows >= 0) & (rows < size[0]))[:, None] & ((columns >= 0) & (columns < size[1]))
    assert torch.equal(inside(flow, size)[0, 0] > 0, own)


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives():
    """Oracle: the CPU, for values and gradients of `warp`, and for `swap`, which is made of it."""
    picture, flow = draw((6, 7), (4, 4), seed=0)
    found = []
    for device in ("cpu", "cuda"):
        inputs = [one.to(device).requires_grad_() for one in (picture, flow)]
        moved = warp(*inputs)
        laid = swap(inputs[0], inputs[1].detach().round(), step=2)
        assert moved.device.type == laid.device.type == device
        found.append([one.cpu() for one in (moved, laid, *torch.autograd.grad(moved.square().sum(), inputs))])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
