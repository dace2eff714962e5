"""`course detect`. Oracles: the detector called directly, boxes set by hand, and what was there before."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from course_lib import checkpoints, datasets
from course_lib.cli import detecting, drawing
from course_lib.cli.errors import Refused
from course_lib.detection import detectors, finding
from course_lib.detection.families.ssd.ssd import SSD
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.prediction import postprocess, preprocess
from course_lib.super_resolution.espcn import ESPCN
from tests.cli.test_upscale import course, noise, one_line, save
from tests.parity import fill

SMALL: dict[str, Any] = {"widths": (4, 6, 8, 8, 10, 10), "width": 8, "picture": (32, 48)}
NAMES = ("disc", "square", "triangle")


@pytest.fixture
def net(tmp_path: Path) -> tuple[Path, TinyDetector]:
    """An untrained detector that is sure of something at many places, in a file of ours beside the pictures."""
    torch.manual_seed(0)
    model = TinyDetector("ssd", NAMES, **SMALL)
    for layer in model.heads.logits:
        torch.nn.init.normal_(layer.weight, std=10)
    (tmp_path / "nets").mkdir()
    checkpoints.save(tmp_path / "nets" / "tiny.safetensors", model)
    return tmp_path / "nets" / "tiny.safetensors", model.eval()


def expected(model: SSD, planes: Tensor, size: tuple[int, int], **settings: Any) -> list[Any]:
    """What the JSON is to say of boxes: preprocess, network and postprocess one after the other."""
    with torch.no_grad():
        said = model(preprocess(planes, size, model.normalisation))
    one = postprocess(said, model.anchors(size), **({"score": 0.5, "overlap": 0.45, "most": 200} | settings))[0]
    rows = zip(one.pixels((planes.shape[-2], planes.shape[-1])), one.labels, one.scores, strict=True)
    return [(box.tolist(), NAMES[int(label)], float(score)) for box, label, score in rows]


def same(came: list[Any], wanted: list[Any]) -> bool:
    """Equal to what is rounded."""
    assert [one["class"] for one in came] == [label for _, label, _ in wanted]
    assert [one["score"] for one in came] == pytest.approx([score for _, _, score in wanted], abs=6e-5)
    return bool(np.allclose([one["box"] for one in came], [box for box, _, _ in wanted], atol=6e-3))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "size", "settings"),
    [
        ([], (32, 48), {}),
        (["--scale", "0.5"], (22, 31), {}),
        (["--scale", "4/3", "--score", "0.4"], (58, 82), {"score": 0.4}),
        (["--size", "40x40", "--overlap", "0.1"], (40, 40), {"overlap": 0.1}),
        (["--size", "40x40", "--most", "3"], (40, 40), {"most": 3}),
    ],
)
def test_what_the_detector_says(net: Any, words: list[str], size: Any, settings: Any, tmp_path: Path) -> None:
    """Oracle: its parts called one after the other."""
    path, model = net
    values = noise(43, 61, 3)
    source, out = save(tmp_path / "in.png", values), tmp_path / "boxes.json"
    done = course("detect", source, "--checkpoint", path, *words, "--out", out)
    assert done.exit_code == 0, done.output
    assert ("the size it was trained at" in done.stderr) == (not words)
    found = read(out)
    assert (found["model"], found["sha256"]) == ("file-tiny", checkpoints.sha256(path))
    assert found["classes"] == list(NAMES)
    (one,) = found["pictures"]
    assert (one["file"], one["width"], one["height"], one["seen_at"]) == (str(source), 61, 43, list(size))
    wanted = expected(model, datasets.read_picture(source), size, **settings)
    assert len(wanted) > 1
    assert same(one["boxes"], wanted)
    number = f"{len(wanted)} boxes"
    assert number in done.stdout


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_alpha_and_16_bits(net: Any, channels: int, dtype: Any, tmp_path: Path) -> None:
    """Oracle: three equal channels, colours laid on white, samples divided by white; a drawing is 8-bit RGB."""
    path, model = net
    values = noise(30, 50, channels, dtype)
    top = np.iinfo(dtype).max
    planes = torch.from_numpy(values.astype(np.float64) / top).permute(2, 0, 1)
    if channels in (2, 4):
        planes = planes[:-1] * planes[-1:] + 1 - planes[-1:]
    planes = planes.expand(3, -1, -1).float()
    source, out, drawn = save(tmp_path / "in.png", values), tmp_path / "boxes.json", tmp_path / "out.png"
    words = ("detect", source, "--checkpoint", path, "--scale", 1, "--score", 0.45, "--out", out, "--draw", drawn)
    done = course(*words)
    assert done.exit_code == 0, done.output
    wanted = expected(model, planes, (30, 50), score=0.45)
    assert wanted
    assert same(read(out)["pictures"][0]["boxes"], wanted)
    came = datasets.read_samples(drawn)
    assert came.values.shape == (16 * 30, 16 * 50, 3)
    assert came.values.dtype == np.uint8
    assert came.profile == (b"a profile" if channels > 2 else None)


def test_pictures_are_turned_upright(net: Any, tmp_path: Path) -> None:
    """Oracle: the picture turned by hand; width and height are those of the upright picture."""
    values = noise(20, 44, 3)
    image = Image.fromarray(values)
    exif = Image.Exif()
    exif[274] = 6
    image.save(tmp_path / "camera.png", exif=exif)
    Image.fromarray(np.ascontiguousarray(np.rot90(values, -1))).save(tmp_path / "upright.png")
    found = []
    for name in ("camera", "upright"):
        out = tmp_path / f"{name}.json"
        done = course("detect", tmp_path / f"{name}.png", "--checkpoint", net[0], "--scale", 1, "--out", out)
        assert done.exit_code == 0, done.output
        found.append({key: value for key, value in read(out)["pictures"][0].items() if key != "file"})
    assert found[0] == found[1]
    assert (found[0]["width"], found[0]["height"]) == (20, 44)


def test_without_results_it_prints(net: Any, tmp_path: Path) -> None:
    """Oracle: the classes and scores of the JSON, one line for each box; nothing is written."""
    source = save(tmp_path / "in.png", noise(43, 61, 3))
    words = ("detect", source, "--checkpoint", net[0], "--scale", 1)
    course(*words, "--out", tmp_path / "boxes.json")
    before = sorted(tmp_path.iterdir())
    boxes = read(tmp_path / "boxes.json")["pictures"][0]["boxes"]
    lines = course(*words).stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [[one["class"], f"{one['score']:.4f}"] for one in boxes]
    assert sorted(tmp_path.iterdir()) == before
    nothing = course(*words, "--score", 1)
    assert nothing.exit_code == 0
    assert nothing.stdout.strip() == f"{source}: 0 boxes, seen at 43 x 61 pixels"


# --- drawings -------------------------------------------------------------------------------------------------------


def test_boxes_lie_where_they_should() -> None:
    """Oracle: two boxes by hand: colour on their borders, the photograph inside and outside of them."""
    picture = np.full((900, 1000, 3), 128, np.uint8)
    drawn = drawing.draw(picture, [(100, 200, 300, 500), (600, 100, 900, 400)], [0, 1], ["disc 0.98", "square 0.61"])
    assert drawn.shape == picture.shape
    coloured = (drawn != 128).any(2)
    for x0, y0, x1, y1 in ((100, 200, 300, 500), (600, 100, 900, 400)):
        for y, x in ((y0, (x0 + x1) // 2), (y1, (x0 + x1) // 2), ((y0 + y1) // 2, x0), ((y0 + y1) // 2, x1)):
            assert coloured[y - 1 : y + 2, x - 1 : x + 2].all()
        assert not coloured[y0 + 6 : y1 - 6, x0 + 6 : x1 - 6].any()
    assert not np.array_equal(drawn[350, 99:102], drawn[250, 599:602])  # classes differ in colour
    assert coloured[185:198, 100:140].all()  # the first label, over its box
    assert not coloured[510:].any()
    assert (picture == 128).all()


def test_small_pictures_are_drawn_larger() -> None:
    """Oracle: the rule, and a picture without boxes, which is only enlarged."""
    assert [drawing.enlarged(size) for size in ((1, 1), (300, 384), (799, 3), (800, 3), (3000, 4000))] == [
        800,
        3,
        2,
        1,
        1,
    ]
    drawn = drawing.draw(noise(9, 400, 3), [], [], [])
    assert drawn.shape == (18, 800, 3)


def test_labels_hide_no_others_and_stay_inside() -> None:
    """Oracle: rectangles that are disjoint and inside the picture, for boxes in a heap and at all borders."""
    heap = [(400.0 + k, 300.0 + k, 460.0 + k, 350.0 + k) for k in range(4)]
    edges = [
        (0.0, 0.0, 50.0, 30.0),
        (950.0, 0.0, 1000.0, 20.0),
        (0.0, 780.0, 30.0, 800.0),
        (960.0, 770.0, 1000.0, 800.0),
    ]
    taken = np.empty((0, 4))
    for box in (*heap, *edges):
        place = drawing._place(box, (120.0, 20.0), (1000, 800), taken)
        assert (place[:2] >= 0).all()
        assert (place[2:] <= (1000, 800)).all()
        over = ((place[:2] < taken[:, 2:]) & (taken[:, :2] < place[2:])).all(1)
        assert not over.any()
        taken = np.vstack([taken, place])
    everywhere = drawing._place((0.0, 0.0, 10.0, 10.0), (500.0, 40.0), (100, 30), taken)
    assert (everywhere[:2] >= 0).all()  # no room at all: it starts inside


# --- official checkpoints and classes -------------------------------------------------------------------------------


def test_names_of_classes() -> None:
    """Oracle: the detector's own, VOC's twenty, or numbers."""
    made = TinyDetector("ssd", ("one", "two"), **SMALL)
    assert detectors.names(made) == ("one", "two")
    del made.names
    assert detectors.names(made) == ("class 1", "class 2")
    made.classes = 21
    assert detectors.names(made)[:2] == ("aeroplane", "bicycle")
    assert detectors.names(made)[14] == "person"
    assert sorted(detectors.VOC) == list(detectors.VOC)


def test_an_official_file(tmp_path: Path) -> None:
    """Oracle: names and shapes of ssd.pytorch's released file; with weights 0 every class is as likely: 1 in 21.

    Which file it is is said here, because to tell it apart from all others takes seconds; test_recognise does that.
    """
    zeros = {key: torch.zeros(1).expand(like.shape) for key, like in fill.shapes("ssd300").items()}
    torch.save(zeros, tmp_path / "ssd300_mAP_77.43_v2.pth")
    source = save(tmp_path / "in.png", noise(40, 60, 3))
    words = ("--checkpoint", tmp_path / "ssd300_mAP_77.43_v2.pth", "--as", "ssd300", "--score", 0, "--most", 3)
    done = course("detect", source, *words, "--out", tmp_path / "boxes.json")
    assert done.exit_code == 0, done.output
    found = read(tmp_path / "boxes.json")
    assert (found["model"], found["pictures"][0]["seen_at"]) == ("ssd300", [300, 300])
    assert found["classes"] == list(detectors.VOC)
    assert [(one["class"], one["score"]) for one in found["pictures"][0]["boxes"]] == 3 * [("aeroplane", 0.0476)]


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, a text and a damaged picture."""
    place = tmp_path / "pictures"
    place.mkdir()
    rng = np.random.default_rng(1)
    for name, size in (("a", (40, 60)), ("b", (50, 30)), ("c", (33, 33))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(place / f"{name}.png")
    (place / "notes.txt").write_text("no picture")
    return place


def test_folder_goes_on_where_it_stopped(
    net: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a run that was not stopped; the pictures that are looked at are counted."""
    words = ("detect", folder, "--checkpoint", net[0], "--scale", "1")
    whole, out, drawn = tmp_path / "whole.json", tmp_path / "boxes.json", tmp_path / "drawn"
    assert course(*words, "--out", whole).exit_code == 0
    names = [one["file"] for one in read(whole)["pictures"]]
    assert names == ["a.png", "b.png", "c.png"]
    looked: list[str] = []
    real = detecting.finding.outputs

    def stopping(model: Any, pictures: Tensor, *rest: Any, **settings: Any) -> Any:
        looked.append(str(tuple(pictures.shape[-2:])))
        if len(looked) == 2:
            raise KeyboardInterrupt
        return real(model, pictures, *rest, **settings)

    monkeypatch.setattr(detecting.finding, "outputs", stopping)
    done = course(*words, "--out", out, "--draw", drawn)
    assert done.exit_code == 130
    assert [one["file"] for one in read(out)["pictures"]] == ["a.png"]
    drawing_of_a = (drawn / "a.png").stat().st_mtime_ns
    done = course(*words, "--out", out, "--draw", drawn)
    assert done.exit_code == 0, done.output
    assert "2 looked at, 1 already there" in done.stdout
    assert looked == ["(40, 60)", "(50, 30)", "(50, 30)", "(33, 33)"]
    assert out.read_text() == whole.read_text()
    assert (drawn / "a.png").stat().st_mtime_ns == drawing_of_a
    assert sorted(path.name for path in drawn.iterdir()) == names
    os.remove(drawn / "b.png")
    course(*words, "--out", out, "--draw", drawn)
    assert looked[4:] == ["(50, 30)"]
    course(*words, "--out", out, "--draw", drawn, "--force")
    assert len(looked) == 8


def test_folder_keeps_what_is_not_its_own(net: Any, folder: Path, tmp_path: Path) -> None:
    """Oracle: the file that was there, byte for byte."""
    out = tmp_path / "boxes.json"
    words = ("detect", folder, "--checkpoint", net[0], "--out", out)
    for text in ("[1, 2]", "not JSON", '{"pictures": [{"file": "a.png"}], "model": 3}'):
        out.write_text(text)
        assert "--force" in one_line(course(*words).stderr)
        assert out.read_text() == text
    assert course(*words, "--force").exit_code == 0
    made = out.read_text()
    assert "other settings" in one_line(course(*words, "--score", 0.4).stderr)
    assert out.read_text() == made


def test_folder_names_what_it_could_not_read(net: Any, folder: Path, tmp_path: Path) -> None:
    """Oracle: exit code 1, the reason, and all others."""
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    done = course("detect", folder, "--checkpoint", net[0], "--out", tmp_path / "boxes.json", "--draw", tmp_path / "d")
    assert done.exit_code == 1
    assert "error: not looked at: b.png" in done.stderr
    assert "2 looked at, 0 already there, 1 not looked at" in done.stdout
    assert [one["file"] for one in read(tmp_path / "boxes.json")["pictures"]] == ["a.png", "c.png"]
    assert done.stderr.count("the size it was trained at") == 1
    shown = course("detect", folder, "--checkpoint", net[0], "--score", 0.9)
    assert "a.png: 0 boxes" in shown.stdout


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--scale", "1"], 2, "one of --model and --checkpoint"),
        (["--model", "ssd-tiny", "--checkpoint", "x.pth"], 2, "one of --model and --checkpoint"),
        (["--model", "liif-tiny"], 2, "must be one of"),
        (["--model", "ssd-tiny", "--as", "ssd300"], 2, "goes with --checkpoint"),
        (["NET", "--scale", "1", "--size", "3x3"], 2, "at most one of"),
        (["NET", "--score", "1.5"], 2, "number from 0 to 1; got '1.5'"),
        (["NET", "--overlap", "nan"], 2, "number from 0 to 1; got 'nan'"),
        (["NET", "--most", "0"], 2, "from 1 to 10000"),
        (["NET", "--out", "boxes.png"], 2, ".json"),
        (["NET", "--draw", "boxes.json"], 2, "extension"),
        (["NET", "--draw", "IN", "--force"], 1, "replace the photograph"),
        (["NET", "--draw", "nowhere/x.png"], 1, "does not exist"),
        (["NET", "--out", "nowhere/x.json"], 1, "does not exist"),
        (["NET", "--device", "tpu"], 1, "--device"),
        (["NET", "--scale", "100000"], 1, "at most 65,536"),
        (["NET", "--as", "liif_rdn"], 1, "--as"),
        (["--checkpoint", "ESPCN"], 1, "finds no objects"),
        (["--checkpoint", "missing.pth"], 1, "there is no checkpoint"),
    ],
)
def test_refusals(net: Any, words: list[str], code: int, said: str, tmp_path: Path) -> None:
    """Oracle: one line or a usage error, and nothing written."""
    source = save(tmp_path / "in.png", noise(12, 14, 3))
    checkpoints.save(tmp_path / "nets" / "espcn.safetensors", ESPCN(3))
    if said == "--as":  # our own files say what they are
        torch.save({"a": torch.zeros(1)}, tmp_path / "nets" / "odd.pth")
        words = ["--checkpoint", str(tmp_path / "nets" / "odd.pth"), "--as", "nothing"]
    stand = {
        "NET": ["--checkpoint", str(net[0])],
        "IN": [str(source)],
        "ESPCN": [str(tmp_path / "nets/espcn.safetensors")],
    }
    before = sorted(tmp_path.rglob("*"))
    done = course("detect", source, *(part for word in words for part in stand.get(word, [word])))
    assert done.exit_code == code, done.output
    text = done.stderr
    assert said in " ".join(text.replace("│", " ").split())
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_not_replaced(net: Any, tmp_path: Path) -> None:
    """Oracle: the file that was there; --force replaces it."""
    source, out, drawn = save(tmp_path / "in.png", noise(12, 14, 3)), tmp_path / "x.json", tmp_path / "x.png"
    words = ("detect", source, "--checkpoint", net[0])
    for option, target in (("--out", out), ("--draw", drawn)):
        target.write_text("mine")
        assert "--force" in one_line(course(*words, option, target).stderr)
        assert target.read_text() == "mine"
        assert course(*words, option, target, "--force").exit_code == 0
        assert target.read_bytes() != b"mine"


def test_memory_is_asked_for_before(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: less memory than the layers need."""
    source = save(tmp_path / "in.png", noise(40, 40, 3))
    monkeypatch.setattr(detecting, "free_memory", lambda device: 1000)
    assert "are free; choose a smaller --scale" in one_line(course("detect", source, "--checkpoint", net[0]).stderr)
    monkeypatch.setattr(detecting, "free_memory", lambda device: None)
    assert course("detect", source, "--checkpoint", net[0]).exit_code == 0
    monkeypatch.undo()
    here = detecting.free_memory(torch.device("cpu"))
    assert here is None or 2**20 < here < 2**50


def test_formats_that_hold_no_such_drawing(net: Any, tmp_path: Path) -> None:
    """Oracle: WebP's longest side."""
    with pytest.raises(Refused, match=r"16,384 x 10 pixels; choose \.png"):
        detecting._check_drawing((10, 16_384), Path("x.webp"))
    detecting._check_drawing((10, 16_384), Path("x.png"))


def test_memory_is_that_of_the_layers() -> None:
    """Oracle: three convolutions by hand: what lives at once is the larger two neighbours; views are free."""

    class Thin(SSD):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.layers = torch.nn.Sequential(*(torch.nn.Conv2d(a, b, 1) for a, b in ((3, 8), (8, 2), (2, 5))))

        def map_sizes(self, picture: Any = None) -> Any:
            return []

        def forward(self, images: Tensor, mask: Tensor | None = None) -> Any:
            made = self.layers(images).flatten(1).relu_()
            return {"logits": made[:, :4].reshape(1, 2, 2), "offsets": made}

    # the picture, which the caller holds, beside 8 and 2 channels
    assert finding.memory(Thin(), (10, 20)) == 4 * 200 * (3 + 8 + 2)


@pytest.mark.gpu
def test_detect_on_cuda(net: Any, tmp_path: Path) -> None:
    """Oracle: the CPU, to rounding."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    source = save(tmp_path / "in.png", noise(43, 61, 3))
    found = []
    for device in ("cpu", "cuda"):
        out = tmp_path / f"{device}.json"
        done = course("detect", source, "--checkpoint", net[0], "--scale", 1, "--device", device, "--out", out)
        assert done.exit_code == 0, done.output
        found.append(read(out)["pictures"][0]["boxes"])
    assert [one["class"] for one in found[0]] == [one["class"] for one in found[1]]
    assert np.allclose([one["box"] for one in found[0]], [one["box"] for one in found[1]], atol=0.1)
