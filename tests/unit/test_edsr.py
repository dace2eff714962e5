"""EDSR. Oracles: torch's functions called one by one, counts by hand, our own resize, and laws of convolution."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import checkpoints
from course_lib.super_resolution.edsr import EDSR, EDSREncoder, ResidualBlock
from course_lib.super_resolution.layers import MeanShift, Tail
from course_lib.upsampling import resize
from tests.unit.networks import influence, keeps_the_dtype


def made(scale: int, **options: Any) -> EDSR:
    torch.manual_seed(0)
    return EDSR(scale, **({"blocks": 2, "channels": 5} | options)).double()


def conv(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.weight"]
    return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)


def trunk(state: dict[str, Tensor], x: Tensor, residual_scale: float) -> Tensor:
    """The figure of the paper, one line a layer, nothing overwritten."""
    head = conv(state, "head", x)
    features = head
    for block in range(sum(name.endswith("conv1.weight") for name in state)):
        change = conv(state, f"body.{block}.conv2", torch.relu(conv(state, f"body.{block}.conv1", features)))
        features = features + residual_scale * change
    return conv(state, "last", features) + head


def by_hand(model: EDSR, lr: Tensor) -> Tensor:
    state = model.state_dict()
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040], dtype=lr.dtype).view(3, 1, 1)
    inner = {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
    features = trunk(inner, 255 * lr - mean, model.residual_scale)
    for stage, step in enumerate({1: [], 2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}[model.scale]):
        features = F.pixel_shuffle(conv(state, f"tail.stages.{stage}", features), step)
    return (conv(state, "tail.last", features) + mean) / 255


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("residual_scale", [1.0, 0.1])
def test_the_paper_layer_by_layer(scale: int, residual_scale: float) -> None:
    """Oracle: torch.nn.functional, one call a layer; pictures that are not square."""
    model = made(scale, residual_scale=residual_scale)
    lr = torch.rand(2, 3, 6, 9, dtype=torch.float64)
    expected = by_hand(model, lr)
    torch.testing.assert_close(model(lr), expected)
    with torch.no_grad():
        torch.testing.assert_close(model(lr), expected)
    assert expected.shape == (2, 3, 6 * scale, 9 * scale)


def test_parameters() -> None:
    """Oracle: counted by hand; the encoder of LIIF with EDSR-baseline has 1,220,416 (its authors print 1.2 M)."""
    block = 2 * (64 * 64 * 9 + 64)
    assert sum(p.numel() for p in EDSREncoder().parameters()) == 28 * 64 + 16 * block + block // 2 == 1_220_416
    model = EDSR(2)
    assert sum(p.numel() for p in model.parameters()) == 1_220_416 + (64 * 9 + 1) * 256 + (64 * 9 + 1) * 3
    assert sum(b.numel() for b in model.buffers()) == 24
    assert not any(name.startswith(("sub_mean", "add_mean")) for name, _ in model.named_parameters())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_encoder_alone(memory_format: torch.memory_format) -> None:
    """Oracle: one call a layer in float32; the picture's layout in memory and its values stay as they were."""
    torch.manual_seed(0)
    encoder = EDSREncoder(blocks=3, channels=6, residual_scale=0.5)
    x = torch.randn(2, 3, 5, 8).contiguous(memory_format=memory_format)
    before = x.clone()
    features = encoder(x)
    torch.testing.assert_close(features, trunk(encoder.state_dict(), x, 0.5), check_stride=False)
    assert features.shape == (2, encoder.channels, 5, 8)
    assert torch.equal(x, before)
    assert x.is_contiguous(memory_format=memory_format)


def test_a_block_leaves_its_input_alone() -> None:
    """Overwriting is for the block's own results: the skip connection reads the input once more."""
    block = ResidualBlock(4, 0.1)
    x = torch.randn(1, 4, 5, 6)
    before = x.clone()
    block(x)
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)


def test_gradients() -> None:
    """Oracle: autograd through the layers written one by one, for the picture and every parameter; gradcheck."""
    model = made(3, residual_scale=0.1)
    lr = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, 3, 12, 15, dtype=torch.float64)
    came = torch.autograd.grad((model(lr) * seed).sum(), [lr, *model.parameters()])
    parameters = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    inner = {name.removeprefix("encoder."): value for name, value in parameters.items() if name.startswith("encoder.")}
    mean = model.add_mean.bias.view(3, 1, 1)
    large = F.pixel_shuffle(conv(parameters, "tail.stages.0", trunk(inner, 255 * lr - mean, 0.1)), 3)
    result = conv(parameters, "tail.last", large) / 255
    expected = torch.autograd.grad((result * seed).sum(), [lr, *parameters.values()])
    for mine, theirs in zip(came, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert mine.abs().max() > 0
    assert torch.autograd.gradcheck(made(2, added=True), lr[:1], fast_mode=True)


def test_added() -> None:
    """Oracle: the paper's network without its mean colour at the end, and our bicubic with the border of the
    evaluation; both have the same weights."""
    paper, lr = made(3), torch.rand(1, 3, 5, 7, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64).view(3, 1, 1)
    bicubic = resize(lr, scale=3, method="bicubic", a=-0.5, border="symmetric")
    torch.testing.assert_close(made(3, added=True)(lr), paper(lr) - mean + bicubic)
    assert paper.state_dict().keys() == made(3, added=True).state_dict().keys()


def test_data_range() -> None:
    """Law: with the same weights f, a range of 1 gives f(x - mean) + mean."""
    model, lr = made(2, data_range=1.0), torch.rand(1, 3, 4, 6, dtype=torch.float64)
    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64).view(3, 1, 1)
    torch.testing.assert_close(model(lr), model.tail(model.encoder(lr - mean)) + mean)


@pytest.mark.parametrize("added", [False, True])
def test_the_result_has_the_pictures_dtype(added: bool) -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has; autocast decides about the layers, not about the result."""
    keeps_the_dtype(made(2, added=added).float(), mixed_error=0.002)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("added", [False, True])
def test_the_radius_is_exact(scale: int, added: bool) -> None:
    """Oracle: gradients. All weights are positive, so that no influence cancels or ends at a ReLU."""
    model = made(scale, blocks=2, channels=2, added=added, data_range=1.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    radius = 2 * 2 + 2 + (1 if scale == 1 else 2)
    assert model.radius == radius
    lr = 1 + torch.rand(1, 3, 21, 23, dtype=torch.float64)
    assert influence(model, lr, (10, 11)) == (radius,) * 4


@pytest.mark.parametrize("blocks", [1, 3, 16])
def test_the_radius_of_the_encoder_is_exact(blocks: int) -> None:
    """Oracle: gradients; positive weights and pictures."""
    encoder = EDSREncoder(blocks, channels=1, residual_scale=0.1).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.abs_()
    radius = 2 * blocks + 2
    assert encoder.radius == radius
    side = 2 * radius + 5
    place = (radius + 2, radius + 2)
    assert influence(encoder, torch.rand(1, 3, side, side, dtype=torch.float64), place) == (radius,) * 4


def test_a_piece_with_its_radius_gives_the_same_pixels() -> None:
    """Law: what lies further away does not matter, and zeros outside begin at the picture's true border."""
    model, lr = made(2, added=True), torch.rand(1, 3, 30, 26, dtype=torch.float64)
    radius, whole = model.radius, model(lr)
    piece = model(lr[..., : 13 + radius, 10 - radius : 15 + radius])
    torch.testing.assert_close(
        piece[..., :26, 2 * radius : 2 * radius + 10], whole[..., :26, 20:30], rtol=0, atol=1e-12
    )


def test_batched_is_single_and_any_leading_axes() -> None:
    """Law: a batch is its pictures."""
    model = made(3, added=True)
    lr = torch.rand(2, 3, 3, 4, 5, dtype=torch.float64)
    rows = torch.stack([torch.stack([model(one) for one in row]) for row in lr])
    torch.testing.assert_close(model(lr), rows)
    assert model(lr).shape == (2, 3, 3, 12, 15)
    assert model(lr[:0]).shape == (0, 3, 3, 12, 15)


@pytest.mark.parametrize("training", [True, False])
def test_mode_does_not_matter_and_dtype_follows(training: bool) -> None:
    model, lr = made(2).train(training), torch.rand(1, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(model(lr), by_hand(model, lr))
    for dtype in (torch.float32, torch.bfloat16):
        assert model.to(dtype)(lr.to(dtype)).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model.float()(lr.float()).isfinite().all()


@pytest.mark.parametrize("shape", [(4, 4), (1, 4, 4), (2, 4, 4, 4), (3, 0, 4), (1, 3, 4, 0)])
def test_wrong_pictures_are_named(shape: tuple[int, ...]) -> None:
    for name, ask in {"lr": EDSR(2, 1, 2), "x": EDSREncoder(1, 2)}.items():
        with pytest.raises(ValueError, match=rf"{name} must be \(\.\.\., 3, h, w\) with h, w >= 1") as caught:
            ask(torch.zeros(shape))
        assert str(shape) in str(caught.value)
        with pytest.raises(TypeError, match=rf"{name} must be a torch\.Tensor, got ndarray"):
            ask(torch.zeros(3, 4, 4).numpy())
        with pytest.raises(TypeError, match=rf"{name} must be floating point in \[0, 1\], got torch\.uint8"):
            ask(torch.zeros(3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": 5}, ValueError, "scale must be 1, 2, 3, 4, 8 or another power of 2, got 5"),
        ({"scale": 6}, ValueError, "scale must be 1, 2, 3, 4, 8"),
        ({"scale": 0}, ValueError, "scale must be at least 1, got 0"),
        ({"scale": 2.5}, TypeError, r"scale must be a whole number, got 2\.5"),
        ({"blocks": 0}, ValueError, "blocks must be at least 1, got 0"),
        ({"channels": 1.5}, TypeError, r"channels must be a whole number, got 1\.5"),
        ({"residual_scale": 0}, ValueError, "residual_scale must be a positive number.* got 0"),
        ({"residual_scale": float("inf")}, ValueError, "residual_scale must be a positive number.* got inf"),
        ({"residual_scale": float("nan")}, ValueError, "residual_scale must be a positive number.* got nan"),
        ({"data_range": -1}, ValueError, "data_range must be the distance from black to white .1 or 255., got -1"),
        ({"data_range": float("nan")}, ValueError, "data_range must be .* got nan"),
        ({"data_range": float("inf")}, ValueError, "data_range must be .* got inf"),
        ({"data_range": "255"}, TypeError, "data_range must be a number, got '255'"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        EDSR(**({"scale": 2} | options))


def test_mean_shift() -> None:
    """Oracle: x -+ 255 mean; trained or not, as the official files of EDSR and Meta-SR hold it."""
    x = torch.rand(2, 3, 4, 5)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    torch.testing.assert_close(MeanShift(-1)(x), x - 255 * mean)
    torch.testing.assert_close(MeanShift(1, data_range=1)(x), x + mean)
    for trained in (False, True):
        shift = MeanShift(1, trained=trained)
        assert [name for name, _ in shift.named_parameters()] == (["weight", "bias"] if trained else [])
        assert list(shift.state_dict()) == ["weight", "bias"]
    with pytest.raises(ValueError, match=r"sign must be -1 \(subtract\) or 1 \(add\), got 0"):
        MeanShift(0)


def test_mean_shift_in_the_pictures_dtype() -> None:
    """Oracle: float32. In half precision 255 levels are half a level apart at best, so autocast must not touch them;
    and a network in half precision may add its colours to a picture in float32."""
    x, shift = 255 * torch.rand(2, 3, 4, 5), MeanShift(-1)
    with torch.autocast("cpu", torch.bfloat16):
        came = shift(x)
    assert torch.equal(came, shift(x))
    assert shift(x.double()).dtype == torch.float64
    came = shift.bfloat16()(x)
    assert came.dtype == torch.float32
    torch.testing.assert_close(came, x - 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1), rtol=0, atol=0.3)


def test_the_tail_between_other_widths() -> None:
    """Oracle: shapes by hand (RDN has G0 channels before and G between the stages)."""
    tail = Tail(7, 4, hidden=5)
    assert [tuple(stage.weight.shape) for stage in tail.stages] == [(20, 7, 3, 3), (20, 5, 3, 3)]
    assert tail(torch.rand(1, 7, 2, 3)).shape == (1, 3, 8, 12)
    with pytest.raises(TypeError, match=r"scale must be a whole number, got 3\.0"):
        Tail(7, 3.0, hidden=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        Tail(0, 2, hidden=5)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        Tail(7, 1, hidden=0)


def test_kept_in_a_file(tmp_path: Any) -> None:
    """Oracle: the same picture from the network that was written and read."""
    model = EDSR(3, blocks=2, channels=4, residual_scale=0.5, data_range=1.0, added=True)
    checkpoints.save(tmp_path / "edsr.safetensors", model)
    other = checkpoints.read(tmp_path / "edsr.safetensors")
    lr = torch.rand(3, 4, 5)
    assert torch.equal(other(lr), model(lr))
    assert (other.blocks, other.channels, other.residual_scale, other.data_range) == (2, 4, 0.5, 1.0)
