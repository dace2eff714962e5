"""DSSD. Oracles: torch's functions called one by one, the definitions of the paper, and laws."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.resnet import FrozenBatchNorm
from course_lib.detection.anchors import Level
from course_lib.detection.families.ssd.dssd import (
    DECONVOLUTIONS_321,
    DECONVOLUTIONS_513,
    Chain,
    DeconvolutionModule,
    DeconvolutionNeck,
    PredictionModule,
    PredictionNeck,
    dssd321,
    dssd513,
)
from course_lib.detection.families.ssd.heads import Heads
from course_lib.detection.families.ssd.resnet_body import ResNetBody
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.prediction import PLAIN
from tests.unit.test_resnet import drawn, normed, picture

CHANNELS = (6, 8, 5)


def across_by_hand(state: dict[str, Tensor], shallow: Tensor) -> Tensor:
    y = F.conv2d(shallow, state["across.0.weight"], padding=1)
    y = normed(y, state, "across.1", 1e-3).clamp_min(0)
    return normed(F.conv2d(y, state["across.3.weight"], padding=1), state, "across.4", 1e-3)


def module_by_hand(state: dict[str, Tensor], shallow: Tensor, deep: Tensor, stride: int, combine: str) -> Tensor:
    """The paper's figure 3; the size is mended by looking rows and columns up, the last ones again where need be."""
    up = F.conv_transpose2d(deep, state["up.weight"], state["up.bias"], stride=stride)
    rows, columns = (torch.arange(n).clamp(max=m - 1) for n, m in zip(shallow.shape[2:], up.shape[2:], strict=True))
    above = F.conv2d(up[:, :, rows][..., columns], state["above.0.weight"], padding=1)
    above, across = normed(above, state, "above.1", 1e-3), across_by_hand(state, shallow)
    return (above * across if combine == "product" else above + across).clamp_min(0)


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize(
    ("kernel", "stride", "deep", "shallow"),
    [
        (2, 2, (3, 4), (6, 8)),
        (2, 2, (3, 4), (5, 7)),
        (2, 2, (3, 4), (7, 9)),
        (2, 2, (2, 2), (9, 3)),
        (3, 1, (1, 3), (3, 5)),
        (2, 1, (1, 1), (2, 2)),
        (3, 2, (2, 1), (1, 1)),
    ],
)
def test_a_deconvolution_module(
    combine: Any, kernel: int, stride: int, deep: tuple[int, int], shallow: tuple[int, int]
) -> None:
    """Oracle: `module_by_hand`, values and gradients, where the way up fits, gives too much, and gives too little."""
    module = drawn(lambda: DeconvolutionModule(6, 5, 4, kernel, stride, combine))
    fine, coarse = picture(2, 6, *shallow).requires_grad_(), picture(2, 5, *deep, seed=2).requires_grad_()
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    ours, theirs = module(fine, coarse), module_by_hand(state, fine, coarse, stride, combine)
    assert ours.shape == (2, 4, *shallow)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    wanted = [fine, coarse, *module.parameters()]
    cotangent = picture(*ours.shape, seed=3)
    for one, other in zip(*(torch.autograd.grad(y, wanted, cotangent) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_a_product_is_a_gate() -> None:
    """Oracle: by hand: E = (1, 0, 2) and D = (3, 5, 0.5) give (3, 0, 1), their sum (4, 5, 2.5)."""
    came = {}
    for combine in ("product", "sum"):
        module = DeconvolutionModule(1, 1, 1, 1, 1, combine).eval()
        module.above = module.across = nn.Identity()  # type: ignore[assignment]
        nn.init.ones_(module.up.weight)
        nn.init.zeros_(module.up.bias)  # type: ignore[arg-type]
        shallow, deep = (torch.tensor(values).view(1, 1, 1, 3) for values in ([1, 0, 2.0], [3, 5, 0.5]))
        came[combine] = module(shallow, deep).flatten().tolist()
    assert came == {"product": [3, 0, 1], "sum": [4, 5, 2.5]}


def test_the_ways_up_fit_the_maps() -> None:
    """Oracle: a transposed convolution gives (h - 1) stride + kernel; sizes of the released networks' maps."""
    for steps, sizes in ((DECONVOLUTIONS_321, [1, 3, 5, 10, 20, 40]), (DECONVOLUTIONS_513, [2**k for k in range(7)])):
        walked = [1]
        for kernel, stride in reversed(steps):
            walked.append((walked[-1] - 1) * stride + kernel)
        assert walked == sizes


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_the_neck_goes_down_its_levels(combine: Any) -> None:
    """Oracle: the modules by hand, each with the result of the one before it; the last map stays as it is."""
    neck = drawn(lambda: DeconvolutionNeck(CHANNELS, 4, combine, ((2, 2), (3, 1))))
    maps = [picture(2, n, *size, seed=n) for n, size in zip(CHANNELS, ((9, 12), (4, 6), (2, 4)), strict=True)]
    came = neck(maps)
    states = [level.state_dict() for level in neck.levels]
    middle = module_by_hand(states[1], maps[1], maps[2], 1, combine)
    finest = module_by_hand(states[0], maps[0], middle, 2, combine)
    assert neck.channels == (4, 4, 5)
    assert came[2] is maps[2]
    for one, other in zip(came, (finest, middle), strict=False):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("variant", "channels", "projections"), [("a", 6, 0), ("b", 6, 0), ("c", 9, 1), ("d", 9, 2)])
def test_prediction_modules(variant: Any, channels: int, projections: int) -> None:
    """Oracle: the paper's figure 4: how many blocks, which skips, how many channels."""
    module = drawn(lambda: PredictionModule(6, variant, middle=3, after=9))
    x = picture(1, 6, 3, 5)
    assert module.channels == channels
    assert module(x).shape == (1, channels, 3, 5)
    assert [name for name, _ in module.named_modules() if name.endswith("downsample")] == [
        f"{k}.downsample" for k in range(projections)
    ]
    if variant == "a":
        assert module(x) is x
    for block in module:
        nn.init.zeros_(block.bn3.weight)
        nn.init.zeros_(block.bn3.bias)
    if variant == "b":
        assert torch.equal(module(x), x.clamp_min(0))
    if variant in "cd":  # nothing but the skips is left
        torch.testing.assert_close(module(x), skips(module, x), rtol=0, atol=1e-12)


def skips(module: nn.Sequential, x: Tensor) -> Tensor:
    for block in module:
        state = block.state_dict()
        x = F.conv2d(x, state["downsample.0.weight"])
        x = normed(x, state, "downsample.1", 1e-3).clamp_min(0)
    return x


def made(norm: Callable[..., nn.Module] = nn.BatchNorm2d, combine: Any = "product", decoder: bool = True) -> SSD:
    """A small (D)SSD321: every part of it, for pictures of 65 x 97 and larger."""
    body = ResNetBody(((2, 2), (3, 1)), (1, 2, 1, 1), 4, middle=3, after=10, norm=norm)
    neck: Any = PredictionNeck(body.channels, middle=3, after=8)
    if decoder:
        back = DeconvolutionNeck(body.channels, 6, combine, ((2, 2), (2, 2), (3, 1)))
        neck = Chain(back, PredictionNeck(back.channels, middle=3, after=8))
    levels = [Level(small, 2.0 * small, (1.6, 2.0)) for small in (8, 16, 32, 64)]
    heads = Heads(neck.channels, [6] * 4, 5, kernels=(5, 5, 3, 3))
    return SSD(body, neck, heads, levels, (97, 129), PLAIN)


def seeing(**options: Any) -> SSD:
    """`made`, float64, in eval mode, whose norms have the statistics of two pictures, so that no map grows or fades."""
    model: SSD = drawn(lambda: made(**options)).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(picture(2, 3, 129, 129, seed=5))
    return model.eval()


@pytest.mark.parametrize("size", [(97, 129), (129, 97), (101, 140), (200, 113)])
def test_any_picture_size(size: tuple[int, int]) -> None:
    """Oracle: the body's maps; the decoder gives each of them a map of its size."""
    model = seeing()
    images = picture(1, 3, *size)
    sizes = [tuple(x.shape[2:]) for x in model.body(images)]
    assert [tuple(x.shape[2:]) for x in model.neck(model.body(images))] == sizes == model.map_sizes(size)
    outputs = model(images)
    assert outputs["offsets"].shape[1] == outputs["logits"].shape[1] == len(model.anchors(size))
    centres = model.anchors(size)[:, :2]
    assert 0 < float(centres.min()) <= float(centres.max()) < 1


def test_a_batch_is_its_pictures() -> None:
    model = seeing()
    images = picture(3, 3, 97, 105)
    whole, single = model(images), [model(one[None]) for one in images]
    for name, output in whole.items():
        assert output.dtype == torch.float64
        torch.testing.assert_close(output, torch.cat([one[name] for one in single]), rtol=0, atol=1e-11)
        assert not torch.allclose(output[0], output[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("combine", ["product", "sum"])
def test_every_parameter_learns(combine: Any) -> None:
    """In training mode, from new weights, a batch of two; the gradient of a sum of squares."""
    torch.manual_seed(0)
    model = made(combine=combine).train()
    outputs = model(picture(2, 3, 129, 97).float())
    sum(output.square().mean() for output in outputs.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_mixed_precision() -> None:
    """Oracle: the neck's maps in float32, to the 8 bits of bfloat16; the whole network keeps its kind of number."""
    model = seeing().float()
    images = picture(2, 3, 97, 101).float()
    with torch.no_grad():
        maps = model.body(images)
        expected = model.neck(maps)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.neck(maps)
            whole = model(images)
        model.bfloat16()
        half = model.neck([x.bfloat16() for x in maps])
        outputs = [*model(images.bfloat16()).values(), *whole.values()]
    assert all(output.dtype == torch.bfloat16 and output.isfinite().all() for output in outputs)
    for k, wanted in enumerate(expected):
        for came in (mixed[k], half[k]):
            error = (came.float() - wanted).abs().mean() / wanted.std()
            assert error < 0.03, (k, float(error))


def test_the_two_trainings() -> None:
    """Oracle: the recipe in the module's docstring: the SSD's body is DSSD's, and a step leaves all of it as it was."""
    ssd = seeing(decoder=False).float()
    model = made(norm=FrozenBatchNorm)
    model.body.load_state_dict(ssd.body.state_dict())
    model.body.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    images = picture(2, 3, 97, 129).float()
    maps = ssd.body(images)
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    sum(output.square().mean() for output in model(images).values()).backward()
    optimiser.step()
    for one, other in zip(model.body(images), maps, strict=True):
        torch.testing.assert_close(one, other)
    for name, value in model.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved != name.startswith("body."), name
    model.body.requires_grad_(True)
    sum(output.square().mean() for output in model(images).values()).backward()
    assert all(p.grad is not None for p in model.body.parameters())


@pytest.mark.parametrize(("network", "outside", "part"), [(dssd321, 2, 14_144 / 17_080), (dssd513, 3, None)])
def test_anchors_are_in_the_picture_but_for_the_official_ones(network: Any, outside: int, part: float | None) -> None:
    """Oracle: centres are (i + 0.5) / f_k; the released code's (i + offset) step / side. Of these, the ones of map
    `outside` and of all coarser ones are not in the picture; 83 of 100 are in all, counted by hand for 321."""
    with torch.device("meta"):
        model, official = network(), network(official=True)
    maps = model.map_sizes()
    rows = [8 * h * w for h, w in maps]
    ours, theirs = model.anchors(device="cpu"), official.anchors(device="cpu")
    inside = ((theirs[:, :2] > 0) & (theirs[:, :2] < 1)).all(-1)
    assert torch.equal(ours[:, 2:], theirs[:, 2:])
    assert part is None or float(inside.double().mean()) == part
    for level, (own, found) in enumerate(zip(ours.split(rows), inside.split(rows), strict=True)):
        even = (torch.arange(maps[level][0]) + 0.5) / maps[level][0]
        torch.testing.assert_close(own[:, 0].unique(), even, rtol=0, atol=1e-6)
        assert bool(found.any()) == (level < outside)


def test_wrong_arguments_are_named() -> None:
    neck = DeconvolutionNeck(CHANNELS, 4)
    maps = [torch.zeros(1, n, 4, 4) for n in CHANNELS]
    with pytest.raises(ValueError, match="maps must be 3, got 2"):
        neck(maps[:2])
    with pytest.raises(ValueError, match="maps must be 3, got 4"):
        PredictionNeck(CHANNELS, "b", middle=2)([*maps, maps[0]])
    with pytest.raises(ValueError, match="images must be large enough for extra 1, got 64 x 90"):
        made().body(torch.zeros(1, 3, 64, 90))
    with pytest.raises(ValueError, match="picture must be large enough for all maps, got 64 x 90"):
        made()(torch.zeros(1, 3, 64, 90))
    wrong: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: DeconvolutionNeck((4,)), ValueError, r"channels must be those of two maps or more, got \(4,\)"),
        (lambda: DeconvolutionNeck((4, 0)), ValueError, "channels must be at least 1, got 0"),
        (lambda: DeconvolutionNeck(CHANNELS, 0), ValueError, "width must be at least 1, got 0"),
        (lambda: DeconvolutionNeck(CHANNELS, 4, "max"), ValueError, "combine must be one of 'product', 'sum', got"),  # type: ignore[arg-type]
        (lambda: DeconvolutionNeck(CHANNELS, 4, deconvolutions=((2, 2),)), ValueError, "deconvolutions must be 2, one"),
        (lambda: DeconvolutionNeck((4, 4), 4, deconvolutions=((2, 0),)), ValueError, "deconvolutions must be at least"),
        (lambda: PredictionModule(4, "e"), ValueError, "variant must be one of 'a', 'b', 'c', 'd', got 'e'"),  # type: ignore[arg-type]
        (lambda: PredictionModule(0), ValueError, "before must be at least 1, got 0"),
        (lambda: PredictionModule(4, after=0), ValueError, "after must be at least 1, got 0"),
        (lambda: ResNetBody(sources=("res5c",)), ValueError, "sources: 'res5c' is no layer; they are conv1"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, in float64."""
    model = seeing()
    images = picture(2, 3, 97, 130)
    expected = model(images)
    came = model.cuda()(images.cuda())
    for name, output in expected.items():
        assert came[name].is_cuda
        torch.testing.assert_close(came[name].cpu(), output, rtol=0, atol=1e-9)
