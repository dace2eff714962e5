"""`course compare` and `course evaluate labels`: oracles are numbers by hand and the library's own functions."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from course_lib import measurements
from course_lib.cli import app, compare, labels
from course_lib.cli.compare import summary
from course_lib.segmentation import best_bilinear, mean_iou
from course_lib.training import recipes
from course_lib.training.recipes.segmentation import SegmentationRecipe, held_out
from tests.training.processes import Interrupt
from tests.training.toy import Toy


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two toys called toy-a and toy-b instead of the book's recipes, and folders of our own."""
    toys = {name: Toy(name=name, rate=rate, steps=4) for name, rate in (("toy-a", 0.05), ("toy-b", 0.01))}
    monkeypatch.setattr(recipes, "_all", lambda: toys)
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    return tmp_path


def test_summary_by_hand() -> None:
    runs = [0.5, 0.7]
    curves = [
        [
            {"step": 0.0, "seconds": 0.1, "miou": 0.1},
            {"step": 5.0, "seconds": 1.0, "loss": 2 * v, "miou": v / 2},
            {"step": 9.0, "seconds": 2.0, "loss": v, "miou": v},
        ]
        for v in runs
    ]
    found = summary(curves)
    assert found["last"]["miou"]["mean"] == pytest.approx(0.6)
    assert found["last"]["miou"]["spread"] == pytest.approx(0.1 * math.sqrt(2))
    assert found["last"]["miou"]["runs"] == runs
    assert found["curve"]["step"] == [5, 9]
    assert found["curve"]["miou"] == pytest.approx([0.3, 0.6])
    assert set(found["curve"]) == {"step", "loss", "miou"}
    assert summary(curves[:1])["last"]["miou"]["spread"] == 0


def test_what_one_run_lacks_has_no_mean() -> None:
    """Oracle: by hand; a score that was not finite is left out of its row."""
    curves: list[Any] = [
        [{"step": 0}, {"step": 5, "a": 1.0, "b": 2.0}, {"step": 9, "a": 3.0, "b": 4.0}],
        [{"step": 0}, {"step": 5, "a": 2.0}, {"step": 9, "b": 5.0}],
    ]
    found = summary(curves)
    assert found["curve"] == {"step": [5, 9], "a": [1.5, None], "b": [None, 4.5]}
    assert list(found["last"]) == ["b"]


def test_a_family_is_compared_and_gone_on_with(family: Path) -> None:
    """Oracle: the curves that the trainings wrote; a second call trains nothing and says the same."""
    words = ("compare", "toy", "--seeds", 2, "--device", "cpu", "--folder", family / "runs", "--save")
    first = course(*words)
    assert first.exit_code == 0, first.output
    assert sorted(p.name for p in (family / "runs").iterdir()) == [f"toy-{x}-seed{s}" for x in "ab" for s in (0, 1)]
    record = measurements.read("compare_toy")
    values = record["values"]["toy-a"]["last"]["error"]
    assert values["mean"] == pytest.approx(sum(values["runs"]) / 2)
    assert values["runs"][0] != values["runs"][1]
    assert record["command"] == "course compare toy --seeds 2 --device cpu --save"
    assert f"{values['mean']:.4f}" in first.output
    again = course(*words)
    assert again.exit_code == 0
    assert "step 4 " not in again.output
    assert measurements.read("compare_toy")["values"]["toy-a"]["last"]["error"] == values


def test_the_precision_reaches_every_training(family: Path) -> None:
    """Oracle: another precision gives other errors, and the record says which it was."""
    words = ("compare", "toy", "--seeds", 1, "--device", "cpu", "--save")
    errors = {}
    for precision in ("32-true", "bf16-mixed"):
        done = course(*words, "--folder", family / precision, "--precision", precision)
        assert done.exit_code == 0, done.output
        record = measurements.read("compare_toy")
        assert f"precision {precision};" in record["protocol"]
        errors[precision] = record["values"]["toy-a"]["last"]["error"]["mean"]
    assert "--precision bf16-mixed" in record["command"]
    assert errors["32-true"] != errors["bf16-mixed"]


def test_ctrl_c_in_the_last_step_ends_the_comparison(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the exit code; no second training was begun."""
    monkeypatch.setattr(compare, "_show", lambda run, row: Interrupt(4)(row))
    done = course("compare", "toy", "--seeds", 2, "--device", "cpu", "--folder", family / "runs")
    assert done.exit_code == 130
    assert "stopped after step 4 of 4" in done.stderr
    assert [path.name for path in (family / "runs").iterdir()] == ["toy-a-seed0"]


def test_an_unknown_family_is_named(family: Path) -> None:
    result = course("compare", "cats")
    assert result.exit_code == 1
    assert "no recipe is called cats-something; there are: toy-a, toy-b" in result.output


def test_labels_on_few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the library's own trips; searching for the cross-entropy's scores never makes the loss worse."""
    monkeypatch.setattr(labels, "STEPS", (10, 20))
    monkeypatch.setattr(labels, "RANKS", (4, 32))
    few = {"side": 32, "object_size": (8, 20), "fitted": 40, "held_out": 12}
    recipe = SegmentationRecipe(name="labels", steps=1, batch=1, decoder="dupsampling", **few)
    values = labels.measure(recipe)
    assert [list(values[name]) for name in ("bilinear", "windows")] == [["8", "16", "32"], ["16", "32"]]
    _, maps = held_out(12, 32, (8, 20))
    squares = values["bilinear"]["16"]["squares"]
    assert squares == pytest.approx(mean_iou(best_bilinear(maps, 16, 4), maps, 4), abs=1e-4)
    few_numbers, many = (values["windows"]["16"][rank] for rank in ("4", "32"))
    assert many["squares"] > few_numbers["squares"]
    assert all(many["entropy"][steps] > few_numbers["entropy"][steps] for steps in ("10", "20"))
    lines = labels.table(values).splitlines()
    assert len(lines) == 1 + 3 + 2 * 2
    assert lines[3].split()[:2] == ["32", "bilinear"]
    assert lines[3].split()[2:] == [
        f"{v:.4f}" for v in (values["bilinear"]["32"]["squares"], *values["bilinear"]["32"]["entropy"].values())
    ]


def test_searching_finds_scores_that_win() -> None:
    """Oracle: with all of a window's numbers at hand, the search must find every label."""
    truth = torch.randint(3, (2, 4, 4), generator=torch.Generator().manual_seed(0))
    start = torch.zeros(2, 3, 4, 4)
    assert labels._searched(start, lambda z: z, truth, 3) == {"200": 1, "600": 1}
