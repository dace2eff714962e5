"""Offsets: by hand, back again, with gradients and at half precision, and what is refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from course_lib.detection.anchors import MAPS, SSD300_VOC, anchors
from course_lib.detection.boxes import to_cxcywh, to_xyxy
from course_lib.detection.coding import VARIANCES, decode, encode

ANCHOR = torch.tensor([[0.5, 0.5, 0.2, 0.4]], dtype=torch.float64)
BOX = to_xyxy(torch.tensor([[0.55, 0.45, 0.4, 0.2]], dtype=torch.float64))
ONES = (1.0, 1.0, 1.0, 1.0)


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    """Boxes xyxy with sides from .1 to .5, float64."""
    numbers = torch.rand(*shape, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return to_xyxy(torch.cat((numbers[..., :2], 0.1 + 0.4 * numbers[..., 2:]), -1))


def test_by_hand() -> None:
    """Oracle: .05 / .2, -.05 / .4, log(.4 / .2), log(.2 / .4); then each over its variance."""
    plain = [0.25, -0.125, math.log(2), -math.log(2)]
    assert encode(BOX, ANCHOR, ONES)[0].tolist() == pytest.approx(plain)
    assert encode(BOX, ANCHOR)[0].tolist() == pytest.approx([2.5, -1.25, 3.4657359, -3.4657359])
    torch.testing.assert_close(decode(encode(BOX, ANCHOR), ANCHOR), BOX)


def test_no_offset_is_the_anchor() -> None:
    """Oracle: the whole table of SSD300."""
    rows = anchors(MAPS["SSD300_VOC"], SSD300_VOC, (300, 300), dtype=torch.float64)
    torch.testing.assert_close(decode(torch.zeros_like(rows), rows), to_xyxy(rows), rtol=0, atol=1e-15)
    assert float(encode(to_xyxy(rows), rows).abs().max()) < 1e-12


def test_forgotten_variances_are_seen() -> None:
    """The trap: a box coded with variances and read without is another box; ten offsets are ten sides, not one."""
    read = decode(encode(BOX, ANCHOR), ANCHOR, ONES)
    assert float(to_cxcywh(read)[0, 0]) == pytest.approx(0.5 + 0.2 * 2.5)
    assert float(to_cxcywh(read)[0, 2]) == pytest.approx(0.2 * 2**5)


def test_pictures_of_a_batch_do_not_mix() -> None:
    """Law: batched = single, both ways."""
    rows, found = to_cxcywh(drawn((5,), 1)), drawn((3, 5), 2)
    offsets = encode(found, rows)
    assert offsets.shape == (3, 5, 4)
    for k in range(3):
        assert torch.equal(offsets[k], encode(found[k], rows))
        assert torch.equal(decode(offsets, rows)[k], decode(offsets[k], rows))


def test_gradients() -> None:
    """Oracle: differences, in float64, with respect to boxes, offsets and anchors."""
    rows = to_cxcywh(drawn((3,), 1)).requires_grad_()
    found = drawn((2, 3), 2).requires_grad_()
    offsets = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(encode, (found, rows))
    assert torch.autograd.gradcheck(decode, (offsets, rows))


def test_half_offsets_are_decoded_in_float32() -> None:
    """Oracle: the same offsets, widened first; under autocast too."""
    rows = to_cxcywh(drawn((5,), 1)).float()
    offsets = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(3)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = decode(offsets, rows)
    assert found.dtype == torch.float32
    assert torch.equal(found, decode(offsets.float(), rows))


def test_no_boxes() -> None:
    assert encode(torch.empty(0, 4), torch.empty(0, 4)).shape == (0, 4)
    assert decode(torch.empty(2, 0, 4), torch.empty(0, 4)).shape == (2, 0, 4)


def test_a_box_without_width_is_named() -> None:
    """Instead of log(0), which is NaN in the loss much later."""
    found, rows = drawn((2, 3), 2), to_cxcywh(drawn((3,), 1))
    found[1, 2, 2] = found[1, 2, 0]
    with pytest.raises(ValueError, match=r"boxes must have width and height above 0, got 0 x 0\.\d+ in row \(1, 2\)"):
        encode(found, rows)
    found[1, 2, 2] = math.nan
    with pytest.raises(ValueError, match=r"boxes must have width and height above 0, got nan x 0\.\d+ in row \(1, 2\)"):
        encode(found, rows)
    rows[1, 3] = -0.5
    with pytest.raises(ValueError, match=r"anchors must have width and height above 0, got 0\.\d+ x -0\.5 in row 1"):
        encode(drawn((3,), 2), rows)


@pytest.mark.parametrize("coding", [encode, decode])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: torch.rand(3, 5)}, ValueError, r"must be \(\.\.\., 4\), got \(3, 5\)"),
        ({0: torch.rand(4)}, ValueError, r"must be \(\.\.\., P, 4\) and anchors \(P, 4\), got \(4,\) and \(3, 4\)"),
        ({1: torch.rand(2, 4)}, ValueError, r"and anchors \(P, 4\), got \(3, 4\) and \(2, 4\)"),
        ({1: torch.rand(1, 3, 4)}, ValueError, r"and anchors \(P, 4\), got \(3, 4\) and \(1, 3, 4\)"),
        ({1: torch.ones(3, 4, dtype=torch.int64)}, TypeError, "anchors must be a floating-point torch.Tensor"),
        ({2: 0.1}, ValueError, r"variances must be 4 finite numbers above 0, got 0\.1"),
        ({2: (0.1, 0.2)}, ValueError, r"variances must be 4 finite numbers above 0, got \(0\.1, 0\.2\)"),
        ({2: (0.1, 0.1, 0.2, math.nan)}, ValueError, "variances must be 4 finite numbers above 0"),
    ],
)
def test_wrong_arguments_are_named(coding: Any, change: dict[int, Any], error: type[Exception], message: str) -> None:
    given: list[Any] = [drawn((3,), 1), to_cxcywh(drawn((3,), 2)), VARIANCES]
    for place, value in change.items():
        given[place] = value
    with pytest.raises(error, match=message):
        coding(*given)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    """Oracle: the CPU, there and back, gradients too."""
    results = []
    for device in ("cpu", "cuda"):
        rows, found = to_cxcywh(drawn((50,), 1)).to(device), drawn((2, 50), 2).to(device).requires_grad_()
        offsets = encode(found, rows)
        back = decode(1.1 * offsets, rows)
        results.append([x.detach() for x in (offsets, back, *torch.autograd.grad(back.square().sum(), found))])
    for cpu, cuda in zip(*results, strict=True):
        assert cuda.device.type == "cuda"
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=1e-10, atol=1e-12)
