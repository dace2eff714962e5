"""Laws of vision transformers, for pictures that Hypothesis chooses."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.blocks.patches import PatchEmbedding, interpolate_positions
from course_lib.blocks.vit import ViT
from course_lib.detection.families.yolos.detr_vit import detr_vit
from course_lib.detection.families.yolos.yolos import YOLOS

FEW = settings(max_examples=15, deadline=None)
GRIDS = {"height": st.integers(1, 5), "width": st.integers(1, 5), "seed": st.integers(0, 99)}
SMALL: dict[str, Any] = {"width": 12, "depth": 2, "heads": 3, "patch": 4, "classes": 5}


def pictures(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(module: Any, seed: int = 0) -> Any:
    """The module in float64 and eval mode, all parameters drawn."""
    torch.manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    return module


def vit(**options: Any) -> ViT:
    made: ViT = drawn(ViT(**SMALL | {"picture": (12, 16)} | options))
    return made


def yolos(**options: Any) -> YOLOS:
    given: dict[str, Any] = {"learned": (12, 16), "middle": (16, 16), "queries": 6}
    made: YOLOS = drawn(YOLOS(**SMALL | given | options))
    return made


def shuffled(images: Tensor, order: Tensor, patch: int = 4) -> Tensor:
    """The pictures with their patches in another order."""
    flat = F.unfold(images, patch, stride=patch)[..., order]
    made: Tensor = F.fold(flat, images.shape[2:], patch, stride=patch)
    return made


VIT, YOLO = vit(), yolos()


@FEW
@given(**GRIDS, patch=st.integers(1, 4))
def test_an_embedding_is_unfolding_and_one_matrix(height: int, width: int, seed: int, patch: int) -> None:
    """Law: patches laid flat (torch's unfold), times the kernel laid flat."""
    torch.manual_seed(seed)
    embedding = PatchEmbedding(patch, 7).double()
    images = pictures(2, 3, height * patch + seed % patch, width * patch, seed=seed)
    tokens, grid = embedding(images)
    assert grid == (height, width)
    assert embedding.projection.bias is not None
    flat = F.unfold(images, patch, stride=patch).mT
    expected = flat @ embedding.projection.weight.flatten(1).mT + embedding.projection.bias
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-12)


@FEW
@given(**GRIDS)
def test_without_positions_the_order_of_patches_is_lost(height: int, width: int, seed: int) -> None:
    """Law: equal positions everywhere: shuffled patches give shuffled tokens, and the same class."""
    model = vit(distilled=True)
    with torch.no_grad():
        model.positions[:, 2:] = 0.5
    images = pictures(2, 3, 4 * height, 4 * width, seed=seed)
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(model(shuffled(images, order)), model(images), rtol=0, atol=1e-11)
    tokens, others = model.tokens(images)[0], model.tokens(shuffled(images, order))[0]
    torch.testing.assert_close(others[:, 2:], tokens[:, 2:][:, order], rtol=0, atol=1e-11)


def test_with_positions_the_order_counts() -> None:
    """The law above needs its condition."""
    images = pictures(1, 3, 12, 16, seed=0)
    assert (VIT(shuffled(images, torch.arange(12).flip(0))) - VIT(images)).abs().max() > 1e-3


@FEW
@given(**GRIDS)
def test_det_tokens_have_no_order_but_their_positions(height: int, width: int, seed: int) -> None:
    """Law: [DET] tokens with their positions in another order give the same predictions in that order."""
    images = pictures(1, 3, 4 * height, 4 * width, seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    model = yolos()
    expected = model(images)
    assert model.middle_positions is not None
    with torch.no_grad():
        model.det_tokens.copy_(model.det_tokens[:, order])
        model.positions[:, -6:] = model.positions[:, -6:][:, order].clone()
        model.middle_positions[..., -6:, :] = model.middle_positions[..., -6:, :][..., order, :].clone()
    for name, value in model(images).items():
        torch.testing.assert_close(value, expected[name][:, order], rtol=0, atol=1e-11)


@FEW
@given(**GRIDS)
def test_a_batch_is_its_pictures(height: int, width: int, seed: int) -> None:
    """Law: the outputs of a batch are those of each picture alone."""
    images = pictures(3, 3, 4 * height + seed % 4, 4 * width, seed=seed)
    outputs = {"vit": VIT(images), "mean": VIT.map(images), **YOLO(images)}
    for place, image in enumerate(images):
        alone = {"vit": VIT(image[None]), "mean": VIT.map(image[None]), **YOLO(image[None])}
        for name, value in alone.items():
            torch.testing.assert_close(outputs[name][place], value[0], rtol=0, atol=1e-11)


@FEW
@given(**GRIDS, new_height=st.integers(1, 6), new_width=st.integers(1, 6))
def test_positions_of_another_size(height: int, width: int, seed: int, new_height: int, new_width: int) -> None:
    """Laws: linear; constants stay; a mirrored table gives mirrored positions; the same size changes nothing."""
    old, new = (height, width), (new_height, new_width)
    one, other = pictures(2, 1, height * width, 3, seed=seed)
    made = interpolate_positions(one, old, new)
    assert made.shape == (1, new_height * new_width, 3)
    combined = interpolate_positions(2 * one - other, old, new)
    torch.testing.assert_close(combined, 2 * made - interpolate_positions(other, old, new), rtol=0, atol=1e-12)
    constant = interpolate_positions(torch.full_like(one, 0.7), old, new)
    torch.testing.assert_close(constant, torch.full_like(constant, 0.7), rtol=0, atol=1e-12)
    mirrored = interpolate_positions(one.flip(-2), old, new)  # both axes at once
    torch.testing.assert_close(mirrored, made.flip(-2), rtol=0, atol=1e-12)
    assert interpolate_positions(one, old, old) is one


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU, for outputs and gradients of ViT, YOLOS and DETR on a ViT; a padded batch."""
    body = ViT(12, 2, 3, patch=4, picture=(12, 16), classes=None)
    on_vit = drawn(detr_vit(body, width=8, heads=2, hidden=16, encoder=1, decoder=2, queries=5, classes=4))
    images = pictures(2, 3, 21, 17, seed=0)
    mask = torch.zeros(2, 21, 17, dtype=torch.bool)
    mask[1, 12:] = True
    for model in (vit(distilled=True), yolos(), on_vit):
        found = []
        for device in ("cpu", "cuda"):
            moved = model.to(device)
            moved.zero_grad()
            inputs = (images.to(device),) if isinstance(model, ViT) else (images.to(device), mask.to(device))
            made = moved(*inputs)
            values = list(made.values()) if isinstance(made, dict) else [made]
            assert all(value.device.type == device for value in values)
            torch.autograd.backward(torch.stack([value.square().sum() for value in values]).sum())
            gradients = [p.grad.cpu() for p in moved.parameters() if p.grad is not None]
            found.append([value.detach().cpu() for value in values] + gradients)
        for ours, theirs in zip(*found, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
