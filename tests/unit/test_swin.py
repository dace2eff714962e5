"""Swin: blocks, stages, pictures of any size, and what is refused."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.blocks.stochastic_depth import StochasticDepth
from course_lib.blocks.swin import Stage, Swin, SwinBlock, swin_base, swin_nano, swin_small, swin_tiny


def tiny(**options: Any) -> Swin:
    """A network with all its weights drawn, in float64, and in eval mode."""
    torch.manual_seed(0)
    network = Swin(24, (2, 2), (2, 4), **{"window": 4, "classes": 3} | options).double().eval()
    torch.manual_seed(0)  # the same numbers with and without a classifier, which comes last
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() < 4:
                parameter.copy_(0.3 * torch.randn(parameter.shape))
    return network


def pictures(height: int, width: int, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)).double()


def test_counts() -> None:
    """Oracle: the released files; width of each stage's map and its stride."""
    counts = {swin_nano: 7_299_634, swin_tiny: 28_288_354, swin_small: 49_606_258, swin_base: 87_768_224}
    with torch.device("meta"):
        for make, count in counts.items():
            assert sum(p.numel() for p in make().parameters()) == count
        assert sum(p.numel() for p in swin_nano(classes=None).parameters()) == 6_914_634
        network = swin_tiny(classes=20)
        assert (network.channels, network.strides) == ((96, 192, 384, 768), (4, 8, 16, 32))
        assert network(torch.empty(2, 3, 100, 333)).shape == (2, 20)
        sizes = [tuple(one.shape) for one in network.maps(torch.empty(1, 3, 100, 333))]
    assert sizes == [(1, 96, 25, 84), (1, 192, 13, 42), (1, 384, 7, 21), (1, 768, 4, 11)]


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (50, 75), (17, 3), (1, 1)])
def test_any_size(size: tuple[int, int]) -> None:
    """Oracle: sizes rounded up; a picture with zeros behind it, up to whole patches, is the same picture."""
    network, images = tiny(), pictures(*size)
    maps = network.maps(images)
    h, w = (-(-side // 4) for side in size)
    assert [tuple(one.shape) for one in maps] == [(2, 24, h, w), (2, 48, -(-h // 2), -(-w // 2))]
    whole = F.pad(images, (0, 4 * w - size[1], 0, 4 * h - size[0]))
    torch.testing.assert_close(network(images), network(whole), rtol=0, atol=0)
    logits = network.head(network.norm(maps[-1].permute(0, 2, 3, 1)).mean((1, 2)))  # type: ignore[misc]
    torch.testing.assert_close(network(images), logits)
    torch.testing.assert_close(torch.cat([network(one[None]) for one in images]), network(images))
    assert torch.equal(tiny(classes=None)(images), network.features(images))


def test_a_block_by_its_equation() -> None:
    """Oracle: equation 3, with the shift given by hand."""
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, shift=2).double()
    x = torch.randn(2, 8 * 12, 8).double()
    inside = x + block.windows.over_map(block.norm1(x).view(2, 8, 12, 8), 2).flatten(1, 2)
    torch.testing.assert_close(block(x, (8, 12)), inside + block.feed(block.norm2(inside)))
    assert (block.norm1.eps, block.feed.first.out_features) == (1e-5, 32)


def test_small_maps_are_not_shifted_unless_always() -> None:
    """Oracle: the same block without shift where one side is not longer than a window; ViDT's switch undoes that."""
    for size, dropped in {(4, 4): True, (4, 12): True, (12, 3): True, (5, 8): False, (8, 8): False}.items():
        x = torch.randn(1, size[0] * size[1], 8).double()
        results = []
        for shift, always in ((0, False), (2, False), (2, True)):
            torch.manual_seed(0)
            block = SwinBlock(8, 2, 4, shift, always=always).double()
            results.append(block(x, size))
        assert torch.equal(results[0], results[1]) == dropped
        assert torch.equal(results[1], results[2]) != dropped
    assert [block.shift for block in Stage(8, 2, 7, [0.0] * 5, merge=False).blocks] == [0, 3, 0, 3, 0]
    network = tiny(always=True)
    assert {block.always for stage in network.stages for block in stage.blocks} == {True}  # type: ignore[union-attr]


def test_stochastic_depth() -> None:
    """Oracle: whole pictures are 0 or larger by 1 / (1 - share), as many as the share says; the mean stays.

    The official shares: from 0 to the last block's in equal steps.
    """
    torch.manual_seed(0)
    drop, x = StochasticDepth(0.25), torch.ones(4000, 2, 3)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out.amax((1, 2)) == out.amin((1, 2))).all()
    assert abs(float(out.mean()) - 1) < 0.03
    assert torch.equal(drop.eval()(x), x)
    assert torch.equal(StochasticDepth(0.0)(x), x)
    network = Swin(24, (2, 2), (2, 4), window=4, classes=3, drop=0.3)
    shares = [block.drop.share for stage in network.stages for block in stage.blocks]  # type: ignore[union-attr]
    assert shares == pytest.approx([0, 0.1, 0.2, 0.3])
    images = pictures(64, 64).float()
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    assert Swin(8, (1,), (2,), drop=0.5).stages[0].blocks[0].drop.share == 0  # type: ignore[union-attr]


def test_gradients_reach_every_parameter() -> None:
    """Oracle: every gradient is finite and not 0; it is small steps' quotient for a few numbers."""
    network, images = tiny(), pictures(50, 40)
    network(images).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, name
    block: Any = network.stages[0].blocks[1]  # type: ignore[union-attr]
    for parameter in (block.windows.table, block.norm1.bias):
        values, step = parameter.data.view(-1), 1e-5
        both = []
        for change in (step, -2 * step):
            values[3] += change
            with torch.no_grad():
                both.append(float(network(images).square().sum()))
        values[3] += step
        assert (both[0] - both[1]) / (2 * step) == pytest.approx(float(parameter.grad.view(-1)[3]), rel=1e-4)


def test_it_learns_one_batch() -> None:
    """Oracle: eight pictures with labels of chance, known by heart after a few steps."""
    torch.manual_seed(0)
    network = Swin(16, (2, 2), (2, 4), window=4, classes=4)
    images, labels = torch.rand(8, 3, 24, 24), torch.arange(8) % 4
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    for _ in range(30):
        loss = F.cross_entropy(network(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1


def test_half_precision_and_autocast() -> None:
    """Oracle: float64's result, to the 8 bits that bfloat16 has."""
    network, images = tiny(), pictures(50, 40)
    with torch.no_grad():
        expected = network(images)
        network.float()
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(images.float())
        half = network.bfloat16()(images.bfloat16())
    assert half.dtype == torch.bfloat16
    for came in (mixed, half):
        assert float((came.double() - expected).abs().max() / expected.std()) < 0.1


def test_bad_input_is_named() -> None:
    """Oracle: the messages."""
    network = tiny()
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda: network(torch.rand(3, 8, 8)), ValueError, "images must be (B, 3, H, W)"),
        (lambda: network(torch.rand(1, 4, 8, 8)), ValueError, "images must be (B, 3, H, W)"),
        (lambda: network(torch.zeros(1, 3, 8, 8).byte()), TypeError, "images must be a floating point"),
        (lambda: network.maps(torch.rand(1, 3, 0, 8)), ValueError, "images must be (B, 3, H, W) with H, W >= 1"),
        (lambda: Swin(24, (2, 2), (2,)), ValueError, "heads must be one number for each of 2 stages, got 1"),
        (lambda: Swin(24, 2, (2,)), TypeError, "depths must be a list of numbers such as (2, 2, 6, 2), got 2"),  # type: ignore[arg-type]
        (lambda: Swin(24, (), ()), TypeError, "depths must be a list"),
        (lambda: Swin(24, (0,), (2,)), ValueError, "depths must be at least 1"),
        (lambda: Swin(25, (1,), (2,)), ValueError, "heads must divide width, 25"),
        (lambda: Swin(24, (1,), (2,), window=0), ValueError, "window must be at least 1"),
        (lambda: Swin(24, (1,), (2,), classes=0), ValueError, "classes must be at least 1"),
        (lambda: Swin(24, (1,), (2,), patch=0), ValueError, "patch must be at least 1"),
        (lambda: Swin(24, (1,), (2,), drop=1.0), ValueError, "drop must be a number from 0 to below 1, got 1.0"),
        (lambda: StochasticDepth(-0.1), ValueError, "share must be a number from 0 to below 1, got -0.1"),
        (lambda: SwinBlock(8, 2, 4, shift=4), ValueError, "shift must be below window, 4, got 4"),
        (lambda: SwinBlock(8, 2, 4)(torch.rand(1, 16, 8), (4, 5)), ValueError, "x must be (N, 4 * 5 = 20, C)"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind, match=re.escape(message)):
            call()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU; logits, maps and gradients."""
    network, images = tiny(), pictures(50, 75)
    results: list[list[Tensor]] = []
    for device in ("cpu", "cuda"):
        moved, given = network.to(device), images.to(device)
        logits = moved(given)
        gradients = torch.autograd.grad(logits.square().sum(), list(moved.parameters()))
        results.append([one.detach().cpu() for one in (logits, *moved.maps(given), *gradients)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
