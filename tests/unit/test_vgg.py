"""VGG's convolutions. Oracles: torch's functions called one by one, numbers and counts of published files."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.vgg import MEAN, STD, VGG, VGG16, VGG19

SMALL = ((3, 2), (4, 1), (5, 3))
MAPS = [
    *["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1", "pool2"],
    *["conv3_1", "relu3_1", "conv3_2", "relu3_2", "conv3_3", "relu3_3", "pool3"],
]
IN_SSD = {"pool3": nn.MaxPool2d(2, ceil_mode=True), "pool5": nn.MaxPool2d(3, stride=1, padding=1)}


def made(**options: Any) -> VGG:
    """A small stack whose biases are not 0, so that they count."""
    torch.manual_seed(0)
    stack = VGG(**({"stages": SMALL} | options)).double()
    for layer in stack.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.bias, std=0.1)  # type: ignore[arg-type]
    return stack


def by_hand(state: dict[str, Tensor], picture: Tensor) -> dict[str, Tensor]:
    """SMALL, one call a layer, nothing overwritten."""
    shift, divide = (torch.tensor(v, dtype=picture.dtype, device=picture.device).view(3, 1, 1) for v in (MEAN, STD))
    x = (picture - shift) / divide
    maps = {}
    for number, name in enumerate(MAPS):
        if name.startswith("conv"):
            x = F.conv2d(x, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1)
        else:
            x = torch.relu(x) if name.startswith("relu") else F.max_pool2d(x, 2)
        maps[name] = x
    return maps


def convolutions(stack: VGG) -> dict[str, int]:
    """{name: number} of the convolutions."""
    return {name: number for number, name in enumerate(stack.names) if name.startswith("conv")}


def test_the_numbers_of_torchvision() -> None:
    """Oracle: the numbers in published files of VGG19 and VGG16 (those of SSD's body are the latter), typed by hand."""
    with torch.device("meta"):
        vgg16, vgg19 = VGG(VGG16), VGG(VGG19)
    assert list(convolutions(vgg19).values()) == [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
    assert list(convolutions(vgg16).values()) == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    found = convolutions(vgg19)
    assert [found[name] for name in ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1")] == [0, 2, 5, 7, 10]
    assert vgg19.names.index("relu5_1") == 29
    assert (len(vgg19.names), len(vgg16.names)) == (37, 31)
    assert vgg19.names[18] == "pool3"
    assert vgg19.names[-2:] == ("relu5_4", "pool5")
    for stack in (vgg16, vgg19):
        expected = [
            f"features.{number}.{kind}" for number in convolutions(stack).values() for kind in ("weight", "bias")
        ]
        assert list(stack.state_dict()) == expected


def test_parameters() -> None:
    """Oracle: what the published networks have in all, less their three linear layers counted by hand."""
    linear = (512 * 49 + 1) * 4096 + 4097 * 4096 + 4097 * 1000
    with torch.device("meta"):
        counts = [sum(p.numel() for p in VGG(stages).parameters()) for stages in (VGG16, VGG19)]
    assert counts == [138_357_544 - linear, 143_667_240 - linear]


def test_layer_by_layer() -> None:
    """Oracle: torch.nn.functional, one call a layer; every map, pictures that are neither square nor even."""
    stack, picture = made(), torch.rand(2, 3, 13, 18, dtype=torch.float64)
    expected = by_hand(stack.state_dict(), picture)
    assert stack.names == tuple(MAPS)
    for came, name in zip(stack.maps(picture, MAPS), MAPS, strict=True):
        torch.testing.assert_close(came, expected[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(stack(picture), expected["pool3"], rtol=1e-12, atol=1e-12)
    assert stack(picture).shape == (2, 5, 1, 2)
    assert (expected["conv2_1"] < 0).any()  # so that a ReLU that overwrote it would show


@pytest.mark.parametrize("names", [["relu3_1"], ["conv3_3", "relu1_2"], MAPS])
def test_gradients(names: list[str]) -> None:
    """Oracle: autograd through the layers written one by one, for the picture and every parameter; gradcheck."""
    stack = made()
    picture = torch.rand(2, 3, 9, 10, dtype=torch.float64, requires_grad=True)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in stack.named_parameters()}
    mine, maps = stack.maps(picture, names), by_hand(parameters, picture)
    theirs = [maps[name] for name in names]
    seeds = [torch.randn_like(one) for one in mine]
    came, expected = (
        torch.autograd.grad(
            torch.stack([(one * seed).sum() for one, seed in zip(results, seeds, strict=True)]).sum(),
            [picture, *weights],
            allow_unused=True,
        )
        for results, weights in ((mine, stack.parameters()), (theirs, parameters.values()))
    )
    deepest = max(MAPS.index(name) for name in names)
    for weight, one, other in zip(["picture", *parameters], came, expected, strict=True):
        assert (one is None) == (other is None) == (weight != "picture" and int(weight.split(".")[1]) > deepest)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
            assert one.abs().max() > 0
    assert torch.autograd.gradcheck(made(last="relu2_1"), picture[:1, :, :4, :4], fast_mode=True)


def test_maps_in_the_order_asked_for_and_nothing_behind_them() -> None:
    """Oracle: hooks count what runs."""
    stack, picture = made(), torch.rand(1, 3, 8, 8, dtype=torch.float64)
    ran = []
    for name, layer in zip(stack.names, stack.features, strict=True):
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    late, early, again = stack.maps(picture, ["conv2_1", "relu1_1", "conv2_1"])
    assert ran == MAPS[:6]
    torch.testing.assert_close(late, again, rtol=0, atol=0)
    assert (early.shape[1], late.shape[1]) == (3, 4)


def test_the_picture_stays_as_it_was() -> None:
    picture = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    before = picture.clone()
    for normalise in (True, False):
        made(normalise=normalise)(picture)
        assert torch.equal(picture, before)


def test_a_stack_ends_where_it_is_told() -> None:
    """Law: the same weights up to there, and the same map."""
    whole, picture = made(), torch.rand(1, 3, 8, 9, dtype=torch.float64)
    for name in MAPS:
        part = made(last=name)
        part.load_published(whole.state_dict())
        assert part.names[-1] == name
        torch.testing.assert_close(part(picture), whole.maps(picture, [name])[0], rtol=0, atol=0)


def test_normalise() -> None:
    """Law: a stack that does not is given (x - mean) / std; the numbers are those of ImageNet, typed by hand."""
    picture = torch.rand(2, 3, 8, 9, dtype=torch.float64)
    shift, divide = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (MEAN, STD))
    assert (*MEAN, *STD) == (0.485, 0.456, 0.406, 0.229, 0.224, 0.225)
    torch.testing.assert_close(made(normalise=False)((picture - shift) / divide), made()(picture), rtol=0, atol=1e-12)


def test_other_pools() -> None:
    """Oracle: the sizes of SSD300's sources, 38 after the fourth stage and 19 before and behind the last pool, where
    plain pools give 37, 18 and 9; and torch's own pooling."""
    narrow = [(1, count) for _, count in VGG16]
    stack, plain = VGG(narrow, pools=IN_SSD), VGG(narrow)
    names = ["relu4_3", "relu5_3", "pool5"]
    with torch.no_grad():
        sizes = [[one.shape[-1] for one in net.maps(torch.rand(1, 3, 300, 300), names)] for net in (stack, plain)]
        before, after = stack.maps(torch.rand(1, 3, 300, 280), ["relu5_3", "pool5"])
    assert sizes == [[38, 19, 19], [37, 18, 9]]
    torch.testing.assert_close(after, F.max_pool2d(before, 3, 1, 1), rtol=0, atol=0)
    assert stack.names == plain.names
    assert stack.state_dict().keys() == plain.state_dict().keys()


def test_new_weights_keep_the_size_of_maps() -> None:
    """Oracle: He et al. 2015: the mean square of what a convolution gives is that of the first, at any depth; with
    PyTorch's own weights it would shrink six times a layer, to 1e-12 of it at conv5_4."""
    torch.manual_seed(0)
    stack = VGG([(64, 2), (64, 4), (96, 4), (96, 4)])
    names = [name for name in stack.names if name.startswith("conv")]
    with torch.no_grad():
        maps = stack.maps(torch.rand(2, 3, 32, 32), names)
    powers = [float(one.square().mean()) for one in maps]
    assert all(0.1 < power / powers[0] < 10 for power in powers)
    assert not any(value.any() for name, value in stack.state_dict().items() if name.endswith("bias"))


def published(stages: Any = SMALL, prefix: str = "features.") -> dict[str, Tensor]:
    """A file as torchvision's: the convolutions, then a classifier."""
    torch.manual_seed(1)
    convs = {
        prefix + name.removeprefix("features."): torch.randn_like(v) for name, v in VGG(stages).state_dict().items()
    }
    return convs | {"classifier.0.weight": torch.randn(2, 2), "classifier.0.bias": torch.randn(2)}


@pytest.mark.parametrize("prefix", ["features.", "", "vgg.", "LTE.slice."])
def test_published_files(prefix: str) -> None:
    """Oracle: the numbers of the file."""
    state, stack = published(prefix=prefix), VGG(SMALL, last="relu3_2")
    stack.load_published(state, prefix)
    own = stack.features.state_dict()
    assert own
    assert all(torch.equal(own[name], state[prefix + name]) for name in own)
    stack.double().load_published({name: value.half() for name, value in state.items()}, prefix)
    assert stack.features[0].weight.dtype == torch.float64
    torch.testing.assert_close(stack.features[0].weight, state[f"{prefix}0.weight"].half().double(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"features.2.weight": None}, r"features\.2\.weight is missing$"),
        (
            {"features.2.weight": torch.zeros(3, 3, 1, 1)},
            r"is torch\.float32 \(3, 3, 1, 1\), must be float \(3, 3, 3, 3",
        ),
        ({"features.2.bias": torch.zeros(3, dtype=torch.int64)}, r"features\.2\.bias is torch\.int64 \(3,\)"),
        ({"features.2.bias": torch.full((3,), torch.inf)}, r"features\.2\.bias has infinite or undefined values$"),
        ({"features.0.weight": None, "features.5.bias": None}, r"0\.weight is missing; features\.5\.bias is missing$"),
    ],
)
def test_files_that_do_not_fit(change: dict[str, Any], words: str) -> None:
    """Nothing is copied where something does not fit."""
    stack = VGG(SMALL)
    before = {name: value.clone() for name, value in stack.state_dict().items()}
    state = {name: value for name, value in (published() | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"state must hold this stack's weights, but .*{words}"):
        stack.load_published(state)
    assert all(torch.equal(value, before[name]) for name, value in stack.state_dict().items())


def test_the_other_network_is_refused() -> None:
    """Files of VGG16 and VGG19 differ from their third stage on, and those with batch normalisation from the second
    layer."""
    narrow = {kind: [(2, count) for _, count in stages] for kind, stages in {"16": VGG16, "19": VGG19}.items()}
    for own, other in (("16", "19"), ("19", "16")):
        with pytest.raises(ValueError, match=r"is missing.* more$"):
            VGG(narrow[own]).load_published(published(narrow[other]))
        VGG(narrow[own], last="relu3_3").load_published(published(narrow[other]))
    normalised = {"features.0.weight": torch.zeros(3, 3, 3, 3), "features.0.bias": torch.zeros(3)}
    normalised |= {f"features.1.{kind}": torch.zeros(3) for kind in ("weight", "bias", "running_mean", "running_var")}
    with pytest.raises(ValueError, match=r"features\.2\.weight is missing"):
        VGG(SMALL).load_published(normalised)
    with pytest.raises(ValueError, match=r" and 8 more$"):
        VGG(SMALL).load_published(published(), "body.")


def test_batched_is_single() -> None:
    """Law: a batch is its pictures."""
    stack, pictures = made(), torch.rand(3, 3, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(stack(pictures), torch.cat([stack(one[None]) for one in pictures]), rtol=0, atol=1e-12)


def test_dtypes() -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has; under autocast pictures are normalised in their own dtype."""
    stack, picture = made(last="relu3_1").float(), torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        expected = stack(picture)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = stack(picture)
        half = stack.bfloat16()(picture.bfloat16())
    assert half.dtype == torch.bfloat16
    for came in (mixed, half):
        torch.testing.assert_close(came.float(), expected, rtol=0.03, atol=0.1)


@pytest.mark.parametrize(
    ("picture", "error", "words"),
    [
        (torch.zeros(3, 8, 8), ValueError, r"picture must be \(B, 3, H, W\) with H, W >= 1, got \(3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8), ValueError, r"picture must be \(B, 3, H, W\) with H, W >= 1, got \(1, 1, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), ValueError, r"picture must be .* got \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 8, 7), ValueError, "picture must be large enough for pool3, got 8 x 7"),
        (torch.zeros(1, 3, 1, 9), ValueError, "picture must be large enough for pool1, got 1 x 9"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), TypeError, r"picture must be a floating .*, got torch\.uint8"),
        ([0.5], TypeError, r"picture must be a floating point torch\.Tensor, got list"),
    ],
)
def test_wrong_pictures_are_named(picture: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        VGG(SMALL)(picture)


def test_a_small_picture_is_enough_for_the_first_layers() -> None:
    with torch.no_grad():
        assert VGG(SMALL).maps(torch.zeros(1, 3, 1, 1), ["relu1_2"])[0].shape == (1, 3, 1, 1)
        assert VGG(SMALL, pools={"pool1": nn.MaxPool2d(2, ceil_mode=True)}, last="pool1")(torch.zeros(1, 3, 1, 1)).shape


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"last": "relu4_1"}, ValueError, r"last: 'relu4_1' is no layer; they are conv1_1, relu1_1, .*, pool3$"),
        ({"pools": {"pool4": nn.MaxPool2d(2)}}, ValueError, "pools must have names from pool1 to pool3, got pool4"),
        ({"pools": {"conv1_1": nn.MaxPool2d(2)}}, ValueError, "pools must have names from pool1 to pool3, got conv1_1"),
        ({"stages": []}, TypeError, r"stages must be a list of \(channels, convolutions\), got \[\]"),
        ({"stages": "vgg19"}, TypeError, r"stages must be a list of \(channels, convolutions\), got 'vgg19'"),
        ({"stages": [(8, 2), 16]}, TypeError, r"stages must be a list .*, got 16 in it"),
        ({"stages": [(8, 0)]}, ValueError, "convolutions must be at least 1, got 0"),
        ({"stages": [(0, 1)]}, ValueError, "channels must be at least 1, got 0"),
        ({"stages": [(8.5, 1)]}, TypeError, r"channels must be a whole number, got 8\.5"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        VGG(**({"stages": SMALL} | options))


def test_wrong_names_are_named() -> None:
    picture = torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match="names: 'relu9_1' is no layer; they are conv1_1, "):
        VGG(SMALL).maps(picture, ["relu1_1", "relu9_1"])
    wrong: list[Any] = ["relu1_1", []]
    for names in wrong:
        with pytest.raises(TypeError, match=r'names must be a list of layers such as \["relu3_1"\], got '):
            VGG(SMALL).maps(picture, names)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, gradients too."""
    stack, picture = made(), torch.rand(2, 3, 12, 10, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        net, x = stack.to(device), picture.to(device).detach().requires_grad_()
        maps = net.maps(x, ["conv2_1", "pool3"])
        gradients = torch.autograd.grad(torch.stack([one.square().sum() for one in maps]).sum(), [x, *net.parameters()])
        assert {one.device.type for one in (*maps, *gradients)} == {device}
        results.append([one.detach().cpu() for one in (*maps, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-10, atol=1e-10)
