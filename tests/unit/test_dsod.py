"""DSOD's body. Oracles: the paper's layers with torch's functions, counts by hand, laws of sizes and budgets."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.detection.families.ssd.dsod import Block, DenseBody, Stem, dsod300, plain_widths

SMALL: dict[str, Any] = {"stem": (4, 6), "blocks": ((2,), (1, 2), (3,)), "growth": 3, "widths": (8, 6, 4), "first": 0}
TINY: dict[str, Any] = {
    "stem": (16, 16, 32),
    "blocks": ((4,), (4, 4)),
    "growth": 12,
    "widths": (96, 96, 96),
    "first": 0,
}


def made(**options: Any) -> DenseBody:
    """A body whose norms do something: no weight is 1, no bias or mean 0."""
    torch.manual_seed(0)
    body = DenseBody(**(SMALL | options)).double()
    with torch.no_grad():
        for norm in (module for module in body.modules() if isinstance(module, nn.BatchNorm2d)):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5) if tensor is not norm.running_mean else tensor.uniform_(-0.2, 0.2)
    return body


class ByHand:
    """The network of the paper's table 1 in any width, with the weights of a body taken in the order of its layers."""

    def __init__(self, body: DenseBody, options: dict[str, Any]) -> None:
        modules = list(body.modules())
        self.options, self.training = options, body.training
        self.kernels: Iterator[Tensor] = iter([m.weight for m in modules if isinstance(m, nn.Conv2d)])
        self.norms: Iterator[nn.BatchNorm2d] = iter([m for m in modules if isinstance(m, nn.BatchNorm2d)])

    def convolved(self, x: Tensor, stride: int = 1) -> Tensor:
        kernel = next(self.kernels)
        return F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def normalised(self, x: Tensor) -> Tensor:
        norm = next(self.norms)
        mean, var = norm.running_mean, norm.running_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        weight, bias, mean, var = (t[:, None, None] for t in (norm.weight, norm.bias, mean, var))  # type: ignore[index]
        return torch.relu((x - mean) / (var + 1e-5).sqrt() * weight + bias)

    def unit(self, x: Tensor, stride: int = 1) -> Tensor:
        return self.convolved(self.normalised(x), stride)

    def stage(self, x: Tensor, depths: Sequence[int]) -> Tensor:
        for depth in depths:
            for _ in range(depth):
                new = self.unit(self.unit(x))
                x = torch.cat([x, new], 1) if self.options.get("dense", True) else new
            x = self.unit(x)
        return x

    def maps(self, images: Tensor) -> list[Tensor]:
        x = images
        for place in range(len(self.options["stem"])):
            x = self.normalised(self.convolved(x, 2 if place == 0 else 1))
        x = half(x)
        blocks, first = self.options["blocks"], self.options["first"]
        for place in range(first + 1):
            x = self.stage(x, blocks[place])
            x = half(x) if place < first else x
        maps = [x]
        for place, _ in enumerate(self.options["widths"]):
            x = maps[-1]
            if first + 1 + place < len(blocks):
                learned = self.stage(half(x), blocks[first + 1 + place])
                maps.append(torch.cat([learned, self.unit(half(x))], 1))
            else:
                reused = self.unit(half(x))
                maps.append(torch.cat([reused, self.unit(self.unit(x), 2)], 1))
        return maps


def half(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"first": 1}, {"first": 2, "blocks": ((1, 2), (2,), (1, 1))}, {"dense": False}]
)
def test_the_paper_layer_by_layer(options: dict[str, Any], training: bool) -> None:
    """Oracle: torch.nn.functional, odd sizes, a batch; gradients of the pictures and of every parameter."""
    body = made(**options).train(training)
    images = torch.rand(3, 3, 37, 51, dtype=torch.float64, requires_grad=True)
    expected = ByHand(body, SMALL | options).maps(images)
    came = body(images)
    seeds = [torch.randn_like(x) for x in expected]
    gradients = []
    for maps in (came, expected):
        assert tuple(x.shape[1] for x in maps) == body.channels
        total = torch.stack([(x * seed).sum() for x, seed in zip(maps, seeds, strict=True)]).sum()
        gradients.append(torch.autograd.grad(total, [images, *body.parameters()]))
    for mine, other in zip((*came, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(mine, other)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])


def test_channels_and_parameters_of_the_paper() -> None:
    """Oracle: the staircase 128, 416, 800, 1184, 1568 and the sums of weights and norms, counted by hand."""
    with torch.device("meta"):
        model = dsod300()
    body = model.body
    assert isinstance(body, DenseBody)
    blocks = [module for module in body.modules() if isinstance(module, Block)]
    assert [block.channels for block in blocks] == [416, 800, 1184, 1568]
    layer = blocks[0].layers[0]
    assert sum(p.numel() for p in layer.parameters() if p.dim() == 4) == 128 * 192 + 9 * 192 * 48 == 107_520
    convolutions = [m for m in body.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 80
    assert body.channels == (800, 512, 512, 256, 256, 256)
    stem = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64 + 128)
    grown = 0
    for inputs, layers in ((128, 6), (416, 8), (800, 8), (1184, 8)):
        grown += sum(c * 192 + 2 * c + 2 * 192 + 9 * 192 * 48 for c in range(inputs, inputs + 48 * layers, 48))
    mixed = sum(a * b + 2 * a for a, b in ((416, 416), (800, 800), (1184, 1184), (1568, 256), (800, 256)))
    steps = sum(2 * (c * n + 2 * c) + 9 * n * n + 2 * n for c, n in ((512, 256), (512, 128), (256, 128), (256, 128)))
    assert sum(p.numel() for p in body.parameters()) == stem + grown + mixed + steps
    boxes = (4, 6, 6, 6, 4, 4)
    heads = sum((9 * c + 2) * 25 * n for c, n in zip(body.channels, boxes, strict=True)) + sum(body.channels)
    assert sum(p.numel() for p in model.parameters()) == stem + grown + mixed + steps + heads == 14_715_804
    assert model.map_sizes() == [(n, n) for n in (38, 19, 10, 5, 3, 2)]
    assert sum(n * n * k for n, k in zip((38, 19, 10, 5, 3, 2), boxes, strict=True)) == 8744 == len(model.anchors())


def counted(body: DenseBody, size: int) -> tuple[int, int, int]:
    """Return the weights of convolutions, how many there are, and the operations for a picture."""
    kernels = [module.weight.numel() for module in body.modules() if isinstance(module, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        body.eval()(torch.empty(1, 3, size, size, device="meta"))
    return sum(kernels), len(kernels), counter.get_total_flops()


@pytest.mark.parametrize(("options", "size", "close"), [({}, 300, 1e-4), (TINY, 96, 5e-3)])
def test_without_connections_the_budget_is_the_same(options: dict[str, Any], size: int, close: float) -> None:
    """Law: as many layers, maps of the same channels, as many weights and operations."""
    with torch.device("meta"):
        dense, plain = DenseBody(**options), DenseBody(**options, dense=False)
    weights, layers, operations = zip(counted(dense, size), counted(plain, size), strict=True)
    assert layers[0] == layers[1]
    assert dense.channels == plain.channels
    assert weights[1] == pytest.approx(weights[0], rel=close)
    assert operations[1] == pytest.approx(operations[0], rel=close)
    parameters = [sum(p.numel() for p in body.parameters()) for body in (dense, plain)]
    assert parameters[1] == pytest.approx(parameters[0], rel=0.015)  # norms have fewer channels to treat


@pytest.mark.parametrize(
    ("inputs", "depth", "growth", "wide", "outputs"), [(128, 6, 48, 192, 416), (32, 4, 12, 48, 80), (5, 1, 2, 4, 3)]
)
def test_widths_of_a_plain_block(inputs: int, depth: int, growth: int, wide: int, outputs: int) -> None:
    """Oracle: the weights of the modules themselves; no other number of channels comes nearer."""

    def weights(widths: list[int], dense: bool) -> int:
        block = Block(inputs, widths, wide, dense)
        return sum(p.numel() for p in block.parameters() if p.dim() == 4) + block.channels * outputs

    widths = plain_widths(inputs, depth, growth, wide, outputs)
    assert len(widths) == depth
    assert max(widths) - min(widths) <= 1
    budget = weights([growth] * depth, dense=True)
    missed = abs(weights(widths, dense=False) - budget)
    for place in range(depth):
        for more in (-1, 1):
            other = [width + more * (k == place) for k, width in enumerate(widths)]
            if min(other) > 0:
                assert missed <= abs(weights(other, dense=False) - budget) + 10 * wide - 1
    assert missed <= (9 * wide + max(wide, outputs)) / 2


def test_a_dense_block_keeps_what_came() -> None:
    """Law: the input is the first part of the output, untouched; without connections nothing of it is left."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 4, 6)
    block = Block(5, [3, 3], 4)
    out = block(x)
    assert out.shape == (2, 11, 4, 6)
    assert torch.equal(out[:, :5], x)
    assert Block(5, [3, 7], 4, dense=False)(x).shape == (2, 7, 4, 6)


def test_connections_shorten_the_way_of_the_gradient() -> None:
    """Law: where the last layers of a block let nothing through, a dense block's first layer still learns."""
    for dense in (True, False):
        torch.manual_seed(0)
        block = Block(4, [4] * 3, 8, dense)
        first, *_, last = (module.weight for module in block.modules() if isinstance(module, nn.Conv2d))
        nn.init.zeros_(last)
        (gradient,) = torch.autograd.grad((block(torch.randn(2, 4, 5, 5)) - 1).square().sum(), first)
        assert bool(gradient.abs().sum() > 0) == dense


@pytest.mark.parametrize("size", [(96, 96), (97, 61), (33, 5), (1, 1)])
def test_any_size_of_picture(size: tuple[int, int]) -> None:
    """Oracle: every map has half the size of the one before, rounded up; the first a quarter of the picture."""
    body = made(**TINY).eval()
    with torch.no_grad():
        maps = body(torch.rand(1, 3, *size, dtype=torch.float64))
    assert [x.shape[2:] for x in maps] == [tuple(math.ceil(n / stride) for n in size) for stride in (4, 8, 16, 32)]
    assert tuple(x.shape[1] for x in maps) == body.channels == (80, 96, 96, 96)


def test_compression_and_other_stems() -> None:
    """Oracle: floor(compression c) channels behind a block of c; any module that says its channels is a stem."""
    body = made(compression=0.5, first=1)
    assert [m.channels for m in body.modules() if isinstance(m, Block)] == [12, 9, 10, 14]
    assert body.channels == (5, 8, 6, 4)
    stem = nn.Conv2d(3, 6, 7, 2, 3)
    stem.channels = 6  # type: ignore[assignment]
    maps = DenseBody(**(SMALL | {"stem": stem}))(torch.rand(2, 3, 32, 32))
    assert [x.shape[2] for x in maps] == [16, 8, 4, 2]
    assert Stem((4,))(torch.rand(1, 3, 18, 18)).shape == (1, 4, 5, 5)


def test_batched_is_single() -> None:
    """Law: with the norms' kept statistics no picture of a batch has a part in another's maps."""
    body = made().eval()
    images = torch.rand(3, 3, 21, 26, dtype=torch.float64)
    with torch.no_grad():
        for whole, *each in zip(body(images), *(body(images[k : k + 1]) for k in range(3)), strict=True):
            torch.testing.assert_close(whole, torch.cat(each))


def test_precisions() -> None:
    """Oracle: float64, to the digits that float32 and, under autocast, bfloat16 have."""
    body = made().eval()
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        exact = body(images)
        single = body.float()(images.float())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = body(images.float())
    for a, b, c in zip(exact, single, mixed, strict=True):
        assert (a.dtype, b.dtype, c.dtype) == (torch.float64, torch.float32, torch.bfloat16)
        torch.testing.assert_close(b.double(), a, rtol=1e-4, atol=1e-5)
        assert (c.double() - a).abs().mean() < 0.03 * a.abs().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth": 0}, "growth must be at least 1, got 0"),
        ({"bottleneck": 1.5}, r"bottleneck must be a whole number, got 1\.5"),
        ({"blocks": ()}, r"blocks must be the layers .* got \(\)"),
        ({"blocks": (6, 8)}, r"blocks must be the layers .* got \(6, 8\)"),
        ({"blocks": ((0,),), "first": 0}, "blocks must be at least 1, got 0"),
        ({"first": 3}, "first must be one of the 3 sizes of map in blocks, got 3"),
        ({"first": -1}, "first must be at least 0, got -1"),
        ({"widths": (8, 7, 4)}, "widths must be even, for two halves; got 7"),
        ({"widths": (8,)}, "widths must have 2 entries or more, .* got 1"),
        ({"compression": 0.0}, r"compression must be above 0 and at most 1, got 0\.0"),
        ({"stem": ()}, "stem must have one width or more, got none"),
        ({"stem": (4, 0)}, "stem must be at least 1, got 0"),
        ({"stem": nn.Conv2d(3, 4, 3)}, "channels of stem must be a whole number, got None"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DenseBody(**(SMALL | options))


@pytest.mark.gpu
@pytest.mark.parametrize("dense", [True, False])
def test_on_a_gpu(dense: bool) -> None:
    """Oracle: the CPU, gradients too, in float64."""
    body, images = made(dense=dense), torch.rand(2, 3, 37, 51, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        net, x = body.to(device), images.to(device).requires_grad_()
        maps = net(x)
        gradients = torch.autograd.grad(torch.stack([y.square().sum() for y in maps]).sum(), [x, *net.parameters()])
        results.append([one.detach().cpu() for one in (*maps, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-7, atol=1e-7)
