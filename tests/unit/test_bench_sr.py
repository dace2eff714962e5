"""`course bench sr` at the sizes of a test. Oracles: rivals do the same work; ratios are times divided."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from course_lib.bench import sr, sr_memory
from course_lib.bench.sr_cases import CASES
from course_lib.cli.app import app


def test_every_case_is_timed_beside_its_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the list of cases; ratios are of the times printed; memory's process is asked once (another test)."""
    asked: list[tuple[object, ...]] = []

    def mib(*words: object) -> float:
        asked.append(words)
        return 1.5

    monkeypatch.setattr(sr, "extra_mib", mib)
    values = sr.run("cpu", 1, repeats=1, small=True)
    assert [row["case"] for row in values["cases"]] == list(CASES)
    for row in values["cases"]:
        assert row["ours_ms"] > 0
        assert row["of_limit"] > 0
        for form, ratio, sign in (("bare", "over_bare", 1), ("plain", "plain_over", -1)):
            assert (row[ratio] is None) == (row[f"{form}_ms"] is None) == (row[f"{form}_mib"] is None)
            if row[ratio]:
                assert row[ratio] == pytest.approx((row["ours_ms"] / row[f"{form}_ms"]) ** sign, rel=0.2)
    assert len(asked) == sum(len(make("cpu", True).forms) for make in CASES.values())
    assert [row["case"] for row in values["half"]] == list(CASES)
    assert all(row["signal_to_error_db"] > 15 and row["dtype"] == "bfloat16" for row in values["half"])
    assert values["compile"]["note"] is None
    assert values["compile"]["largest_error"] < 1e-5
    text = sr.table(values)
    assert all(text.count(name) >= 2 for name in CASES)
    with pytest.raises(ValueError, match="got 'tpu'"):
        sr.run("tpu", None, 1)


@torch.no_grad()
@pytest.mark.parametrize("name", [name for name in CASES if "encoder" not in name])
def test_rivals_do_the_same_work(name: str) -> None:
    """Oracle: the plain form's colours; the bare form's products are counted."""
    case = CASES[name]("cpu", True)
    ours = case.forms["ours"]()
    if "plain" in case.forms:
        plain = case.forms["plain"]()
        torch.testing.assert_close(ours[0], plain, rtol=0, atol=1e-4 * float(ours.abs().max()))
    if "bare" in case.forms:
        with torch.profiler.profile(with_flops=True) as seen:
            case.forms["bare"]()
        assert sum(event.flops for event in seen.key_averages()) == pytest.approx(case.flops, rel=0.05)


@pytest.mark.xfail(not sys.platform.startswith("linux"), reason="only Linux tells", run=False)
def test_memory_of_a_fresh_process() -> None:
    """Oracle: a block of known size in a process of its own, because this one's heap and pages have a past; the same
    question asked of a case; its failure.
    """
    words = "import torch; from course_lib.bench.sr_memory import risen; print(risen(lambda: torch.ones(40 * 2**18)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert 39 < float(done.stdout) < 45  # the block has 40 MiB
    mib = sr_memory.extra_mib("Meta-SR 48 x2", "bare", 1, True)
    assert mib is not None
    assert 0 <= mib < 20
    with pytest.raises(RuntimeError, match=r"memory of Meta-SR 48 x2, none, failed: KeyError: 'none'"):
        sr_memory.extra_mib("Meta-SR 48 x2", "none", 1, True)


def test_no_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a compiler that fails as torch's does; the rest of the table stands."""

    def fail(*_: object, **__: object) -> object:
        def block(*_: object) -> None:
            raise TypeError("no compiler")

        return block

    monkeypatch.setattr(torch, "compile", fail)
    values = sr._compiled("cpu", lambda forms: dict.fromkeys(forms, 1.0), small=True)
    assert values == {"note": "TypeError"}
    whole = {"device": "cpu", "threads": 1, "cases": [], "half": [], "limits": {}, "compile": values}
    assert "not possible: TypeError" in sr.table(whole)


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the folder is empty, the old record stays as it was, and the exit code is 130."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sr, "extra_mib", stop)
    monkeypatch.setattr(sr, "_SECONDS", 0)
    monkeypatch.setattr(sr, "CASES", {"Meta-SR 48 x2": lambda device, small: CASES["Meta-SR 48 x2"](device, True)})
    monkeypatch.setattr(sr, "_limit", lambda *_: 1.0)
    monkeypatch.setattr("course_lib.measurements.data_dir", lambda: tmp_path)
    record = tmp_path / "measurements" / "bench_sr.json"
    record.parent.mkdir()
    record.write_text("old", encoding="utf-8")
    done = CliRunner().invoke(app, ["bench", "sr", "--repeats", "1", "--save"])
    assert done.exit_code == 130
    assert [(path.name, path.read_text(encoding="utf-8")) for path in record.parent.iterdir()] == [
        ("bench_sr.json", "old")
    ]


@pytest.mark.gpu
def test_on_cuda() -> None:
    values = sr.run("cuda", None, repeats=1, small=True)
    assert all(row["ours_ms"] > 0 for row in values["cases"])
