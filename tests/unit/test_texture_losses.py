"""TTSR's losses. Oracles: numbers by hand, losses written as loops, critics whose gradients are known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.blocks.vgg import VGG
from course_lib.super_resolution.discriminator import Discriminator
from course_lib.super_resolution.texture_losses import (
    PENALTY_WEIGHT,
    WEIGHTS,
    Norm,
    critic_loss,
    frozen,
    generator_loss,
    gradient_penalty,
    perceptual,
    reconstruction,
    transferal,
)
from course_lib.upsampling import resize

DOUBLE = torch.float64


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def number(x: Tensor) -> float:
    return float(x.detach())


def test_reconstruction() -> None:
    """Oracle: by hand: (0.5 + 0.25 + 0 + 1) / 4; the gradient of |x| is its sign; twice in [-1, 1]."""
    sr = torch.tensor([0.5, 0.0, 1.0, 1.0], dtype=DOUBLE, requires_grad=True)
    hr = torch.tensor([0.0, 0.25, 1.0, 0.0], dtype=DOUBLE)
    loss = reconstruction(sr, hr)
    assert loss.shape == ()
    assert number(loss) == 1.75 / 4
    assert number(reconstruction(2 * sr - 1, 2 * hr - 1)) == 3.5 / 4
    assert torch.autograd.grad(loss, sr)[0].tolist() == [0.25, -0.25, 0, 0.25]


def test_perceptual_of_the_picture_itself() -> None:
    """Oracle: by hand, with the identity as extractor: (0.25 + 0.0625 + 0 + 1) / 4, gradient 2 (sr - hr) / 4."""
    sr = torch.tensor([[0.5, 0.0, 1.0, 1.0]], dtype=DOUBLE, requires_grad=True)
    hr = torch.tensor([[0.0, 0.25, 1.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    loss = perceptual(lambda x: x, sr, hr)
    assert number(loss) == 1.3125 / 4
    came = torch.autograd.grad(loss, [sr, hr], allow_unused=True)
    assert came[0].tolist() == [[0.25, -0.125, 0, 0.5]]
    assert came[1] is None


def test_perceptual_of_one_convolution() -> None:
    """Oracle: by hand. The sum of 3 x 3 ones over a picture that is 0 but for 1 red pixel is 1 in nine places: with a
    kernel of twos the mean square is 9 * 4 / 25, and half of that red gives a quarter of it."""
    conv = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    nn.init.constant_(conv.weight, 2.0)
    sr, hr = torch.zeros(1, 3, 5, 5), torch.zeros(1, 3, 5, 5)
    sr[0, 0, 2, 2] = 1
    assert number(perceptual(conv, sr, hr)) == pytest.approx(36 / 25)
    assert number(perceptual(conv, sr / 2, hr)) == pytest.approx(9 / 25)
    assert number(perceptual(conv, hr, sr)) == pytest.approx(36 / 25)
    hr[0, 1, 2, 2] = 1  # one convolution that adds the colours cannot tell green from red
    assert number(perceptual(conv, sr, hr)) == 0


def test_perceptual_with_vgg() -> None:
    """Oracle: the mean square of the two maps, and autograd; the extractor's weights get no gradient."""
    torch.manual_seed(0)
    vgg = VGG(((4, 1), (6, 2)), last="relu2_1").double()
    sr, hr = pictures(2, 3, 9, 8).requires_grad_(), pictures(2, 3, 9, 8, seed=1)
    loss = perceptual(frozen(vgg), sr, hr)
    expected = (vgg(sr) - vgg(hr)).square().mean()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    came, *of_weights = torch.autograd.grad(loss, [sr, *vgg.parameters()], allow_unused=True)
    torch.testing.assert_close(came, torch.autograd.grad(expected, sr)[0], rtol=1e-10, atol=1e-16)
    assert came.abs().max() > 0
    assert of_weights == [None] * 4
    weights = list(vgg.parameters())  # one that is not frozen learns from sr alone: hr's map is the target
    came_weights = torch.autograd.grad(perceptual(vgg, sr, hr), weights)
    expected_weights = torch.autograd.grad((vgg(sr) - vgg(hr).detach()).square().mean(), weights)
    for mine, theirs in zip(came_weights, expected_weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-16)


def by_hand(came: list[Tensor], textures: list[Tensor], soft: Tensor | None, norm: Norm) -> Tensor:
    """The code's formula with our own bicubic enlargement (a = -0.75, the border repeated)."""
    total = torch.zeros((), dtype=DOUBLE)
    for level, texture in zip(came, textures, strict=True):
        difference = level - texture
        if soft is not None:
            scale = level.shape[-1] // soft.shape[-1]
            large = resize(soft, scale=scale, method="bicubic", a=-0.75, border="replicate") if scale > 1 else soft
            difference = difference / (1 + torch.exp(-large))
        power = difference.abs() if norm == "l1" else difference**2
        total = total + power.sum() / power.numel() / len(came)
    return total


def levels(seed: int) -> list[Tensor]:
    sizes = [(2, 12, 16), (4, 6, 8), (5, 3, 4)]
    return [pictures(2, *size, seed=seed + k).requires_grad_() for k, size in enumerate(sizes)]


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("weighted", [False, True])
def test_transferal(norm: Norm, weighted: bool) -> None:
    """Oracle: the formula written out, autograd through it, gradcheck; the gradient reaches result, textures and S."""
    came, textures = levels(0), levels(10)
    soft = (2 * pictures(2, 1, 3, 4, seed=20) - 1).requires_grad_() if weighted else None
    inputs = [*came, *textures, *([] if soft is None else [soft])]
    loss, expected = (function(came, textures, soft, norm) for function in (transferal, by_hand))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-16)
        assert mine.abs().max() > 0
    if norm == "l2":
        assert torch.autograd.gradcheck(
            lambda *x: transferal(x[:3], x[3:6], x[6] if weighted else None), inputs, fast_mode=True
        )


def test_transferal_in_small_numbers() -> None:
    """Oracle: by hand. One level, differences 1 and -3: 2 and 5. S = 0 weights by 1/2, ln 3 by 3/4, in the square too;
    the mean over levels, not over all their numbers."""
    came, texture = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
    soft = torch.tensor([[[[0.0, math.log(3)]]]])
    assert number(transferal([came], [texture], norm="l1")) == 2
    assert number(transferal([came], [texture])) == 5
    assert number(transferal([came], [texture], soft, "l1")) == pytest.approx((0.5 + 2.25) / 2)
    assert number(transferal([came], [texture], soft, "l2")) == pytest.approx((0.25 + 5.0625) / 2)
    large = torch.zeros(1, 2, 4, 8)
    assert number(transferal([large, came], [large + 1, texture], norm="l1")) == pytest.approx(1.5)


def linear(weight: Tensor, bias: float = 0.0) -> Any:
    return lambda x: (x * weight).sum(dim=(1, 2, 3)) + bias


def test_critic_and_generator_loss() -> None:
    """Oracle: D(x) = <w, x> + b: <w, mean fake - mean real>, and -<w, mean fake> - b; gradients by hand."""
    real, fake = pictures(4, 3, 5, 6).requires_grad_(), pictures(4, 3, 5, 6, seed=1).requires_grad_()
    weight = (pictures(3, 5, 6, seed=2) - 0.5).requires_grad_()
    critic = linear(weight, 0.25)
    loss = critic_loss(critic, real, fake)
    difference = (fake - real).mean(dim=0)
    torch.testing.assert_close(loss, (weight * difference).sum(), rtol=1e-12, atol=0)
    came = torch.autograd.grad(loss, [weight, real, fake], allow_unused=True)
    torch.testing.assert_close(came[0], difference)
    assert [x is None for x in came] == [False, True, True]
    torch.testing.assert_close(critic_loss(critic, fake, real), -loss, rtol=1e-12, atol=0)
    loss = generator_loss(critic, fake)
    torch.testing.assert_close(loss, -(weight * fake.mean(dim=0)).sum() - 0.25, rtol=1e-12, atol=0)
    (came_fake,) = torch.autograd.grad(loss, fake)
    torch.testing.assert_close(came_fake, (-weight / 4).expand(4, -1, -1, -1))


@pytest.mark.parametrize("length", [0.0, 0.5, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic(length: float) -> None:
    """Oracle: its gradient is w wherever one looks: (|w| - 1)^2, whose gradient is 2 (|w| - 1) w / |w|; 0 for w = 0,
    where the length has a kink."""
    weight = pictures(3, 4, 5) - 0.5
    weight = (length * weight / weight.norm()).requires_grad_()
    penalty = gradient_penalty(linear(weight), pictures(2, 3, 4, 5), pictures(2, 3, 4, 5, seed=1), pictures(2))
    assert number(penalty) == pytest.approx((length - 1) ** 2, abs=1e-12)
    (came,) = torch.autograd.grad(penalty, weight)
    expected = 2 * (length - 1) * weight / length if length else torch.zeros_like(weight)
    torch.testing.assert_close(came, expected)


def test_where_the_penalty_looks() -> None:
    """Oracle: D(x) = |x|^2 / 2 has the gradient x: (|mix real + (1 - mix) fake| - 1)^2, the mean over pictures; at
    mix = 1 that is real's own length."""
    real, fake, mix = pictures(3, 3, 4, 5), pictures(3, 3, 4, 5, seed=1), torch.tensor([1.0, 0.0, 0.3], dtype=DOUBLE)
    places = [real[0], fake[1], 0.3 * real[2] + 0.7 * fake[2]]
    expected = sum((number(x.norm()) - 1) ** 2 for x in places) / 3
    assert number(gradient_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, mix)) == pytest.approx(
        expected
    )


def bent(weight: Tensor, last: Tensor) -> Any:
    """A critic with curvature everywhere, so that no derivative of it is 0."""
    return lambda x: torch.tanh(x.flatten(1) @ weight) @ last


def test_the_penalty_has_second_and_third_derivatives() -> None:
    """Oracle: differences (gradcheck of what is itself a gradient; gradgradcheck one order further)."""
    real, fake, mix = pictures(2, 3, 2, 2), pictures(2, 3, 2, 2, seed=1), pictures(2, seed=2)
    weights = ((pictures(12, 3, seed=3) - 0.5).requires_grad_(), pictures(3, seed=4).requires_grad_())

    def penalty(*w: Tensor) -> Tensor:
        return gradient_penalty(bent(*w), real, fake, mix)

    assert torch.autograd.gradcheck(penalty, weights)
    assert torch.autograd.gradgradcheck(penalty, weights)
    assert all(gradient.abs().max() > 0 for gradient in torch.autograd.grad(penalty(*weights), weights))


def test_the_penalty_of_the_whole_critic() -> None:
    """Oracle: gradients by autograd picture by picture, and their derivative by every weight; the pictures get none."""
    torch.manual_seed(0)
    critic = Discriminator(size=8, width=2, hidden=4).double()
    real, fake = pictures(3, 3, 8, 8).requires_grad_(), pictures(3, 3, 8, 8, seed=1).requires_grad_()
    mix = pictures(3, seed=2)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(2.4)
    singles = []
    for one_real, one_fake, share in zip(real.detach(), fake.detach(), mix, strict=True):
        x = (share * one_real + (1 - share) * one_fake).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x), x, create_graph=True)
        singles.append((gradient.square().sum().sqrt() - 1) ** 2)
    expected, came = torch.stack(singles).mean(), gradient_penalty(critic, real, fake, mix)
    torch.testing.assert_close(came, expected, rtol=1e-10, atol=0)
    weights = [p for name, p in critic.named_parameters() if name != "last.bias"]  # shifts scores, and bends nothing
    of_mine = torch.autograd.grad(came, [*weights, real, fake], allow_unused=True)
    of_theirs = torch.autograd.grad(expected, weights, allow_unused=True)
    assert [x is None for x in of_mine[-2:]] == [True, True]
    bends = 0
    for mine, theirs in zip(of_mine, of_theirs, strict=False):
        if mine is not None and theirs is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-14)
            bends += bool(mine.abs().max() > 0)
    assert bends == 12  # the weights of all layers; LeakyReLU has no curvature for biases to move


def test_the_best_linear_critic_tells_how_far_the_pictures_are_moved() -> None:
    """Oracle: on a line with fake = real - d, critic_loss + lambda penalty is least at w = 1 + d / (2 lambda), where it
    is -(d + d^2 / (4 lambda)); d is the Wasserstein distance of the two."""
    d = 3.0
    weight = torch.full((1, 1, 1), 1 + d / (2 * PENALTY_WEIGHT), dtype=DOUBLE, requires_grad=True)
    real = pictures(5, 1, 1, 1)
    loss = critic_loss(linear(weight), real, real - d)
    loss = loss + PENALTY_WEIGHT * gradient_penalty(linear(weight), real, real - d, pictures(5, seed=1))
    assert number(loss) == pytest.approx(-(d + d**2 / (4 * PENALTY_WEIGHT)))
    assert number(torch.autograd.grad(loss, weight)[0]) == pytest.approx(0, abs=1e-12)


def test_the_range_of_the_pictures_counts() -> None:
    """Law: the same critic seen from [-1, 1] has a gradient half as long."""
    real, fake, mix = pictures(2, 3, 4, 5), pictures(2, 3, 4, 5, seed=1), pictures(2, seed=2)
    weight = pictures(3, 4, 5, seed=3)
    length = number(weight.norm())
    signed = gradient_penalty(lambda x: linear(weight)((x + 1) / 2), 2 * real - 1, 2 * fake - 1, mix)
    assert number(signed) == pytest.approx((length / 2 - 1) ** 2)


def test_without_gradients() -> None:
    """Validation under no_grad gives the same number, and no graph."""
    weights = pictures(12, 3, seed=3), pictures(3, seed=4).requires_grad_()
    given = (bent(*weights), pictures(2, 3, 2, 2), pictures(2, 3, 2, 2, seed=1), pictures(2, seed=2))
    with torch.no_grad():
        came = gradient_penalty(*given)
    assert not came.requires_grad
    torch.testing.assert_close(came, gradient_penalty(*given).detach(), rtol=0, atol=0)


def test_frozen_follows_the_module() -> None:
    """Oracle: the module itself; gradients to the input alone, with the weights it has when it is called."""
    torch.manual_seed(0)
    critic = Discriminator(size=4, width=1, hidden=2).double()
    still, fake = frozen(critic), pictures(2, 3, 4, 4).requires_grad_()
    for _ in range(2):
        loss, expected = generator_loss(still, fake), generator_loss(critic, fake)
        assert torch.equal(loss, expected)
        parameters = list(critic.parameters())
        came = torch.autograd.grad(loss, [fake, *parameters], allow_unused=True)
        torch.testing.assert_close(came[0], torch.autograd.grad(expected, fake)[0])
        assert came[0].abs().max() > 0
        assert all(x is None for x in came[1:])
        assert all(parameter.requires_grad for parameter in parameters)
        with torch.no_grad():
            parameters[-1].add_(1.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_added_up_in_float32(dtype: torch.dtype) -> None:
    """Oracle: the same numbers in float32."""
    maps = [pictures(2, 3, 12, 8, seed=seed).to(dtype) for seed in (0, 1)]
    soft, mix = pictures(2, 1, 3, 2, seed=2).to(dtype), torch.tensor([0.25, 0.5])
    asked: list[Any] = [
        lambda a, b, _: reconstruction(a, b),
        lambda a, b, _: perceptual(lambda x: x, a, b),
        lambda a, b, s: transferal([a], [b], s),
        lambda a, b, _: critic_loss(lambda x: x.flatten(1)[:, 7], a, b),
        lambda a, _, __: generator_loss(lambda x: x.flatten(1)[:, 7], a),
    ]
    for ask in asked:
        came, expected = ask(*maps, soft), ask(*(x.float() for x in (*maps, soft)))
        assert came.dtype == torch.float32
        torch.testing.assert_close(came, expected, rtol=1e-6, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        critic = Discriminator(size=8, width=1, hidden=2)
        penalty = gradient_penalty(critic, torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), mix)
    assert penalty.dtype == torch.float32
    assert penalty.isfinite()


def test_the_codes_weights() -> None:
    """Oracle: the command line of the authors' training script and loss, typed by hand."""
    assert WEIGHTS == {"reconstruction": 1, "perceptual": 0.01, "transferal": 0.01, "generator": 0.001}
    assert PENALTY_WEIGHT == 10


A, B = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5)
WHOLE = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)


def one_each(x: Tensor) -> Tensor:
    return x.flatten(1).sum(dim=1)


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (
            lambda: reconstruction(A, B),
            ValueError,
            r"sr and hr must have one shape, got \(2, 3, 4, 4\) and \(2, 3, 4, 5",
        ),
        (lambda: reconstruction(A, WHOLE), TypeError, r"hr must be a floating point torch\.Tensor, got torch\.uint8"),
        (lambda: reconstruction(A[:0], A[:0]), ValueError, r"sr must hold at least one picture, got \(0, 3, 4, 4\)"),
        (lambda: perceptual(one_each, A, B), ValueError, "sr and hr must have one shape"),
        (lambda: perceptual(one_each, A, None), TypeError, r"hr must be a floating point .*, got NoneType"),  # type: ignore[arg-type]
        (lambda: transferal([A], [A], norm="l3"), ValueError, "norm must be one of 'l1', 'l2', got 'l3'"),  # type: ignore[arg-type]
        (lambda: transferal([A, A], [A]), ValueError, "sr_maps and textures must have as many levels, got 2 and 1"),
        (lambda: transferal(A, [A]), TypeError, r"sr_maps must be a list of maps, .* got torch\.float32"),  # type: ignore[arg-type]
        (lambda: transferal([A], []), TypeError, "textures must be a list of maps, one for each level, got list"),
        (lambda: transferal([A, A], [A, B]), ValueError, r"sr_maps\[1\] and textures\[1\] must have one shape"),
        (lambda: transferal([A], [A], A), ValueError, r"soft must be \(B, 1, h, w\), and sr_maps\[0\] one whole"),
        (lambda: transferal([A], [A], A[:1, :1]), ValueError, r"got \(1, 1, 4, 4\) and \(2, 3, 4, 4\)"),
        (lambda: transferal([A], [A], A[:, :1, :3]), ValueError, r"got \(2, 1, 3, 4\) and \(2, 3, 4, 4\)"),
        (lambda: transferal([A], [A], A[:, :1, :2]), ValueError, r"got \(2, 1, 2, 4\) and \(2, 3, 4, 4\)"),
        (lambda: transferal([A], [A], WHOLE), TypeError, r"soft must be a floating point .*, got torch\.uint8"),
        (lambda: critic_loss(one_each, A, B), ValueError, "real and fake must have one shape"),
        (lambda: critic_loss(torch.mean, A, A), ValueError, r"critic must give one score for each of 2 .* shape \(\)"),
        (lambda: generator_loss(torch.mean, A), ValueError, "critic must give one score for each of 2 pictures"),
        (lambda: generator_loss(one_each, WHOLE), TypeError, r"fake must be a floating point .*, got torch\.uint8"),
        (lambda: gradient_penalty(one_each, A, B, A[:, 0, 0, 0]), ValueError, "real and fake must have one shape"),
        (lambda: gradient_penalty(one_each, A, A, A), ValueError, r"mix must be one number for each of 2 .* \(2, 3, 4"),
        (
            lambda: gradient_penalty(one_each, A, A, A[:1, 0, 0, 0]),
            ValueError,
            r"mix must be .* of 2 pictures, got \(1,",
        ),
        (lambda: gradient_penalty(one_each, A, A, 0.5), TypeError, r"mix must be a floating .*, got float"),  # type: ignore[arg-type]
        (lambda: gradient_penalty(torch.mean, A, A, A[:, 0, 0, 0]), ValueError, "critic must give one score for each"),
    ],
)
def test_wrong_arguments_are_named(ask: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ask()


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, gradients too."""
    torch.manual_seed(0)
    critic = Discriminator(size=8, width=2, hidden=4).double()
    results = []
    for device in ("cpu", "cuda"):
        critic.to(device)
        real, fake, mix = (pictures(2, *shape).to(device) for shape in ((3, 8, 8), (3, 8, 8), ()))
        fake = fake.flip(0).requires_grad_()
        came, textures, soft = (
            [x.to(device) for x in given] for given in (levels(0), levels(9), [pictures(2, 1, 3, 4)])
        )
        losses = [
            critic_loss(critic, real, fake) + gradient_penalty(critic, real, fake, mix),
            generator_loss(critic, fake) + reconstruction(fake, real) + perceptual(critic, fake, real),
            transferal(came, textures, soft[0]),
        ]
        gradients = torch.autograd.grad(losses[0], critic.first.weight) + torch.autograd.grad(losses[1], fake)
        assert {x.device.type for x in (*losses, *gradients)} == {device}
        results.append([x.detach().cpu() for x in (*losses, *gradients)])
    for cpu, cuda in zip(*results, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-9, atol=1e-12)
