"""The losses that TTSR is trained with: of colours, of features, of textures, and a critic's (chapter 11).

What the paper leaves open or the authors' code does otherwise (github.com/researchmm/TTSR):

- Weights: 1 for `reconstruction`, 1e-2 for `perceptual`, 1e-2 for `transferal`, 1e-3 for `generator_loss` (`WEIGHTS`).
  They are for pictures in [-1, 1], where the first is twice what it is in [0, 1], the range of this book; features are
  the same. The network called TTSR-rec has the first loss alone; the other begins with two epochs of it.
- The paper writes the transferal loss as a part of the perceptual loss, for one layer and squared. The code takes the
  mean over all three layers, and squares or absolute values. It can weight by the soft attention, which the paper does
  not: then by sigmoid(S), where the network itself multiplies by S. Its default is squares without weights.
- Textures are the target, and the code does not detach them: the gradient reaches the extractor through them, and
  the soft attention where it weights. The extractor that looks at the result is a copy whose weights get no gradient:
  `frozen(extractor)`.
- The critic takes two steps for each of the network (Gulrajani et al. 2017 take five), by Adam with betas 0 and 0.9,
  on `critic_loss` + 10 `gradient_penalty`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.upsampling.grids import check_choice

Norm = Literal["l1", "l2"]
Critic = Callable[[Tensor], Tensor]

WEIGHTS = {"reconstruction": 1.0, "perceptual": 1e-2, "transferal": 1e-2, "generator": 1e-3}
"""What the code multiplies the losses of the network with; pictures in [-1, 1]."""
PENALTY_WEIGHT = 10.0
"""Lambda of the gradient penalty, in the code and in Gulrajani et al. 2017."""


def reconstruction(sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean of |sr - hr|: one number, in the unit of the pictures (L_rec; Yang et al. 2020, section 3.3).

    sr, hr: floating point of one shape, (..., 3, H, W). Raises TypeError or ValueError otherwise.
    """
    _check_alike("sr", sr, "hr", hr)
    return F.l1_loss(_wide(sr), _wide(hr))


def perceptual(features: Callable[[Tensor], Tensor], sr: Tensor, hr: Tensor) -> Tensor:
    """Return the mean of (features(sr) - features(hr))^2: one number (Yang et al. 2020, section 3.3).

    features: from pictures (B, 3, H, W) to maps of any shape: `frozen(blocks.vgg.VGG(last="relu5_1"))` with weights of
    ImageNet in the paper. No gradient goes to `hr`. Raises TypeError or ValueError where sr and hr
    are not floating point of one shape.
    """
    _check_alike("sr", sr, "hr", hr)
    with torch.no_grad():
        target = features(hr.detach())  # features may be the picture itself
    return F.mse_loss(_wide(features(sr)), _wide(target))


def transferal(
    sr_maps: Sequence[Tensor], textures: Sequence[Tensor], soft: Tensor | None = None, norm: Norm = "l2"
) -> Tensor:
    """Return how far the result's textures are from the transferred ones: one number (Yang et al. 2020, section 3.3).

    The mean over the levels of the mean of |w (map - texture)| ("l1") or its square ("l2"). sr_maps, textures: for each
    level (B, C, H, W), in the same order: what `TextureExtractor` makes of the result, and T as (fine, middle, coarse).
    soft: S as (B, 1, h, w), of which the levels' sizes are whole multiples; w = sigmoid of S enlarged to the level by
    torch's bicubic (a = -0.75). None: w = 1. Raises TypeError or ValueError for anything else.
    """
    check_choice("norm", norm, Norm)
    counts = [_count("sr_maps", sr_maps), _count("textures", textures)]
    if counts[0] != counts[1]:
        raise ValueError(f"sr_maps and textures must have as many levels, got {counts[0]} and {counts[1]}")
    for level, (came, texture) in enumerate(zip(sr_maps, textures, strict=True)):
        _check_alike(f"sr_maps[{level}]", came, f"textures[{level}]", texture)
        if soft is not None:
            _check_soft(soft, f"sr_maps[{level}]", came)
    distance = F.l1_loss if norm == "l1" else F.mse_loss
    losses = []
    for came, texture in zip(sr_maps, textures, strict=True):
        weight = 1.0 if soft is None else _enlarged(_wide(soft), came.shape[-2:]).sigmoid()
        losses.append(distance(_wide(came) * weight, _wide(texture) * weight))
    return torch.stack(losses).mean()


def critic_loss(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Return mean D(fake) - mean D(real), which a critic D makes small: less than 0 where it tells them apart.

    Without the penalty, see `gradient_penalty`. critic: from pictures (B, ...) to one score each. No gradient goes to
    the pictures. Raises TypeError or ValueError for pictures that are not floating point of one shape, and for scores
    that are not one for each (Gulrajani et al. 2017, equation 3).
    """
    _check_alike("real", real, "fake", fake)
    return _scores(critic, fake.detach()).mean() - _scores(critic, real.detach()).mean()


def generator_loss(critic: Critic, fake: Tensor) -> Tensor:
    """Return -mean D(fake), which the network makes small (L_adv; Yang et al. 2020, section 3.3).

    Its gradient goes to `fake`, and to the critic's own weights, for which it is not meant: give `frozen(critic)`.
    Raises TypeError or ValueError as `critic_loss` does.
    """
    _check_floats("fake", fake)
    return -_scores(critic, fake).mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Return the mean of (|gradient of D|_2 - 1)^2 between real and fake pictures (Gulrajani et al. 2017, equation 3).

    At mix * real + (1 - mix) * fake, mix (B,) in [0, 1], drawn uniformly by the caller, one for each picture; lambda is
    not in it. The gradient is by the pictures as they are given: by [0, 1], or twice smaller by [-1, 1]. What is
    returned has a gradient by the critic's weights (a derivative of a derivative), none by the pictures. Raises
    TypeError or ValueError as `critic_loss` does, and for a mix of another shape.
    """
    _check_alike("real", real, "fake", fake)
    _check_floats("mix", mix)
    if mix.shape != real.shape[:1]:
        raise ValueError(f"mix must be one number for each of {len(real)} pictures, got {tuple(mix.shape)}")
    wanted = torch.is_grad_enabled()
    share = mix.detach().view(-1, *[1] * (real.dim() - 1))
    with torch.enable_grad():
        between = (share * real.detach() + (1 - share) * fake.detach()).requires_grad_()
        total = _scores(critic, between).sum()
        (gradient,) = torch.autograd.grad(total, between, create_graph=wanted)
    lengths: Tensor = torch.linalg.vector_norm(_wide(gradient).flatten(1), dim=1)
    return (lengths - 1).square().mean()


def frozen(module: nn.Module) -> Callable[..., Any]:
    """Return a callable that is the module with the weights it has when called, which get no gradient; its input does.

    As a copy that follows the module, without the memory of one.
    """

    def call(*inputs: Any, **options: Any) -> Any:
        state = {name: value.detach() for name, value in module.named_parameters()}
        return torch.func.functional_call(module, state, inputs, options)

    return call


def _scores(critic: Critic, pictures: Tensor) -> Tensor:
    scores = critic(pictures)
    if scores.numel() != len(pictures):
        raise ValueError(
            f"critic must give one score for each of {len(pictures)} pictures, got the shape {tuple(scores.shape)}"
        )
    return _wide(scores)


def _enlarged(soft: Tensor, size: Sequence[int]) -> Tensor:
    return soft if soft.shape[-2:] == tuple(size) else F.interpolate(soft, size=list(size), mode="bicubic")


def _wide(x: Tensor) -> Tensor:
    """Return a tensor in float32 at least: means of half precision lose digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _kind(value: Any) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def _count(name: str, levels: Any) -> int:
    if not isinstance(levels, list | tuple) or not levels:
        raise TypeError(f"{name} must be a list of maps, one for each level, got {_kind(levels)}")
    return len(levels)


def _check_floats(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"{name} must be a floating point torch.Tensor, got {_kind(value)}")
    if not value.dim() or not value.numel():
        raise ValueError(f"{name} must hold at least one picture, got {tuple(value.shape)}")


def _check_alike(name: str, came: Tensor, other: str, expected: Tensor) -> None:
    _check_floats(name, came)
    _check_floats(other, expected)
    if came.shape != expected.shape:
        raise ValueError(f"{name} and {other} must have one shape, got {tuple(came.shape)} and {tuple(expected.shape)}")


def _check_soft(soft: Tensor, name: str, level: Tensor) -> None:
    _check_floats("soft", soft)
    fits = soft.dim() == level.dim() == 4 and soft.shape[:2] == (len(level), 1)
    if fits:
        (height, width), (h, w) = level.shape[-2:], soft.shape[-2:]
        fits = height % h == 0 and width % w == 0 and height // h == width // w
    if not fits:
        raise ValueError(
            f"soft must be (B, 1, h, w), and {name} one whole multiple of it in size; got {tuple(soft.shape)} and "
            f"{tuple(level.shape)}"
        )
