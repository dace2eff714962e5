"""TTSR. Oracles: the paper's equations and figure with torch's functions, the plain relevance, counts, laws."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints
from course_lib.blocks import vgg
from course_lib.datasets import from_uint8, to_uint8
from course_lib.plain import ttsr as plain
from course_lib.super_resolution.cross_scale import Down, Exchange, Up, interpolate
from course_lib.super_resolution.layers import eight_bit
from course_lib.super_resolution.texture_extractor import TextureExtractor
from course_lib.super_resolution.ttsr import TTSR, SoftAttention, Textures, bicubic_up, down_up
from course_lib.upsampling import resize
from tests.unit.networks import influence, keeps_the_dtype

TINY: dict[str, Any] = {"channels": 6, "blocks": (2, 1, 2, 1), "widths": (3, 4, 5)}


def made(**options: Any) -> TTSR:
    torch.manual_seed(0)
    return TTSR(**(TINY | options)).double()


def pictures(batch: int = 2, size: tuple[int, int] = (5, 7), ref: tuple[int, int] = (24, 16)) -> dict[str, Tensor]:
    """Small pictures, the same enlarged, references, the same blurred; unlike each other, so that none can be mixed."""
    generator = torch.Generator().manual_seed(1)
    sizes = {"lr": size, "lr_up": (4 * size[0], 4 * size[1]), "ref": ref, "ref_down_up": ref}
    return {
        name: torch.rand(batch, 3, *shape, dtype=torch.float64, generator=generator) for name, shape in sizes.items()
    }


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)


def up(x: Tensor, factor: int) -> Tensor:
    """Bicubic interpolation with a = -3/4 by the operator of chapter 03."""
    return resize(x, scale=factor, method="bicubic", a=-0.75, border="replicate")


def extracted(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Equation 1: VGG19's layers up to conv3_1."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    maps = [x * (1 / std).to(x) - (mean / std).to(x)]  # constants are float32's, as in the official file
    for index in (0, 2, 5, 7, 10):
        before = F.max_pool2d(maps[-1], 2) if index in (5, 10) else maps[-1]
        maps.append(F.relu(conv(state, f"extractor.vgg.features.{index}", before)))
    return [maps[1], maps[3], maps[5]]


def stage(state: dict[str, Tensor], name: str, x: Tensor, through: Tensor, scale: float) -> Tensor:
    block = 0
    while f"{name}.body.{block}.conv1.weight" in state:
        inner = f"{name}.body.{block}"
        through = through + scale * conv(state, f"{inner}.conv2", F.relu(conv(state, f"{inner}.conv1", through)))
        block += 1
    return x + conv(state, f"{name}.last", through)


def attended(state: dict[str, Tensor], name: str, f: Tensor, texture: Tensor, soft: Tensor) -> Tensor:
    """Equation 5."""
    return f + conv(state, f"{name}.conv", torch.cat([f, texture], 1)) * soft


def path(state: dict[str, Tensor], name: str, here: int, there: int, x: Tensor) -> Tensor:
    """What one size gets from another: in the paper the interpolation comes first."""
    name = f"{name}.exchange.paths.x{here}_to_x{there}"
    if here < there:
        return F.relu(conv(state, f"{name}.conv", up(x, there // here)))
    for k in range({2: 1, 4: 2}[here // there]):
        x = F.relu(conv(state, f"{name}.convs.{k}", x, stride=2))
    return x


def crossed(state: dict[str, Tensor], name: str, maps: dict[int, Tensor], scale: float) -> dict[int, Tensor]:
    after = {}
    for k, (there, own) in enumerate(maps.items()):
        others = [path(state, name, here, there, x) for here, x in maps.items() if here != there]
        merged = F.relu(conv(state, f"{name}.exchange.merges.{k}", torch.cat([own, *others], 1)))
        after[there] = stage(state, f"{name}.stages.{k}", own, merged, scale)
    return after


def by_hand(model: TTSR, state: dict[str, Tensor], given: dict[str, Tensor], strength: Any = 1.0) -> Tensor:
    """Figures 2 and 4 of the paper, with the whole matrix of relevances and with patches that are folded."""
    lr, s = given["lr"], model.residual_scale
    query, key = extracted(state, given["lr_up"])[2], extracted(state, given["ref_down_up"])[2]
    index, soft = plain.hard_and_soft(plain.relevance(query, key), lr.shape[-2:])
    soft = soft * strength
    fine, middle, coarse = (
        plain.transfer_folded(value, index, step)
        for value, step in zip(extracted(state, given["ref"]), (4, 2, 1), strict=True)
    )
    x = F.relu(conv(state, "head", 2 * lr - 1))
    x = attended(state, "attention1", stage(state, "first", x, x, s), coarse, soft)
    maps = {1: stage(state, "stage1", x, x, s)}
    maps[2] = F.relu(F.pixel_shuffle(conv(state, "to_x2", maps[1]), 2))
    maps[2] = attended(state, "attention2", maps[2], middle, up(soft, 2))
    maps = crossed(state, "stage2", maps, s)
    maps[4] = F.relu(F.pixel_shuffle(conv(state, "to_x4", maps[2]), 2))
    maps[4] = attended(state, "attention4", maps[4], fine, up(soft, 4))
    maps = crossed(state, "stage4", maps, s)
    small, half, large = maps.values()
    small, half = (
        F.relu(conv(state, "tail.from_x1.conv", up(small, 4))),
        F.relu(conv(state, "tail.from_x2.conv", up(half, 2))),
    )
    out = conv(state, "tail.tail1", F.relu(conv(state, "tail.merge", torch.cat([large, small, half], 1))))
    out = conv(state, "tail.tail2", out) / 2
    return given["lr_up"] + out if model.added else (out + 0.5).clamp(0, 1)


@pytest.mark.parametrize("options", [{}, {"added": True}, {"residual_scale": 0.1, "blocks": (1, 3, 1, 2)}])
def test_the_paper_equation_by_equation(options: dict[str, Any]) -> None:
    """Oracle: equations 1-5 and figure 4 by torch.nn.functional, with gradients to all inputs and parameters."""
    model, given = made(**options), pictures()
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    strength = torch.tensor([1.0, 0.6], dtype=torch.float64)
    seed = torch.randn(2, 3, 20, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    inputs = {name: x.requires_grad_() for name, x in given.items()}
    came = model(**inputs, strength=strength)
    expected = by_hand(model, {**parameters}, inputs, strength.view(2, 1, 1, 1))
    torch.testing.assert_close(came, expected)
    assert came.std() > 0.01
    gradients = torch.autograd.grad((came * seed).sum(), [*inputs.values(), *model.parameters()])
    wanted = torch.autograd.grad((expected * seed).sum(), [*inputs.values(), *parameters.values()])
    for mine, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-9, rtol=1e-6)
        assert mine.abs().max() > 0  # the extractor learns from S through Q and K, and from T through V
    with torch.no_grad():
        torch.testing.assert_close(model(**given, strength=strength), expected)


def test_parameters() -> None:
    """Oracle: counted by hand; the paper speaks of 6.73 million."""

    def convs(*layers: tuple[int, int, int]) -> int:
        return sum((n_in * side**2 + 1) * n_out for n_in, n_out, side in layers)

    inner, pair = (64, 64, 3), (64, 64, 1)
    blocks = 16 + 16 + 2 * 8 + 3 * 4
    stages = convs(*[inner] * (2 * blocks + 1 + 1 + 2 + 3))
    attention = convs((64 + 256, 64, 3), (64 + 128, 64, 3), (64 + 64, 64, 3))
    exchange = convs(pair, inner, *[(128, 64, 3)] * 2) + convs(*[pair] * 3, *[inner] * 4, *[(192, 64, 3)] * 3)
    tail = convs(pair, pair, (192, 64, 3), (64, 32, 3), (32, 3, 1))
    main = convs((3, 64, 3)) + stages + attention + 2 * convs((64, 256, 3)) + exchange + tail
    lte = convs((3, 64, 3), inner, (64, 128, 3), (128, 128, 3), (128, 256, 3))
    with torch.device("meta"):
        model = TTSR()
    assert (main, lte) == (6_174_275, 555_328)
    assert sum(p.numel() for p in model.parameters()) == main + lte == 6_729_603
    assert sum(b.numel() for b in model.buffers()) == 12  # the shift is not trained


def test_attention_by_hand() -> None:
    """Oracle: F = (1, 2), T = (100, 20), S = (1, 0.7071), and a convolution that gives 0.5 F + 0.01 T."""
    attention = SoftAttention(1, 1, size=1)
    with torch.no_grad():
        attention.conv.weight.zero_()
        attention.conv.bias.zero_()  # type: ignore[union-attr]
        attention.conv.weight[0, :, 1, 1] = torch.tensor([0.5, 0.01])
    f, t, s = (torch.tensor(v).view(1, 1, 1, 2) for v in ((1.0, 2.0), (100.0, 20.0), (1.0, 0.7071)))
    textures = Textures(torch.zeros(1, 1, 2, dtype=torch.int64), s, t, t, t)
    assert attention(f, textures).flatten().tolist() == pytest.approx([2.5, 2.8485], abs=1e-4)
    negative = dataclasses.replace(textures, soft=-s)  # neither a ReLU nor S comes before the convolution
    assert attention(f, negative).flatten().tolist() == pytest.approx([-0.5, 1.1515], abs=1e-4)
    assert attention(f, None) is f


@pytest.mark.parametrize("factor", [2, 4])
def test_interpolation(factor: int) -> None:
    """Oracle: chapter 03's operator with a = -3/4. Law: after a 1 x 1 convolution the same as before it."""
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(interpolate(x, factor), up(x, factor))
    layer = Up(3, factor).double()
    torch.testing.assert_close(layer(x), F.relu(layer.conv(up(x, factor))))
    assert Down(3, factor).double()(up(x, factor)).shape == x.shape


def test_an_exchange_joins_its_own_map_first() -> None:
    """Oracle: merges that pick one channel; the order is own, then the others from small to large."""
    exchange = Exchange(1, (1, 2, 4))
    with torch.no_grad():
        for layer in [*exchange.paths.modules(), *exchange.merges]:
            if isinstance(layer, nn.Conv2d):
                layer.weight.zero_()
                layer.bias.zero_()  # type: ignore[union-attr]
                middle = layer.kernel_size[0] // 2
                layer.weight[..., middle, middle] = torch.tensor([1.0, 10, 100])[: layer.in_channels]
    maps = [torch.full((1, 1, n, n), value) for n, value in {3: 1.0, 6: 2.0, 12: 3.0}.items()]
    merged = exchange(*maps)
    assert [tuple(m.shape) for m in merged] == [tuple(m.shape) for m in maps]
    # constant maps stay what they are on every path
    assert [m.mean().item() for m in merged] == pytest.approx([321, 2 + 10 + 300, 3 + 10 + 200])


def test_strength_fades_the_reference() -> None:
    """Law: 0 is as no reference, for all or for one of a batch; a number is the same for every picture."""
    model, given = made(), pictures(3)
    alone = model(given["lr"])
    whole = model(**given)
    assert (whole - alone).abs().max() > 0.01
    for nothing in (0, 0.0, torch.zeros(3), torch.tensor(0.0)):
        assert torch.equal(model(**given, strength=nothing), alone)
    mixed = model(**given, strength=torch.tensor([0.0, 1.0, 0.3]))
    torch.testing.assert_close(mixed[0], alone[0])
    torch.testing.assert_close(mixed[1], whole[1])
    torch.testing.assert_close(mixed[2], model(**given, strength=0.3)[2], atol=1e-7, rtol=0)  # 0.3 in float32
    strength = torch.tensor([0.5] * 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model(**given, strength=strength).square().sum(), strength)
    assert (slope != 0).all()


def test_little_relevance_counts_as_none() -> None:
    """Oracle: max(0, (S - floor) / (1 - floor)) by hand; a floor above every S, no reference."""
    model, given = made(), pictures(2)
    soft = torch.tensor([-0.2, 0.3, 0.5, 0.75, 1.0], dtype=torch.float64)
    assert torch.equal(model.trusted(soft), soft)  # the paper's S, also where it is negative
    whole = model(**given)
    found = model.textures(given["lr_up"], given["ref"], given["ref_down_up"])
    model.floor = 0.5
    torch.testing.assert_close(model.trusted(soft), torch.tensor([0, 0, 0, 0.5, 1.0], dtype=torch.float64))
    again = dataclasses.replace(found, soft=model.trusted(found.soft))
    came = model(**given)
    model.floor = 0.0
    torch.testing.assert_close(came, model.enlarge(given["lr"], given["lr_up"], again))
    assert (came - whole).abs().max() > 1e-4
    model.floor = float(found.soft.detach().max())
    torch.testing.assert_close(model(**given), model(given["lr"], given["lr_up"]))


def test_a_batch_is_its_pictures() -> None:
    """Laws: batched is single, the order of a batch does not matter, any leading axes."""
    model, given = made(added=True), pictures(4)
    together = model(**given)
    for k in range(4):
        torch.testing.assert_close(model(**{name: x[k] for name, x in given.items()}), together[k])
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(**{name: x[order] for name, x in given.items()}), together[order])
    folded = {name: x.reshape(2, 2, *x.shape[1:]) for name, x in given.items()}
    torch.testing.assert_close(model(**folded), together.reshape(2, 2, *together.shape[1:]))
    torch.testing.assert_close(model(given["lr"].reshape(2, 2, 3, 5, 7)).flatten(0, 1), model(given["lr"]))
    exchanged = model(**{**given, "ref": given["ref"].flip(0), "ref_down_up": given["ref_down_up"].flip(0)})
    assert (exchanged - together).abs().flatten(1).max(1).values.min() > 1e-3  # each looks at its own reference


def test_textures_are_found_once_and_used_often() -> None:
    """Oracle: `forward`, and the plain form of search and transfer, exactly the same places."""
    model, given = made(), pictures()
    textures = model.textures(given["lr_up"], given["ref"], given["ref_down_up"])
    once = model.find(given["lr_up"], model.offer(given["ref"], given["ref_down_up"]))
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(vars(once).values(), vars(textures).values(), strict=True)
    )
    for strength in (0.0, 0.4, 1.0):
        came = model.enlarge(given["lr"], given["lr_up"], textures, strength)
        torch.testing.assert_close(came, model(**given, strength=strength))
    assert not came.equal(model.enlarge(given["lr"]))
    query, key = model.extractor(given["lr_up"])[2], model.extractor(given["ref_down_up"])[2]
    index, soft = plain.hard_and_soft(plain.relevance(query, key), (5, 7))
    assert torch.equal(textures.index, index)
    torch.testing.assert_close(textures.soft, soft)
    fine, middle, coarse = model.extractor(given["ref"])
    for came, value, step in (
        (textures.fine, fine, 4),
        (textures.middle, middle, 2),
        (textures.coarse, coarse, 1),
    ):
        torch.testing.assert_close(came, plain.transfer_folded(value, index, step))
    assert [tuple(textures.at(size)[0].shape[1:]) for size in (1, 2, 4)] == [(5, 5, 7), (4, 10, 14), (3, 20, 28)]
    assert [tuple(textures.at(size)[1].shape) for size in (1, 2, 4)] == [(2, 1, 5, 7), (2, 1, 10, 14), (2, 1, 20, 28)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        textures.soft = soft  # type: ignore[misc]


def test_a_picture_finds_itself() -> None:
    """Law: looking for a picture in itself every place finds itself, S is 1, T its own features away from the border.

    Shifted by whole positions of the search (4 pixels), it is found that much further on.
    """
    model = made()
    large = torch.rand(1, 3, 40, 56, dtype=torch.float64)
    own = model.textures(large, large, large)
    assert torch.equal(own.index.flatten(), torch.arange(140))
    torch.testing.assert_close(own.soft, torch.ones_like(own.soft))
    fine, middle, coarse = model.extractor(large)
    torch.testing.assert_close(own.coarse[..., 1:-1, 1:-1], coarse[..., 1:-1, 1:-1])
    torch.testing.assert_close(own.middle[..., 2:-2, 2:-2], middle[..., 2:-2, 2:-2])
    torch.testing.assert_close(own.fine[..., 4:-4, 4:-4], fine[..., 4:-4, 4:-4])
    torch.testing.assert_close(own.coarse[..., 0, 0], coarse[..., 0, 0] * 4 / 9)  # fewer patches meet there
    shifted = model.textures(large[..., 8:, 4:-4], large, large)
    place = shifted.index[0, 3:-3, 3:-3]
    expected = (torch.arange(3, 5)[:, None] + 2) * 14 + torch.arange(3, 9) + 1
    assert torch.equal(place, expected)


def test_a_reference_of_any_size() -> None:
    """Law: what is over a multiple of 4 does not matter; the result has the picture's size."""
    model, given = made(), pictures(ref=(26, 19))
    cut = {**given, "ref": given["ref"][..., :24, :16], "ref_down_up": given["ref_down_up"][..., :24, :16]}
    torch.testing.assert_close(model(**given), model(**cut))
    smallest = pictures(size=(1, 2), ref=(4, 5))
    found = model.textures(smallest["lr_up"], smallest["ref"])
    assert model(**smallest).shape == (2, 3, 4, 8)
    assert found.index.tolist() == [[[0, 0]], [[0, 0]]]


def test_what_is_not_given_is_made() -> None:
    """Oracle: our resize, through files of 8 bits; the reference is cut before it is shrunk."""
    model, given = made(), pictures(1, ref=(27, 18))
    lr, ref = given["lr"], given["ref"]

    def filed(picture: Tensor, factor: Any) -> Tensor:
        made = resize(picture[0], scale=factor, method="bicubic", a=-0.5, border="symmetric")
        return from_uint8(to_uint8(made)).double()[None]

    large, small = filed(lr, 4), filed(ref[..., :24, :16], 1 / 4)
    torch.testing.assert_close(bicubic_up(lr), large, atol=1e-7, rtol=0)
    blurred = filed(small, 4)
    torch.testing.assert_close(down_up(ref[..., :24, :16]), blurred, atol=1e-7, rtol=0)
    assert torch.equal(bicubic_up(lr), eight_bit(bicubic_up(lr)))
    wide = F.pad(blurred, (0, 2, 0, 3))
    torch.testing.assert_close(model(lr, ref=ref), model(lr, large, ref, wide), atol=1e-6, rtol=0)
    assert eight_bit(torch.tensor([-1.0, 0.5 / 255, 0.49 / 255, 2.0])).mul(255).tolist() == [0, 1, 0, 255]
    assert eight_bit(torch.rand(9).bfloat16()).dtype == torch.bfloat16


def test_added_and_clamped() -> None:
    """Oracle: the same weights, and lr_up as it was given; the paper's network stays in [0, 1]."""
    given = pictures()
    network, added = made(), made(added=True)
    torch.testing.assert_close((added(**given) - given["lr_up"] + 0.5).clamp(0, 1), network(**given))
    torch.testing.assert_close(added(given["lr"]), added(given["lr"], bicubic_up(given["lr"])))
    with torch.no_grad():
        network.tail.tail2.weight.mul_(100)
        extreme = network(**given)
    assert (extreme.min(), extreme.max()) == (0, 1)


def test_gradients_without_a_reference() -> None:
    """Law: without a reference, extractor and attention stand aside; with strength 0 they have gradients of zero."""
    model, given = made(), pictures()
    aside = [name for name, _ in model.named_parameters() if name.startswith(("extractor", "attention"))]
    model(given["lr"]).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == aside
    model.zero_grad()
    model(**given, strength=torch.zeros(2)).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    assert [name for name, g in gradients.items() if not g.any()] == aside


class WithTextures(nn.Module):
    """A network whose textures are found already, in the dtype of its pictures."""

    def __init__(self, model: TTSR, textures: Textures) -> None:
        super().__init__()
        self.model, self.textures = model, textures

    def forward(self, lr: Tensor) -> Tensor:
        kept = {name: x.to(lr.dtype) for name, x in vars(self.textures).items() if x.is_floating_point()}
        return self.model.enlarge(lr, None, dataclasses.replace(self.textures, **kept))


@pytest.mark.parametrize("added", [False, True])
def test_the_result_has_the_pictures_dtype(added: bool) -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has; S and the places keep float32's, whatever the layers have."""
    model, given = made(added=added).float(), {name: x.float() for name, x in pictures(1, (6, 7)).items()}
    textures = model.textures(given["lr_up"], given["ref"])
    with torch.no_grad():
        assert torch.autocast("cpu", torch.bfloat16)(model)(**given).dtype == torch.float32
    keeps_the_dtype(WithTextures(model, textures), mixed_error=0.02)
    half = model(**{name: x.bfloat16() for name, x in given.items()}, strength=torch.ones(1))
    assert half.dtype == torch.bfloat16  # keeps_the_dtype has made the network so
    assert half.isfinite().all()


@pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (2, 1, 2, 1), (1, 1, 1, 3)])
def test_the_radius_is_exact(blocks: tuple[int, ...]) -> None:
    """Oracle: gradients. All weights are positive, so that no influence cancels or ends at a ReLU."""
    model = made(channels=2, blocks=blocks, added=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    radius = model.radius
    assert radius == 2 * sum(blocks) + 11
    lr = 1 + torch.rand(1, 3, 2 * radius + 9, 5, dtype=torch.float64)
    # a convolution with stride 2 looks further up and left than down and right
    assert influence(model, lr, (radius + 4, 2))[:2] == (radius, radius - 1)
    assert influence(model, lr.mT, (2, radius + 4))[2:] == (radius, radius - 1)


def test_a_piece_with_its_radius_gives_the_same_pixels() -> None:
    """Law: what lies further away does not matter, without a reference."""
    model, lr = made(blocks=(1, 1, 1, 1)), torch.rand(1, 3, 24, 50, dtype=torch.float64)
    radius = model.radius
    with torch.no_grad():
        whole, piece = model(lr), model(lr[..., 24 - radius : 28 + radius])
    torch.testing.assert_close(piece[..., 4 * radius : 4 * radius + 16], whole[..., 96:112], rtol=0, atol=1e-12)


def test_the_extractor_is_vgg19() -> None:
    """Oracle: VGG19's stack with the same weights, which normalises by itself; its published weights fit."""
    extractor, whole = TextureExtractor(), vgg.VGG(vgg.VGG19, last="relu3_4")
    extractor.vgg.load_published(whole.state_dict())
    picture = torch.rand(2, 3, 21, 30)
    with torch.no_grad():
        maps = extractor(picture)
        expected = whole.maps(picture, ["relu1_1", "relu2_1", "relu3_1"])
        shifted = TextureExtractor(mean_shift=False)
        shifted.vgg = extractor.vgg
        plain_maps = shifted((picture - torch.tensor(vgg.MEAN).view(3, 1, 1)) / torch.tensor(vgg.STD).view(3, 1, 1))
    assert [tuple(m.shape) for m in maps] == [(2, 64, 21, 30), (2, 128, 10, 15), (2, 256, 5, 7)]
    for came, other, wanted in zip(maps, plain_maps, expected, strict=True):
        torch.testing.assert_close(came, wanted, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other, wanted, atol=1e-4, rtol=1e-4)
        assert came.min() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr_up": torch.zeros(2, 3, 20, 27)}, "lr_up must be (2, 3, 20, 28), got (2, 3, 20, 27)"),
        ({"lr_up": torch.zeros(1, 3, 20, 28)}, "lr_up must be (2, 3, 20, 28), got (1, 3, 20, 28)"),
        ({"ref_down_up": torch.zeros(2, 3, 24, 20)}, "ref_down_up must be (2, 3, 24, 16), got (2, 3, 24, 20)"),
        ({"ref": torch.zeros(1, 3, 24, 16)}, "ref must be one picture for each small one, 2; got (1, 3, 24, 16)"),
        ({"ref": torch.zeros(2, 3, 24, 3)}, "ref must have at least 4 x 4 pixels, got (2, 3, 24, 3)"),
        ({"ref": torch.zeros(2, 1, 24, 16)}, "ref must be (..., 3, h, w) with h, w >= 1, got (2, 1, 24, 16)"),
        ({"ref": None}, "ref must be given where ref_down_up is"),
        ({"lr": torch.zeros(2, 2, 4, 4)}, "lr must be (..., 3, h, w) with h, w >= 1, got (2, 2, 4, 4)"),
        ({"strength": 1.5}, "strength must be in [0, 1], from no reference to all of it; got 1.5"),
        ({"strength": -0.1}, "strength must be in [0, 1], from no reference to all of it; got -0.1"),
        ({"strength": float("nan")}, "strength must be in [0, 1], from no reference to all of it; got nan"),
        (
            {"strength": torch.tensor([0.5, 2])},
            "strength must be in [0, 1], from no reference to all of it; got tensor",
        ),
        ({"strength": torch.ones(3)}, "strength must be one number or (2,), one for each picture; got (3,)"),
    ],
)
def test_wrong_pictures_are_named(change: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed before the error."""
    model = made()
    for module in (model.extractor.vgg, model.head):
        monkeypatch.setattr(module, "forward", None)
    with pytest.raises(ValueError, match=re.escape(words)):
        model(**(pictures() | change))


def test_wrong_kinds_are_named() -> None:
    model, given = made(), pictures()
    for name in ("lr", "lr_up", "ref", "ref_down_up"):
        with pytest.raises(TypeError, match=rf"^{name} must be a torch\.Tensor, got ndarray"):
            model(**{**given, name: given[name].numpy()})
        with pytest.raises(TypeError, match=rf"^{name} must be floating point in \[0, 1\], got torch\.uint8"):
            model(**{**given, name: given[name].byte()})
    for strength in ("1", True, None):
        with pytest.raises(TypeError, match=r"strength must be a number or a torch\.Tensor, got"):
            model(**given, strength=strength)
    found = model.textures(given["lr_up"], given["ref"])
    with pytest.raises(ValueError, match=r"textures must be those of pictures like lr, \(2, 3, 5, 6\); got soft \(2, "):
        model.enlarge(given["lr"][..., :6], None, found)
    with pytest.raises(ValueError, match=r"lr_up must have sides that are multiples of 4, got \(2, 3, 20, 27\)"):
        model.textures(given["lr_up"][..., :27], given["ref"])
    with pytest.raises(ValueError, match=r"pictures must have at least 4 x 4 pixels, got \(2, 3, 3, 16\)"):
        model.extractor(given["ref"][..., :3, :])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"blocks": (1, 2, 3)}, "blocks must be four numbers (first stage; one, two, three sizes), got (1, 2, 3)"),
        ({"blocks": (1, 2, 3, 0)}, "blocks must be at least 1, got 0"),
        ({"widths": (1, 2)}, "widths must be the channels at full, half and quarter size, got (1, 2)"),
        ({"widths": (1, 2, 0)}, "widths must be at least 1, got 0"),
        ({"floor": 1.0}, "floor must be in [0, 1), the relevance that counts as none, got 1.0"),
        ({"floor": -0.1}, "floor must be in [0, 1), the relevance that counts as none, got -0.1"),
        ({"residual_scale": 0.0}, "residual_scale must be a positive number, 1 in the paper, got 0.0"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        TTSR(**(TINY | options))


def test_kept_in_a_file(tmp_path: Path) -> None:
    """Oracle: the same picture from the network that was written and read."""
    model = TTSR(**TINY, residual_scale=0.5, added=True, floor=0.25)
    checkpoints.save(tmp_path / "ttsr.safetensors", model)
    other = checkpoints.read(tmp_path / "ttsr.safetensors")
    assert isinstance(other, TTSR)
    given = {name: x.float() for name, x in pictures().items()}
    assert torch.equal(other(**given), model(**given))
    assert (other.channels, other.blocks, other.widths) == tuple(TINY.values())
    assert (other.residual_scale, other.added, other.floor) == (0.5, True, 0.25)


@pytest.mark.gpu
def test_cuda_gives_the_same() -> None:
    """Oracle: the CPU, in float64: result, places and gradients."""
    model, given = made(), pictures()
    expected = model(**given)
    expected.square().mean().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    index = model.textures(given["lr_up"], given["ref"]).index
    model.zero_grad()
    model.to("cuda")
    there = {name: x.to("cuda") for name, x in given.items()}
    came = model(**there, strength=torch.ones(2))
    came.square().mean().backward()
    assert came.device.type == "cuda"
    torch.testing.assert_close(came.cpu(), expected)
    assert torch.equal(model.textures(there["lr_up"], there["ref"]).index.cpu(), index)
    for p, wanted in zip(model.parameters(), gradients, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.grad.cpu(), wanted, atol=1e-9, rtol=1e-6)
