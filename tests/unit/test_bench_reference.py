"""`course bench reference`, and the commands of `course bench second-order` and `detection` with it.

Oracles: rivals do the same work; the memory that a search at 320 may take.
"""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from course_lib.bench import sr, sr_memory
from course_lib.bench.reference_cases import CASES
from course_lib.cli.app import app


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name, make in CASES.items() if "plain" in make("cpu", True).forms])
def test_rivals_do_the_same_work(name: str) -> None:
    """Oracle: the official way's numbers; the bare form's products are counted."""
    case = CASES[name]("cpu", True)
    for got, expected in zip(case.forms["ours"](), case.forms["plain"](), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    with torch.profiler.profile(with_flops=True) as seen:
        case.forms["bare"]()
    assert sum(event.flops for event in seen.key_averages()) == case.flops


@pytest.mark.parametrize(
    ("what", "cases", "told"),
    [
        ("reference", "reference_cases", "the matrix of all pairs"),
        ("second-order", "second_order_cases", "centring matrix"),
        ("detection", "detection_cases", "the loops of course_lib.plain.detection"),
    ],
)
def test_the_command(what: str, cases: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the record holds the cases and says how it was taken; nothing is said of what was not measured."""
    module = importlib.import_module(f"course_lib.bench.{cases}")
    small = {name: lambda device, _, make=make: make(device, True) for name, make in module.CASES.items()}
    monkeypatch.setattr(module, "CASES", small)
    monkeypatch.setattr(sr, "extra_mib", lambda *_: 1.5)
    monkeypatch.setattr(sr, "_SECONDS", 0)
    monkeypatch.setattr(sr, "_limit", lambda *_: 1e9)
    out = tmp_path / "record.json"
    done = CliRunner().invoke(app, ["bench", what, "--repeats", "1", "--threads", "1", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert all(name in done.output for name in small)
    assert "torch.compile" not in done.output
    assert "fewer digits" not in done.output
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["command"] == f"course bench {what} --device cpu --repeats 1 --threads 1"
    assert told in record["protocol"]
    assert [row["case"] for row in record["values"]["cases"]] == list(small)


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only Linux tells", run=False)
@pytest.mark.parametrize(("name", "most"), [("search 320 in 320", 60), ("search and transfer 320", 250)])
def test_memory_of_the_paper_s_size(name: str, most: float) -> None:
    """Oracle: the limits, far below what all pairs and all patches take. In a process of its own."""
    mib = sr_memory.extra_mib(name, "ours", 1, False)
    assert mib is not None
    assert 0 < mib < most
