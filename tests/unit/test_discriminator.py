"""TTSR's critic. Oracles: torch's functions called one by one, counts by hand, laws of a score."""

from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.super_resolution.discriminator import Discriminator


def made(**options: Any) -> Discriminator:
    """A narrow critic, whose weights are large enough that the last layers still see the picture."""
    torch.manual_seed(0)
    critic = Discriminator(**({"size": 64, "width": 2, "hidden": 5} | options)).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(2.4)
    return critic


def by_hand(state: dict[str, Tensor], picture: Tensor) -> Tensor:
    """One call a layer; a slope of 0.2 written as a maximum."""
    x = picture * 2 - 1
    for number, stride in enumerate([1, 2] * 5):
        weight, bias = state[f"convolutions.{number}.weight"], state[f"convolutions.{number}.bias"]
        x = F.conv2d(x, weight, bias, stride=stride, padding=1)
        x = torch.maximum(x, 0.2 * x)
    x = F.linear(x.reshape(len(x), -1), state["first.weight"], state["first.bias"])
    return F.linear(torch.maximum(x, 0.2 * x), state["last.weight"], state["last.bias"])[:, 0]


@pytest.mark.parametrize("size", [64, 32, 96, 37, 1])
def test_layer_by_layer(size: int) -> None:
    """Oracle: torch.nn.functional, one call a layer; sizes that are no multiple of 32 too."""
    critic, picture = made(size=size), torch.rand(2, 3, size, size, dtype=torch.float64)
    scores = critic(picture)
    torch.testing.assert_close(scores, by_hand(critic.state_dict(), picture), rtol=1e-12, atol=1e-12)
    assert scores.shape == (2,)
    assert (scores[0] - scores[1]).abs() > 1e-6


def test_parameters() -> None:
    """Oracle: counted by hand; 160 pixels become 5 x 5 places of 512 channels, 12,800 numbers."""
    widths = [3, 32, 32, 64, 64, 128, 128, 256, 256, 512, 512]
    convolutions = sum((9 * before + 1) * after for before, after in pairwise(widths))
    with torch.device("meta"):
        critic = Discriminator()
    assert critic.first.in_features == 5 * 5 * 512 == 12_800
    count = sum(p.numel() for p in critic.parameters())
    assert count == convolutions + 12_801 * 1024 + 1025 == 17_821_473
    assert [layer.stride for layer in critic.convolutions] == [(1, 1), (2, 2)] * 5
    assert (critic.size, critic.width, critic.hidden) == (160, 32, 1024)


def test_gradients() -> None:
    """Oracle: autograd through the layers written one by one, for the picture and every parameter; gradcheck."""
    critic = made()
    picture = torch.rand(2, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(2, dtype=torch.float64)
    came = torch.autograd.grad((critic(picture) * seed).sum(), [picture, *critic.parameters()])
    parameters = {name: p.detach().clone().requires_grad_() for name, p in critic.named_parameters()}
    expected = torch.autograd.grad((by_hand(parameters, picture) * seed).sum(), [picture, *parameters.values()])
    for mine, theirs in zip(came, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-14)
        assert mine.abs().max() > 0
    small = made(size=4, width=1)
    small_picture = torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, small_picture)
    assert torch.autograd.gradgradcheck(small, small_picture)


def test_a_score_is_of_one_picture_alone() -> None:
    """Law: a batch is its pictures, in train mode too; any leading axes."""
    critic = made(size=32).train()
    pictures = torch.rand(2, 3, 3, 32, 32, dtype=torch.float64)
    rows = torch.stack([torch.stack([critic(one) for one in row]) for row in pictures])
    torch.testing.assert_close(critic(pictures), rows, rtol=1e-12, atol=1e-12)
    assert rows.shape == (2, 3)
    assert critic(pictures[0, 0]).shape == ()


def test_pictures_are_from_minus_1_to_1_inside() -> None:
    """Law: without biases every layer is positively homogeneous, so that grey (1/2) scores 0, and twice the contrast
    twice as much."""
    critic = made(size=32)
    with torch.no_grad():
        for name, parameter in critic.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    change = 0.2 * torch.randn(3, 32, 32, dtype=torch.float64)
    assert critic(torch.full((3, 32, 32), 0.5, dtype=torch.float64)) == 0
    torch.testing.assert_close(critic(0.5 + 2 * change), 2 * critic(0.5 + change), rtol=1e-9, atol=1e-15)


def test_dtypes() -> None:
    """Oracle: float32, to the 8 bits that bfloat16 has."""
    critic, picture = made(size=32).float(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = critic(picture)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = critic(picture)
        half = critic.bfloat16()(picture.bfloat16())
    assert half.dtype == torch.bfloat16
    for came in (mixed, half):
        torch.testing.assert_close(came.float(), expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 64, 60), "picture must be 64 x 64, for which this was made; got 64 x 60"),
        ((2, 3, 32, 32), "picture must be 64 x 64, for which this was made; got 32 x 32"),
        ((2, 1, 64, 64), r"picture must be \(\.\.\., 3, h, w\) with h, w >= 1, got \(2, 1, 64, 64\)"),
    ],
)
def test_wrong_pictures_are_named(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made()(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(TypeError, match=r"picture must be floating point in \[0, 1\], got torch\.uint8"):
        made()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


@pytest.mark.parametrize("name", ["size", "width", "hidden"])
def test_wrong_arguments_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Discriminator(**{name: 0})
    with pytest.raises(TypeError, match=rf"{name} must be a whole number, got 2\.5"):
        Discriminator(**{name: 2.5})  # type: ignore[arg-type]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, gradients too."""
    critic, picture = made(), torch.rand(2, 3, 64, 64, dtype=torch.float64)
    results = []
    for device in ("cpu", "cuda"):
        net, x = critic.to(device), picture.to(device).detach().requires_grad_()
        scores = net(x)
        gradients = torch.autograd.grad(scores.sum(), [x, *net.parameters()])
        assert {one.device.type for one in (scores, *gradients)} == {device}
        results.append([one.detach().cpu() for one in (scores, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-10, atol=1e-10)
