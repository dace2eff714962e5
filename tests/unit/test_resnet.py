"""ResNets. Oracles: torch's functions called one by one, and names, counts and sizes of published networks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.resnet import RESNET50, RESNET101, Bottleneck, FrozenBatchNorm, ResNet

SMALL: dict[str, Any] = {"blocks": (2, 1, 2), "width": 4}
FORMS: dict[str, dict[str, Any]] = {
    "torch": {},
    "caffe": {"caffe": True},
    "caffe, dilated": {"caffe": True, "dilated": (2, 2), "eps": 1e-3},
    "torch, dilated": {"dilated": (1, 2)},
}


def drawn(made: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A float64 network whose norms have seen something, so that no statistic is 0 or 1; in eval mode."""
    torch.manual_seed(seed)
    network = made().double().eval()
    for name, tensor in network.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var") or (name.endswith("weight") and tensor.dim() == 1):
            tensor.uniform_(0.5, 1.5)
    return network


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x: Tensor, state: dict[str, Tensor], name: str, eps: float) -> Tensor:
    mean, var, weight, bias = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + eps).sqrt() * weight + bias


def block_by_hand(
    state: dict[str, Tensor], x: Tensor, first: tuple[int, int], second: tuple[int, int], eps: float
) -> Tensor:
    """A bottleneck. first: padding-free stride and nothing else of its first convolution; second: stride, dilation."""
    (entry, skip_stride), (stride, dilation) = first, second
    y = F.conv2d(x, state["conv1.weight"], stride=entry)
    y = normed(y, state, "bn1", eps).clamp_min(0)
    y = F.conv2d(y, state["conv2.weight"], stride=stride, padding=dilation, dilation=dilation)
    y = normed(y, state, "bn2", eps).clamp_min(0)
    y = normed(F.conv2d(y, state["conv3.weight"]), state, "bn3", eps)
    if "downsample.0.weight" in state:
        x = normed(F.conv2d(x, state["downsample.0.weight"], stride=skip_stride), state, "downsample.1", eps)
    return (x + y).clamp_min(0)


def by_hand(state: dict[str, Tensor], x: Tensor, form: dict[str, Any]) -> list[Tensor]:
    """SMALL, one call a layer, nothing overwritten."""
    eps, caffe, dilated = form.get("eps", 1e-5), form.get("caffe", False), form.get("dilated")
    x = normed(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), state, "bn1", eps).clamp_min(0)
    maps = [x]
    x = F.max_pool2d(x, 3, 2, ceil_mode=True) if caffe else F.max_pool2d(x, 3, 2, padding=1)
    maps.append(x)
    for number, count in enumerate(SMALL["blocks"], 1):
        last = number == len(SMALL["blocks"])
        for block in range(count):
            stride = 2 if number > 1 and block == 0 and not (last and dilated) else 1
            dilation = dilated[min(block, 1)] if last and dilated else 1
            prefix = f"layer{number}.{block}."
            own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            strides = (stride, 1) if caffe else (1, stride)
            x = block_by_hand(own, x, (strides[0], stride), (strides[1], dilation), eps)
        maps.append(x)
    return maps


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_layer_and_gradient_is_the_one_by_hand(form: dict[str, Any]) -> None:
    """Oracle: `by_hand`, in float64. The pool meets a map of 23 x 18: an even side is where rounding up counts."""
    network = drawn(lambda: ResNet(**SMALL, **form))
    x = picture(2, 3, 45, 36)
    maps = network.maps(x, network.names)
    state = dict(network.named_parameters()) | dict(network.named_buffers())
    expected = by_hand(state, x, form)
    assert network.names == ("conv1", "pool1", "layer1", "layer2", "layer3")
    cotangents = [picture(*one.shape, seed=k) for k, one in enumerate(maps)]
    parameters = list(network.parameters())
    ours, theirs = (torch.autograd.grad(found, parameters, cotangents) for found in (maps, expected))
    for one, other in zip([*maps, *ours], [*expected, *theirs], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)
    assert all(gradient.abs().max() > 0 for gradient in ours)
    assert torch.equal(network(x), maps[-1])


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (1, 2), (2, 2), (3, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_entry_of_a_bottleneck(kernel: int, stride: int, dilation: int) -> None:
    """Oracle: `block_by_hand`; both branches have the same kernel and stride, without padding."""
    block = drawn(lambda: Bottleneck(5, 3, 7, dilation=dilation, entry=(kernel, stride), eps=1e-3))
    x = picture(2, 5, 9, 6)
    expected = block_by_hand(block.state_dict(), x, (stride, stride), (1, dilation), 1e-3)
    assert expected.shape[2:] == tuple((n - kernel) // stride + 1 for n in (9, 6))
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


def test_which_skips_are_convolutions() -> None:
    """Oracle: the definition; with no branch left (conv3's norm gives 0), an identity skip gives relu(x)."""
    assert Bottleneck(8, 2, 8).downsample is None
    for projecting in (Bottleneck(8, 2, 9), Bottleneck(8, 2, 8, stride=2), Bottleneck(8, 2, 8, project=True)):
        assert projecting.downsample is not None
    block = drawn(lambda: Bottleneck(8, 2, 8))
    nn.init.zeros_(block.bn3.weight)
    nn.init.zeros_(block.bn3.bias)
    x = picture(1, 8, 3, 3)
    assert torch.equal(block(x), x.clamp_min(0))
    with pytest.raises(ValueError, match="project must not be False where the shape changes: 8 to 9 channels"):
        Bottleneck(8, 2, 9, project=False)


@pytest.mark.parametrize(
    ("blocks", "parameters", "tensors"), [(RESNET50, 23_508_032, 318), (RESNET101, 42_500_160, 624)]
)
def test_published_sizes(blocks: tuple[int, ...], parameters: int, tensors: int) -> None:
    """Oracle: counts of torchvision's files without fc (25,557,032 numbers and 320 tensors with it for ResNet-50), and
    the sizes of He et al. (2016), table 1, at 224."""
    with torch.device("meta"):
        network, caffe = ResNet(blocks), ResNet(blocks, caffe=True, dilated=(2, 2))
        x, larger = torch.empty(1, 3, 224, 224), torch.empty(1, 3, 321, 321)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert blocks != RESNET50 or parameters + 1000 * 2048 + 1000 == 25_557_032
    state = network.state_dict()
    assert len(state) == tensors
    assert {key: value.shape for key, value in state.items()} == {k: v.shape for k, v in caffe.state_dict().items()}
    shapes = [tuple(one.shape[1:]) for one in network.maps(x, network.names)]
    assert shapes == [(64, 112, 112), (64, 56, 56), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert [shape[0] for shape in shapes] == list(network.channels.values())
    sizes = [tuple(one.shape[2:]) for one in caffe.maps(larger, caffe.names)]
    assert sizes == [(161, 161), (80, 80), (80, 80), (40, 40), (20, 20), (20, 20)]


def test_the_names_of_torchvision() -> None:
    """Oracle: names and shapes in its published resnet50, typed by hand."""
    with torch.device("meta"):
        state = ResNet().state_dict()
    there = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.num_batches_tracked": (),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.bias": (1024,),
        "layer4.0.downsample.0.weight": (2048, 1024, 1, 1),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in there} == there
    assert "layer1.1.downsample.0.weight" not in state


def test_frozen_norms() -> None:
    """Oracle: BatchNorm2d in eval mode, with its weights, whose count of batches is passed over; training or not."""
    loose = drawn(lambda: ResNet(**SMALL, eps=1e-3))
    frozen = ResNet(**SMALL, eps=1e-3, norm=FrozenBatchNorm).double()
    frozen.load_state_dict(loose.state_dict())
    before = {key: value.clone() for key, value in frozen.state_dict().items()}
    x = picture(2, 3, 33, 40)
    assert torch.equal(frozen.train()(x), loose(x))
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    assert all(parameter.dim() == 4 for parameter in frozen.parameters())
    assert not torch.equal(loose.train()(x), frozen(x))
    one = FrozenBatchNorm(3)
    torch.testing.assert_close(one(x.float()), x.float(), rtol=2e-5, atol=0)


def test_a_batch_is_its_pictures() -> None:
    network = drawn(lambda: ResNet(**SMALL))
    x = picture(3, 3, 37, 50)
    torch.testing.assert_close(network(x), torch.cat([network(one[None]) for one in x]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm])
def test_other_numbers(norm: Any) -> None:
    """Oracle: float32's result, to the 8 bits of bfloat16: under autocast, and in half precision."""
    network = drawn(lambda: ResNet(**SMALL, norm=norm)).float()
    x = picture(2, 3, 40, 40).float()
    with torch.no_grad():
        expected = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = network(x)
        half = network.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    for came in (mixed, half):
        torch.testing.assert_close(came.float(), expected, rtol=0, atol=0.1 * float(expected.std()))


def test_layers_behind_the_deepest_do_not_run() -> None:
    network = drawn(lambda: ResNet(**SMALL))
    network.layer3 = None
    deep, fine = network.maps(picture(1, 3, 40, 40), ["layer2", "conv1"])
    assert (deep.shape[2:], fine.shape[2:]) == ((5, 5), (20, 20))


def test_wrong_arguments_are_named() -> None:
    network = ResNet(**SMALL, caffe=True)
    x = torch.zeros(1, 3, 32, 32)
    for arguments, error, message in [
        ((x[0], ["layer1"]), ValueError, r"picture must be \(B, 3, H, W\) with H, W >= 1, got \(3, 32, 32\)"),
        ((x[:, :1], ["layer1"]), ValueError, r"picture must be .* got \(1, 1, 32, 32\)"),
        ((x.byte(), ["layer1"]), TypeError, "picture must be a floating point torch.Tensor, got torch.uint8"),
        ((None, ["layer1"]), TypeError, "picture must be a floating point torch.Tensor, got NoneType"),
        ((x[..., :2], ["layer1"]), ValueError, "picture must be at least 3 x 3 .* got 32 x 2"),
        ((x, "layer1"), TypeError, "names must be a list"),
        ((x, []), TypeError, "names must be a list"),
        ((x, ["layer4"]), ValueError, "names: 'layer4' is no layer; they are conv1, pool1, layer1, layer2, layer3"),
    ]:
        with pytest.raises(error, match=message):
            network.maps(*arguments)  # type: ignore[arg-type]
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"blocks": ()}, TypeError, r"blocks must be a list of numbers such as RESNET50, got \(\)"),
        ({"blocks": "34"}, TypeError, "blocks must be a list"),
        ({"blocks": (1, 0)}, ValueError, "blocks must be at least 1, got 0"),
        ({"width": 2.5}, TypeError, "width must be a whole number, got 2.5"),
        ({"dilated": (0, 1)}, ValueError, "dilation must be at least 1, got 0"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            ResNet(**{**SMALL, **options})
    with pytest.raises(ValueError, match="entry's stride must be at least 1, got 0"):
        Bottleneck(3, 2, 3, entry=(1, 0))


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, in float64."""
    network = drawn(lambda: ResNet(**SMALL, dilated=(2, 2)))
    x = picture(2, 3, 40, 33)
    expected = network(x)
    came = network.cuda()(x.cuda())
    assert came.is_cuda
    torch.testing.assert_close(came.cpu(), expected, rtol=0, atol=1e-10)
