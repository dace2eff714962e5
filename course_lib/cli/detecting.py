"""`course detect`: find a detector, and let it look at a photograph. What comes of it is written by `detected`."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from course_lib import checkpoints
from course_lib.cli import networks
from course_lib.cli.drawing import enlarged
from course_lib.cli.errors import Refused
from course_lib.cli.writers import FORMATS
from course_lib.datasets import Samples, read_samples
from course_lib.detection import detectors, finding
from course_lib.detection.boxes import is_valid
from course_lib.detection.coco_names import UNUSED
from course_lib.detection.detectors import Detector, answers_with_set, is_detector
from course_lib.detection.families.ssd.tiny import TinyDetector
from course_lib.detection.prediction import Detections

LONGEST_SIDE = 65_536
"""Pixels along one side of what a detector looks at."""

_TOP = 400  # boxes of a class that suppression compares, as in SSD
_KERNELS = 1.75  # memory with what kernels need beside their results; up to 1.69 was seen (YOLOS on 1200 x 1600)

_SUPPRESSED = {"score": 0.5, "overlap": 0.45, "most": 200}
_SET = {True: {"score": 0.5, "most": 100}, False: {"score": 0.3, "most": 100}}

Size = tuple[int, int]
Say = Callable[[str], Any]


@dataclass(frozen=True)
class Look:
    """A detector, on its device, and how it is asked.

    name, sha256: of the detector and its file. score, overlap, most: of `postprocess`, or of `select` where overlap is
    None, because nothing is suppressed; None: what is usual for such a detector, see `usual`. scale, size: at most one;
    of what the detector is shown, see `finding.looks_at`. Raises Refused for an overlap that has no meaning.
    """

    model: Detector
    name: str
    sha256: str
    score: float | None = None
    overlap: float | None = None
    most: int | None = None
    scale: Fraction | None = None
    size: Size | None = None

    def __post_init__(self) -> None:
        """Check the overlap."""
        if self.overlap is not None and answers_with_set(self.model):
            raise Refused(f"{self.name} answers with a set of boxes, of which none is suppressed: leave --overlap away")

    @property
    def settings(self) -> dict[str, Any]:
        """How its outputs are read: score, most and, where boxes are suppressed, overlap."""
        given = {"score": self.score, "overlap": self.overlap, "most": self.most}
        return usual(self.model) | {name: value for name, value in given.items() if value is not None}

    @property
    def head(self) -> dict[str, Any]:
        """What a JSON says of all its pictures: the detector, its classes, and how it was asked."""
        settings: dict[str, Any] = {"score": None, "overlap": None, "most": None} | self.settings
        settings |= {"scale": None if self.scale is None else str(self.scale)}
        settings |= {"size": None if self.size is None else list(self.size)}
        classes = [name for name in detectors.names(self.model) if name != UNUSED]
        return {"model": self.name, "sha256": self.sha256, "classes": classes, "settings": settings}


def usual(model: Detector) -> dict[str, Any]:
    """Return how a detector's outputs are read where nobody says: score, most, and overlap where boxes are suppressed.

    Scores of classes that are asked for one by one (sigmoid) are lower than those that share one certainty.
    """
    if not answers_with_set(model):
        return dict(_SUPPRESSED)
    line: Any = model
    return dict(_SET[line.background])


@dataclass(frozen=True)
class Seen:
    """A picture as its file has it, what was found in it (boxes in its pixels), and the size at which it was shown."""

    samples: Samples
    found: Detections
    at: Size


def find_detector(
    model: str | None, checkpoint: Path | None, meant: str | None, device: str
) -> tuple[Detector, str, str]:
    """Return a detector on a device, its name, and the hash of its file; arguments and errors as of `networks.find`.

    Raises Refused for a network that finds no objects.
    """
    name, network = networks.find(model, checkpoint, meant)
    if not is_detector(network):
        raise Refused(f"{name} ({type(network).__name__}) finds no objects; course upscale enlarges pictures with it")
    path = checkpoint if checkpoint is not None else checkpoints.paths(name)[0]
    moved: Any = network.to(device)
    return moved, name, checkpoints.sha256(path)


def look(path: Path, wish: Look, say: Say, drawing: Path | None = None) -> Seen:
    """Return what is found in a picture file.

    say: gets a note about the size at which the detector looks. drawing: where the picture is drawn later, so that a
    format which does not hold it is refused. Raises UnreadablePicture, and Refused before the network runs.
    """
    samples = read_samples(path)
    own = (samples.values.shape[0], samples.values.shape[1])
    if drawing is not None:
        _check_drawing(own, drawing)
    at = _size(wish, own)
    if wish.scale is None and wish.size is None and at != own:
        say(_usual(wish, at))
    device = next(wish.model.parameters()).device
    planes = samples.picture().expand(3, -1, -1)
    settings = wish.settings
    if "overlap" in settings:
        settings["top"] = max(_TOP, settings["most"])  # no more boxes are kept than are compared
    with torch.no_grad():
        said = finding.outputs(wish.model, planes[None].to(device), at)
        found = finding.in_pixels(detectors.read(wish.model, *said, **settings)[0], own)
        if not len(found.scores) and answers_with_set(wish.model):
            best = detectors.read(wish.model, *said, score=0.0, most=1)[0].scores
            told = f"the best score is {float(best[0]):.2f}" if len(best) else "no score is above 0"
            say(f"nothing reaches --score {settings['score']:g}; {told}")
    names = detectors.names(wish.model)
    called = torch.tensor([names[label] != UNUSED for label in found.labels.tolist()], dtype=torch.bool)
    seen = called & is_valid(found.boxes)  # a box outside the picture was cut to nothing
    return Seen(samples, Detections(found.boxes[seen], found.scores[seen], found.labels[seen]), at)


def _size(wish: Look, own: Size) -> Size:
    """Return at which size the detector looks at a picture. Raises Refused where it cannot, or memory is too small."""
    wanted = wish.size or (own if wish.scale is None else tuple(int(n * wish.scale) for n in own))
    if max(wanted) > LONGEST_SIDE:
        raise Refused(
            f"{wish.name} would look at a picture of {max(wanted):,} pixels along a side; at most {LONGEST_SIDE:,} are "
            "allowed; choose a smaller --scale or --size"
        )
    try:
        at = finding.looks_at(wish.model, own, wish.scale, wish.size)
        needed = _KERNELS * finding.memory(wish.model, at)
    except ValueError as error:
        raise Refused(f"{wish.name}: {error}; choose a larger --scale or --size") from error
    free = free_memory(next(wish.model.parameters()).device)
    if free is not None and needed > free:
        raise Refused(
            f"to look at {at[0]} x {at[1]} pixels (height x width) {wish.name} needs about {needed / 1e9:.1f} GB of "
            f"memory, and {free / 1e9:.1f} GB are free; choose a smaller --scale or --size"
        )
    return at


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes are free on a device; None where the operating system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with contextlib.suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return None


def _usual(wish: Look, at: Size) -> str:
    line: Any = wish.model
    reason = "the size it was trained at"
    if wish.model.picture is None:
        reason = f"the shorter side {line.shorter} but the longer at most {line.longer}, as it was measured"
    said = (
        f"{wish.name} looks at {at[0]} x {at[1]} pixels (height x width), {reason}; "
        "--scale 0.5 or --size HxW show it pictures at another"
    )
    if isinstance(wish.model, TinyDetector):
        small, large = wish.model.sizes[0], wish.model.sizes[-1]
        said += f", which may be any; its anchors are {small:g} to {large:g} pixels large there"
    return said


def _check_drawing(own: Size, drawing: Path) -> None:
    kind, times = FORMATS[drawing.suffix.lower()], enlarged(own)
    height, width = times * own[0], times * own[1]
    most = kind.most_pixels or height * width
    if max(height, width) > kind.longest_side or height * width > most:
        raise Refused(f"{kind.name} does not hold a drawing of {width:,} x {height:,} pixels; choose .png for --draw")
