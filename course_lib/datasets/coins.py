"""Twenty-four coins on one photograph, with a box around each that is computed: a test picture for detectors (chapters
14 and 16).
"""

import functools

import numpy as np
import numpy.typing as npt
import skimage.data
import torch
from torch import Tensor

from course_lib.datasets.annotations import Labelled
from course_lib.datasets.tensors import from_uint8

_LIGHT = 50.0  # pixels: what changes over more than a coin is light


def coins() -> Labelled:
    """Return the photograph of Greek coins that comes with scikit-image, grey in three equal channels, float32
    (3, 303, 384), and its 24 boxes in pixels, by rows of 6 from the top, each from the left; all labels are 0.

    Nobody drew the boxes: the light of the ground is taken away (a Gaussian of 50 pixels), Otsu's threshold parts coins
    from ground, holes are filled, what no disc of radius 2 fits into is cut away (specks, and a bridge to the bright
    rim of the ground), and each part that is left has its box. scikit-image says of the photograph: no known
    restrictions of copyright.
    """
    image = from_uint8(_photograph()).repeat(3, 1, 1)
    boxes = _boxes()
    return Labelled(image, boxes.clone(), torch.zeros(len(boxes), dtype=torch.int64))


def _photograph() -> npt.NDArray[np.uint8]:
    picture: npt.NDArray[np.uint8] = skimage.data.coins()  # type: ignore[no-untyped-call]
    return picture


@functools.cache
def _boxes() -> Tensor:
    import scipy.ndimage as ndi  # type: ignore[import-untyped]
    from skimage.filters import threshold_otsu

    grey = _photograph() / 255
    even = grey - ndi.gaussian_filter(grey, _LIGHT)
    bright = ndi.binary_fill_holes(even > threshold_otsu(even))  # type: ignore[no-untyped-call]
    y, x = np.ogrid[-2:3, -2:3]
    parts, _ = ndi.label(ndi.binary_opening(bright, x * x + y * y <= 4))
    found = [(y.start, x.start, y.stop, x.stop) for y, x in ndi.find_objects(parts)]
    # by rows of six from the top, each from the left
    found.sort(key=lambda box: box[0] + box[2])
    rows = [sorted(found[k : k + 6], key=lambda box: box[1]) for k in range(0, len(found), 6)]
    return torch.tensor([[x0, y0, x1, y1] for row in rows for y0, x0, y1, x1 in row], dtype=torch.float32)
