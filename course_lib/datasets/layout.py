"""Where the objects of a generated scene go: apart, or over each other within bounds."""

import numpy as np
import numpy.typing as npt

from course_lib.datasets.shapes import Stamp

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; the last two are one past the last pixel."""


class Layout:
    """The objects placed so far, the newest in front.

    size: (height, width). overlap: largest intersection over union of two boxes. hidden: largest part of an object that
    others cover. least: smallest side of a box. owner: int64 (H, W), 0 for background and k for what shows of the k-th
    object. boxes: tight around what shows.
    """

    def __init__(self, size: tuple[int, int], overlap: float, hidden: float, least: int) -> None:
        """Start with an empty picture."""
        self.size, self.overlap, self.hidden, self.least = size, overlap, hidden, least
        self.owner: npt.NDArray[np.int64] = np.zeros(size, dtype=np.int64)
        self.boxes: list[Box] = []
        self._pixels: list[int] = []
        self._shown: list[int] = []

    def offer(self, made: Stamp, left: int, top: int) -> bool:
        """Put a stamp in front of all others, its box at (left, top), if every bound holds; return whether it does."""
        y, x, height, width = made.box
        box = (left, top, left + width, top + height)
        near = [k for k, other in enumerate(self.boxes) if _shared(box, other)]
        if any(_too_close(box, self.boxes[k], self.overlap) for k in near):
            return False
        inside = made.inside[y : y + height, x : x + width]
        changed = self._covered(inside, box, near) if near else {}
        if changed is None:
            return False
        for k, (seen, count) in changed.items():
            self.boxes[k], self._shown[k] = seen, count
        self.boxes.append(box)
        self.owner[top : top + height, left : left + width][inside] = len(self.boxes)
        self._pixels.append(int(np.count_nonzero(inside)))
        self._shown.append(self._pixels[-1])
        return True

    def _covered(self, inside: npt.NDArray[np.bool_], box: Box, near: list[int]) -> dict[int, tuple[Box, int]] | None:
        """Return what would still show of each object that a new one covers, its box and pixels; None where that
        breaks a bound.
        """
        left, top, right, bottom = box
        taken = np.bincount(self.owner[top:bottom, left:right][inside], minlength=len(self.boxes) + 1)
        changed = {}
        for k in near:
            if not taken[k + 1]:
                continue
            shown = self._shown[k] - int(taken[k + 1])
            if shown < (1 - self.hidden) * self._pixels[k]:
                return None
            seen = self._still_seen(k, inside, box)
            if min(seen[2] - seen[0], seen[3] - seen[1]) < self.least:
                return None
            changed[k] = (seen, shown)
        after = {**dict(enumerate(self.boxes)), **{k: seen for k, (seen, _) in changed.items()}}
        for k, (seen, _) in changed.items():
            if any(_too_close(seen, other, self.overlap) for j, other in after.items() if j != k):
                return None
        return changed

    def _still_seen(self, k: int, inside: npt.NDArray[np.bool_], box: Box) -> Box:
        left, top, right, bottom = self.boxes[k]
        shows = self.owner[top:bottom, left:right] == k + 1
        x0, y0, x1, y1 = _intersection(box, self.boxes[k])
        part = inside[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]]
        shows[y0 - top : y1 - top, x0 - left : x1 - left] &= ~part
        rows, columns = np.flatnonzero(shows.any(axis=1)), np.flatnonzero(shows.any(axis=0))
        return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _intersection(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _shared(a: Box, b: Box) -> int:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0


def _too_close(a: Box, b: Box, overlap: float) -> bool:
    shared = _shared(a, b)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared > overlap * both
