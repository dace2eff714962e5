"""Shipped networks and their cards. Oracles: the files' own hashes, the numbers on the cards measured again, and the
words of the errors.
"""

import errno
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from course_lib import checkpoints, datasets, files, measurements
from course_lib.cli import app, ship
from course_lib.cli import evaluate as evaluating
from course_lib.super_resolution.espcn import ESPCN
from course_lib.training import Data, recipes, train
from course_lib.training.recipes.espcn import EspcnRecipe

PARAMETERS = {
    "edsr-tiny-x2": 195_971,
    "edsr-tiny-x3": 242_211,
    "edsr-tiny-x4": 232_963,
    "espcn-x3": 22_729,
    "espcn-x3-added": 22_729,
    "liif-tiny": 205_155,
    "metasr-tiny": 207_584,
    "san-tiny": 234_420,
    "ttsr-tiny": 414_955,
}
NAMES = tuple(PARAMETERS)
KNOWN = "EDSR, ESPCN, LIIF, MetaSR, RDN, SAN, TTSR, TinyDetector, TinySetDetector, TinyClassifier"


def course(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_checkpoint_has_a_card() -> None:
    """Oracle: the two folders; the sizes that the book promises."""
    assert set(NAMES) <= set(checkpoints.names())
    cards = sorted(path.stem for path in (files.data_dir() / "cards").glob("*.json"))
    assert cards == checkpoints.names()
    sizes = [checkpoints.paths(name)[0].stat().st_size for name in checkpoints.names()]
    assert max(sizes) < 2e6
    assert sum(sizes) < 25e6


@pytest.mark.parametrize("name", NAMES)
def test_card_and_weights_agree(name: str) -> None:
    """Oracle: hash and size of the file, parameters counted again, a PSNR measured again on a free photograph."""
    card, model = checkpoints.card(name), checkpoints.load(name)
    weights = checkpoints.paths(name)[0]
    assert card["name"] == name
    assert card["sha256"] == checkpoints.sha256(weights)
    assert card["bytes"] == weights.stat().st_size
    assert card["model"] == type(model).__name__
    assert card["parameters"] == sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert not model.training
    assert ship.photograph_psnr(model) == pytest.approx(card["photograph"]["psnr"], abs=0.003)
    for key in ("hardware", "seconds", "cpu_seconds", "revision", "steps", "data", "command"):
        assert card["training"][key], key
    assert card["training"]["steps"] == card["recipe"]["steps"]
    assert "seed" in card["recipe"]
    if "BSDS500" in card["training"]["data"]:
        assert "non-commercial" in card["licence"]
    with safetensors.safe_open(weights, "pt") as file:
        assert file.metadata()["licence"] == card["licence"]
    rows = ship.rows(card["metrics"])
    assert {data for data, _ in rows} == {"Set5", "Set14"}
    for _, row in rows:
        assert row["psnr"] > row["bicubic_psnr"]
        assert row["ssim"] > row["bicubic_ssim"]
    if card["aim"]:
        least = min(row["scale"] for _, row in rows)
        (first,) = (row for data, row in rows if data == "Set5" and row["scale"] == least)
        assert card["aim"]["reached"] == (first["psnr"] >= card["aim"]["psnr"])


@pytest.mark.parametrize("name", NAMES)
def test_a_card_can_be_read(name: str) -> None:
    """Oracle: the facts that a reader looks for stand in the text."""
    card, text = checkpoints.card(name), course("card", name).stdout
    for words in (
        *(f"{data} x{row['scale']}: {row['psnr']:.2f} dB" for data, row in ship.rows(card["metrics"])),
        card["licence"],
        card["sha256"],
        card["training"]["data"],
        card["training"]["revision"],
        f"{PARAMETERS[name]:,} parameters",
        "seed 0",
    ):
        assert words in text


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.needs_data("Set5")
def test_metrics_on_set5(name: str) -> None:
    """Oracle: the card, and the recorded measurement; both within what another processor may round differently."""
    rows = [row for data, row in ship.rows(checkpoints.card(name)["metrics"]) if data == "Set5"]
    card = next((row for row in rows if row["scale"] == 3), rows[0])
    scale = card["scale"]
    values = measured(name, scale)[str(scale)]
    recorded = measurements.read(f"evaluate_sr_{name}_Set5")["values"][str(scale)]
    for row in (card, recorded):
        assert values["psnr"] == pytest.approx(row["psnr"], abs=0.003)
        assert values["ssim"] == pytest.approx(row["ssim"], abs=1e-4)


def measured(name: str, scale: int = 3) -> dict[str, Any]:
    """Return what `course evaluate sr` measures of a checkpoint on Set5 at a scale."""
    found = evaluating.find(name, [Fraction(scale)])
    return evaluating.measure(found.model, "Set5", found.scales, protocol=found.protocol)


def test_save_and_read(tmp_path: Path) -> None:
    """Oracle: the model that was saved: class, arguments, every bit of its weights; half precision changes nothing."""
    torch.manual_seed(0)
    model = ESPCN(2, channels=3, output="sigmoid").to(memory_format=torch.channels_last)
    path = tmp_path / "model.safetensors"
    checkpoints.save(path, model, {"note": "a test"})
    again = checkpoints.read(path)
    assert isinstance(again, ESPCN)
    assert (again.scale, again.channels, again.output, again.added) == (2, 3, "sigmoid", False)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert not again.training
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["note"] == "a test"
    with pytest.raises(ValueError, match=f"model must be one of {KNOWN}; got Linear"):
        checkpoints.save(path, nn.Linear(2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({}, f"asks for the model None; this program makes {KNOWN}"),
        ({"model": "os.system", "args": '{"command": "true"}'}, "asks for the model 'os.system'"),
        ({"model": "ESPCN"}, "arguments that ESPCN does not take"),
        ({"model": "ESPCN", "args": "{"}, "arguments that ESPCN does not take"),
        ({"model": "ESPCN", "args": '{"scale": 2, "depth": 3}'}, "arguments that ESPCN does not take"),
        ({"model": "ESPCN", "args": '{"scale": 0}'}, "scale must be at least 1, got 0"),
        (
            {"model": "ESPCN", "args": '{"scale": 1000000}'},
            r"2 misshapen: conv3.weight is \(9, 32, 3, 3\), must be \(10000",
        ),
        ({"model": "ESPCN", "args": f'{{"scale": 1{"0" * 30}}}'}, "arguments that ESPCN does not take"),
        ({"model": "ESPCN", "args": "[" * 100_000}, "arguments that ESPCN does not take: maximum recursion depth"),
        ({"model": "ESPCN", "args": '{"scale": 2}'}, "2 misshapen: conv3.weight is"),
    ],
)
def test_other_files_are_refused(header: dict[str, str], words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(ESPCN(3).state_dict(), path, metadata=header)
    with pytest.raises(ValueError, match=words) as caught:
        checkpoints.read(path)
    assert str(path) in str(caught.value)


def test_reading_leaves_random_numbers_alone() -> None:
    """Oracle: torch's generator before and after."""
    before = torch.get_rng_state()
    checkpoints.load(NAMES[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_packing_gives_what_was_shipped(name: str) -> None:
    """Oracle: the files: the same tensors in the same places, and the same header."""
    path = checkpoints.paths(name)[0]
    with safetensors.safe_open(path, "pt") as file:
        header = file.metadata()
    extra = {key: header[key] for key in ("licence", "about")}
    content, shipped = checkpoints.pack(checkpoints.load(name), extra), path.read_bytes()
    start = 8 + int.from_bytes(shipped[:8], "little")
    assert content[start:] == shipped[start:]
    assert json.loads(content[8:start]) == json.loads(shipped[8:start])


def test_wrong_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name the checkpoint in it"):
        checkpoints.read(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is no safetensors file"):
        checkpoints.read(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError):
        checkpoints.read(tmp_path / "y.safetensors")
    for ask in (checkpoints.load, checkpoints.card):
        with pytest.raises(checkpoints.CheckpointMissing, match=r"the name 'espcn-x5'; there are: .*edsr"):
            ask("espcn-x5")
        for name in ("../espcn-x3", "espcn-x3/../espcn-x3", ""):
            with pytest.raises(ValueError, match="name must be letters"):
                ask(name)
    done = course("card", "espcn-x5")
    assert done.exit_code == 1
    assert done.stderr.startswith("error: no checkpoint has the name 'espcn-x5'")


class Tiny(EspcnRecipe):
    """Two steps on free photographs, nothing validated."""

    def data(self) -> Data:
        from course_lib.datasets.pairs import SRPairs

        return SRPairs(3, 8, source="photographs")

    def validate(self, model: ESPCN) -> dict[str, float]:
        return {}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of our own, two small pictures for every benchmark, and one small recipe."""
    data = tmp_path / "data"
    monkeypatch.setattr(measurements, "data_dir", lambda: data)
    monkeypatch.setattr(checkpoints, "data_dir", lambda: data)
    monkeypatch.setattr(files, "data_dir", lambda: data)
    arrays = [datasets.to_uint8(datasets.photograph(name, (40, 50))) for name in ("chelsea", "camera")]
    monkeypatch.setattr(evaluating.datasets, "pictures", lambda name: iter(zip(("a", "b"), arrays, strict=True)))
    tiny = Tiny(name="tiny", added=True, steps=2, batch=2, about="a test", aim=99.0)
    monkeypatch.setattr(recipes, "_all", lambda: {"tiny": tiny})
    return tmp_path


def trained(folder: Path) -> None:
    result = train(recipes.get("tiny"), folder, device="cpu", progress=False)
    values = {"curve": result.curve, "steps": result.steps, "seconds": 60.0, "cpu_seconds": 61.0}
    measurements.write("train_tiny", values, command="course train tiny", protocol="p", data=result.data, seed=0)


def test_ship_measures_and_writes(workshop: Path) -> None:
    """Oracle: the network of the training itself, measured by `benchmark`'s own protocol."""
    trained(workshop / "run")
    done = course("ship", "tiny", "--from", workshop / "run")
    assert done.exit_code == 0, done.output
    card, model = checkpoints.card("tiny"), checkpoints.load("tiny")
    state = torch.load(workshop / "run" / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    again = measured("tiny")["3"]
    assert (card["metrics"]["Set5"]["psnr"], card["metrics"]["Set14"]["ssim"]) == (again["psnr"], again["ssim"])
    bicubic = evaluating.measure(evaluating.method("bicubic"), "Set5", [3])["3"]
    assert card["metrics"]["Set5"]["bicubic_psnr"] == bicubic["psnr"]
    assert card["sha256"] == checkpoints.sha256(checkpoints.paths("tiny")[0])
    assert card["aim"] == {"set": "Set5", "psnr": 99.0, "reached": False}
    assert card["licence"].startswith("CC BY 4.0")
    assert card["training"]["cpu_seconds"] == 61.0
    assert "aim: 99.0 dB on Set5, not reached" in done.stdout
    written = (workshop / "data" / "cards" / "tiny.json").read_text(encoding="utf-8")
    assert json.loads(written) == card
    assert written == json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def test_ship_refuses_what_is_not_the_finished_training(workshop: Path) -> None:
    """Oracle: the exit code, the words, and that no file is there afterwards."""
    folder = workshop / "run"
    done = course("ship", "tiny", "--from", folder)
    assert done.exit_code == 1
    trained(folder)
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for change, words in (
        ({"step": 1}, "holds step 1 of 2 of tiny"),
        ({"recipe": state["recipe"] | {"rate": 1.0}}, "another recipe"),
        ({"rows": []}, "the recorded curve train_tiny is not that of"),
    ):
        torch.save(state | change, folder / "checkpoint.pt")
        done = course("ship", "tiny", "--from", folder)
        assert done.exit_code == 1
        assert words in done.stderr
    assert not (workshop / "data" / "checkpoints").exists()
    assert course("ship", "nothing").exit_code == 1


def test_ship_names_what_is_missing(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: exit code 1 and the words, not a traceback; nothing is written."""
    folder = workshop / "run"
    trained(folder)
    record = workshop / "data" / "measurements" / "train_tiny.json"
    whole, state = json.loads(record.read_text("utf-8")), torch.load(folder / "checkpoint.pt", weights_only=True)
    for change, words in (
        ({"values": {"curve": []}}, "the record train_tiny lacks steps, seconds, cpu_seconds"),
        ({"values": 3}, "the record train_tiny lacks curve, steps"),
    ):
        record.write_text(json.dumps({**whole, **change}), "utf-8")
        done = course("ship", "tiny", "--from", folder)
        assert done.exit_code == 1
        assert words in done.stderr
    record.write_text(json.dumps({key: value for key, value in whole.items() if key != "revision"}), "utf-8")
    assert "the record train_tiny lacks revision" in course("ship", "tiny", "--from", folder).stderr
    record.write_text(json.dumps(whole), "utf-8")
    torch.save({"format": state["format"]}, folder / "checkpoint.pt")
    done = course("ship", "tiny", "--from", folder)
    assert done.exit_code == 1
    assert "lacks" in done.stderr or "not a checkpoint" in done.stderr
    torch.save(state, folder / "checkpoint.pt")

    class Other(ESPCN):
        pass

    monkeypatch.setattr(Tiny, "model", lambda self: Other(3, added=True))
    done = course("ship", "tiny", "--from", folder)
    assert done.exit_code == 1
    assert done.stderr == f"error: model must be one of {KNOWN}; got Other\n"
    assert not (workshop / "data" / "checkpoints").exists()
    assert not (workshop / "data" / "cards").exists()


def test_weights_and_card_change_together(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the bytes of both files before; a metric that JSON cannot hold, and a disk that fills up."""
    trained(workshop / "run")
    paths = checkpoints.paths("tiny")
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(ship, "photograph_psnr", lambda model: float("nan"))
        assert course("ship", "tiny", "--from", workshop / "run").exit_code == 1
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        done = course("ship", "tiny", "--from", workshop / "run")
    assert done.exit_code == 1
    assert "no space left on the disk" in done.stderr
    assert [path.read_bytes() for path in paths] == [b"old", b"old"]
    assert [len(list(path.parent.iterdir())) for path in paths] == [1, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "tiny.json is not JSON (Expecting property name"),
        ("[]", "tiny.json is no card: it holds a list"),
        ("{}", "tiny.json is no whole card (KeyError('training'))"),
        ('{"training": 3, "aim": null}', "tiny.json is no whole card (KeyError('name'))"),
    ],
)
def test_a_damaged_card_is_named(workshop: Path, content: str, words: str) -> None:
    path = checkpoints.paths("tiny")[1]
    path.parent.mkdir(parents=True)
    path.write_text(content, "utf-8")
    done = course("card", "tiny")
    assert done.exit_code == 1
    assert words in done.stderr
    assert str(path) in done.stderr


def test_evaluate_a_network(workshop: Path) -> None:
    """Oracle: `measure` with the network; its one scale is taken by itself, another is refused before measuring."""
    trained(workshop / "run")
    course("ship", "tiny", "--from", workshop / "run")
    done = course("evaluate", "sr", "--model", "tiny", "--data", "Set5", "--save")
    assert done.exit_code == 0, done.output
    record = measurements.read("evaluate_sr_tiny_Set5")
    assert record["values"] == measured("tiny")
    assert record["command"] == "course evaluate sr --model tiny --data Set5 --scale 3"
    assert "published for bicubic" in done.stdout
    assert f"x3      {record['values']['3']['psnr']:.2f}" in done.stdout
    assert "30.39 / 0.8682" in done.stdout
    for scales in (("--scale", 2), ("--scale", 3, "--scale", 4)):
        wrong = course("evaluate", "sr", "--model", "tiny", *scales)
        assert wrong.exit_code == 1
        assert wrong.stdout == ""
        assert wrong.stderr == f"error: tiny was trained for scale 3 and has no other; got {scales[-1]}\n"
