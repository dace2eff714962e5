"""Boxes from files. Oracles: numbers written by hand, and the sentence that a wrong file must give."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from course_lib.datasets import Annotation, Labelled, UnreadableAnnotation, read_coco, read_voc

CLASSES = ("cat", "dog")
Voc = Callable[..., Path]
Coco = Callable[..., Path]


def voc_object(name: str = "dog", box: tuple[Any, ...] = (11, 21, 40, 50), extra: str = "") -> str:
    edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object>\n<name>{name}</name>{extra}\n<bndbox>{edges}</bndbox>\n</object>\n"


SIZE = "<size><width>60</width><height>50</height><depth>3</depth></size>"


@pytest.fixture
def voc(tmp_path: Path) -> Voc:
    def write(*objects: str, size: str = SIZE, head: str = "", root: str = "annotation") -> Path:
        path = tmp_path / "one.xml"
        path.write_text(f"{head}<{root}>\n{size}\n{''.join(objects)}</{root}>\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def coco(tmp_path: Path) -> Coco:
    def write(**changes: Any) -> Path:
        whole: dict[str, Any] = {
            "info": {"year": 2017},
            "images": [
                {"id": 7, "file_name": "b/two.jpg", "width": 60, "height": 50},
                {"id": 3, "file_name": "one.jpg", "width": 30, "height": 20},
            ],
            "categories": [{"id": 90, "name": "dog"}, {"id": 2, "name": "cat"}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1.5, 2, 10, 20], "iscrowd": 0},
                {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 60, 50], "iscrowd": 1},
            ],
        }
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps({**whole, **changes}), encoding="utf-8")
        return path

    return write


def one_box(**changes: Any) -> list[dict[str, Any]]:
    return [{"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], **changes}]


# --- VOC ------------------------------------------------------------------------------------------------------------


def test_voc_counts_pixels_from_one_and_the_last_is_inside(voc: Voc) -> None:
    """Oracle: by hand; an object of the 3 x 2 pixels in the upper left corner, and one that fills the picture."""
    file = voc(voc_object("cat", (1, 1, 3, 2)), voc_object("dog", (1, 1, 60, 50)))
    found = read_voc(file, CLASSES)
    assert found.boxes.tolist() == [[0, 0, 3, 2], [0, 0, 60, 50]]
    assert found.boxes.dtype == torch.float32
    assert found.labels.tolist() == [0, 1]
    assert (found.name, found.size) == ("one", (50, 60))
    assert read_voc(file, CLASSES, one_based=False).boxes.tolist() == [[1, 1, 3, 2], [1, 1, 60, 50]]


def test_voc_edges_may_begin_at_zero_where_the_file_says_so(voc: Voc) -> None:
    """Oracle: by hand; the same file read as VOC's pixels is refused with a hint."""
    file = voc(voc_object(box=(0, 0, 60, 50)))
    assert read_voc(file, CLASSES, one_based=False).boxes.tolist() == [[0, 0, 60, 50]]
    with pytest.raises(UnreadableAnnotation, match=r"expected x from 1 to 60 .*one_based=False"):
        read_voc(file, CLASSES)


def test_voc_parts_fractions_and_difficult_objects(voc: Voc) -> None:
    """Oracle: by hand; a part of an object has a box of its own, which is not the object's."""
    part = "<difficult> 1 </difficult><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    found = read_voc(voc(voc_object(extra=part), voc_object(box=(2.5, 3, "4.25e1", 50))), CLASSES)
    assert found.boxes.tolist() == [[10, 20, 40, 50], [1.5, 2, 42.5, 50]]
    assert found.difficult.tolist() == [True, False]


def test_voc_picture_without_objects(voc: Voc) -> None:
    """Oracle: shapes."""
    found = read_voc(voc(), CLASSES)
    assert (found.boxes.shape, found.labels.shape, found.difficult.shape) == ((0, 4), (0,), (0,))
    assert (found.labels.dtype, found.difficult.dtype) == (torch.int64, torch.bool)


def test_voc_repairs_are_made_once_and_must_fit(voc: Voc) -> None:
    """Oracle: by hand; a repair drops a box that would be refused, and one of two equal ones."""
    twice = voc_object("dog", (5, 5, 9, 9))
    file = voc(voc_object("cat", (7, 7, 7, 7)), twice, twice, voc_object("cow", (1, 1, 2, 2)))
    repairs: dict[Any, str | None] = {
        ("cat", 7, 7, 7, 7): None,
        ("dog", 5, 5, 9, 9): None,
        ("cow", 1, 1, 2, 2): "cat",
    }
    found = read_voc(file, CLASSES, repairs=repairs)
    assert found.boxes.tolist() == [[4, 4, 9, 9], [0, 0, 2, 2]]
    assert found.labels.tolist() == [1, 0]
    with pytest.raises(UnreadableAnnotation, match=r"one\.xml has no object \('cat', 1, 2, 3, 4\), .* repaired"):
        read_voc(voc(), CLASSES, repairs={("cat", 1, 2, 3, 4): None})


@pytest.mark.parametrize(
    ("written", "line", "expected"),
    [
        (voc_object(box=(20, 5, 20, 9)), 5, "<bndbox>: expected xmin < xmax, got 20 and 20"),
        (voc_object(box=(20, 9, 21, 5)), 5, "expected ymin < ymax, got 9 and 5"),
        (voc_object(box=(20, 5, 61, 9)), 5, "the box 20, 5, 61, 9 leaves its picture, expected x from 1 to 60"),
        (voc_object(box=(20, 5, 30, 50.5)), 5, "and y from 1 to 50"),
        (voc_object(box=(-3, 5, 30, 50)), 5, "leaves its picture"),
        (voc_object(box=("nan", 5, 30, 50)), 5, "<xmin>: expected a number, got 'nan'"),
        (voc_object(box=("inf", 5, 30, 50)), 5, "expected a number, got 'inf'"),
        (voc_object(box=("1_0", 5, 30, 50)), 5, "expected a number, got '1_0'"),
        (voc_object(box=("٣", 5, 30, 50)), 5, "expected a number"),
        (voc_object(box=("9" * 5000, 5, 30, 50)), 5, "expected a number"),
        (voc_object(box=(1e300, 5, 30, 50)), 5, "expected a number"),
        (voc_object(box=("", 5, 30, 50)), 5, "expected a number, got ''"),
        (voc_object("cow"), 4, "<name>: unknown class 'cow', expected one of cat, dog"),
        (voc_object("dog</name><name>cat"), 3, "<object>: expected one <name>, got 2"),
        ("<object><name>dog</name></object>", 3, "<object>: expected one <bndbox>, got 0"),
        ("<object><name>dog</name><bndbox/></object>", 3, "<bndbox>: expected one <xmin>, got 0"),
        (voc_object(extra="<difficult>maybe</difficult>"), 4, "<difficult>: expected 0 or 1, got 'maybe'"),
    ],
)
def test_voc_names_file_and_line_of_what_is_wrong(voc: Voc, written: str, line: int, expected: str) -> None:
    """Oracle: the line counted by hand, and a sentence with what was expected."""
    with pytest.raises(UnreadableAnnotation, match=rf"one\.xml, line {line}, .*{re.escape(expected)}"):
        read_voc(voc(written), CLASSES)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("", "<annotation>: expected one <size>, got 0"),
        (SIZE * 2, "expected one <size>, got 2"),
        ("<size><width>60</width></size>", "<size>: expected one <height>, got 0"),
        ("<size><width>0</width><height>50</height></size>", "<width>: expected a whole number of pixels, got 0"),
        ("<size><width>6.5</width><height>50</height></size>", "expected a whole number of pixels, got 6.5"),
    ],
)
def test_voc_needs_a_size(voc: Voc, size: str, expected: str) -> None:
    """Oracle: without a size no box can be judged."""
    with pytest.raises(UnreadableAnnotation, match=re.escape(expected)):
        read_voc(voc(voc_object(), size=size), CLASSES)


def test_voc_refuses_another_size_than_the_pictures(voc: Voc) -> None:
    """Oracle: height and width exchanged, as some tools do."""
    with pytest.raises(UnreadableAnnotation, match=r"line 2, <size>: expected the size .* 60 x 50, got 50 x 60"):
        read_voc(voc(), CLASSES, size=(60, 50))
    assert read_voc(voc(), CLASSES, size=(50, 60)).size == (50, 60)


BOMB = '<!DOCTYPE a [\n<!ENTITY b "bbbbbbbb">\n<!ENTITY c "&b;&b;&b;">\n]>\n'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>\n'


@pytest.mark.parametrize("head", [BOMB, OUTSIDE, "<!DOCTYPE a>\n", '<!DOCTYPE a SYSTEM "http://nowhere.invalid/a">\n'])
def test_voc_expands_no_entities(voc: Voc, head: str) -> None:
    """Oracle: any document type is refused before its entities could be used."""
    file = voc(voc_object("&c;"), head=head)
    with pytest.raises(UnreadableAnnotation, match=r"one\.xml, line 1: expected no document type"):
        read_voc(file, CLASSES)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "line 1: expected XML, got an error: no element found"),
        (b"<annotation>\n<object>\n</annotation>", "line 3: expected XML, got an error: mismatched tag"),
        (b"<annotation>\n<object>", "line 2: expected XML, got an error: no element found"),
        (b"{}", "line 1: expected XML"),
        (b"\xff\xd8\xff\xe0 JPEG", "line 1: expected XML"),
        (b"<annotation>\n\xff\xfe</annotation>", "line 2: expected XML, got an error: not well-formed"),
        (b"<annotation>&b;</annotation>", "line 1: expected XML, got an error: undefined entity"),
        (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "line 1: expected"),
        (b'<?xml version="1.0" encoding="shift_jis"?><annotation/>', "line 1: expected"),
        (b"<html>\n</html>", "line 1, <html>: expected <annotation>, as VOC files begin"),
    ],
)
def test_voc_broken_files(tmp_path: Path, content: bytes, expected: str) -> None:
    """Oracle: one error that names the file and the line, whatever is in it."""
    file = tmp_path / "one.xml"
    file.write_bytes(content)
    with pytest.raises(UnreadableAnnotation, match=rf"one\.xml, {re.escape(expected)}"):
        read_voc(file, CLASSES)


@pytest.mark.parametrize("reader", [lambda file: read_voc(file, CLASSES), read_coco])
def test_what_is_no_file_or_too_long_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[[Path], Any]
) -> None:
    """Oracle: the messages; a pipe, which would wait for ever, is not opened."""
    with pytest.raises(UnreadableAnnotation, match=r"cannot read .*none: No such file"):
        reader(tmp_path / "none")
    with pytest.raises(UnreadableAnnotation, match="is no regular file"):
        reader(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableAnnotation, match="is no regular file"):
        reader(tmp_path / "pipe")
    with (tmp_path / "long").open("wb") as stream:
        stream.truncate(2_000_000_000)
    with pytest.raises(UnreadableAnnotation, match=r"long has 2,000,000,000 bytes, expected at most 1"):
        reader(tmp_path / "long")


def test_voc_deep_and_wide_files_are_read_in_passing(voc: Voc) -> None:
    """Oracle: ten thousand elements inside each other do not exhaust the stack."""
    deep = "<a>" * 10_000 + "</a>" * 10_000
    assert read_voc(voc(deep, voc_object()), CLASSES).labels.tolist() == [1]


# --- COCO -----------------------------------------------------------------------------------------------------------


def test_coco_ids_with_gaps_become_places(coco: Coco) -> None:
    """Oracle: by hand; pictures in the file's order, classes by their ids, a crowd is difficult."""
    found, classes = read_coco(coco())
    assert classes == ("cat", "dog")
    assert [(one.name, one.size) for one in found] == [("b/two.jpg", (50, 60)), ("one.jpg", (20, 30))]
    assert found[0].boxes.tolist() == [[1.5, 2, 11.5, 22], [0, 0, 60, 50]]
    assert found[0].labels.tolist() == [1, 0]
    assert found[0].difficult.tolist() == [False, True]
    assert found[1].boxes.shape == (0, 4)
    assert all(isinstance(one, Annotation) for one in found)


def test_coco_takes_labels_from_given_classes(coco: Coco) -> None:
    """Oracle: the order of the argument, of which all must be there."""
    found, classes = read_coco(coco(), ("dog", "cat"))
    assert classes == ("dog", "cat")
    assert found[0].labels.tolist() == [0, 1]
    with pytest.raises(UnreadableAnnotation, match=r"categories: expected all of dog, cow, but 'cow' is not there"):
        read_coco(coco(), ("dog", "cow"))
    with pytest.raises(UnreadableAnnotation, match=r"annotations\[1\]: unknown class, category_id 2, expected .* dog"):
        read_coco(coco(), ("dog",))


def test_coco_clips_what_rounding_lets_over(coco: Coco) -> None:
    """Oracle: by hand; a hundredth of a pixel is rounding, a tenth is a mistake."""
    found, _ = read_coco(coco(annotations=one_box(bbox=[-0.005, 40.11, 60.009, 9.9])))
    assert found[0].boxes[0].tolist() == pytest.approx([0, 40.11, 60, 50], abs=1e-5)
    with pytest.raises(UnreadableAnnotation, match=r"annotations\[0\]: the box .* leaves its picture"):
        read_coco(coco(annotations=one_box(bbox=[0, 0, 60.1, 10])))


IMAGE = {"id": 7, "file_name": "two.jpg", "width": 60, "height": 50}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": one_box(bbox=[5, 5, 0, 3])}, "annotations[0]: expected xmin < xmax, got 5 and 5"),
        ({"annotations": one_box(bbox=[5, 5, 3, -1])}, "annotations[0]: expected ymin < ymax"),
        ({"annotations": one_box(bbox=[5, 5, 3, 1e-9])}, "annotations[0]: expected a box of at least 0.01 pixels"),
        ({"annotations": one_box(bbox=[5, 5, 3])}, "annotations[0].bbox: expected 4 numbers, got [5, 5, 3]"),
        ({"annotations": one_box(bbox=[5, 5, 3, None])}, "annotations[0].bbox: expected 4 numbers"),
        ({"annotations": one_box(bbox=[5, 5, 3, True])}, "annotations[0].bbox: expected 4 numbers"),
        ({"annotations": one_box(bbox=[5, 5, 3, float("nan")])}, "annotations[0].bbox: expected 4 numbers"),
        ({"annotations": one_box(bbox=[5, 5, 3, float("inf")])}, "annotations[0].bbox: expected 4 numbers"),
        ({"annotations": one_box(bbox=[5, 5, 3, 10**400])}, "annotations[0].bbox: expected 4 numbers"),
        ({"annotations": one_box(bbox="5533")}, "annotations[0].bbox: expected 4 numbers, got '5533'"),
        ({"annotations": one_box(image_id=8)}, "annotations[0]: expected as image_id the id of one of the 2 images"),
        ({"annotations": one_box(category_id=1)}, "annotations[0]: unknown class, category_id 1, expected one of cat"),
        ({"annotations": one_box(category_id="2")}, "annotations[0].category_id: expected a whole number >= 0"),
        ({"annotations": one_box(iscrowd=2)}, "annotations[0].iscrowd: expected a whole number from 0 to 1, got 2"),
        ({"annotations": [5]}, "annotations[0]: expected an object with 'image_id', got int"),
        ({"annotations": {}}, "annotations: expected a list, got dict"),
        ({"images": [IMAGE, IMAGE]}, "images[1]: the id 7 is used twice"),
        ({"images": [{**IMAGE, "height": 0}]}, "images[0].height: expected a whole number >= 1, got 0"),
        ({"images": [{**IMAGE, "width": 60.0}]}, "images[0].width: expected a whole number >= 1, got 60.0"),
        ({"images": [{"id": 7, "file_name": "a", "width": 60}]}, "images[0].height: expected a value"),
        ({"images": [{**IMAGE, "file_name": ""}]}, "images[0].file_name: expected a name"),
        ({"images": [{**IMAGE, "file_name": "../a"}]}, "images[0].file_name: expected a file below the folder"),
        ({"images": [{**IMAGE, "file_name": "/etc/a"}]}, "images[0].file_name: expected a file below the folder"),
        ({"categories": []}, "categories: expected at least one"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "categories[1]: expected an id and a name"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "categories[1]: expected an id and a name"),
    ],
)
def test_coco_names_file_and_place_of_what_is_wrong(coco: Coco, changes: dict[str, Any], expected: str) -> None:
    """Oracle: the place in the file, and a sentence with what was expected."""
    with pytest.raises(UnreadableAnnotation, match=rf"boxes\.json: {re.escape(expected)}"):
        read_coco(coco(**changes))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "line 1: expected JSON"),
        (b'{"images": [\n{"id": 1,}]}', "line 2: expected JSON"),
        (b'{"images":\n "\xff"}', "line 2: expected UTF-8"),
        (b"[" * 200_000, "expected the JSON of COCO"),
        (b'{"images": ' + b"9" * 5000 + b"}", "expected the JSON of COCO"),
        (b"[1, 2]", "expected an object with 'images', got list"),
        (b"{}", "images: expected a value, but there is none"),
    ],
)
def test_coco_broken_files(tmp_path: Path, content: bytes, expected: str) -> None:
    """Oracle: one error that names the file, whatever is in it."""
    file = tmp_path / "boxes.json"
    file.write_bytes(content)
    with pytest.raises(UnreadableAnnotation, match=rf"boxes\.json.*{re.escape(expected)}"):
        read_coco(file)


def test_no_damage_gives_another_error(voc: Voc, coco: Coco, tmp_path: Path) -> None:
    """Oracle: a file with bytes changed, cut or doubled is read, or refused as unreadable; nothing else is raised."""
    readers: list[tuple[bytes, Callable[[Path], Any]]] = [
        (voc(voc_object(), voc_object("cat")).read_bytes(), lambda file: read_voc(file, CLASSES)),
        (coco().read_bytes(), read_coco),
    ]
    random, file, refused = np.random.default_rng(0), tmp_path / "damaged", 0
    for whole, reader in readers:
        for _ in range(150):
            content = bytearray(whole)
            for at in random.integers(0, len(whole), random.integers(1, 4)).tolist():
                content[at : at + int(random.integers(0, 3))] = random.bytes(int(random.integers(0, 3)))
            file.write_bytes(content)
            try:
                reader(file)
            except UnreadableAnnotation as error:
                refused += str(file) in str(error)
    assert 150 < refused < 300


# --- what is common -------------------------------------------------------------------------------------------------


def test_classes_are_different_names(voc: Voc) -> None:
    """Oracle: the message names the argument and what came."""
    with pytest.raises(TypeError, match="classes must be names, at least one, got 'cat'"):
        read_voc(voc(), "cat")
    with pytest.raises(TypeError, match=r"classes must be names, at least one, got \(\)"):
        read_voc(voc(), ())
    with pytest.raises(ValueError, match="classes must be different names"):
        read_voc(voc(), ("cat", "cat"))


def test_labelled_refuses_what_does_not_belong_together() -> None:
    """Oracle: the message names the field and what came."""
    image, boxes, labels = torch.zeros(3, 4, 5), torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([0])
    assert Labelled(image, boxes, labels).size == (4, 5)
    with pytest.raises(ValueError, match=r"image must be \(3, H, W\), got \(1, 4, 5\)"):
        Labelled(image[:1], boxes, labels)
    with pytest.raises(ValueError, match=r"boxes must be \(n, 4\), got \(4,\)"):
        Labelled(image, boxes[0], labels)
    with pytest.raises(ValueError, match=r"labels must be \(1,\), one for each box, got \(2,\)"):
        Labelled(image, boxes, torch.tensor([0, 1]))
    with pytest.raises(TypeError, match=r"labels must be int64, got torch.float32"):
        Labelled(image, boxes, labels.float())
    with pytest.raises(TypeError, match=r"boxes must be a floating point tensor, got torch.int64"):
        Labelled(image, boxes.long(), labels)
