"""RDN. Oracles: the paper's equations with torch's functions, counts by hand, our own resize, laws of convolution."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import checkpoints
from course_lib.super_resolution.rdn import RDN, RDNEncoder, ResidualDenseBlock
from course_lib.upsampling import resize
from tests.unit.networks import influence, keeps_the_dtype


def made(scale: int, **options: Any) -> RDN:
    torch.manual_seed(0)
    return RDN(scale, **({"blocks": 3, "layers": 2, "growth": 4, "channels": 5} | options)).double()


def conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def dense_block(state: dict[str, Tensor], name: str, layers: int, x: Tensor) -> Tensor:
    """Equations 5-7: every layer sees the input and all layers before it."""
    seen = [x]
    for layer in range(layers):
        seen.append(torch.relu(conv(state, f"{name}body.{layer}", torch.cat(seen, 1))))
    return x + conv(state, f"{name}fusion", torch.cat(seen, 1))


def trunk(state: dict[str, Tensor], blocks: int, layers: int, x: Tensor) -> Tensor:
    """Equations 1-4 and 8-10."""
    first = conv(state, "shallow1", x)
    outputs = [conv(state, "shallow2", first)]
    for block in range(blocks):
        outputs.append(dense_block(state, f"body.{block}.", layers, outputs[-1]))
    return first + conv(state, "fusion2", conv(state, "fusion1", torch.cat(outputs[1:], 1)))


def by_hand(model: RDN, state: dict[str, Tensor], lr: Tensor) -> Tensor:
    inner = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    features = trunk(inner, model.blocks, model.layers, 255 * lr)
    for stage, step in enumerate({1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[model.scale]):
        features = F.pixel_shuffle(conv(state, f"tail.stages.{stage}", features), step)
    return conv(state, "tail.last", features) / 255


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (3, 2, 4, 5), (2, 4, 3, 7)])
def test_the_paper_equation_by_equation(scale: int, sizes: tuple[int, int, int, int]) -> None:
    """Oracle: torch.nn.functional, channels joined by torch.cat; with and without gradients; a batch, not square."""
    blocks, layers, growth, channels = sizes
    model = made(scale, blocks=blocks, layers=layers, growth=growth, channels=channels)
    lr = torch.rand(2, 3, 6, 9, dtype=torch.float64)
    expected = by_hand(model, model.state_dict(), lr)
    assert expected.shape == (2, 3, 6 * scale, 9 * scale)
    torch.testing.assert_close(model(lr), expected)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), expected)


def test_parameters() -> None:
    """Oracle: configuration B counted by hand; the encoder of LIIF with RDN has 21,973,952."""
    block = sum((64 + 64 * c) * 64 * 9 + 64 for c in range(8)) + (64 + 8 * 64) * 64 + 64
    count = 28 * 64 + (64 * 9 + 1) * 64 + 16 * block + (16 * 64 + 1) * 64 + (64 * 9 + 1) * 64
    with torch.device("meta"):
        assert sum(p.numel() for p in RDNEncoder().parameters()) == count == 21_973_952


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 3])
def test_both_ways_to_join_are_equal(dtype: torch.dtype, batch: int) -> None:
    """Oracle: the form for training, which joins by torch.cat and keeps everything."""
    torch.manual_seed(0)
    encoder = RDNEncoder(blocks=4, layers=3, growth=8, channels=16).to(dtype)
    x = torch.randn(batch, 3, 9, 14).to(dtype)
    with torch.no_grad():
        came = encoder(x)
    expected = encoder(x).detach()
    assert came.dtype == expected.dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5 if dtype == torch.float32 else 1e-13
    torch.testing.assert_close(came, expected, rtol=0, atol=tolerance)
    with torch.no_grad():
        block = encoder.body[0]
        features = encoder.shallow1(x)
        before = features.clone()
        one = block(features)
    if dtype != torch.bfloat16 and batch == 1:
        assert torch.equal(one, block(features))  # the same sums in the same order
    assert torch.equal(features, before)


def test_autocast_joins_in_its_dtype() -> None:
    """Oracle: float32, to the 8 bits of bfloat16; what lies between the layers has the dtype that autocast gives."""
    torch.manual_seed(0)
    encoder = RDNEncoder(blocks=2, layers=3, growth=4, channels=8)
    x = torch.randn(2, 3, 6, 7)
    expected = encoder(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(encoder(x).detach().float(), expected, rtol=0, atol=0.03)
        with torch.no_grad():
            came = encoder(x)
    assert came.dtype == torch.bfloat16
    torch.testing.assert_close(came.float(), expected, rtol=0, atol=0.03)


def test_no_joining_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gradients nothing is joined, and one buffer is made for each block."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("joined")

    encoder = RDNEncoder(blocks=2, layers=3, growth=4, channels=8)
    monkeypatch.setattr(torch, "cat", refuse)
    with torch.no_grad():
        assert encoder(torch.randn(1, 3, 6, 7)).shape == (1, 8, 6, 7)
    with pytest.raises(AssertionError, match="joined"):
        encoder(torch.randn(1, 3, 6, 7))


def test_gradients() -> None:
    """Oracle: autograd through the equations written one by one, for the picture and every parameter; gradcheck."""
    model = made(2)
    lr = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    came = torch.autograd.grad((model(lr) * seed).sum(), [lr, *model.parameters()])
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    expected = torch.autograd.grad((by_hand(model, parameters, lr) * seed).sum(), [lr, *parameters.values()])
    for mine, theirs in zip(came, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.abs().max() > 0
    assert torch.autograd.gradcheck(made(2, added=True), lr[:1], fast_mode=True)


def test_added() -> None:
    """Oracle: the same weights without it, and our bicubic with the border of the evaluation."""
    lr = torch.rand(1, 3, 5, 7, dtype=torch.float64)
    bicubic = resize(lr, scale=3, method="bicubic", a=-0.5, border="symmetric")
    torch.testing.assert_close(made(3, added=True)(lr), made(3)(lr) + bicubic)


def test_data_range() -> None:
    """Law: with the same weights f, a range of r gives f(r x) / r; the biases make it another picture for each r."""
    lr = torch.rand(1, 3, 4, 6, dtype=torch.float64)
    plain = made(2, data_range=1.0)
    torch.testing.assert_close(plain(lr), plain.tail(plain.encoder(lr)))
    for data_range in (2.0, 255):
        torch.testing.assert_close(made(2, data_range=data_range)(lr), plain(data_range * lr) / data_range)
    assert (plain(lr) - made(2)(lr)).abs().max() > 0.01


@pytest.mark.parametrize("added", [False, True])
def test_the_result_has_the_pictures_dtype(added: bool) -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has; autocast decides about the layers, not about the result."""
    keeps_the_dtype(made(2, added=added).float(), mixed_error=0.01)


@pytest.mark.parametrize(("blocks", "layers", "height"), [(1, 1, 15), (2, 3, 25), (16, 8, 1)])
def test_the_radius_is_exact(blocks: int, layers: int, height: int) -> None:
    """Oracle: gradients. All weights are positive, so that no influence cancels or ends at a ReLU."""
    model = made(2, blocks=blocks, layers=layers, growth=1, channels=1)
    encoder = model.encoder
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    radius = blocks * layers + 3
    assert (encoder.radius, model.radius) == (radius, radius + 2)
    lr = 1 + torch.rand(1, 3, height, 2 * radius + 9, dtype=torch.float64)
    place = (height // 2, radius + 4)
    vertical = min(radius, height // 2)
    assert influence(encoder, lr, place) == (vertical, vertical, radius, radius)
    vertical = min(radius + 2, height // 2)
    assert influence(model, lr, place) == (vertical, vertical, radius + 2, radius + 2)
    across = influence(model, lr.mT, (place[1], place[0]))
    assert across == (radius + 2, radius + 2, vertical, vertical)


@pytest.mark.parametrize("added", [False, True])
def test_a_piece_with_its_radius_gives_the_same_pixels(added: bool) -> None:
    """Law: what lies further away does not matter, and zeros outside begin at the picture's true border."""
    model, lr = made(2, added=added), torch.rand(1, 3, 40, 36, dtype=torch.float64)
    radius = model.radius
    with torch.no_grad():
        whole, piece = model(lr), model(lr[..., : 13 + radius, 14 - radius : 19 + radius])
    torch.testing.assert_close(
        piece[..., :26, 2 * radius : 2 * radius + 10], whole[..., :26, 28:38], rtol=0, atol=1e-12
    )


def test_batched_is_single_and_any_leading_axes() -> None:
    """Law: a batch is its pictures; with and without gradients."""
    model = made(3, added=True)
    lr = torch.rand(2, 3, 3, 4, 5, dtype=torch.float64)
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients):
            rows = torch.stack([torch.stack([model(one) for one in row]) for row in lr])
            torch.testing.assert_close(model(lr), rows)
            assert model(lr[:0]).shape == (0, 3, 3, 12, 15)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 4, 4, 4), (3, 0, 4), (1, 3, 4, 0)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    for name, ask in {"lr": RDN(2, 1, 1, 2, 2), "x": RDNEncoder(1, 1, 2, 2)}.items():
        with pytest.raises(ValueError, match=rf"{name} must be \(\.\.\., 3, h, w\) with h, w >= 1") as caught:
            ask(torch.zeros(shape))
        assert str(shape) in str(caught.value)
        with pytest.raises(TypeError, match=rf"{name} must be a torch\.Tensor, got ndarray"):
            ask(torch.zeros(3, 4, 4).numpy())


@pytest.mark.parametrize("argument", ["blocks", "layers", "growth", "channels", "scale"])
def test_wrong_arguments_are_named(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        RDN(**({"scale": 2} | {argument: 0}))
    with pytest.raises(TypeError, match=rf"{argument} must be a whole number, got 1\.5"):
        RDN(**({"scale": 2} | {argument: 1.5}))
    with pytest.raises(ValueError, match="scale must be 1, 2, 3, 4, 8 or another power of 2, got 7"):
        RDN(7)
    with pytest.raises(ValueError, match=r"data_range must be the distance from black to white \(1 or 255\), got 0"):
        RDN(2, data_range=0)


def test_a_block_by_hand() -> None:
    """Oracle: equations 5-7 for one block whose fusion picks the first channel of the second layer."""
    block = ResidualDenseBlock(layers=2, growth=2, channels=3)
    with torch.no_grad():
        block.fusion.weight.zero_()
        block.fusion.bias.zero_()
        block.fusion.weight[:, 5] = 1  # 3 channels of the input, 2 of the first layer, then the second's
    x = torch.rand(1, 3, 4, 5)
    first = torch.relu(block.body[0](x))
    second = torch.relu(block.body[1](torch.cat([x, first], 1)))
    torch.testing.assert_close(block(x), x + second[:, :1])


def test_kept_in_a_file(tmp_path: Any) -> None:
    """Oracle: the same picture from the network that was written and read."""
    model = RDN(3, blocks=2, layers=3, growth=4, channels=6, data_range=2.0, added=True)
    checkpoints.save(tmp_path / "rdn.safetensors", model)
    other = checkpoints.read(tmp_path / "rdn.safetensors")
    lr = torch.rand(3, 4, 5)
    assert torch.equal(other(lr), model(lr))
    assert (other.blocks, other.layers, other.growth, other.channels) == (2, 3, 4, 6)
    assert (other.data_range, other.added) == (2.0, True)
