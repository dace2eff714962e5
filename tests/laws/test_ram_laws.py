"""Laws of ViDT's attention: who may depend on whom, and that the fast form is the masked matrix."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from course_lib.blocks.swin import Swin
from course_lib.blocks.windows import WindowAttention
from course_lib.detection.families.vidt.body import RAMBody
from course_lib.detection.families.vidt.ram import block_pairs, read_tokens
from course_lib.detection.families.vidt.vidt import ViDT
from course_lib.plain.ram import ram_attention_masked, ram_mask

FEW = settings(max_examples=15, deadline=None)
DOUBLE = torch.float64
LENGTHS = st.integers(1, 5)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def stirred(module: torch.nn.Module, seed: int = 0) -> Any:
    """The module in float64 and eval mode, every number drawn anew, so that none is 0 or alike."""
    module = module.double().eval()
    for place, parameter in enumerate(module.parameters()):
        parameter.data = drawn(1000 * seed + place, *parameter.shape) * (0.3 if parameter.dim() > 1 else 0.1)
    return module


def body(cross: Iterable[int] = (1,), extra: int | None = 16) -> RAMBody:
    return RAMBody(8, (1, 2), (1, 2), 3, dets=5, positions=8, cross_stages=tuple(cross), extra=extra)


def detector(neck: bool) -> ViDT:
    made = ViDT(body(extra=16 if neck else None), neck, 16, layers=2, heads=2, points=2, hidden=8, classes=3, groups=4)
    stirred_one: ViDT = stirred(made)
    return stirred_one


def same(a: Any, b: Any, tolerance: float = 1e-11) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@FEW
@given(h=LENGTHS, w=LENGTHS, window=st.integers(1, 4), seed=st.integers(0, 99), data=st.data())
def test_the_fast_form_is_one_masked_matrix(h: int, w: int, window: int, seed: int, data: Any) -> None:
    """Law: windows, rolls and separate softmaxes equal the plain matrix, with gradients to all that goes in."""
    shift, cross = data.draw(st.integers(0, window - 1)), data.draw(st.booleans())
    with_padding = data.draw(st.booleans())
    attention = stirred(WindowAttention(4, 2, window), seed)
    inputs = [drawn(seed, 2, h, w, 4), drawn(seed + 1, 2, 3, 4)] + [drawn(seed + 2, 1, h, w, 4)] * cross
    padding = drawn(seed + 3, 2, h, w) > 0.5 if with_padding else None
    leaves = [x.clone().requires_grad_() for x in inputs] + list(attention.parameters())
    patches, dets = leaves[:2]
    positions = leaves[2] if cross else None
    seen = None if positions is None else (patches + positions).flatten(1, 2)
    hidden = padding.flatten(1) if padding is not None and cross else None
    fast = (attention.over_map(patches, shift), read_tokens(attention.attention, dets, seen, hidden)[0])
    layers = attention.attention.qkv, attention.attention.out, attention.table
    *slow, weights = ram_attention_masked(patches, dets, *layers, window, shift, positions, padding)
    same(weights.sum(-1), torch.ones_like(weights[..., 0]))
    results = []
    for pair in (fast, slow):
        loss = sum((out * drawn(9, *out.shape)).sum() for out in pair)
        results.append([*pair, *torch.autograd.grad(loss, leaves)])  # type: ignore[arg-type]
    for one, other in zip(*results, strict=True):
        same(one, other, 1e-9)


@FEW
@given(h=LENGTHS, w=LENGTHS, window=st.integers(1, 4), dets=st.integers(1, 4), data=st.data())
def test_pairs_are_the_masks(h: int, w: int, window: int, dets: int, data: Any) -> None:
    """Law: the counts are those of the matrix's False, quadrant by quadrant."""
    shift, cross = data.draw(st.integers(0, window - 1)), data.draw(st.booleans())
    free = ~ram_mask((h, w), window, dets, shift, cross)
    p = len(free) - dets
    pairs = block_pairs((h, w), dets, window, shift, cross)
    top, bottom = (free[:p, :p], free[:p, p:]), (free[p:, :p], free[p:, p:])
    counted = tuple(int(part.sum()) for part in (*top, *bottom))
    assert counted == (pairs.patch_patch, pairs.patch_det, pairs.det_patch, pairs.det_det)
    assert int(free.sum()) == pairs.total


def test_patches_do_not_see_tokens() -> None:
    """Law: other [DET] tokens and positions, in any number, change no bit of a map. Oracle beside it: Swin."""
    made = stirred(body(cross=(0, 1)))
    images = drawn(1, 2, 3, 37, 26)
    maps = made(images).maps
    changed = drawn(2, 1, 7, 8)
    made.det_tokens.data, made.det_positions.data = changed, changed.flip(1)
    assert all(torch.equal(one, other) for one, other in zip(maps, made(images).maps, strict=True))
    swin = Swin(8, (1, 2), (1, 2), 3, classes=None, always=True).double()
    kept = swin.load_state_dict(made.state_dict(), strict=False)
    assert set(kept.missing_keys) == {"norm.weight", "norm.bias"}
    same(swin.maps(images)[1], maps[0])


def test_tokens_see_patches_where_they_may() -> None:
    """Law: a pixel moves the [DET] tokens if a stage lets them read patches, and otherwise not."""
    images = drawn(1, 1, 3, 24, 24)
    other = images.clone()
    other[..., 5, 7] += 1
    for cross, moves in (((0,), True), ((1,), True), ((), False)):
        made = stirred(body(cross))
        assert torch.equal(made(images).dets, made(other).dets) is not moves


def test_positions_of_patches_have_a_temperature() -> None:
    """Law: it moves [DET] tokens where they read patches, and no patch."""
    images, made = drawn(1, 1, 3, 24, 24), stirred(body())
    before = made(images)
    made.temperature = 20.0
    after = made(images)
    assert not torch.equal(before.dets, after.dets)
    assert torch.equal(before.maps[0], after.maps[0])


@pytest.mark.parametrize("neck", [True, False])
def test_tokens_in_another_order(neck: bool) -> None:
    """Law: [DET] tokens that change places, with their positions, change places in every output and nothing else."""
    made, images = detector(neck), drawn(3, 2, 3, 40, 33)
    before = made(images)
    order = torch.tensor([3, 0, 4, 1, 2])
    for parameter in (made.body.det_tokens, made.body.det_positions):
        parameter.data = parameter.data[:, order]
    after = made(images)
    assert set(before) == {"logits", "boxes"} | ({"aux_logits", "aux_boxes"} if neck else set())
    for key, values in before.items():
        same(after[key], values[..., order, :])
    assert (before["boxes"][:, 0] - before["boxes"][:, 1]).abs().max().item() > 1e-4


@pytest.mark.parametrize("neck", [True, False])
def test_one_token_moves_the_others(neck: bool) -> None:
    """Law: [DET] tokens read each other, and the norm behind the projection is over all of them."""
    made, images = detector(neck), drawn(3, 1, 3, 24, 24)
    before = made(images)["logits"]
    made.body.det_tokens.data[:, 0] = drawn(6, 8)
    assert (made(images)["logits"] - before)[:, 1:].abs().max().item() > 1e-6


@pytest.mark.parametrize("neck", [True, False])
def test_batched_is_single(neck: bool) -> None:
    """Law: without padding a picture's outputs are its own; a mask that hides nothing is none."""
    made, images = detector(neck), drawn(4, 3, 3, 41, 30)
    whole = made(images, tokens=neck)
    masked = made(images, torch.zeros(3, 41, 30, dtype=torch.bool), tokens=neck)
    alone = [made(one[None], tokens=neck) for one in images]
    for key, values in whole.items():
        if key == "patch_tokens":
            for level, one in enumerate(values):
                same(one, torch.cat([outputs[key][level] for outputs in alone]))
            continue
        dim = 1 if key.startswith(("aux", "neck")) else 0
        same(values, torch.cat([outputs[key] for outputs in alone], dim))
        same(values, masked[key])


def test_padding_is_hidden_from_tokens_but_not_from_windows() -> None:
    """Law: what lies under the mask moves patches, as in the official code. With windows of one cell, and a patch
    alone under the mask, nothing of it reaches [DET] tokens."""
    images, mask = drawn(5, 1, 3, 24, 24), torch.zeros(1, 24, 24, dtype=torch.bool)
    mask[:, :, 16:] = True
    other = images.clone()
    other[..., 16:] += 1
    made = stirred(body())
    assert (made(images, mask).dets - made(other, mask).dets).abs().max().item() > 1e-4
    made = stirred(RAMBody(8, (1, 1), (1, 1), 1, dets=5, positions=8, cross_stages=(0, 1), extra=16))
    same(made(images, mask).dets, made(other, mask).dets)
    assert (made(images).dets - made(other).dets).abs().max().item() > 1e-4
    same(made(images, mask).dets, made(images[..., :16]).dets)
