"""Token matching: a small ViDT learns to have the tokens of a large one (chapter 24; Song et al. 2022, section 3).

The tokens are those behind the projections to the neck's width, so that bodies of different widths agree in shape, and
token i of the student is compared with token i of the teacher: which tokens correspond is said by nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Distances:
    """Mean distances between tokens of a student and of a teacher.

    patches: one for each map. sizes: tokens of each map. det: of the body's [DET] tokens. neck: of those that enter the
    decoder and that each of its layers gives; None where the outputs hold none.
    """

    patches: Tensor
    sizes: tuple[int, ...]
    det: Tensor
    neck: Tensor | None


def token_distances(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> Distances:
    """Return the mean distances ||s_i - t_i|| of the tokens of two detectors, through the student's gradients alone.

    student, teacher: outputs of `ViDT(..., tokens=True)`: "patch_tokens" (a list of maps (N, C, h, w)), "det_tokens"
    (N, Q, C) and, if there, "neck_tokens" (L, N, Q, C). Computed in float32 or better. Raises ValueError where the
    two do not have equally many tokens of equal width, or one was not asked for them.
    """
    _check(student, teacher)
    maps = zip(student["patch_tokens"], teacher["patch_tokens"], strict=True)
    patches = torch.stack([_distance(s.flatten(2).mT, t.flatten(2).mT).mean() for s, t in maps])
    sizes = tuple(int(one.shape[-2:].numel()) for one in student["patch_tokens"])
    neck = None
    if "neck_tokens" in student:
        neck = _distance(student["neck_tokens"], teacher["neck_tokens"]).mean((1, 2))
    return Distances(patches, sizes, _distance(student["det_tokens"], teacher["det_tokens"]).mean(), neck)


def token_matching(
    student: Mapping[str, Any], teacher: Mapping[str, Any], weight: float = 4.0, official: bool = False
) -> Tensor:
    """Return the loss that draws the student's tokens to the teacher's, weight * (mean patch + mean [DET] distance).

    The mean over patches is over those of all maps together. official: what the authors' code computes instead:
    weight * sqrt(the sum of the means of every map, of the body's [DET] tokens, and of the neck's at every layer where
    the outputs hold them). Other arguments as in `token_distances`, which says what is raised.
    """
    far = token_distances(student, teacher)
    if not official:
        sizes = far.patches.new_tensor(far.sizes)
        return weight * ((far.patches * sizes).sum() / sizes.sum() + far.det)
    total = far.patches.sum() + far.det + (0 if far.neck is None else far.neck.sum())
    # the slope of a root at 0 is infinite: the tokens of a student that equals its teacher would get NaN
    return weight * total.clamp(min=torch.finfo(total.dtype).tiny).sqrt()


def teach(teacher: nn.Module, images: Tensor, mask: Tensor | None = None) -> dict[str, Any]:
    """Return the outputs of a ViDT with its tokens, without gradients and in eval mode; its mode stays as it was.

    images, mask: as `ViDT` takes them.
    """
    was_training = teacher.training
    teacher.eval()
    try:
        with torch.no_grad():
            outputs: dict[str, Any] = teacher(images, mask, tokens=True)
    finally:
        teacher.train(was_training)
    return outputs


def _distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the lengths of differences along the last dimension."""
    difference = student - teacher.detach()
    wide = torch.promote_types(difference.dtype, torch.float32)
    length: Tensor = torch.linalg.vector_norm(difference, dim=-1, dtype=wide)
    return length


def _check(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> None:
    for name, outputs in (("student", student), ("teacher", teacher)):
        for key in ("patch_tokens", "det_tokens"):
            if key not in outputs:
                raise ValueError(f"{name} must hold {key!r}: ask a ViDT with neck for tokens=True, got {list(outputs)}")
    if ("neck_tokens" in student) != ("neck_tokens" in teacher):
        raise ValueError("student and teacher must both hold 'neck_tokens', or neither")
    maps = [tuple(one.shape) for one in student["patch_tokens"]]
    if maps != (others := [tuple(one.shape) for one in teacher["patch_tokens"]]) or not maps:
        raise ValueError(f"patch_tokens must have one shape in student and teacher, got {maps} and {others}")
    for key in ("det_tokens", "neck_tokens"):
        if key in student and student[key].shape != teacher[key].shape:
            shapes = f"{tuple(student[key].shape)} and {tuple(teacher[key].shape)}"
            raise ValueError(f"{key} must have one shape in student and teacher, got {shapes}")
