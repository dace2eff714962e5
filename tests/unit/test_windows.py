"""Windows, masks, biases and merging: what they hold, how they are kept, and what they refuse."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from course_lib.blocks import windows
from course_lib.blocks.attention import MultiHeadAttention
from course_lib.blocks.locality import attention_cost, reach, window_attention_cost
from course_lib.blocks.windows import PatchMerging, WindowAttention, partition, regions, relative_index, shift_mask
from course_lib.plain.windows import merge_loop


def drawn(module: Any, seed: int = 0) -> Any:
    """The module in float64, every parameter drawn, so that no bias is 0."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.double().parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


def test_the_toys_of_the_chapter() -> None:
    """Oracle: figure 4 of the paper for a map of 4 x 4, counted by hand; the index of windows of 2 x 2, by hand."""
    assert regions((4, 4), 2, 1).tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]]
    mask = shift_mask((4, 4), 2, 1)
    assert (mask == 0).sum((1, 2)).tolist() == [16, 8, 8, 4]
    assert set(mask.unique().tolist()) == {0.0, -100.0}
    assert relative_index(2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert torch.arange(16).view(4, 4).roll((-1, -1), (0, 1))[0].tolist() == [5, 6, 7, 4]
    assert [len(WindowAttention(4, 2, m).table) for m in (2, 7, 12)] == [9, 169, 529]
    assert regions((4, 6), 2, 0).tolist() == torch.zeros(4, 6).tolist()


def test_windows_hold_what_lies_there() -> None:
    """Oracle: slices of the map."""
    x = torch.randn(2, 6, 9, 4)
    cut = partition(x, 3)
    assert cut.shape == (12, 9, 4)
    for n in range(2):
        for row in range(2):
            for column in range(3):
                place = x[n, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3].reshape(9, 4)
                assert torch.equal(cut[n * 6 + row * 3 + column], place)


@pytest.mark.parametrize(("height", "width", "shift"), [(8, 12, 2), (4, 4, 1), (4, 12, 3), (12, 4, 2), (8, 8, 0)])
def test_masks_come_from_regions(height: int, width: int, shift: int) -> None:
    """Oracle: the whole map's regions, cut into windows, every pair compared; four windows' masks are what is kept."""
    came = partition(regions((height, width), 4, shift)[None, :, :, None].double(), 4)[..., 0]
    expected = torch.where(came[:, :, None] == came[:, None, :], 0.0, -100.0)
    assert torch.equal(shift_mask((height, width), 4, shift), expected.float())


def test_masks_are_kept_without_growing() -> None:
    """Oracle: one entry for all sizes; none that inference mode, or the meta device, leaves for a training."""
    windows._four_masks.cache_clear()
    windows._index_on.cache_clear()
    with torch.inference_mode():
        inside = shift_mask((8, 8), 4, 2)
        WindowAttention(4, 2, 4).bias()
    for side in range(4, 60, 4):
        shift_mask((side, 8), 4, 2)
    assert windows._four_masks.cache_info().currsize == 1
    assert windows._four_masks.cache_info().maxsize is not None
    assert windows._index_on.cache_info().maxsize is not None
    assert inside.is_inference()
    assert not shift_mask((8, 8), 4, 2).is_inference()
    with torch.device("meta"):
        assert shift_mask((8, 8), 4, 2).device.type == "cpu"
    assert shift_mask((8, 8), 4, 2, "meta").is_meta
    assert shift_mask((8, 8), 4, 2, dtype=torch.float64).dtype == torch.float64
    attention = WindowAttention(4, 2, 4)
    attention.over_map(torch.randn(1, 8, 8, 4), 2).sum().backward()
    assert attention.table.grad is not None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shift", [0, 2])
def test_dtype_and_device_follow_the_input(dtype: torch.dtype, shift: int) -> None:
    """Oracle: float64's numbers; the meta device makes no numbers."""
    attention = WindowAttention(8, 2, 4)
    x = torch.randn(2, 7, 9, 8)
    expected = attention.double().over_map(x.double(), shift)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixed = attention.float().over_map(x, shift)
    came = attention.to(dtype).over_map(x.to(dtype), shift)
    assert came.dtype == dtype
    for close in (came.double(), mixed.double()):
        torch.testing.assert_close(close, expected, rtol=0, atol=0.02)
    assert WindowAttention(8, 2, 4).to("meta").over_map(x.to("meta"), shift).shape == x.shape


def test_weights_are_returned() -> None:
    """Oracle: rows sum to 1; the same result beside them; read in the shape of the windows."""
    attention = drawn(WindowAttention(6, 3, 4))
    x, mask = torch.randn(8, 16, 6).double(), shift_mask((8, 8), 4, 2, dtype=torch.float64)
    for given in (None, mask):
        out, read = attention(x, given, weights=True)
        assert read.shape == (8, 3, 16, 16)
        torch.testing.assert_close(read.sum(-1), torch.ones(8, 3, 16).double())
        torch.testing.assert_close(attention(x, given), out)
        v = attention.attention.project(x)[2]
        torch.testing.assert_close(attention.attention.join(read @ v), out)


def test_merging_puts_neighbours_side_by_side() -> None:
    """Oracle: the loop, with gradients; an odd map is one with zeros behind it; four times the channels by `reduce`."""
    merge = drawn(PatchMerging(3, 5))
    x = torch.randn(2, 15, 3, dtype=torch.float64, requires_grad=True)
    came, size = merge(x, (3, 5))
    assert (came.shape, size) == ((2, 6, 5), (2, 3))
    whole = torch.zeros(2, 4, 6, 3, dtype=torch.float64)
    whole[:, :3, :5] = x.view(2, 3, 5, 3)
    plain = merge.reduction(merge.norm(torch.stack([merge_loop(one) for one in whole]))).flatten(1, 2)
    torch.testing.assert_close(came, plain)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *merge.parameters()]) for y in (came, plain)]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
    dets = torch.randn(2, 7, 3, dtype=torch.float64)
    alike = dets[:, :, None].expand(2, 7, 4, 3).reshape(2, 28, 3).view(2, 7, 2, 2, 3).transpose(1, 2).flatten(1, 3)
    torch.testing.assert_close(merge.reduce(dets.repeat(1, 1, 4)), merge(alike, (2, 14))[0])
    assert merge.reduction.bias is None
    assert PatchMerging(3).out == 6


@pytest.mark.parametrize("size", [(56, 56), (14, 21), (10, 16)])
def test_costs_are_what_is_counted(size: tuple[int, int]) -> None:
    """Oracle: the sheet's numbers at 56 x 56 x 96, and PyTorch's counter (two operations for each multiplication)."""
    assert attention_cost((56, 56), 96) == 2_003_828_736
    assert window_attention_cost((56, 56), 96) == 145_108_992
    with torch.device("meta"):
        x = torch.empty(1, *size, 96)
        every, near = MultiHeadAttention(96, 3), WindowAttention(96, 3, 7)
        with FlopCounterMode(display=False) as counter:
            every(x.flatten(1, 2), weights=True)
        assert counter.get_total_flops() == 2 * attention_cost(size, 96)
        for shift in (0, 3):
            with FlopCounterMode(display=False) as counter:
                near.over_map(x, shift)
            assert counter.get_total_flops() == 2 * window_attention_cost(size, 96)


def test_reach_of_a_corner() -> None:
    """Oracle: by hand: 7, then 3 more where a shifted window begins at 3 + 7, and so on; without shift never more.

    8 pairs of blocks connect opposite sides of a map of 56, the chapter's exercise.
    """
    steps = reach((14, 14), 7, 3, (0, 0))
    assert steps.sum((1, 2)).tolist() == [1, 49, 100, 196]
    assert [int(n) for n in reach((56, 56), 7, 6, (0, 0))[:, :, 0].sum(1)] == [1, 7, 10, 14, 17, 21, 24]
    assert [bool(steps[55, 0]) for steps in reach((56, 56), 7, 16, (0, 0))].index(True) == 15
    assert reach((14, 14), 7, 9, (0, 0), shifted=False)[-1].sum() == 49
    assert reach((5, 6), 7, 1, (4, 5))[1].all()
    assert reach((5, 6), 7, 0, (4, 5)).nonzero().tolist() == [[0, 4, 5]]


def test_bad_input_is_named() -> None:
    """Oracle: the messages."""
    attention, x = WindowAttention(4, 2, 2), torch.randn(4, 4, 4)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda: partition(torch.zeros(1, 4, 5, 2), 2), ValueError, "size must be multiples of window, 2, got 4 x 5"),
        (lambda: partition(torch.zeros(4, 4, 2), 2), ValueError, "x must be (N, h, w, C)"),
        (lambda: partition(torch.zeros(1, 4, 4, 2).int(), 2), TypeError, "x must be a floating point"),
        (lambda: partition(torch.zeros(1, 4, 4, 2), 0), ValueError, "window must be at least 1"),
        (lambda: windows.reverse(torch.zeros(3, 4, 2), 2, (4, 4)), ValueError, "windows must be (N * 4, 4, C)"),
        (lambda: windows.reverse(torch.zeros(4, 9, 2), 2, (4, 4)), ValueError, "windows must be (N * 4, 4, C)"),
        (lambda: shift_mask((4, 4), 2, 2), ValueError, "shift must be below window, 2, got 2"),
        (lambda: shift_mask((4, 4), 2, -1), ValueError, "shift must be at least 0"),
        (lambda: shift_mask(4, 2, 1), ValueError, "size must be (h, w), got 4"),  # type: ignore[arg-type]
        (lambda: relative_index(0), ValueError, "window must be at least 1"),
        (lambda: WindowAttention(5, 2, 2), ValueError, "heads must divide width"),
        (lambda: WindowAttention(4, 2, 0), ValueError, "window must be at least 1"),
        (lambda: attention(torch.zeros(4, 5, 4)), ValueError, "x must be (N * windows, 4, C), got (4, 5, 4)"),
        (lambda: attention(x, torch.zeros(3, 4, 4)), ValueError, "mask must be (windows, 4, 4) for 4 windows"),
        (lambda: attention(x, torch.zeros(4, 4)), ValueError, "mask must be (windows, 4, 4)"),
        (lambda: attention(x, torch.ones(4, 4, 4).bool()), TypeError, "mask must be floating point, added to the sc"),
        (lambda: attention.over_map(x), ValueError, "x must be (N, h, w, C)"),
        (lambda: attention.over_map(x[None], 2), ValueError, "shift must be below window"),
        (lambda: attention.over_map(x[None], -1), ValueError, "shift must be at least 0"),
        (lambda: PatchMerging(2)(torch.zeros(1, 5, 2), (2, 2)), ValueError, "x must be (N, 2 * 2 = 4, C), got (1, 5"),
        (lambda: PatchMerging(2)(torch.zeros(1, 4, 3), (2, 2)), ValueError, "x must have 2 channels, got 3"),
        (lambda: PatchMerging(2).reduce(torch.zeros(1, 2)), ValueError, "x must have 4 * 2 channels, got 2"),
        (lambda: PatchMerging(0), ValueError, "width must be at least 1"),
        (lambda: reach((4, 4), 2, 1, (4, 0)), ValueError, "start must be (y, x) in a map of 4 x 4, got (4, 0)"),
        (lambda: reach((4, 4), 2, -1, (0, 0)), ValueError, "blocks must be at least 0"),
        (lambda: attention_cost((4, 0), 2), ValueError, "size must be at least 1"),
        (lambda: window_attention_cost((4, 4), 0), ValueError, "width must be at least 1"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=re.escape(message)):
            call()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, with gradients."""
    attention = drawn(WindowAttention(8, 2, 4))
    x = torch.randn(2, 7, 10, 8).double()
    results: list[list[Tensor]] = []
    for device in ("cpu", "cuda"):
        moved = attention.to(device)
        out = moved.over_map(x.to(device), 2)
        gradients = torch.autograd.grad(out.square().sum(), list(moved.parameters()))
        results.append([one.detach().cpu() for one in (out, *gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
