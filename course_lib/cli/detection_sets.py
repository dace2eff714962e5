"""What `course evaluate detection` measures on: generated scenes, BCCD, and folders with boxes of one's own."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from course_lib.cli.errors import Refused
from course_lib.datasets import UnreadableAnnotation, read_coco, read_picture, read_voc
from course_lib.datasets.annotations import Annotation
from course_lib.datasets.bccd import BCCD, CLASSES
from course_lib.datasets.scenes import Scenes
from course_lib.detection.coco_names import UNUSED
from course_lib.detection.evaluation import BANDS, Sample
from course_lib.training.detectors import SCENES, ShownScenes
from course_lib.training.recipes.segmentation import HELD_OUT_SEED

DATA = (*(f"scenes-{name}" for name in SCENES), "BCCD-val", "BCCD-test")
"""The sets that have a name."""
PICTURES = 500
"""How many scenes; the first of them are those of the training's curve."""
COCO_BANDS = (32.0, 96.0)
"""COCO's own, in pixels of photographs as they are."""

_ANNOTATIONS, _IMAGES = ("", "Annotations", "annotations"), ("JPEGImages", "images", "")
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Set:
    """Pictures with boxes: a name, the classes, how many there are, and each of them, which is read when asked for.

    what: in words for a record. as_they_are: whether a detector sees the pictures so, or at the size it was made for.
    bands: sides in pixels that part small, medium and large objects.
    """

    name: str
    classes: tuple[str, ...]
    count: int
    sample: Callable[[int], Sample]
    what: str
    as_they_are: bool = False
    bands: tuple[float, float] = COCO_BANDS

    def samples(self) -> Iterator[Sample]:
        """Make or read one picture after the other."""
        return map(self.sample, range(self.count))


@dataclass(frozen=True, eq=False)
class Judged:
    """A picture of a file with boxes, some of which may be difficult; see `Annotation`."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    difficult: Tensor


def find(
    data: str,
    classes: Sequence[str],
    pictures: int | None = None,
    images: Path | None = None,
    from_zero: bool = False,
) -> Set:
    """Return a set by name, or one in files: a folder of VOC's XML and pictures, or a JSON of COCO.

    classes: of the detector, which all sets must have. pictures: how many; None: `PICTURES` scenes, all of the others.
    images: the folder of a JSON's pictures; None: its own. from_zero: edges of XML files are counted from 0, not 1.

    Raises Refused for what is no set, for other classes, and where pictures are missing; UnreadableAnnotation;
    DataMissing.
    """
    if data in DATA:
        found = _scenes(data) if data.startswith("scenes") else _cells(data)
        if found.classes != tuple(classes):
            raise Refused(f"{data} has the classes {', '.join(found.classes)}; this detector has {', '.join(classes)}")
    elif Path(data).is_dir():
        found = _voc(Path(data), classes, from_zero)
    elif data.lower().endswith(".json"):
        found = _coco(Path(data), classes, images)
    else:
        raise Refused(f"data must be one of {', '.join(DATA)}, coins, a folder with boxes, or a .json; got {data!r}")
    if pictures is None:
        return found
    return replace(found, count=pictures if found.as_they_are else min(pictures, found.count))  # scenes have no end


def unseen(data: str) -> Scenes:
    """Return scenes of a seed that no recipe trains with."""
    return replace(SCENES[data.removeprefix("scenes-")], seed=HELD_OUT_SEED)


def _scenes(data: str) -> Set:
    scenes = unseen(data)
    return Set(data, scenes.classes, PICTURES, ShownScenes(scenes).sample, *told(data))


def _cells(data: str) -> Set:
    cells = BCCD("val" if data == "BCCD-val" else "test")
    return Set(data, CLASSES, len(cells), cells.sample, *told(data))


def told(data: str) -> tuple[str, bool, tuple[float, float]]:
    """Return what a `Set` of one of `DATA` says of itself: what, as_they_are, bands. Nothing is read."""
    if data.startswith("scenes-"):
        return f"the first of {unseen(data)}", True, BANDS
    return f'BCCD, part "{data[5:]}"', False, COCO_BANDS


def _voc(folder: Path, classes: Sequence[str], from_zero: bool) -> Set:
    files = next((some for name in _ANNOTATIONS if (some := sorted((folder / name).glob("*.xml")))), [])
    if not files:
        raise Refused(f"{folder} has no .xml file, and none in Annotations; a folder as PASCAL VOC has it is measured")
    used, places = _used(classes)
    said = [_relabelled(read_voc(file, used, one_based=not from_zero), places) for file in files]
    found = {path.stem: path for name in reversed(_IMAGES) for path in _pictures(folder / name)}
    missing = [one.name for one in said if one.name not in found]
    if missing:
        raise Refused(f"{folder} has boxes but no picture of {missing[0]}, neither in it nor in JPEGImages or images")
    counted = "edges counted from 0" if from_zero else "pixels counted from 1"
    return _files(folder, classes, said, [found[one.name] for one in said], f"XML of PASCAL VOC, {counted}")


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.suffix.lower() in _ENDINGS]


def _coco(file: Path, classes: Sequence[str], images: Path | None) -> Set:
    used, places = _used(classes)
    said = [_relabelled(one, places) for one in read_coco(file, used)[0]]
    folder = images or file.parent
    paths = [folder / one.name for one in said]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise Refused(f"{missing[0]} is not there; --images names the folder" if paths else f"{file} has no pictures")
    return _files(file, classes, said, paths, "JSON of COCO")


def _used(classes: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the names that a file may use, and the detector's label of each: COCO's numbers leave some out."""
    places = [place for place, name in enumerate(classes) if name != UNUSED]
    return [classes[place] for place in places], torch.tensor(places)


def _relabelled(said: Annotation, places: Tensor) -> Annotation:
    return replace(said, labels=places[said.labels])


def _files(path: Path, classes: Sequence[str], said: list[Annotation], paths: list[Path], kind: str) -> Set:
    def sample(index: int) -> Judged:
        one, image = said[index], read_picture(paths[index]).expand(3, -1, -1)
        if (came := tuple(image.shape[-2:])) != one.size:
            raise UnreadableAnnotation(
                f"{paths[index]} has {came[0]} x {came[1]} pixels (height x width), expected {one.size[0]} x "
                f"{one.size[1]} as its boxes say"
            )
        return Judged(image, one.boxes, one.labels, one.difficult)

    name = re.sub(r"[^A-Za-z0-9.-]", "-", path.resolve().stem).strip("-.") or "folder"
    return Set(name, tuple(classes), len(said), sample, f"{name}: {kind}")
