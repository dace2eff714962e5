"""`course bench second-order`. Oracles: rivals do the same work; counted products; memory of blocks."""

import sys

import pytest
import torch

from course_lib.bench import sr_memory
from course_lib.bench.second_order_cases import CASES


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_rivals_do_the_same_work(name: str) -> None:
    """Oracles: the plain forms' numbers; the bare form's products and convolutions are counted."""
    case = CASES[name]("cpu", True)
    if "plain" in case.forms:
        torch.testing.assert_close(case.forms["ours"](), case.forms["plain"](), rtol=0, atol=1e-5)
    assert case.forms["ours"]().isfinite().all()
    with torch.profiler.profile(with_flops=True) as seen:
        case.forms["bare"]()
    assert sum(event.flops for event in seen.key_averages()) == case.flops


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only Linux tells", run=False)
def test_memory_of_a_large_covariance() -> None:
    """Oracle: less than a copy of the 64 MiB of maps; the centring matrix would have 256 GiB. In its own process."""
    mib = sr_memory.extra_mib("covariance 64 x 512 x 512", "ours", 1, False)
    assert mib is not None
    assert 0 < mib < 32
