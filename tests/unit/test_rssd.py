"""R-SSD's neck. Oracles: the definition by loops over places, the sheet's toy, counts by hand, laws of sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.detection.families.ssd.rssd import RainbowNeck, rssd300

CHANNELS = (512, 1024, 512, 256, 256, 256)
SIZES = ((13, 10), (7, 5), (3, 3), (1, 1))  # 13 and 5 rounded up, 7 down, then smaller by 2
STRIDES = (2, 2, 1)
SMALL = (2, 3, 4, 1)


def made(channels: tuple[int, ...] = SMALL, **options: Any) -> RainbowNeck:
    """A neck in which no deconvolution repeats places and every norm does something."""
    torch.manual_seed(0)
    neck = RainbowNeck(channels, **({"strides": STRIDES} | options)).double()
    with torch.no_grad():
        for tensor in (*neck.parameters(), *neck.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.2, 1.5)
    return neck


def given(
    sizes: tuple[tuple[int, int], ...] = SIZES, channels: tuple[int, ...] = SMALL, batch: int = 3
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, c, *size, generator=generator, dtype=torch.float64).requires_grad_()
        for c, size in zip(channels, sizes, strict=True)
    ]


def pooled(x: Tensor, stride: int, size: torch.Size) -> Tensor:
    """The largest of 2 x 2 places, or of 3 x 3 with stride 1, place by place; less at the border."""
    window = {2: 2, 1: 3}[stride]
    rows = [
        [
            x[..., y * stride : y * stride + window, z * stride : z * stride + window].amax((2, 3))
            for z in range(size[1])
        ]
        for y in range(size[0])
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def spread(x: Tensor, kernel: Tensor, stride: int, size: torch.Size) -> Tensor:
    """Every place lays its kernel over the finer map; what lies outside of it is cut."""
    side = kernel.shape[-1]
    if kernel.shape[1] == 1 < x.shape[1]:  # every channel by itself
        kernel = torch.diag_embed(kernel[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
    height, width = ((n - 1) * stride + side for n in x.shape[2:])
    out = x.new_zeros(x.shape[0], kernel.shape[1], max(height, size[0]), max(width, size[1]))
    for y in range(x.shape[2]):
        for z in range(x.shape[3]):
            laid = torch.einsum("nc,cdij->ndij", x[:, :, y, z], kernel)
            out[:, :, y * stride : y * stride + side, z * stride : z * stride + side] += laid
    return out[..., : size[0], : size[1]]


def by_hand(neck: RainbowNeck, maps: list[Tensor], directions: str) -> list[Tensor]:
    """Each piece is moved, normalised by itself, and put beside the others."""
    out = []
    for level, norm in enumerate(neck.norms):
        assert isinstance(norm, nn.BatchNorm2d)
        place, pieces = 0, []
        for k in range(len(maps)):
            x = maps[k]
            if (k < level and directions == "deconvolution") or (k > level and directions == "pool"):
                continue
            for step in range(k, level):
                x = pooled(x, neck.strides[step], maps[step + 1].shape[2:])
            for step in reversed(range(level, k)):
                kernel = neck.grow[k][step].weight  # type: ignore[index]
                x = spread(x, kernel, neck.strides[step], maps[step].shape[2:])
            own = slice(place, place := place + x.shape[1])
            mean, var = norm.running_mean[own], norm.running_var[own]  # type: ignore[index]
            if neck.training:
                mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            weight, bias, mean, var = (t[:, None, None] for t in (norm.weight[own], norm.bias[own], mean, var))
            pieces.append((x - mean) / (var + 1e-5).sqrt() * weight + bias)
        out.append(torch.cat(pieces, 1))
    return out


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"directions": "pool"}, {"directions": "deconvolution"}, {"mixing": False}])
def test_the_definition_place_by_place(options: dict[str, Any], training: bool) -> None:
    """Oracle: loops; odd sizes rounded either way, both strides; gradients of all maps and of every parameter."""
    neck, maps = made(**options).train(training), given()
    expected = by_hand(neck, maps, options.get("directions", "both"))
    came = neck(maps)
    seeds = [torch.randn_like(x) for x in expected]
    gradients = []
    for levels in (came, expected):
        assert tuple(x.shape[1] for x in levels) == neck.channels
        assert [x.shape[2:] for x in levels] == [torch.Size(size) for size in SIZES]
        total = torch.stack([(x * seed).sum() for x, seed in zip(levels, seeds, strict=True)]).sum()
        gradients.append(torch.autograd.grad(total, [*maps, *neck.parameters()]))
    for mine, other in zip((*came, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(mine, other)
    assert all(gradient.abs().sum() > 0 for gradient in gradients[0])


def test_the_toy() -> None:
    """Oracle: by hand. [[1, 2], [3, 4]] is pooled to 4, and 4 is enlarged to four of it, before anything is learned."""
    maps = [torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)]
    maps.append(torch.tensor([4.0, 5.0, 6.0]).view(1, 3, 1, 1))
    for mixing in (True, False):
        neck = RainbowNeck((1, 2, 3), mixing=mixing).eval()
        with torch.no_grad():
            fine, middle, coarse = (x * (1 + 1e-5) ** 0.5 for x in neck(maps))  # fresh norms divide by this
        assert neck.channels == (6, 6, 6)
        torch.testing.assert_close(coarse.flatten(), torch.tensor([15.0, 4, 4, 4, 5, 6]))
        torch.testing.assert_close(middle[0, 0], torch.tensor([[5.0, 7], [13, 15]]))
        torch.testing.assert_close(middle[0, 3], torch.full((2, 2), 4.0))
        torch.testing.assert_close(fine[0, 1], torch.tensor([[1.0, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]))
        torch.testing.assert_close(fine[0, 5], torch.full((4, 4), 6.0))


@pytest.mark.parametrize(
    ("directions", "channels"),
    [
        ("both", (2816,) * 6),
        ("pool", (512, 1536, 2048, 2304, 2560, 2816)),
        ("deconvolution", (2816, 2304, 1280, 768, 512, 256)),
    ],
)
def test_channels_of_the_paper(directions: Any, channels: tuple[int, ...]) -> None:
    """Oracle: the paper's figure 3. The heads are those of these channels."""
    with torch.device("meta"):
        model = rssd300(directions=directions)
    assert model.neck.channels == channels == tuple(model.heads.channels)
    assert model.map_sizes() == [(n, n) for n in (38, 19, 10, 5, 3, 1)]
    heads = sum((9 * c + 1) * 25 * n for c, n in zip(channels, (4, 6, 6, 6, 4, 4), strict=True))
    assert sum(p.numel() for p in model.heads.parameters()) == heads


def test_boxes_and_parameters() -> None:
    """Oracle: by hand. Six boxes everywhere let one head serve six maps, with a fifth of the parameters."""
    with torch.device("meta"):
        own, shared = rssd300(), rssd300(shared=True)
    places = [n * n for n in (38, 19, 10, 5, 3, 1)]
    boxes = (4, 6, 6, 6, 4, 4)
    assert len(own.anchors()) == sum(n * k for n, k in zip(places, boxes, strict=True)) == 8732
    assert len(shared.anchors()) == 6 * sum(places) == 11_640
    counts = [sum(p.numel() for p in model.heads.parameters()) for model in (own, shared)]
    assert counts == [(9 * 2816 + 1) * 25 * sum(boxes), (9 * 2816 + 1) * 25 * 6]
    assert counts == [19_008_750, 3_801_750]
    windows = (4, 4, 4, 9, 9)  # of the steps 38 <- 19 <- 10 <- 5 <- 3 <- 1
    deconvolutions = sum(c * c * sum(windows[:k]) for k, c in enumerate(CHANNELS))
    assert sum(p.numel() for p in own.neck.parameters()) == deconvolutions + 6 * 2 * 2816
    with pytest.raises(ValueError, match="shared heads need equal channels"), torch.device("meta"):
        rssd300(shared=True, directions="pool")


def test_at_paper_scale() -> None:
    """Oracle: one row for every anchor; finite, and not the same everywhere."""
    torch.manual_seed(0)
    model = rssd300(shared=True).eval()
    with torch.no_grad():
        out = model(50 * torch.randn(1, 3, 300, 300))
    assert out["logits"].shape == (1, 11_640, 21)
    assert out["offsets"].shape == (1, 11_640, 4)
    assert all(x.isfinite().all() and x.std() > 1e-3 for x in out.values())


@pytest.mark.parametrize(
    ("sizes", "strides"),
    [
        (((24, 24), (12, 12), (6, 6), (3, 3)), 2),
        (((25, 31), (13, 16), (7, 8), (4, 4)), 2),
        (((25, 31), (12, 15), (6, 7), (3, 3)), 2),
        (((1, 2), (1, 1), (1, 1), (1, 1)), 2),
        (((9, 7), (7, 5), (5, 3), (3, 1)), 1),
    ],
)
def test_any_size_of_map(sizes: tuple[tuple[int, int], ...], strides: int) -> None:
    """Law: maps keep their sizes, and every map is seen at every level, whichever way odd sizes were rounded."""
    neck = made((2, 2, 2, 2), strides=strides).eval()
    maps = given(sizes, (2, 2, 2, 2), batch=1)
    for level, x in enumerate(neck(maps)):
        assert x.shape == (1, 8, *sizes[level])
        gradients = torch.autograd.grad(x.square().sum(), maps, retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_mixing_is_inside_a_map() -> None:
    """Law: a channel of a map reaches its own channel of a level only, unless its deconvolution mixes the map's."""
    for mixing, reached in ((False, [6]), (True, [5, 6, 7, 8])):
        neck, maps = made(mixing=mixing).eval(), [x.detach() for x in given(batch=1)]
        other = [x.clone() for x in maps]
        other[2][:, 1] += 1
        changed = (neck(other)[0] - neck(maps)[0]).abs().sum((0, 2, 3))
        assert changed.nonzero().flatten().tolist() == reached


def test_batched_is_single() -> None:
    """Law: with the norms' kept statistics no picture of a batch has a part in another's levels."""
    neck, maps = made().eval(), given()
    with torch.no_grad():
        each = [neck([x[n : n + 1] for x in maps]) for n in range(3)]
        for whole, *parts in zip(neck(maps), *each, strict=True):
            torch.testing.assert_close(whole, torch.cat(parts))


def test_precisions() -> None:
    """Oracle: float64, to the digits that float32 and, under autocast, bfloat16 have."""
    neck, maps = made().eval(), [x.detach() for x in given()]
    with torch.no_grad():
        exact = neck(maps)
        single = neck.float()([x.float() for x in maps])
        with torch.autocast("cpu", torch.bfloat16):
            mixed = neck([x.float() for x in maps])
    for a, b, c in zip(exact, single, mixed, strict=True):
        assert (a.dtype, b.dtype) == (torch.float64, torch.float32)
        torch.testing.assert_close(b.double(), a, rtol=1e-4, atol=1e-4)
        assert (c.double() - a).abs().mean() < 0.02 * a.abs().mean()


def test_wrong_arguments_and_maps_are_named() -> None:
    for options, message in (
        ({"channels": (2, 0)}, "channels must be at least 1, got 0"),
        ({"channels": ()}, "strides must be .* 0 maps"),
        (
            {"channels": (2, 2), "directions": "up"},
            "directions must be one of 'both', 'pool', 'deconvolution', got 'up'",
        ),
        ({"channels": (2, 2), "strides": 3}, "strides must be 1 or 2 for each step between 2 maps of channels, got 3"),
        ({"channels": (2, 2), "strides": (2, 2)}, r"between 2 maps of channels, got \(2, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            RainbowNeck(**options)
    neck = RainbowNeck((2, 2))
    for shapes, message in (
        (((1, 2, 4, 4), (1, 3, 2, 2)), r"maps must be \(N, C, h, w\) with \(2, 2\) channels, got \(2, 3\)"),
        (((1, 2, 4, 4),), r"channels, got \(2,\)"),
        (((2, 4, 4), (2, 2, 2)), r"channels, got \(None, None\)"),
        (((1, 2, 4, 4), (1, 2, 4, 4)), r"by the strides \(2,\), got sizes \[\(4, 4\), \(4, 4\)\]"),
    ):
        with pytest.raises(ValueError, match=message):
            neck([torch.zeros(shape) for shape in shapes])


@pytest.mark.gpu
@pytest.mark.parametrize("mixing", [True, False])
def test_on_a_gpu(mixing: bool) -> None:
    """Oracle: the CPU, gradients too, in float64."""
    neck, results = made(mixing=mixing), []
    for device in ("cpu", "cuda"):
        net, maps = neck.to(device), [x.detach().to(device).requires_grad_() for x in given()]
        levels = net(maps)
        gradients = torch.autograd.grad(
            torch.stack([y.square().sum() for y in levels]).sum(), [*maps, *net.parameters()]
        )
        results.append([one.detach().cpu() for one in (*levels, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-7, atol=1e-7)
