"""Token matching. Oracle: numbers done by hand, loops, and what autograd says."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib.detection.families.vidt.distillation import teach, token_distances, token_matching

DOUBLE = torch.float64


def drawn(seed: int, neck: bool = True, batch: int = 2) -> dict[str, Any]:
    """Tokens of 3 channels: maps of 2 x 3 and 1 x 2, 4 [DET] tokens, 2 layers behind them."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (batch, 3, 2, 3), "b": (batch, 3, 1, 2), "d": (batch, 4, 3), "n": (3, batch, 4, 3)}
    made = {key: torch.randn(shape, dtype=DOUBLE, generator=generator) for key, shape in shapes.items()}
    outputs = {"patch_tokens": [made["a"], made["b"]], "det_tokens": made["d"]}
    return outputs | ({"neck_tokens": made["n"]} if neck else {})


def toy() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two patches, one of which is a step of 1 away, and a [DET] token that is 5 away."""
    student = {"patch_tokens": [torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])], "det_tokens": torch.zeros(1, 1, 2)}
    teacher = {"patch_tokens": [torch.eye(2)[None, :, None]], "det_tokens": torch.tensor([[[3.0, 4.0]]])}
    return student, teacher


def test_by_hand() -> None:
    """Oracle: 4 (1 / 2 + 5), and the code's 4 sqrt(1 / 2 + 5)."""
    student, teacher = toy()
    assert token_matching(student, teacher).item() == 22
    assert token_matching(student, teacher, weight=1.0).item() == 5.5
    assert token_matching(student, teacher, official=True).item() == pytest.approx(9.3808, abs=1e-4)


def means_by_loops(a: Tensor, b: Tensor) -> float:
    """The mean distance of rows."""
    rows = [math.dist(x, y) for x, y in zip(a.reshape(-1, 3).tolist(), b.reshape(-1, 3).tolist(), strict=True)]
    return sum(rows) / len(rows)


def test_loops() -> None:
    """Oracle: loops over tokens: the formula's mean is over the patches of all maps, the code's of each map."""
    student, teacher = drawn(0), drawn(1)
    rows = [[one.flatten(2).mT for one in outputs["patch_tokens"]] for outputs in (student, teacher)]
    all_patches = means_by_loops(*(torch.cat(one, 1) for one in rows))
    det = means_by_loops(student["det_tokens"], teacher["det_tokens"])
    assert token_matching(student, teacher, weight=3.0).item() == pytest.approx(3 * (all_patches + det), rel=1e-12)
    each = [means_by_loops(a, b) for a, b in zip(*rows, strict=True)]
    neck = [means_by_loops(a, b) for a, b in zip(student["neck_tokens"], teacher["neck_tokens"], strict=True)]
    expected = 2 * math.sqrt(sum(each) + det + sum(neck))
    assert token_matching(student, teacher, weight=2.0, official=True).item() == pytest.approx(expected, rel=1e-12)
    far = token_distances(student, teacher)
    assert far.sizes == (6, 2)
    assert far.neck is not None
    torch.testing.assert_close(far.patches.tolist() + far.neck.tolist(), each + neck)


def test_tokens_correspond_by_index() -> None:
    """Oracle: the same set of tokens in another order is another teacher."""
    student = drawn(0)
    turned = student | {"det_tokens": student["det_tokens"].flip(1)}
    assert token_matching(student, student).item() == 0
    assert token_matching(student, turned).item() > 1


@pytest.mark.parametrize("official", [False, True])
def test_gradients_go_to_the_student_alone(official: bool) -> None:
    """Oracle: autograd, for the student's gradient gradcheck."""
    student, teacher = drawn(0), drawn(1)
    leaves = [*student["patch_tokens"], student["det_tokens"], student["neck_tokens"]]
    others = [*teacher["patch_tokens"], teacher["det_tokens"], teacher["neck_tokens"]]
    for leaf in leaves + others:
        leaf.requires_grad_()
    token_matching(student, teacher, official=official).backward()  # type: ignore[no-untyped-call]
    assert all(leaf.grad is not None for leaf in leaves[:3])
    assert (leaves[3].grad is not None) is official
    assert all(leaf.grad is None for leaf in others)

    def loss(a: Tensor, b: Tensor, d: Tensor, n: Tensor) -> Tensor:
        return token_matching({"patch_tokens": [a, b], "det_tokens": d, "neck_tokens": n}, teacher, official=official)

    assert torch.autograd.gradcheck(loss, leaves)


@pytest.mark.parametrize("official", [False, True])
def test_a_student_that_has_arrived_stays(official: bool) -> None:
    """Oracle: the loss is 0 there, and the gradient no NaN, though roots have no slope at 0."""
    student, teacher = drawn(0), drawn(0)
    student["det_tokens"].requires_grad_()
    loss = token_matching(student, teacher, official=official)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert bool((student["det_tokens"].grad == 0).all())


def test_half_precision_is_summed_in_float32() -> None:
    """Oracle: float64 of the same rounded numbers."""
    student, teacher = (
        {key: [one.bfloat16() for one in x] if isinstance(x, list) else x.bfloat16() for key, x in drawn(seed).items()}
        for seed in (0, 1)
    )
    loss = token_matching(student, teacher)
    assert loss.dtype == torch.float32
    exact = [
        {key: [one.double() for one in x] if isinstance(x, list) else x.double() for key, x in side.items()}
        for side in (student, teacher)
    ]
    torch.testing.assert_close(loss.double(), token_matching(exact[0], exact[1]), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"patch_tokens": [torch.zeros(2, 3, 2, 3)]},
            r"patch_tokens must have one shape .* \[\(2, 3, 2, 3\), \(2, 3, 1, 2\)\]",
        ),
        (
            {"patch_tokens": [torch.zeros(2, 3, 3, 3), torch.zeros(2, 3, 1, 2)]},
            r"got .* \[\(2, 3, 3, 3\), \(2, 3, 1, 2\)\]",
        ),
        ({"det_tokens": torch.zeros(2, 5, 3)}, r"det_tokens must have one shape .* \(2, 4, 3\) and \(2, 5, 3\)"),
        (
            {"neck_tokens": torch.zeros(2, 2, 4, 3)},
            r"neck_tokens must have one shape .* \(3, 2, 4, 3\) and \(2, 2, 4, 3\)",
        ),
    ],
)
def test_other_counts_of_tokens_are_refused(change: dict[str, Any], said: str) -> None:
    """In either order: nothing is broadcast."""
    with pytest.raises(ValueError, match=said):
        token_matching(drawn(0), drawn(1) | change)
    with pytest.raises(ValueError, match=f"{next(iter(change))} must have one shape"):
        token_matching(drawn(0) | change, drawn(1))


def test_outputs_without_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="teacher must hold 'patch_tokens': ask a ViDT with neck for tokens=True, got"):
        token_matching(drawn(0), {"logits": torch.zeros(1)})
    with pytest.raises(ValueError, match="student must hold 'det_tokens'"):
        token_matching({"patch_tokens": []}, drawn(0))
    with pytest.raises(ValueError, match="must both hold 'neck_tokens', or neither"):
        token_matching(drawn(0), drawn(1, neck=False), official=True)


class Dropping(nn.Module):
    """A teacher whose tokens are random in training."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.weight = nn.Dropout(0.5), nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, mask: Tensor | None = None, tokens: bool = False) -> dict[str, Any]:
        if images.dim() != 4:
            raise ValueError("images")
        return {"det_tokens": self.dropout(images * self.weight), "mask": mask, "tokens": tokens}


def test_a_teacher_is_asked_in_peace() -> None:
    """Oracle: eval mode drops nothing; the mode it was in comes back, also after an error."""
    teacher, images, mask = Dropping(), torch.rand(1, 3, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    outputs = teach(teacher, images, mask)
    assert torch.equal(outputs["det_tokens"], images)
    assert not outputs["det_tokens"].requires_grad
    assert (outputs["mask"] is mask, outputs["tokens"], teacher.training) == (True, True, True)
    with pytest.raises(ValueError, match="images"):
        teach(teacher, images[0])
    assert teacher.dropout.training
    teach(teacher.eval(), images)
    assert not teacher.training


def on(device: str, seed: int) -> dict[str, Any]:
    """The drawn tokens there."""
    return {k: [one.to(device) for one in x] if isinstance(x, list) else x.to(device) for k, x in drawn(seed).items()}


@pytest.mark.gpu
@pytest.mark.parametrize("official", [False, True])
def test_on_a_gpu(official: bool) -> None:
    """Oracle: the CPU, gradients too, in float64."""
    results = []
    for device in ("cpu", "cuda"):
        student, teacher = on(device, 0), on(device, 1)
        moved: Tensor = student["det_tokens"].requires_grad_()
        loss = token_matching(student, teacher, official=official)
        results.append([loss.detach().cpu(), *(g.cpu() for g in torch.autograd.grad(loss, moved))])
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
