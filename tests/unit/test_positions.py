"""Positions of a map's cells. Oracles: formulas by hand, tables, and what the official code's numbers must have."""

import math
from typing import Any

import pytest
import torch

from course_lib.blocks.positions import TURN, LearnedPositions, sine, sine_of


def test_one_value_by_hand() -> None:
    """Oracle: sines and cosines of the definition, sine first."""
    found = sine_of(torch.tensor([0.3], dtype=torch.float64), 6, temperature=50.0)[0]
    expected = [f(0.3 / 50 ** (2 * i / 6)) for i in range(3) for f in (math.sin, math.cos)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert sine_of(torch.zeros(2, 3), 4).shape == (2, 3, 4)
    assert sine_of(torch.zeros(()), 4).tolist() == [0, 1, 0, 1]


def test_the_last_cell_is_one_turn() -> None:
    """Oracle: coordinates 1 to n by hand: DETR's last cell lies at 2 pi; centred, cell i at 2 pi (i + 1/2) / n."""
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[:, :, 3] = True
    for centred, first in ((False, 1.0), (True, 0.5)):
        found = sine(mask, 8, centred=centred, dtype=torch.float64)[0]
        for r in range(3):
            for c in range(3):
                ys = sine_of(torch.tensor(TURN * (r + first) / 3, dtype=torch.float64), 4)
                xs = sine_of(torch.tensor(TURN * (c + first) / 3, dtype=torch.float64), 4)
                torch.testing.assert_close(found[:, r, c], torch.cat((ys, xs)), rtol=0, atol=1e-5)
    plain = sine(mask, 8, normalise=False, dtype=torch.float64)[0]
    torch.testing.assert_close(plain[:4, 1, 0], sine_of(torch.tensor(2.0, dtype=torch.float64), 4))
    torch.testing.assert_close(plain[4:, 0, 3], sine_of(torch.tensor(3.0, dtype=torch.float64), 4))  # padding: the last


def test_dtypes() -> None:
    """Oracle: float64's numbers, rounded once."""
    mask = torch.zeros(1, 40, 60, dtype=torch.bool)
    exact = sine(mask, 16, dtype=torch.float64)
    assert sine(mask, 16).dtype == torch.float32
    assert torch.equal(sine(mask, 16, dtype=torch.bfloat16), sine(mask, 16).bfloat16())
    torch.testing.assert_close(sine(mask, 16).double(), exact, rtol=0, atol=3e-6)


def test_a_map_of_padding_has_finite_positions() -> None:
    assert sine(torch.ones(1, 2, 3, dtype=torch.bool), 8).isfinite().all()


def test_learned_positions_are_their_tables() -> None:
    """Oracle: rows of the tables: x's half first, then y's; masks do not matter; gradients reach what is used."""
    torch.manual_seed(0)
    table = LearnedPositions(6, rows=4, columns=5)
    mask = torch.tensor([[[False, True]] * 3] * 2)
    found = table(mask)
    assert found.shape == (2, 6, 3, 2)
    for r in range(3):
        for c in range(2):
            for one in found:
                assert torch.equal(one[:, r, c], torch.cat((table.columns[c], table.rows[r])))
    found.sum().backward()
    assert table.rows.grad is not None
    assert table.rows.grad.ne(0).all(1).tolist() == [True, True, True, False]
    assert 0 <= table.rows.min() < table.rows.max() < 1
    with pytest.raises(ValueError, match=r"mask must be at most 4 x 5, the learned table, got 5 x 2"):
        table(torch.zeros(1, 5, 2, dtype=torch.bool))


MASK = torch.zeros(1, 2, 2, dtype=torch.bool)
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mask": MASK.float()}, TypeError, r"mask must be a bool torch\.Tensor, True for padding, got torch\.float32"),
    ({"mask": None}, TypeError, r"mask must be a bool torch\.Tensor, True for padding, got NoneType"),
    ({"mask": MASK[0]}, ValueError, r"mask must be \(N, h, w\) with h, w >= 1, got \(2, 2\)"),
    ({"width": 6}, ValueError, "width must be a multiple of 4, .* got 6"),
    ({"width": 2}, ValueError, "width must be at least 4, got 2"),
    ({"width": 8.0}, TypeError, "width must be a whole number, got 8.0"),
    ({"temperature": 0.0}, ValueError, "temperature must be positive, got 0.0"),
    ({"normalise": False, "centred": True}, ValueError, "centred must be False where normalise is False"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), REFUSED)
def test_bad_input_is_named(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    fine: dict[str, Any] = {"mask": MASK, "width": 8}
    with pytest.raises(error, match=message):
        sine(**(fine | wrong))


def test_bad_values_are_named() -> None:
    with pytest.raises(TypeError, match=r"x must be a floating point torch\.Tensor, got torch\.int64"):
        sine_of(torch.zeros(2, dtype=torch.int64), 4)
    with pytest.raises(ValueError, match="width must be even, got 5"):
        sine_of(torch.zeros(2), 5)
    with pytest.raises(ValueError, match="width must be even, got 5"):
        LearnedPositions(5)
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        LearnedPositions(4, rows=0)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    """Oracle: the CPU."""
    mask = torch.zeros(2, 5, 7, dtype=torch.bool)
    mask[1, 3:] = True
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        here, there = sine(mask, 16, dtype=dtype), sine(mask.cuda(), 16, dtype=dtype)
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=tolerance)
    table = LearnedPositions(8)
    assert torch.equal(table.cuda()(mask.cuda()).cpu(), table.cpu()(mask))
