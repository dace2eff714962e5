import json
import re
from pathlib import Path
from typing import Any

import pytest

from course_lib import measurements

HOW: dict[str, Any] = {"command": "course bench x --save", "protocol": "by hand", "data": "none"}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path)
    return tmp_path / "measurements"


def test_what_is_written_is_read_with_how_it_was_made(shelf: Path) -> None:
    """Oracle: the values given; the fields the handbook of the project asks for."""
    path = measurements.write("bench_x", {"b": [1.5, 2], "a": "é"}, seed=3, **HOW)
    record = measurements.read("bench_x")
    assert path == shelf / "bench_x.json"
    assert record["values"] == {"b": [1.5, 2], "a": "é"}
    assert {name: record[name] for name in HOW} == HOW
    assert record["seed"] == 3
    assert set(record["hardware"]) == {"processor", "cores", "gpu"}
    assert record["hardware"]["cores"] >= 1
    assert set(record["versions"]) == {"python", "torch", "system"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record["date"])
    assert measurements.names() == ["bench_x"]
    text = path.read_text(encoding="utf-8")
    assert text == json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("bench_resize", "course bench resize --save"),
        ("evaluate_sr_bicubic_Set5", "course evaluate sr --model bicubic --data Set5 --save"),
        ("evaluate_sr_meta_sr_Set14", "course evaluate sr --model meta_sr --data Set14 --save"),
        ("something", "course --help"),
    ],
)
def test_a_missing_measurement_names_its_command(shelf: Path, name: str, command: str) -> None:
    """Oracle: the commands of `course --help`."""
    with pytest.raises(measurements.MeasurementMissing, match=re.escape(command)):
        measurements.read(name)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}])
def test_values_that_json_cannot_hold_keep_the_old_record(shelf: Path, bad: object) -> None:
    """Oracle: the record written before."""
    measurements.write("bench_x", {"a": 1}, **HOW)
    with pytest.raises(ValueError, match="values must be finite numbers"):
        measurements.write("bench_x", {"a": bad}, **HOW)
    assert measurements.read("bench_x")["values"] == {"a": 1}
    assert [path.name for path in shelf.iterdir()] == ["bench_x.json"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b"])
def test_names_are_file_names(shelf: Path, name: str) -> None:
    """Oracle: a name that would leave the folder is refused, naming it."""
    with pytest.raises(ValueError, match="name must be letters"):
        measurements.read(name)


def test_a_damaged_record_is_named(shelf: Path) -> None:
    """Oracle: a file cut short."""
    shelf.mkdir()
    (shelf / "bench_x.json").write_text('{"values": ', encoding="utf-8")
    with pytest.raises(ValueError, match=r"is not JSON.*course bench x --save"):
        measurements.read("bench_x")


def test_revision_is_a_git_hash_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Oracle: git's format; a folder outside any checkout has none."""
    revision = measurements._revision()
    assert revision is None or re.fullmatch(r"[0-9a-f]{40,64}(\+changes)?", revision)
    monkeypatch.setattr(measurements, "__file__", str(tmp_path / "measurements.py"))
    assert measurements._revision() is None


def test_every_shipped_record_is_complete() -> None:
    """Oracle: the fields of a record; a name that its own command would write."""
    for name in measurements.names():
        record = measurements.read(name)
        fields = {"values", "command", "protocol", "data", "seed", "hardware", "versions", "revision", "date"}
        assert set(record) == fields, name
        assert record["command"].startswith(("course ", "python -m ")), name
