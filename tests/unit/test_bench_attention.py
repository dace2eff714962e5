"""`course bench attention`. Oracles: rivals do the same work; products are counted by hand."""

from typing import Any

import pytest
import torch

from course_lib.bench import attention_cases
from course_lib.bench.attention_cases import CASES, curve, curve_table

MATCHED = ("matching 16x100x20", "set loss 16x100x20, 6 layers")


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if name not in MATCHED])
def test_rivals_do_the_same_work(name: str) -> None:
    """Oracle: the plain form's numbers, with gradients where they are measured; the fused kernel's, where bare."""
    case = CASES[name]("cpu", True)
    ours = case.forms["ours"]()
    for rival in set(case.forms) - {"ours"}:
        torch.testing.assert_close(ours, case.forms[rival](), rtol=1e-4, atol=1e-5)
    assert isinstance(ours, tuple) == ("gradients" in name)


@torch.no_grad()
def test_matched_alike() -> None:
    """Oracle: one matrix of all pictures, and the solver on the costs; of the loss, the sum over layers."""
    forms = CASES[MATCHED[0]]("cpu", True).forms
    for name in ("bare", "plain"):
        for ours, theirs in zip(forms["ours"](), forms[name](), strict=True):
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])
    forms = CASES[MATCHED[1]]("cpu", True).forms
    torch.testing.assert_close(forms["ours"](), forms["plain"](), rtol=1e-5, atol=1e-6)
    assert len(forms["bare"]()) == 6


def test_products_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: two products of attention for each pair of cells; projections and feed-forward for each cell."""
    assert CASES["attention 8x8x1024x1024x32"]("cpu", True).flops == 2 * 2 * 8 * 8 * 66 * 66 * 32
    monkeypatch.setattr(attention_cases, "_PICTURES", (64, 128))
    found: Any = curve("cpu", None, 1)
    for row, side in zip(found["rows"], (64, 128), strict=True):
        cells = sum((side // stride) ** 2 for stride in (8, 16, 32, 64))
        assert (row["picture"], row["cells"]) == (side, cells)
        every = 2 * 256 * 1024
        assert row["full_gmacs"] == pytest.approx(cells * (every + 4 * 256**2 + 2 * cells * 256) / 1e9, abs=1e-4)
        # values, out, and 8 heads x 16 points x (2 offsets + 1 weight)
        assert row["deformable_gmacs"] == pytest.approx(cells * (every + 2 * 256**2 + 256 * 384) / 1e9, abs=1e-4)
    assert set(found["growth"]) == {"full", "deformable"}
    lines = curve_table(found).splitlines()
    assert lines[3].split()[:2] == ["64", "85"]
    assert "to the power of" in lines[-1]
