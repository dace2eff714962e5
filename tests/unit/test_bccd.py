"""The pictures of blood. Oracles: the published counts, the files themselves, and a stand-in of two pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from course_lib import datasets
from course_lib.datasets import BCCD, UnreadableAnnotation, bccd, sets
from course_lib.detection.boxes import check_boxes, iou
from course_lib.files import data_dir
from course_lib.upsampling import resize


def table() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((data_dir() / "bccd.json").read_text(encoding="utf-8"))
    return loaded


def test_the_parts_are_all_pictures_once() -> None:
    """Oracle: the registry's 364 pictures: 240, 60, 60, and four that are left out."""
    parts, excluded = table()["parts"], table()["excluded"]["names"]
    assert {part: len(names) for part, names in parts.items()} == {"train": 240, "val": 60, "test": 60}
    assert len(excluded) == 4
    every = sorted([*parts["train"], *parts["val"], *parts["test"], *excluded])
    registered = [Path(s.to).stem for s in sets.sources("BCCD") if s.to.startswith("images/")]
    assert every == sorted(registered)
    assert all(names == sorted(names) for names in parts.values())


def test_the_repairs_are_of_three_kinds() -> None:
    """Oracle: two boxes without width, seven cells boxed twice, three classes."""
    kinds = {"dropped": 0, "flat": 0, "class": 0}
    for repairs in table()["repairs"].values():
        for one in repairs:
            x0, y0, x1, y1 = one["box"]
            flat = x0 >= x1 or y0 >= y1
            kinds["class" if one["becomes"] else "flat" if flat else "dropped"] += 1
            assert one["becomes"] != one["class"]
            assert {one["class"], one["becomes"]} <= {*BCCD.classes, None}
    assert kinds == {"dropped": 7, "flat": 2, "class": 3}


# --- with the pictures ----------------------------------------------------------------------------------------------


@pytest.mark.needs_data("BCCD")
@pytest.mark.parametrize(
    ("part", "counts"), [("val", (699, 62, 50)), ("test", (790, 61, 55)), ("train", (2635, 246, 253))]
)
def test_the_boxes_of_each_class(part: bccd.Part, counts: tuple[int, ...]) -> None:
    """Oracle: the counts of an independent conversion of the same files with the same repairs."""
    found = BCCD(part)
    labels = torch.cat([one.labels for one in found.annotations])
    assert tuple(torch.bincount(labels).tolist()) == counts
    assert all(one.size == (480, 640) and not one.difficult.any() for one in found.annotations)
    for one in found.annotations:
        check_boxes(one.name, one.boxes)


@pytest.mark.needs_data("BCCD")
def test_red_cells_without_boxes_remain() -> None:
    """Oracle: the docstring, which says how many pictures have five boxes of red cells or fewer."""
    few = {
        part: sum(int((one.labels == 0).sum()) <= 5 for one in BCCD(part).annotations)
        for part in ("train", "val", "test")
    }
    assert few == {"train": 21, "val": 7, "test": 0}


@pytest.mark.needs_data("BCCD")
def test_no_cell_is_boxed_twice() -> None:
    """Oracle: as published, seven pairs of boxes share more than nine tenths; after the repairs none does."""
    for part in ("train", "val", "test"):
        for one in BCCD(part).annotations:
            assert float(iou(one.boxes, one.boxes).fill_diagonal_(0).max()) < 0.9, one.name


@pytest.mark.needs_data("BCCD")
def test_the_download_and_a_mirror_give_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the files that the registry names, as a download leaves them in the cache, and under COURSE_DATA."""
    here = datasets.find("BCCD")
    for source in sets.sources("BCCD"):
        link = tmp_path / "full" / "BCCD" / source.to
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(here / source.to)
    (tmp_path / "empty").mkdir()
    found = []
    for cache, mirror in (("full", "empty"), ("empty", "full")):
        monkeypatch.setenv("COURSE_CACHE", str(tmp_path / cache))
        monkeypatch.setenv("COURSE_DATA", str(tmp_path / mirror))
        found.append(BCCD("val"))
    assert found[0].names == found[1].names
    for index in (0, 59):
        one, other = (part.sample(index) for part in found)
        assert all(map(torch.equal, vars(one).values(), vars(other).values()))
    for said, other_said in zip(*(part.annotations for part in found), strict=True):
        assert torch.equal(said.boxes, other_said.boxes)
        assert torch.equal(said.labels, other_said.labels)


# --- with a stand-in ------------------------------------------------------------------------------------------------


def voc(*objects: tuple[str, int, int, int, int]) -> str:
    parts = [
        f"<object><name>{name}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
        "</bndbox></object>"
        for name, x0, y0, x1, y1 in objects
    ]
    return f"<annotation><size><width>40</width><height>30</height></size>{''.join(parts)}</annotation>"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures of 30 x 40 pixels, one with a box to drop and a class to repair, one with nothing in it."""
    folder = tmp_path / "BCCD"
    for name in ("images", "annotations_voc"):
        (folder / name).mkdir(parents=True)
    noise = np.random.default_rng(0)
    for name in ("a", "b"):
        soft = noise.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(soft).resize((40, 30), Image.Resampling.BICUBIC).save(folder / "images" / f"{name}.jpg")
    objects = (("RBC", 1, 1, 1, 1), ("RBC", 4, 6, 20, 30), ("Platelets", 30, 0, 40, 12))
    (folder / "annotations_voc" / "a.xml").write_text(voc(*objects), encoding="utf-8")
    (folder / "annotations_voc" / "b.xml").write_text(voc(), encoding="utf-8")
    files = [f"{kind}{name}{end}" for kind, end in (("images/", ".jpg"), ("annotations_voc/", ".xml")) for name in "ab"]
    group = {"repository": "n/n", "commit": "0", "folder": "", "to": "", "files": [[file, "0", 1] for file in files]}
    entry = {"about": "noise", "licence": "free", "leave_out": [], "sources": [group]}
    repairs = [
        {"class": "RBC", "box": [1, 1, 1, 1], "becomes": None},
        {"class": "Platelets", "box": [30, 0, 40, 12], "becomes": "WBC"},
    ]
    monkeypatch.setattr(sets, "registry", lambda: {"BCCD": entry})
    monkeypatch.setattr(bccd, "_table", lambda: {"parts": {"train": ["a", "b"]}, "repairs": {"a": repairs}})
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    return folder


def test_pictures_boxes_and_repairs(stand_in: Path) -> None:
    """Oracle: the files' own pixels; boxes by hand."""
    found = BCCD("train")
    assert (len(found), found.names, found.classes) == (2, ("a", "b"), ("RBC", "WBC", "Platelets"))
    sample = found.sample(0)
    assert torch.equal(sample.image, datasets.read_picture(stand_in / "images" / "a.jpg"))
    assert sample.boxes.tolist() == [[4, 6, 20, 30], [30, 0, 40, 12]]
    assert sample.labels.tolist() == [0, 1]
    assert found.sample(1).boxes.shape == (0, 4)
    assert "2 pictures of BCCD (train" in found.description
    assert "Licence: free." in found.description


def test_a_size_resizes_pictures_and_boxes(stand_in: Path) -> None:
    """Oracle: `upsampling.resize`, bilinear and antialiased, to half an 8-bit step; each axis of a box by its scale."""
    whole, small = BCCD("train").sample(0), BCCD("train", size=(15, 10)).sample(0)
    expected = resize(whole.image, size=(15, 10), method="bilinear", antialias=True, border="renormalise")
    assert small.image.shape == (3, 15, 10)
    assert float((small.image - expected).abs().max()) < 0.51 / 255
    assert torch.equal((255 * small.image).round() / 255, small.image)
    assert small.boxes.tolist() == [[1, 3, 5, 15], [7.5, 0, 10, 6]]
    assert torch.equal(BCCD("train", size=(30, 40)).sample(0).image, whole.image)


def test_samples_are_the_same_each_time_and_ones_own(stand_in: Path) -> None:
    """Oracle: a second sample, after the first was spoiled."""
    for size in (None, (15, 20)):
        found = BCCD("train", size=size)
        first = found.sample(0)
        kept = [one.clone() for one in vars(first).values()]
        for one in vars(first).values():
            one.zero_()
        assert all(map(torch.equal, kept, vars(found.sample(0)).values()))


def test_what_is_wrong_is_named(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the messages name the argument or the file, what came and what was expected."""
    found = BCCD("train")
    with pytest.raises(ValueError, match=r"index must be a whole number from 0 to 1, got 2"):
        found.sample(2)
    with pytest.raises(ValueError, match=r"part must be one of 'train', 'val', 'test', got 'all'"):
        BCCD("all")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"size must be \(height, width\) or None, got 96"):
        BCCD("train", size=96)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be a whole number from 1 to"):
        BCCD("train", size=(0, 4))
    Image.new("RGB", (30, 40)).save(stand_in / "images" / "b.jpg")
    with pytest.raises(UnreadableAnnotation, match=r"b\.jpg has 40 x 30 x 3 samples, expected 30 x 40 x 3"):
        found.sample(1)
    (stand_in / "annotations_voc" / "b.xml").write_text(voc(("RBC", 5, 5, 5, 9)), encoding="utf-8")
    with pytest.raises(UnreadableAnnotation, match=r"b\.xml, line 1, <bndbox>: expected xmin < xmax"):
        BCCD("train")
    (stand_in / "images" / "a.jpg").unlink()
    monkeypatch.setenv("COURSE_CACHE", str(stand_in))
    with pytest.raises(datasets.DataMissing, match="course data get BCCD"):
        BCCD("train")
