"""The other commands, the help, and how the command line as a whole behaves."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from course_lib import __version__, datasets, measurements
from course_lib.cli import app
from course_lib.cli import evaluate as evaluating
from course_lib.cli.errors import one_line_errors
from course_lib.cli.options import networks, parse_scale, parse_size
from course_lib.datasets import sets


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray[Any, Any]]:
    """Two small pictures that stand in for a benchmark, and a measurements folder of our own."""
    arrays = [datasets.to_uint8(datasets.photograph(name, (40, 50))) for name in ("chelsea", "camera")]
    monkeypatch.setattr(evaluating.datasets, "pictures", lambda name: iter(zip(("a", "b"), arrays, strict=True)))
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    return arrays


def test_help_teaches() -> None:
    """Oracle: every command's help shows an example that starts with its own name, and explains each option."""
    codes = " ".join(course("--help").stdout.split("Exit codes: ")[1].split())
    assert all(f"{code} " in codes for code in (0, 1, 2, 130))
    for words in (
        ["upscale"],
        ["evaluate", "sr"],
        ["bench", "resize"],
        ["bench", "slider"],
        ["data", "get"],
        ["card"],
        ["bench", "sr"],
    ):
        done = course(*words, "--help")
        assert done.exit_code == 0
        assert f"  course {' '.join(words)} " in done.stdout or f"  course {' '.join(words)}\n" in done.stdout
    listed = course("upscale", "--help").stdout
    for option in ("--scale", "--size", "--method", "--out", "--force", "--device", "--antialias"):
        assert option in listed


def test_version_and_no_command() -> None:
    """Oracle: the package's version; click's exit code for a missing command."""
    assert course("--version").stdout.strip() == __version__
    assert course().exit_code in (0, 2)
    assert course("enlarge").exit_code == 2


def test_the_command_is_installed() -> None:
    """Oracle: the entry points of the installed package."""
    scripts = importlib.metadata.entry_points(group="console_scripts", name="course")
    assert [script.load() for script in scripts] == [app]


def test_help_does_not_wait_for_torch() -> None:
    """Oracle: the modules that are loaded after the imports of --help."""
    code = (
        "import sys; from course_lib.cli import app; print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scales_are_exact() -> None:
    """Oracle: fractions by hand."""
    assert [str(parse_scale(text)) for text in ("2", "3.7", "37/10", "1e-1", " 0.5 ")] == [
        "2",
        "37/10",
        "37/10",
        "1/10",
        "1/2",
    ]
    assert parse_size("0080x1920") == (80, 1920)


def test_foreseeable_errors_are_one_line_and_defects_are_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the exit code and stderr; a TypeError keeps its traceback."""
    import click.exceptions as _  # noqa: F401
    import typer

    for error in (ValueError("two\nlines"), OSError("two\nlines"), MemoryError("two\nlines")):
        with pytest.raises(typer.Exit) as caught, one_line_errors():
            raise error
        assert caught.value.exit_code == 1
        assert capsys.readouterr().err == "error: two lines\n"
    for defect in (TypeError, RuntimeError, KeyError):
        with pytest.raises(defect), one_line_errors():
            raise defect


def test_evaluate_prints_and_records(toys: list[Any], tmp_path: Path) -> None:
    """Oracle: the library's own protocol on the same two pictures; the record holds every picture and the command."""
    from course_lib.super_resolution.metrics import benchmark

    out = tmp_path / "rows.json"
    done = course("evaluate", "sr", "--model", "bicubic", "--data", "Set5", "--scale", 2, "--save", "--out", out)
    assert done.exit_code == 0, done.output
    record = measurements.read("evaluate_sr_bicubic_Set5")
    assert json.loads(out.read_text(encoding="utf-8"))["values"] == record["values"]
    row = record["values"]["2"]
    expected = [benchmark(datasets.from_uint8(a), evaluating.method("bicubic"), 2) for a in toys]
    assert [row["pictures"][name] for name in "ab"] == [pytest.approx(e, abs=1e-6) for e in expected]
    assert row["psnr"] == pytest.approx(np.mean([e[0] for e in expected]), abs=1e-4)
    assert row["ssim"] == pytest.approx(np.mean([e[1] for e in expected]), abs=1e-5)
    assert f"x2      {row['psnr']:.2f}" in done.stdout
    assert "33.66 / 0.9299" in done.stdout
    assert record["command"] == "course evaluate sr --model bicubic --data Set5 --scale 2"
    again = course("evaluate", "sr", "--scale", 2, "--out", out)
    assert again.exit_code == 1
    assert "--force" in again.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_pipe_is_not_replaced(toys: list[Any], tmp_path: Path, force: tuple[str, ...]) -> None:
    """Oracle: the kind of the path before; refused before any picture is measured, --force or not."""
    os.mkfifo(tmp_path / "pipe")
    done = course("evaluate", "sr", "--scale", 2, "--out", tmp_path / "pipe", *force)
    assert done.exit_code == 1
    assert done.stdout == ""
    assert (
        done.stderr
        == f"error: cannot write {tmp_path / 'pipe'}: it is a pipe, a device or a socket; name a regular file\n"
    )
    assert (tmp_path / "pipe").is_fifo()


def test_evaluate_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: exit codes 2 and 1, and what to do when the set is missing."""
    assert course("evaluate", "sr", "--scale", 0.5).exit_code == 2
    for option, word, choices in (
        ("data", "Set6", "Set5, Set14"),
        ("model", "magic", ", ".join(["nearest, bilinear, bicubic", *networks()])),
    ):
        done = course("evaluate", "sr", f"--{option}", word)
        assert done.exit_code == 2
        expected = f"Invalid value for '--{option}': must be one of {choices}; got {word!r}"
        assert expected in " ".join(done.stderr.split())
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("COURSE_DATA", raising=False)
    missing = course("evaluate", "sr", "--data", "Set14")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: the set Set14 is not complete")
    assert "course data get Set14" in missing.stderr


@pytest.mark.needs_data
def test_evaluate_gives_the_published_row() -> None:
    """Oracle: 33.66 dB and 0.9299, printed in papers since 2014."""
    try:
        datasets.find("Set5")
    except datasets.DataMissing as missing:
        pytest.skip(str(missing))
    done = course("evaluate", "sr", "--model", "bicubic", "--data", "Set5", "--scale", 2)
    assert done.exit_code == 0, done.output
    assert "x2      33.66       0.9299   33.66 / 0.9299" in done.stdout


def test_data_list_and_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a mirror that holds one set; an unknown name is a usage error; no network is one line."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    for file in sets.sources("Set5"):
        (tmp_path / "Set5" / file.to).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / "Set5" / file.to)
    listed = course("data", "list")
    assert listed.exit_code == 0
    assert f"Set5  5 files, 1.7 MB, in {tmp_path / 'Set5'}" in listed.stdout
    assert "not here: course data get BCCD" in listed.stdout
    assert listed.stdout.count("licence:") == 4
    assert course("data", "get", "Set5").stdout.strip() == f"Set5: {tmp_path / 'Set5'}"
    unknown = course("data", "get", "Set6")
    assert unknown.exit_code == 2
    assert "Set6 is not one of Set5, Set14, BSDS500, BCCD" in " ".join(unknown.stderr.split())
    monkeypatch.setattr(sets, "SERVER", "http://127.0.0.1:9")
    monkeypatch.setattr(sets, "_TRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    failed = course("data", "get", "Set14")
    assert failed.exit_code == 1
    assert "error: cannot download" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert list((tmp_path / "cache").rglob("*.png")) == []


def test_a_closed_pipe_ends_the_program_quietly() -> None:
    """Oracle: a pipe that nobody reads, as in `course data list | true`."""
    reading, writing = os.pipe()
    os.close(reading)
    code = "from course_lib.cli import app; app()"
    command = [sys.executable, "-c", code, "data", "list"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


def test_signals_are_handed_back() -> None:
    """Oracle: the handlers before; what is ignored (nohup) and what a caller has set stay as they are inside too."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for handler in (signal.SIG_DFL, signal.SIG_IGN, lambda number, frame: None):
            signal.signal(signal.SIGTERM, handler)
            with one_line_errors():
                assert (signal.getsignal(signal.SIGTERM) == handler) == (handler != signal.SIG_DFL)
            assert signal.getsignal(signal.SIGTERM) == handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_bench_commands_refuse_a_missing_device(tmp_path: Path) -> None:
    """Oracle: one line and exit code 1 before any clock runs; exit code 2 for numbers out of range."""
    refused = course("bench", "resize", "--device", "tpu", "--out", tmp_path / "a.json")
    assert refused.exit_code == 1
    assert refused.stderr.startswith('error: device must be "cpu" or "cuda"')
    assert course("bench", "resize", "--repeats", 0).exit_code == 2
    assert course("bench", "slider", "--threads", 0).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_bench_slider_prints_percentiles_and_writes(tmp_path: Path) -> None:
    """Oracle: order of the percentiles; the aim of 70 ms is printed with its verdict."""
    done = course("bench", "slider", "--moves", 12, "--threads", 1, "--out", tmp_path / "slider.json")
    assert done.exit_code == 0, done.output
    values = json.loads((tmp_path / "slider.json").read_text(encoding="utf-8"))["values"]
    assert 0 < values["p50_ms"] <= values["p95_ms"] <= values["worst_ms"]
    assert values["moves"] == 12
    verdict = "reached" if values["p95_ms"] < 70 else "missed"
    assert f"aim: 95th percentile under 70 ms: {verdict}" in done.stdout
