"""`course evaluate detection`. Oracles: the library's `evaluate` on the same pictures, boxes set by hand, and what was
there before.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib import checkpoints, datasets, measurements
from course_lib.cli import evaluate_detection as evaluating
from course_lib.cli.detection_sets import find
from course_lib.datasets.annotations import Labelled
from course_lib.datasets.coins import coins
from course_lib.detection import evaluation, finding
from course_lib.detection.boxes import iou
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.prediction import Detections
from course_lib.super_resolution.espcn import ESPCN
from course_lib.training.detectors import EASY, held_out
from tests.cli.test_upscale import course, noise, one_line, save

SMALL: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8, "picture": (32, 48)}
NAMES = ("disc", "square", "triangle")
BOXES = [[[3, 4, 20, 24], [22, 8, 40, 30]], [], [[0, 0, 61, 43]]]
LABELS = [[0, 2], [], [1]]


@pytest.fixture
def net(tmp_path: Path) -> tuple[Path, TinyDetector]:
    """An untrained detector that says something of every place, and finds a little of it, in a file of ours."""
    torch.manual_seed(28)
    model = TinyDetector("ssd", NAMES, **SMALL)
    for layer in model.heads.logits:
        torch.nn.init.normal_(layer.weight, std=0.3)  # type: ignore[arg-type]
    (tmp_path / "nets").mkdir()
    checkpoints.save(tmp_path / "nets" / "tiny.safetensors", model)
    return tmp_path / "nets" / "tiny.safetensors", model.eval()


def pictures() -> list[Labelled]:
    """Three pictures, of two sizes."""
    images = [datasets.from_uint8(noise(h, w, 3)) for h, w in ((40, 50), (40, 50), (43, 61))]
    boxes = [torch.tensor(some, dtype=torch.float32).reshape(-1, 4) for some in BOXES]
    return [
        Labelled(image, box, torch.tensor(label, dtype=torch.int64))
        for image, box, label in zip(images, boxes, LABELS, strict=True)
    ]


def voc(folder: Path, difficult: bool = False) -> Path:
    """The same as PASCAL VOC has it: pixels counted from 1."""
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    for k, one in enumerate(pictures()):
        height, width = one.size
        save(folder / "JPEGImages" / f"{k}.png", noise(height, width, 3))
        objects = "".join(
            f"<object><name>{NAMES[label]}</name><difficult>{int(difficult and label == 2)}</difficult><bndbox>"
            f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for (x0, y0, x1, y1), label in zip(BOXES[k], LABELS[k], strict=True)
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (folder / "Annotations" / f"{k}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    return folder


def coco(file: Path) -> Path:
    """The same as COCO has it, its pictures in the folder beside it."""
    images, boxes = [], []
    for k, one in enumerate(pictures()):
        height, width = one.size
        images.append({"id": k, "file_name": f"{k}.png", "height": height, "width": width})
        boxes += [
            {"id": 0, "image_id": k, "category_id": 10 + label, "bbox": [x0, y0, x1 - x0, y1 - y0]}
            for (x0, y0, x1, y1), label in zip(BOXES[k], LABELS[k], strict=True)
        ]
    kinds = [{"id": 10 + k, "name": name} for k, name in enumerate(NAMES)]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    return file


def expected(model: TinyDetector, samples: Any, **settings: Any) -> dict[str, Any]:
    found = evaluation.evaluate(model, samples, NAMES, **settings)
    made: dict[str, Any] = evaluating._plain(found)
    return made


def test_files_are_measured_like_what_they_hold(net: Any, tmp_path: Path) -> None:
    """Oracle: the library on the tensors themselves; VOC and COCO say the same."""
    path, model = net
    folder, out = voc(tmp_path / "mine"), tmp_path / "x.json"
    file = coco(tmp_path / "list.json")
    words = ["--checkpoint", path, "--data", folder, "--data", file, "--images", folder / "JPEGImages"]
    done = course("evaluate", "detection", *words, "--out", out)
    assert done.exit_code == 0, done.output
    record = json.loads(out.read_text())
    wanted = expected(model, pictures(), size=model.picture, bands=(32, 96))
    assert wanted["AP50"] > 0
    assert record["values"] == {"mine": {"file-tiny": wanted}, "list": {"file-tiny": wanted}}
    command = "course evaluate detection --checkpoint tiny.safetensors --data mine --data list --images JPEGImages"
    assert record["command"] == command
    assert "XML of PASCAL VOC, pixels counted from 1" in record["protocol"]
    assert "list: list: JSON of COCO, whole, seen at the size that the detector was made for" in record["protocol"]
    assert "mine: 3 pictures, 3 objects" in done.stdout
    assert (
        f"AP50 of disc {wanted['per_class']['disc']:>12.4f}".split()
        == next(line for line in done.stdout.splitlines() if "of disc" in line).split()
    )


def test_difficult_objects_do_not_count(net: Any, tmp_path: Path) -> None:
    """Oracle: by hand, without the only triangle; the first two pictures alone where two are asked for."""
    _, model = net
    values = evaluating.evaluate(model, find(str(voc(tmp_path / "hard", difficult=True)), NAMES))
    assert values["objects"] == 2
    assert values["per_class"]["triangle"] is None
    few = find(str(tmp_path / "hard"), NAMES, pictures=2)
    assert evaluating.evaluate(model, few)["objects"] == 1
    assert find(str(tmp_path / "hard"), NAMES, pictures=9).count == 3


def test_detectors_side_by_side_are_recorded(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the library on the scenes; a record for each detector and set, with a command of its own."""
    path, model = net
    torch.manual_seed(1)
    other = TinyDetector("fssd", NAMES, **SMALL).eval()
    monkeypatch.setattr(evaluating, "find_network", lambda name, *_: ("mine", model) if name is None else (name, other))
    monkeypatch.setattr(measurements, "data_dir", lambda: tmp_path / "data")
    words = ["--model", "ssd-tiny", "--checkpoint", path, "--data", "scenes-easy", "--data", "coins", "--pictures", 3]
    done = course("evaluate", "detection", *words, "--save")
    assert done.exit_code == 0, done.output
    samples = held_out(EASY.__class__(**{**vars(EASY), "seed": 1_000_003}), 3)
    for name, one, option in (
        ("mine", model, "--checkpoint tiny.safetensors"),
        ("ssd-tiny", other, "--model ssd-tiny"),
    ):
        record = measurements.read(f"evaluate_detection_{name}_scenes-easy")
        assert record["values"] == expected(one, samples)
        assert record["command"] == f"course evaluate detection {option} --data scenes-easy --pictures 3"
        record = measurements.read(f"evaluate_detection_{name}_coins")
        assert record["values"] == evaluating.on_coins(one)
        assert record["command"] == f"course evaluate detection {option} --data coins --scale 1/2"
    heads = [line.split() for line in done.stdout.splitlines() if "mine" in line and "recorded" not in line]
    assert heads == [["ssd-tiny", "mine"]] * 2


def test_coins_are_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: boxes set by hand: four coins, one of them twice, another missed by far, and one beside all."""
    model, photograph = checkpoints.load("ssd-tiny"), coins()
    assert isinstance(model, TinyDetector)
    boxes = torch.cat([photograph.boxes[:4], photograph.boxes[:1] + 1, photograph.boxes[5:6] + 30])
    assert float(iou(boxes[-1:], photograph.boxes).max()) < 0.5
    said = Detections(boxes, torch.linspace(0.9, 0.6, 6), torch.tensor([0, 0, 1, 0, 2, 0]))
    seen: list[Any] = []

    def told(_: Any, image: Tensor, size: Any, score: float) -> list[Detections]:
        seen.append((tuple(image.shape), size, score))
        return [said]

    monkeypatch.setattr(finding, "find", told)
    found = evaluating.on_coins(model)
    assert seen == [((1, 3, 303, 384), (152, 192), 0.5)]
    assert found == {
        "coins": 24, "found": 4, "others": 2, "called": {"disc": 3, "square": 1}, "scale": "1/2", "seen_at": [152, 192],
    }  # fmt: skip


def test_refusals_before_anything_is_measured(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: exit code, reason, and nothing measured or written."""
    path, _ = net

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(evaluating, "measure", never)
    checkpoints.save(tmp_path / "espcn.safetensors", ESPCN(3))
    folder = voc(tmp_path / "mine")
    voc(tmp_path / "more" / "mine")
    (tmp_path / "empty").mkdir()
    voc(tmp_path / "gone")
    (tmp_path / "gone" / "JPEGImages" / "1.png").unlink()
    file = coco(tmp_path / "list.json")
    dogs = voc(tmp_path / "dogs") / "Annotations" / "0.xml"
    dogs.write_text(dogs.read_text().replace("disc", "dog"))
    ours: list[object] = ["--checkpoint", path]
    cases: list[tuple[list[object], str]] = [
        ([*ours, "--data", "BCCD"], "data must be one of scenes-easy, scenes-hard, scenes-family, scenes-line, BCCD"),
        ([*ours, "--data", tmp_path / "empty"], "empty has no .xml file"),
        ([*ours, "--data", tmp_path / "gone"], "gone has boxes but no picture of 1"),
        ([*ours, "--data", file], f"{tmp_path / '0.png'} is not there; --images names the folder"),
        (
            [*ours, "--data", "scenes-easy", "--data", tmp_path / "dogs"],
            "unknown class 'dog', expected one of disc, sq",
        ),
        ([*ours, "--data", folder, "--data", tmp_path / "more" / "mine"], "would both be called mine"),
        (
            ["--model", "ssd-tiny-bccd"],
            "scenes-easy has the classes disc, square, triangle; this detector has RBC, WBC",
        ),
        (["--checkpoint", tmp_path / "espcn.safetensors"], "file-espcn (ESPCN) finds no objects"),
    ]
    for words, message in cases:
        done = course("evaluate", "detection", *words, "--out", tmp_path / "x.json")
        assert done.exit_code == 1, (words, done.output)
        assert message in one_line(done.stderr), done.stderr
        assert not (tmp_path / "x.json").exists()
    done = course("evaluate", "detection", "--pictures", 0)
    assert done.exit_code == 2
    monkeypatch.undo()
    save(folder / "JPEGImages" / "0.png", noise(41, 50, 3))
    done = course("evaluate", "detection", *ours, "--data", folder)
    assert "0.png has 41 x 50 pixels (height x width), expected 40 x 50 as its boxes say" in one_line(done.stderr)


def test_edges_from_zero(net: Any, tmp_path: Path) -> None:
    """Oracle: by hand: the same numbers, one pixel further."""
    folder = str(voc(tmp_path / "mine"))
    ones, zeros = (find(folder, NAMES, from_zero=from_zero).sample(0).boxes for from_zero in (False, True))
    assert torch.equal(zeros - ones, torch.tensor([[1.0, 1, 0, 0]] * 2))
    assert np.array_equal(ones.numpy(), np.array(BOXES[0]))


def test_the_book_says_how_to_make_a_record() -> None:
    """Oracle: the message by hand."""
    with pytest.raises(measurements.MeasurementMissing, match=r"course evaluate detection --model ssd-tiny --data coi"):
        measurements.read("evaluate_detection_ssd-tiny_coins-x")
