"""BCCD: micrographs of blood with boxes around three kinds of cells, the small real set of chapters 14 and 15."""

import functools
import json
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from course_lib.datasets import sets
from course_lib.datasets.annotations import Annotation, Labelled, Written, read_voc, rescaled
from course_lib.datasets.counter import check_whole
from course_lib.datasets.markup import UnreadableAnnotation
from course_lib.datasets.readers import read_samples
from course_lib.datasets.tensors import from_uint8, to_uint8
from course_lib.files import data_dir
from course_lib.upsampling.grids import check_choice

Part = Literal["train", "val", "test"]

CLASSES = ("RBC", "WBC", "Platelets")
"""Red cells, white cells, platelets."""


class BCCD:
    """One part of BCCD: 240 pictures to train on, 60 to validate on, 60 to test on; 640 x 480 pixels each.

    part: "train", "val" or "test". size: (height, width) to which pictures and boxes are resized, or None. With a size
    all pictures are read once and kept as uint8 (57 kB each at 120 x 160); without, each is read when it is asked for.

    data/bccd.json holds the three lists of names and what is repaired: two boxes without width and seven that box a
    cell twice are dropped, three cells get the class that they show. Four pictures are left out, as in the lists that
    the split follows; many red cells in them have no box. So scores are not comparable with those of others. KNOWN
    DEFECT: in the other pictures, too, many red cells have no box, mostly in clumps and at the border (21 of 240
    training and 7 of 60 validation pictures have five boxes of red cells or fewer). A detector that finds such a cell
    is counted as wrong; judge by white cells and platelets as well. Numbers are taken as edges counted from 0: the
    files look like those of LabelImg, which writes edges, with 1 in place of 0.

    Attributes: part, size, classes, names (of the pictures), annotations (of the whole pictures), description. Raises
    ValueError for another part or size; DataMissing, which says how to get the set; UnreadableAnnotation.
    """

    classes = CLASSES

    def __init__(self, part: Part = "train", size: tuple[int, int] | None = None) -> None:
        """Read all annotations, and with a size all pictures, which takes about two seconds."""
        check_choice("part", part, Part)
        if size is not None:
            _check_size(size)
        self.part, self.size = part, size
        self._folder = sets.find("BCCD")
        table = _table()
        self.names = tuple(table["parts"][part])
        self.annotations = tuple(self._annotation(name, table["repairs"].get(name, [])) for name in self.names)
        self._kept = [self._picture(place) for place in range(len(self))] if size is not None else None

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.names)

    @property
    def description(self) -> str:
        """What the samples are made of, in words for a card."""
        shrunk = f", resized to {self.size[0]} x {self.size[1]}" if self.size else ""
        return (
            f"{len(self)} pictures of BCCD ({self.part}: blood cells, 640 x 480{shrunk}), repaired by data/bccd.json; "
            f"many red cells have no box. Licence: {sets.registry()['BCCD']['licence']}."
        )

    def sample(self, index: int) -> Labelled:
        """Return the picture `names[index]`, float32 in [0, 1], with its boxes in pixels of `size`.

        Raises TypeError or ValueError unless the index is a whole number below `len`.
        """
        check_whole("index", index, most=len(self) - 1)
        said = self.annotations[index]
        picture = self._kept[index] if self._kept is not None else self._picture(index)
        image = from_uint8(picture)
        boxes = rescaled(said.boxes, said.size, (image.shape[-2], image.shape[-1]))
        return Labelled(image, boxes, said.labels.clone())

    def _annotation(self, name: str, repairs: list[dict[str, Any]]) -> Annotation:
        due: dict[Written, str | None] = {(one["class"], *one["box"]): one["becomes"] for one in repairs}
        return read_voc(self._folder / "annotations_voc" / f"{name}.xml", CLASSES, one_based=False, repairs=due)

    def _picture(self, index: int) -> npt.NDArray[np.uint8]:
        """Return a picture, uint8 (*size, 3)."""
        file, said = self._folder / "images" / f"{self.names[index]}.jpg", self.annotations[index].size
        values = read_samples(file).values
        if values.shape != (*said, 3):
            came = " x ".join(map(str, values.shape))
            raise UnreadableAnnotation(
                f"{file} has {came} samples, expected {said[0]} x {said[1]} x 3 as its boxes say"
            )
        if self.size is None or self.size == said:
            return values
        return to_uint8(_resized(from_uint8(values), self.size))


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    resized: Tensor = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    return resized


@functools.cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads((data_dir() / "bccd.json").read_text(encoding="utf-8"))
    return table


def _check_size(size: Any) -> None:
    if not isinstance(size, tuple) or len(size) != 2:
        raise TypeError(f"size must be (height, width) or None, got {size!r}")
    for side in size:
        check_whole("size", side, least=1, most=10_000)
