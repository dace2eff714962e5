"""`course bench detectors`. Oracles: the library's `evaluate` on the same scenes, parameters counted, lists by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from course_lib import checkpoints, measurements, official
from course_lib.bench import detector_cases
from course_lib.cli import app
from course_lib.cli.detection_sets import find
from course_lib.detection.evaluation import evaluate, multiply_adds
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.super_resolution.espcn import ESPCN

SMALL: dict[str, Any] = {"width": 16, "widths": (4, 6, 8, 8, 10, 10)}
SETS: dict[str, Any] = {"heads": 2, "feed": 16, "encoder": 1, "decoder": 1, "queries": 4}


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """A book with two detectors of shapes, one of cells, and a network that enlarges; untrained."""
    torch.manual_seed(0)
    models: dict[str, Any] = {
        "ssd-tiny": TinyDetector(**SMALL),
        "detr-tiny": TinySetDetector("detr", **SMALL, **SETS),
        "cells": TinyDetector(names=("RBC", "WBC"), **SMALL),
        "espcn": ESPCN(3),
    }
    monkeypatch.setattr(checkpoints, "names", lambda: sorted(models))
    monkeypatch.setattr(checkpoints, "load", lambda name: models[name].eval())
    monkeypatch.setattr(detector_cases, "PAPER", {"yolos_ti": (64, 96)})
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    return models


def test_every_detector_on_the_same_scenes(book: dict[str, Any], tmp_path: Path) -> None:
    """Oracle: `evaluate` on the scenes of `course evaluate detection`, and what parameters and products are."""
    words = ["bench", "detectors", "--repeats", "1", "--pictures", "3", "--data", "scenes-easy"]
    words += ["--data", "scenes-hard", "--paper", "--save"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    record = measurements.read("bench_detectors")
    values = record["values"]
    json.dumps(values, allow_nan=False)
    assert values["others"] == ["cells"]
    assert set(values["detectors"]) == {"ssd-tiny", "detr-tiny"}
    assert list(values["detectors"].values()) == sorted(values["detectors"].values(), key=lambda row: row["one_ms"])
    for name, row in values["detectors"].items():
        model = book[name]
        assert row["parameters"] == sum(p.numel() for p in model.parameters())
        assert row["multiply_adds"] == multiply_adds(model)
        assert row["picture"] == [64, 64]
        assert min(row[key] for key in ("one_ms", "many_ms", "network_ms")) > 0
        for data in ("scenes-easy", "scenes-hard"):
            wanted = evaluate(model, find(data, model.names, 3).samples(), model.names)
            for key in detector_cases.SCORES:
                score = row["scores"][data][key]
                assert score == (pytest.approx(wanted[key], abs=1e-6) if wanted[key] == wanted[key] else None)
    with torch.device("meta"):
        paper: Any = official.adapter("yolos_ti").build()
    row = values["paper"]["yolos_ti"]
    assert row["parameters"] == sum(p.numel() for p in paper.parameters()) == 6_488_736
    assert row["multiply_adds"] == multiply_adds(paper, (64, 96))
    assert row["memory"] > 0
    assert "scenes-hard: the first 3 of Scenes(seed=1000003" in record["protocol"]
    command = "--device cpu --repeats 1 --data scenes-easy --data scenes-hard --pictures 3 --paper"
    assert record["command"] == f"course bench detectors {command}"
    text = done.stdout
    assert "not on these scenes, because they know other classes: cells" in text
    assert sum(line.split()[:1] == ["detr-tiny"] for line in text.splitlines()) == 2
    assert "64x96" in text


def test_what_is_asked_wrongly_is_refused(book: dict[str, Any]) -> None:
    """Oracle: usage errors and one line, before anything is measured."""
    for words, code, said in (
        (["--data", "coins"], 2, "must be one of scenes-easy"),
        (["--pictures", "0"], 2, "at least 1"),
        (["--device", "tpu"], 1, "device must be"),
    ):
        done = CliRunner().invoke(app, ["bench", "detectors", *words])
        assert done.exit_code == code
        assert said in " ".join(done.output.replace("│", " ").split())


def test_networks_of_the_papers_are_there() -> None:
    """Oracle: the names of official checkpoints; sizes at which their last maps still have places."""
    assert set(detector_cases.PAPER) <= set(official.names())
    assert all(min(size) >= 300 for size in detector_cases.PAPER.values())
