"""Reconfigured attention by hand, and what it refuses. Oracle: numbers done by hand, counts of a matrix."""

import math

import pytest
import torch
from torch import Tensor

from course_lib.blocks.attention import MultiHeadAttention
from course_lib.blocks.swin import SwinBlock
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.ram import (
    Pairs,
    RAMBlock,
    block_pairs,
    map_sizes,
    pairs_by_stage,
    read_tokens,
)

KEYS = (0.0, 0.0, math.log(2), math.log(3))


def toy() -> tuple[MultiHeadAttention, Tensor, Tensor]:
    """Attention whose token is (key, value) and whose every query is 1; four patches and one [DET] token."""
    attention = MultiHeadAttention(2, 1)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.qkv.bias[0] = 2**0.5  # what the scores are divided by
        attention.qkv.weight[2, 0] = attention.qkv.weight[4, 1] = 1
        attention.out.weight.copy_(torch.eye(2))
    patches = torch.tensor([[[key, value] for key, value in zip(KEYS, (1.0, 2.0, 3.0, 4.0), strict=True)]])
    return attention, patches, torch.tensor([[[0.0, 10.0]]])


def test_one_softmax_by_hand() -> None:
    """Oracle: exp of the keys is 1, 1, 2, 3 and, of the [DET] token, 1: eighths."""
    attention, patches, det = toy()
    read, weights = read_tokens(attention, det, patches, weights=True)
    assert weights is not None
    torch.testing.assert_close(weights.flatten(), torch.tensor([0.125, 0.125, 0.25, 0.375, 0.125]))
    torch.testing.assert_close(read[0, 0, 0], torch.tensor(3.875))
    torch.testing.assert_close(read_tokens(attention, det, patches)[0], read)
    torch.testing.assert_close(read_tokens(attention, det)[0][0, 0, 0], torch.tensor(10.0))


def test_joint_softmax_is_no_sum_of_two() -> None:
    """Oracle: by hand. Two softmaxes, over patches and over [DET] tokens, give 19 / 7 and 10; neither sum nor mean is
    3.875, which lies between them by the share of each kind."""
    attention, patches, det = toy()
    joint = read_tokens(attention, det, patches)[0][0, 0, 0].item()
    of_patches = sum(share * value for share, value in zip((1 / 7, 1 / 7, 2 / 7, 3 / 7), (1, 2, 3, 4), strict=True))
    assert joint == pytest.approx(7 / 8 * of_patches + 1 / 8 * 10)
    assert min(abs(joint - other) for other in (of_patches + 10, (of_patches + 10) / 2)) > 2


def test_padding_is_not_read() -> None:
    """Oracle: by hand, without the last patch: (1 + 2 + 6 + 10) / 5."""
    attention, patches, det = toy()
    hidden = torch.tensor([[False, False, False, True]])
    read, weights = read_tokens(attention, det, patches, hidden, weights=True)
    assert weights is not None
    assert weights[..., 3].item() == 0
    torch.testing.assert_close(read[0, 0, 0], torch.tensor(19 / 5))


def test_a_block_is_swins_without_tokens() -> None:
    """Oracle: Swin's block with the same weights, on a map smaller than the window, where the shift stays."""
    block = RAMBlock(8, 2, 4, shift=2, positions=6)
    other = SwinBlock(8, 2, 4, shift=2, always=True)
    missing = other.load_state_dict(block.state_dict(), strict=False)
    assert (missing.missing_keys, missing.unexpected_keys) == ([], ["det_position.weight", "det_position.bias"])
    x = torch.randn(2, 6, 8)
    assert torch.equal(block(x, (2, 3)), other(x, (2, 3)))


def test_positions_of_tokens_reach_their_values() -> None:
    """Oracle: what [DET] tokens alone read is linear in their values; with every weight of queries 0 it is their mean,
    which moves by the mean position through v and out."""
    block = RAMBlock(4, 1, 2, positions=3).double()
    attention = block.windows.attention
    with torch.no_grad():
        attention.qkv.weight[:4] = 0
        attention.qkv.bias[:4] = 0
    places, x = torch.randn(1, 5, 3).double(), torch.randn(1, 4 + 5, 4).double()
    block.feed.second.weight.data.zero_()
    block.feed.second.bias.data.zero_()
    moved = block(x, (2, 2), places) - block(x, (2, 2), torch.zeros_like(places))
    expected = (places.mean(1) @ block.det_position.weight.T) @ attention.qkv.weight[8:].T @ attention.out.weight.T
    torch.testing.assert_close(moved[:, 4:], expected[:, None].expand(-1, 5, -1))
    assert bool((moved[:, :4] == 0).all())


def test_pairs_of_the_paper() -> None:
    """Oracle: 200 x 334, 100 x 167, 50 x 84 and 25 x 42 patches, by hand."""
    sizes = map_sizes((800, 1333))
    assert sizes == [(200, 334), (100, 167), (50, 84), (25, 42)]
    everywhere = pairs_by_stage((800, 1333), cross_stages=range(4))
    assert [p.det_patch for p in everywhere] == [6_680_000, 1_670_000, 420_000, 105_000]
    chosen = pairs_by_stage((800, 1333))
    assert [p.det_patch for p in chosen] == [0, 0, 0, 105_000]
    assert chosen[3] == Pairs(28 * 42 * 49, 0, 105_000, 10_000)
    assert chosen[3].total == 28 * 42 * 49 + 105_000 + 10_000
    without = pairs_by_stage((800, 1333), window=None)[0]
    assert without == Pairs(66_800**2, 6_680_000, 6_680_000, 10_000)
    assert without.total == 66_900**2
    body = RAMBody(4, (1, 1), (1, 1), 4, dets=3, positions=4, cross_stages=(0,), extra=None)
    assert body.pairs((33, 20)) == [block_pairs((9, 5), 3, 4, cross=True), block_pairs((5, 3), 3, 4)]


def test_what_a_block_refuses() -> None:
    with pytest.raises(ValueError, match="shift must be below window, 4, got 4"):
        RAMBlock(8, 2, 4, shift=4)
    with pytest.raises(ValueError, match="positions"):
        RAMBlock(8, 2, 4, positions=0)
    block = RAMBlock(8, 2, 4, positions=6)
    with pytest.raises(ValueError, match=r"x must be .* with 2 \* 3 patches and 3 \[DET\] tokens, got \(1, 4, 8\)"):
        block(torch.zeros(1, 4, 8), (2, 3), torch.zeros(1, 3, 6))
    with pytest.raises(ValueError, match="window"):
        pairs_by_stage((64, 64), window=0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"depths": (2,), "heads": (1,)}, "depths and heads must have one number for each stage"),
        ({"heads": (1, 1, 1)}, "depths and heads must have one number"),
        ({"depths": (2, 0)}, "depths"),
        ({"cross_stages": (2,)}, r"cross_stages must be of 0 to 1, got \[2\]"),
        ({"cross_stages": (-1,)}, r"cross_stages must be of 0 to 1, got \[-1\]"),
        ({"dets": 0}, "dets"),
        ({"positions": 0}, "positions"),
        ({"extra": 0}, "out"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"drop": 1.0}, "drop must be a number from 0 to below 1"),
        ({"width": 6, "cross_stages": (0,)}, r"width must be a multiple of 4 in cross_stages, got 6 in stage 0"),
    ],
)
def test_what_a_body_refuses(options: dict[str, object], said: str) -> None:
    small: dict[str, object] = {"width": 8, "depths": (1, 1), "heads": (1, 2), "window": 2, "cross_stages": (1,)}
    with pytest.raises(ValueError, match=said):
        RAMBody(**{**small, **options})  # type: ignore[arg-type]
