"""`course bench second-order`. Oracles: rivals do the same work; counted products; memory of blocks."""

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from course_lib.bench import sr, sr_memory
from course_lib.bench.second_order_cases import CASES
from course_lib.cli.app import app


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


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the record holds the cases and says how it was taken."""
    small = {name: lambda device, _, make=make: make(device, True) for name, make in CASES.items()}
    monkeypatch.setattr("course_lib.bench.second_order_cases.CASES", small)
    monkeypatch.setattr(sr, "extra_mib", lambda *_: 1.5)
    monkeypatch.setattr(sr, "_SECONDS", 0)
    monkeypatch.setattr(sr, "_limit", lambda *_: 1e9)
    out = tmp_path / "record.json"
    done = CliRunner().invoke(app, ["bench", "second-order", "--repeats", "1", "--threads", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert all(name in done.output for name in CASES)
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["command"] == "course bench second-order --device cpu --repeats 1 --threads 1"
    assert "centring matrix" in record["protocol"]
    assert [row["case"] for row in record["values"]["cases"]] == list(CASES)


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only Linux tells", run=False)
def test_memory_of_a_large_covariance() -> None:
    """Oracle: less than a copy of the 64 MiB of maps; the centring matrix would have 256 GiB. In its own process."""
    mib = sr_memory.extra_mib("covariance 64 x 512 x 512", "ours", 1, False)
    assert mib is not None
    assert 0 < mib < 32
