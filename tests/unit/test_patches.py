"""Patches as tokens and their positions. Oracles: the loops one sees through, the book's own resizing, arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.blocks.patches import PatchEmbedding, interpolate_between, interpolate_positions
from course_lib.plain.vit import patches_loop, positions_loop
from course_lib.upsampling import resize


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (2, 3)])
def test_an_embedding_is_the_loop_with_gradients(size: tuple[int, int]) -> None:
    """Oracle: the loop; what makes no whole patch is not seen."""
    embedding = PatchEmbedding(2, 5).double()
    image = numbers(1, 3, *size).requires_grad_()
    weight, bias = embedding.projection.weight, embedding.projection.bias
    assert bias is not None
    tokens, grid = embedding(image)
    expected = patches_loop(image[0], weight, bias)
    assert grid == (size[0] // 2, size[1] // 2) == embedding.grid(*size)
    torch.testing.assert_close(tokens[0], expected, rtol=0, atol=1e-12)
    upstream = numbers(*expected.shape, seed=1)
    ours, theirs = (
        torch.autograd.grad((made * upstream).sum(), (image, weight, bias)) for made in (tokens[0], expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    if size == (7, 9):
        assert (ours[0][..., 6:, :] == 0).all()
        assert (ours[0][..., 8:] == 0).all()
        assert (ours[0][..., :6, :8] != 0).all()


def test_missing_parts_of_patches_are_zeros() -> None:
    """Oracle: the same embedding of a picture filled by hand; Swin's norm by torch's layer."""
    torch.manual_seed(0)
    embedding = PatchEmbedding(4, 6, channels=2, norm=True, pad=True).double()
    for size, grid in {(8, 4): (2, 1), (9, 3): (3, 1), (1, 1): (1, 1)}.items():
        image = numbers(2, 2, *size)
        filled = torch.zeros(2, 2, 4 * grid[0], 4 * grid[1], dtype=torch.float64)
        filled[..., : size[0], : size[1]] = image
        tokens, found = embedding(image)
        assert found == grid == embedding.grid(*size)
        assert torch.equal(tokens, embedding(filled)[0])
        expected = F.layer_norm(embedding.projection(filled).flatten(2).mT, (6,))
        torch.testing.assert_close(tokens, expected)
    assert isinstance(PatchEmbedding(4, 6).norm, nn.Identity)


@pytest.mark.parametrize(("old", "new"), [((3, 4), (5, 7)), ((5, 4), (2, 3)), ((1, 3), (2, 2)), ((2, 3), (3, 2))])
def test_positions_are_the_loop_with_gradients(old: tuple[int, int], new: tuple[int, int]) -> None:
    """Oracles: the loop, and the book's own resizing with torch's slope, a = -0.75, without antialiasing."""
    table = numbers(1, old[0] * old[1], 3).requires_grad_()
    made = interpolate_positions(table, old, new)
    expected = positions_loop(table[0], old, new)
    torch.testing.assert_close(made[0], expected, rtol=0, atol=1e-12)
    upstream = numbers(*expected.shape, seed=1)
    (ours,), (theirs,) = (torch.autograd.grad((one * upstream).sum(), table) for one in (made[0], expected))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    picture = table.mT.reshape(1, 3, *old)
    resized = resize(picture, size=new, a=-0.75, antialias=False)
    torch.testing.assert_close(made, resized.flatten(2).mT, rtol=0, atol=1e-12)
    keys = resize(picture, size=new, antialias=False)
    assert (made - keys.flatten(2).mT).abs().max() > 1e-3  # a = -0.5 is another bicubic


def test_several_tables_at_once() -> None:
    """Oracle: one table at a time; bilinear by torch."""
    tables = numbers(4, 1, 6, 3)
    together = interpolate_positions(tables, (2, 3), (4, 5))
    for table, made in zip(tables, together, strict=True):
        torch.testing.assert_close(made, interpolate_positions(table, (2, 3), (4, 5)), rtol=0, atol=0)
    linear = F.interpolate(tables[0].mT.reshape(1, 3, 2, 3), (4, 5), mode="bilinear").flatten(2).mT
    torch.testing.assert_close(interpolate_positions(tables[0], (2, 3), (4, 5), "bilinear"), linear)
    half = interpolate_positions(tables.bfloat16(), (2, 3), (4, 5))
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, interpolate_positions(tables.bfloat16().float(), (2, 3), (4, 5)).bfloat16())


@pytest.mark.parametrize(("before", "after"), [(1, 0), (2, 0), (1, 3), (0, 0), (0, 2)])
def test_rows_of_other_tokens_stay(before: int, after: int) -> None:
    """Oracle: the parts cut by hand."""
    table = numbers(1, before + 6 + after, 4)
    made = interpolate_between(table, (2, 3), (3, 2), before, after)
    assert made.shape == table.shape
    assert torch.equal(made[:, :before], table[:, :before])
    assert torch.equal(made[:, before + 6 :], table[:, before + 6 :])
    middle = interpolate_positions(table[:, before : before + 6], (2, 3), (3, 2))
    assert torch.equal(made[:, before : before + 6], middle)
    assert not torch.equal(middle, table[:, before : before + 6])  # as many patches, and another grid
    assert interpolate_between(table, (2, 3), (2, 3), before, after) is table


def test_bad_arguments_are_named() -> None:
    for patch, width, channels, name in ((0, 4, 3, "patch"), (2, 0, 3, "width"), (2, 4, 0, "channels")):
        with pytest.raises(ValueError, match=f"^{name} must be at least 1, got 0"):
            PatchEmbedding(patch, width, channels)
    embedding = PatchEmbedding(4, 6)
    with pytest.raises(TypeError, match=r"images must be a floating point torch\.Tensor, got torch\.int64"):
        embedding(torch.zeros(1, 3, 8, 8, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"images must be a floating point .* got list"):
        embedding([[1.0]])
    for shape in ((3, 8, 8), (1, 1, 8, 8), (1, 3, 0, 8)):
        with pytest.raises(ValueError, match=r"images must be \(N, 3, H, W\) with H, W >= 1, got"):
            embedding(torch.zeros(shape))
    with pytest.raises(ValueError, match="images must hold a patch of 4 x 4, got 3 x 9"):
        embedding(torch.zeros(1, 3, 3, 9))
    table = torch.zeros(1, 6, 2)
    with pytest.raises(ValueError, match=r"table must be \(\.\.\., 4, D\) for old = 2 x 2, got \(1, 6, 2\)"):
        interpolate_positions(table, (2, 2), (3, 3))
    with pytest.raises(TypeError, match="table must be a floating point"):
        interpolate_positions(table.long(), (2, 3), (3, 3))
    with pytest.raises(ValueError, match="mode must be one of 'bicubic', 'bilinear', got 'nearest'"):
        interpolate_positions(table, (2, 3), (3, 3), "nearest")  # type: ignore[arg-type]
    for new in ((3,), "33", 3, (0, 3)):
        with pytest.raises(ValueError, match=r"^new must be"):
            interpolate_positions(table, (2, 3), new)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"table must be \(\.\.\., 7, D\): 1 \+ 2 \* 3 \+ 0 rows, got \(1, 6, 2\)"):
        interpolate_between(table, (2, 3), (3, 3))
    with pytest.raises(ValueError, match="after must be at least 0, got -1"):
        interpolate_between(table, (2, 3), (3, 3), 1, -1)
