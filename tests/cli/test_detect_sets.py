"""`course detect` and `course evaluate detection` with detectors that answer with a set.

Oracles: the parts of a detector called one after the other, the library's `evaluate`, and COCO's numbers of classes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from course_lib import checkpoints, datasets, files
from course_lib.cli import detecting
from course_lib.cli import evaluate_detection as evaluating
from course_lib.cli.detection_sets import find
from course_lib.detection import evaluation
from course_lib.detection.coco_names import BY_ID, NAMES
from course_lib.detection.families.detr.tiny import TinySetDetector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.prediction import preprocess
from course_lib.detection.set_prediction import select
from tests.cli.test_upscale import course, noise, one_line, save
from tests.parity import fill

SMALL: dict[str, Any] = {"width": 16, "heads": 2, "feed": 32, "encoder": 1, "decoder": 2, "queries": 6}
SMALL |= {"widths": (4, 6, 8, 8, 10, 10), "body_width": 16, "body_heads": (2,), "depths": (2,), "picture": (32, 48)}
NAMES_OF = ("disc", "square", "triangle")
USUAL = {"detr": 0.5, "two_stage": 0.3, "yolos": 0.5}


def made(member: Any) -> TinySetDetector:
    """An untrained detector whose queries say different classes, rather surely."""
    torch.manual_seed(3)
    model = TinySetDetector(member, NAMES_OF, **SMALL).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and len(parameter) == model.classes:
            torch.nn.init.normal_(parameter, std=3)
        elif len(parameter) == model.classes and name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    return model


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of our own, with a detector of each kind."""
    for module in (checkpoints, files):
        monkeypatch.setattr(module, "data_dir", lambda: tmp_path / "data")
    for place in checkpoints.paths("any"):
        place.parent.mkdir(parents=True)
    for member in USUAL:
        checkpoints.publish(f"{member.replace('_', '-')}-tiny", made(member), {}, {})
    checkpoints.publish("ssd-tiny", TinyDetector(), {}, {})
    return tmp_path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("member", USUAL)
@pytest.mark.parametrize(
    ("words", "size", "settings"),
    [
        ([], (32, 48), {}),
        (["--scale", "1", "--score", "0.1"], (43, 61), {"score": 0.1}),
        (["--size", "64x40", "--most", "2", "--score", "0"], (64, 40), {"most": 2, "score": 0.0}),
    ],
)
def test_what_the_detector_says(member: str, words: list[str], size: Any, settings: Any, book: Path) -> None:
    """Oracle: its parts called one after the other; where nothing else is said, the score that is usual for it."""
    source, out, drawn = save(book / "in.png", noise(43, 61, 3)), book / "boxes.json", book / "out.png"
    name = f"{member.replace('_', '-')}-tiny"
    done = course("detect", source, "--model", name, *words, "--out", out, "--draw", drawn)
    assert done.exit_code == 0, done.output
    assert ("the size it was trained at" in done.stderr) == (not words)
    model, picture = made(member), datasets.read_picture(source)
    with torch.no_grad():
        said = model(preprocess(picture, size, model.normalisation))
    chosen = {"score": USUAL[member], "most": 100} | settings
    (wanted,) = select(said, model.background, **chosen)
    found = read(out)
    assert found["settings"] == {**chosen, "overlap": None, "scale": "1" if "--scale" in words else None} | {
        "size": list(size) if "--size" in words else None
    }
    (one,) = found["pictures"]
    assert one["seen_at"] == list(size)
    assert [box["class"] for box in one["boxes"]] == [NAMES_OF[label] for label in wanted.labels]
    assert len(wanted) > 0
    boxes = wanted.pixels((43, 61)).tolist()
    assert np.allclose([box["box"] for box in one["boxes"]], boxes, atol=6e-3)
    assert datasets.read_samples(drawn).values.shape == (14 * 43, 14 * 61, 3)


def test_a_set_in_which_nothing_is_sure_says_how_sure_it_was(book: Path) -> None:
    """Oracle: the best score of the parts called one after the other; nothing is said where something is found."""
    source = save(book / "in.png", noise(43, 61, 3))
    model, picture = made("detr"), datasets.read_picture(source)
    with torch.no_grad():
        (all_,) = select(model(preprocess(picture, (32, 48), model.normalisation)), model.background, score=0.0)
    best = float(all_.scores[0])
    words = ("detect", source, "--model", "detr-tiny", "--score")
    done = course(*words, min(1.0, best + 0.01))
    assert done.exit_code == 0, done.output
    assert "0 boxes" in done.stdout
    assert f"nothing reaches --score {min(1.0, best + 0.01):g}; the best score is {best:.2f}" in done.stderr
    assert "nothing reaches" not in course(*words, best - 0.01).stderr


def test_a_set_without_any_score_says_so(book: Path) -> None:
    """Oracle: the words: every query is so sure of no object that no other class has a probability above 0."""
    model = made("detr")
    with torch.no_grad():
        model.network.class_head.bias[-1] = 1e4
    checkpoints.publish("empty-tiny", model, {}, {})
    done = course("detect", save(book / "in.png", noise(43, 61, 3)), "--model", "empty-tiny")
    assert done.exit_code == 0, done.output
    assert "nothing reaches --score 0.5; no score is above 0" in done.stderr


def test_what_has_no_meaning_is_refused(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: one line that names the option, before anything is looked at; nothing is written."""
    source = save(book / "in.png", noise(43, 61, 3))
    monkeypatch.setattr(detecting.finding, "outputs", None)
    before = sorted(book.rglob("*"))
    done = course("detect", source, "--model", "detr-tiny", "--overlap", 0.5)
    assert done.exit_code == 1
    assert "detr-tiny answers with a set of boxes, of which none is suppressed: leave --overlap away" in one_line(
        done.stderr
    )
    done = course("detect", source, "--model", "yolos-tiny", "--size", "5x5")
    assert done.exit_code == 1
    assert "choose a larger --scale or --size" in one_line(done.stderr)
    monkeypatch.setattr(detecting, "free_memory", lambda device: 1000)
    done = course("detect", source, "--model", "detr-tiny", "--scale", 2)
    assert "needs about 0.0 GB of memory" in one_line(done.stderr)
    assert sorted(book.rglob("*")) == before


def test_an_official_file(tmp_path: Path) -> None:
    """Oracle: COCO's numbers: 17 is a cat, and 12 is nothing; sides of 512 and 853 where nobody says a size.

    Names and shapes are those of the released YOLOS-Ti; all is 0 but the column of one class.
    """
    source = save(tmp_path / "in.png", noise(40, 60, 3))
    for number, boxes in ((17, 3), (12, 0)):
        state = {key: torch.zeros(1).expand(like.shape) for key, like in fill.shapes("yolos_ti").items()}
        last = "class_embed.layers.2.bias"
        state[last] = torch.zeros(state[last].shape)
        state[last][number] = 9
        torch.save({"model": state}, tmp_path / "yolos_ti.pth")
        words = ("--checkpoint", tmp_path / "yolos_ti.pth", "--as", "yolos_ti", "--most", 3, "--size", "32x48")
        out = tmp_path / f"{number}.json"
        done = course("detect", source, *words, "--out", out)
        assert done.exit_code == 0, done.output
        found = read(out)
        assert found["classes"] == list(NAMES)
        assert [one["class"] for one in found["pictures"][0]["boxes"]] == ["cat"] * boxes
    model: Any = evaluating.contestants((), tmp_path / "yolos_ti.pth", "yolos_ti", "cpu")[0].model
    assert detecting.finding.looks_at(model, (40, 60)) == (512, 768)
    wish = detecting.Look(model, "yolos_ti", "")
    assert "shorter side 512 but the longer at most 853, as it was measured" in detecting._usual(wish, (512, 768))


def coco(file: Path, numbers: list[int]) -> Path:
    """A file as COCO has it, all 80 classes by their numbers, with one picture and one box for each number given."""
    kinds = [{"id": k, "name": name} for k, name in enumerate(BY_ID) if name in NAMES]
    boxes = [{"id": k, "image_id": 7, "category_id": n, "bbox": [1, 2, 20, 10]} for k, n in enumerate(numbers)]
    images = [{"id": 7, "file_name": "in.png", "height": 43, "width": 61}]
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": kinds}))
    return file


def test_files_of_coco_go_by_numbers(tmp_path: Path) -> None:
    """Oracle: the numbers themselves for 91 columns, and their ranks among the 80 for SSD's line."""
    save(tmp_path / "in.png", noise(43, 61, 3))
    file = str(coco(tmp_path / "list.json", [1, 17, 90]))
    assert find(file, BY_ID).sample(0).labels.tolist() == [1, 17, 90]
    assert find(file, NAMES).sample(0).labels.tolist() == [0, 15, 79]


def test_both_lines_side_by_side(book: Path) -> None:
    """Oracle: the library; a record says how each was read."""
    out = book / "x.json"
    words = ["--model", "detr-tiny", "--model", "ssd-tiny", "--data", "scenes-easy", "--pictures", 2]
    done = course("evaluate", "detection", *words, "--out", out)
    assert done.exit_code == 0, done.output
    record = read(out)
    samples = list(find("scenes-easy", NAMES_OF, 2).samples())
    for name in ("detr-tiny", "ssd-tiny"):
        model: Any = checkpoints.load(name)
        wanted = evaluating._plain(evaluation.evaluate(model, samples, NAMES_OF))
        assert record["values"]["scenes-easy"][name] == wanted
    one, other = record["protocol"].split("; ssd-tiny: ")
    assert one.startswith("detr-tiny: the first of Scenes")
    assert "the 100 best boxes of the set, nothing is suppressed" in one
    assert "NMS" not in one
    assert "scores above 0.01, NMS at IoU 0.45" in other
