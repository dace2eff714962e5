"""`course train` and `course recipes`. Oracle: the library's own result; exit codes and sentences by hand."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from course_lib import measurements
from course_lib.cli import app
from course_lib.cli import train as command
from course_lib.training import loop, recipes, train
from tests.training.processes import Interrupt, read, same
from tests.training.toy import Exploding, Toy


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes, measurements and a working folder of our own."""
    known = {
        "toy": Toy(about="two layers"),
        "broken": Toy(name="broken", broken=29),
        "exploding": Exploding(name="exploding"),
    }
    monkeypatch.setattr(recipes, "_all", lambda: known)
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def test_help_teaches() -> None:
    """Oracle: an example that starts with the command's own name; every option is explained."""
    for words in ("train", "recipes"):
        done = course(words, "--help")
        assert done.exit_code == 0
        assert f"  course {words}" in done.stdout
    listed = course("train", "--help").stdout
    for option in ("--folder", "--steps", "--seed", "--device", "--precision", "--workers", "--fresh", "--save"):
        assert option in listed


def test_recipes_are_listed() -> None:
    """Oracle: names, steps, batch and the line about them."""
    done = course("recipes")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[2].split() == ["toy", "12", "steps", "of", "4", "two", "layers"]


def test_trained_recorded_and_gone_on_with(tmp_path: Path) -> None:
    """Oracle: `train` itself; the record holds what is needed to make it again."""
    done = course("train", "toy", "--seed", 5, "--device", "cpu", "--save")
    assert done.exit_code == 0, done.output
    expected = train(Toy(seed=5), tmp_path / "straight", device="cpu", progress=False)
    assert same(read(tmp_path / "runs" / "toy"), read(tmp_path / "straight"))
    record = measurements.read("train_toy_seed5")
    values = record["values"]
    assert [row["loss"] for row in values["curve"][1:]] == [row["loss"] for row in expected.curve[1:]]
    assert values["steps"] == 12
    assert record["command"] == "course train toy --seed 5 --device cpu --precision 32-true --save"
    assert (record["seed"], record["data"]) == (5, "points of a square")
    assert "rate 0.05" in record["protocol"]
    assert "1 process(es); precision 32-true" in record["protocol"]
    again = course("train", "toy", "--seed", 5)
    assert again.exit_code == 0
    assert again.stdout.startswith("runs/toy: 12 steps, ")
    other = course("train", "toy")
    assert other.exit_code == 1
    assert "seed was 5 and is 3 now" in other.stderr
    assert course("train", "toy", "--fresh").exit_code == 0
    assert measurements.names() == ["train_toy_seed5"]
    assert measurements.read("train_toy_seed5") == record


def test_a_record_tells_where_the_training_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the machine that took the steps, not the one on which a finished training is recorded."""

    def machine(processor: str, cores: int, device: str) -> Any:
        hardware = {"processor": processor, "cores": cores, "gpu": None}
        versions = {"python": "3", "torch": "2", "system": "Linux"}
        here = {"hardware": hardware, "versions": versions, "revision": processor[0], "date": f"2030-01-0{cores}"}
        return lambda fabric: here | {"device": device, "processes": 2, "threads": 1}

    monkeypatch.setattr(loop, "machine", machine("first", 8, "cpu"))
    monkeypatch.setattr(command, "_show", lambda recipe, row: Interrupt(4)(row))
    assert course("train", "toy").exit_code == 130
    monkeypatch.setattr(command, "_show", lambda recipe, row: None)
    monkeypatch.setattr(loop, "machine", machine("second", 4, "cuda"))
    assert course("train", "toy").exit_code == 0
    monkeypatch.setattr(loop, "machine", machine("third", 2, "cpu"))
    assert course("train", "toy", "--save").exit_code == 0
    record = measurements.read("train_toy")
    assert record["hardware"] == {"processor": "second", "cores": 4, "gpu": None}
    assert (record["revision"], record["date"]) == ("s", "2030-01-04")
    assert record["command"] == "course train toy --device cuda --precision 32-true --save"
    assert "2 process(es)" in record["protocol"]
    assert record["protocol"].endswith("; trained on several machines: first, torch 2; second, torch 2")


def test_the_record_of_the_listed_recipe_is_its_own(tmp_path: Path) -> None:
    """Oracle: its bytes stay when another seed or number of steps is recorded; the recipe's own seed is no change."""
    words = ("train", "toy", "--device", "cpu", "--save")
    assert course(*words, "--seed", 3).exit_code == 0
    kept = (tmp_path / "data" / "measurements" / "train_toy.json").read_bytes()
    assert course(*words, "--seed", 1, "--steps", 2, "--folder", "other").exit_code == 0
    assert measurements.names() == ["train_toy", "train_toy_steps2_seed1"]
    assert (tmp_path / "data" / "measurements" / "train_toy.json").read_bytes() == kept
    command = "course train toy --steps 2 --seed 1 --device cpu --precision 32-true --save"
    assert measurements.read("train_toy_steps2_seed1")["command"] == command


def test_another_folder_and_fewer_steps(tmp_path: Path) -> None:
    """Oracle: the checkpoint's step; a printed row."""
    done = course("train", "toy", "--steps", 4, "--folder", tmp_path / "here")
    assert done.exit_code == 0
    assert read(tmp_path / "here")["step"] == 4
    assert "toy step 4/4" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_missing_measurement_names_the_command() -> None:
    """Oracle: the command that makes it."""
    with pytest.raises(measurements.MeasurementMissing, match="course train espcn-x3 --save"):
        measurements.read("train_espcn-x3")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """Oracle: exit codes 128 + signal; one line says how to go on."""
    monkeypatch.setattr(command, "_show", lambda recipe, row: Interrupt(4, number)(row))
    done = course("train", "toy")
    assert done.exit_code == code
    assert done.stderr == (
        "stopped after step 4 of 12; runs/toy/checkpoint.pt is complete; "
        "the same command without --fresh goes on from there\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toi"], "error: no recipe has the name 'toi'; there are: toy"),
        (["broken"], "error: broken, step 7: sample 29 cannot be read: OSError: the disk does not answer"),
        (["exploding"], "error: exploding, step 7: the loss is inf; this step was not taken; the last checkpoint in"),
        (["toy", "--precision", "16-mixed", "--device", "cpu"], 'error: precision "16-mixed" needs device "cuda"'),
        (["toy", "--folder", "/proc/no"], "error: "),
    ],
)
def test_failures_are_one_line(words: list[str], message: str) -> None:
    """Oracle: exit code 1 and the sentence."""
    done = course("train", *words)
    assert done.exit_code == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_options_are_checked_first() -> None:
    """Oracle: exit code 2; nothing was made."""
    for words in (["--steps", 0], ["--seed", -1], ["--workers", -1], ["--device", "tpu"], ["--precision", "64"]):
        assert course("train", "toy", *words).exit_code == 2
    assert not Path("runs").exists()


def test_only_the_first_process_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: nothing on stdout and no record from a process that torchrun calls 1."""
    monkeypatch.setenv("RANK", "1")
    done = course("train", "toy", "--save")
    assert done.exit_code == 0
    assert "steps," not in done.stdout
    assert measurements.names() == []


def test_help_does_not_wait_for_torch() -> None:
    """Oracle: the modules of a fresh interpreter after the help of both commands."""
    program = (
        "import sys; from typer.testing import CliRunner; from course_lib.cli import app; "
        "[CliRunner().invoke(app, [word, '--help']) for word in ('train', 'recipes')]; "
        "print([m for m in ('torch', 'lightning_fabric') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
