"""Small networks that differ in what they take for granted of pictures: convolution, windows, nothing (chapter 21).

Their bodies are those of the small detectors, which begin with them: a detector's body is not trained from nothing.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from course_lib.blocks.checks import check_picture
from course_lib.blocks.swin import Swin
from course_lib.blocks.vit import ViT
from course_lib.detection.families.detr.tiny import TinySetDetector, begin_with_sines, check_names, check_several
from course_lib.detection.families.ssd.tiny import STRIDES, PlainBody, TinyDetector
from course_lib.detection.prediction import PLAIN, Normalisation
from course_lib.upsampling.grids import check_choice

Kind = Literal["conv", "vit", "swin"]
"""What the body is made of."""

_TEMPERATURE = 20.0  # of the sines that a ViT's positions begin with: a few patches are all it sees


class TinyClassifier(nn.Module):
    """What a small picture shows, or what lies at each cell of the body's maps; pictures are (N, 3, H, W), normalised.

    kind: see `Kind`. names: of the classes, label 0 first. cells: whether every cell of every map but the first (of a
    ViT: of its only one) is classified, with a column for the background before the classes'; else the picture is, as
    the object that it shows. picture: (height, width) it is trained on. widths: of the `PlainBody` of "conv".
    body_width, depths, body_heads, patch, window: of the `ViT` or `Swin` of the others, as of `TinySetDetector`.

    body: what it shares with the small detectors. heads: linear layers, one for each map, or one that reads the mean
    over all places of the last one. Each argument is kept under its name. Raises TypeError or ValueError for arguments
    out of range.
    """

    def __init__(
        self,
        kind: Kind = "conv",
        names: Sequence[str] = ("disc", "square", "triangle"),
        cells: bool = False,
        picture: tuple[int, int] = (64, 64),
        widths: Sequence[int] = (16, 24, 32, 48, 64, 64),
        body_width: int = 64,
        depths: Sequence[int] = (4,),
        body_heads: Sequence[int] = (4,),
        patch: int = 8,
        window: int = 4,
    ) -> None:
        """Make body and heads with random weights."""
        super().__init__()
        check_choice("kind", kind, Kind)
        check_names(names)
        height, width = check_several("picture", picture, 2)
        self.kind, self.names, self.cells, self.picture = kind, tuple(names), bool(cells), (height, width)
        self.widths = check_several("widths", widths, 2 + len(STRIDES))
        self.body_width, self.patch, self.window = body_width, patch, window
        self.depths = check_several("depths", depths)
        self.body_heads = check_several("body_heads", body_heads)
        self.normalisation: Normalisation = PLAIN
        self.body: Any = self._body()
        self.heads = nn.ModuleList(_head(channels, len(self.names), kind, cells) for channels in self._channels())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes), or with `cells` those of the finest map, (N, 1 + classes, h, w).

        Raises TypeError or ValueError for other images.
        """
        return self.all(images)[0]

    def all(self, images: Tensor) -> list[Tensor]:
        """Return what every head says, the finest map's first; raises as `forward` does."""
        check_picture(images, "images")
        read = self._maps(images) if self.cells else [self._mean(images)]
        return [head(one) for head, one in zip(self.heads, read, strict=True)]

    def _mean(self, images: Tensor) -> Tensor:
        found = self.body(images)
        mean: Tensor = found[-1].mean((2, 3)) if self.kind == "conv" else found
        return mean

    def _maps(self, images: Tensor) -> list[Tensor]:
        if self.kind == "vit":
            return [self.body.map(images)]
        maps: list[Tensor] = self.body(images) if self.kind == "conv" else self.body.maps(images)
        return maps[1:]  # the first is at stride 4

    def _channels(self) -> list[int]:
        """Return the channels of what each head reads."""
        if self.kind == "vit":
            return [self.body_width]
        every = self.body.channels[1:]
        return list(every if self.cells else every[-1:])

    def _body(self) -> nn.Module:
        if self.kind == "conv":
            return PlainBody(self.widths)
        if self.kind == "swin":
            if len(self.depths) < 2:
                raise ValueError(f"depths must be of two stages or more for a Swin, got {self.depths}")
            arguments = (self.body_width, self.depths, self.body_heads, self.window)
            swin = Swin(*arguments, classes=None, patch=self.patch, always=True)
            if self.cells:  # nobody reads behind the norm, which is the picture's head's
                swin.norm = nn.Identity()  # type: ignore[assignment]
            return swin
        if len(self.depths) != 1 or len(self.body_heads) != 1:
            raise ValueError(f"depths and body_heads must be one number each, got {self.depths}, {self.body_heads}")
        size: dict[str, Any] = {"width": self.body_width, "depth": self.depths[0], "heads": self.body_heads[0]}
        vit = ViT(**size, patch=self.patch, picture=self.picture, classes=None, pooling="mean")
        begin_with_sines(vit, _TEMPERATURE)
        return vit


def _head(channels: int, classes: int, kind: Kind, cells: bool) -> nn.Module:
    if not cells:
        return nn.Linear(channels, classes)
    # Swin's maps have no norm behind them
    norm = nn.GroupNorm(1, channels) if kind == "swin" else nn.Identity()
    return nn.Sequential(norm, nn.Conv2d(channels, 1 + classes, 1))


def body_tensors(detector: TinyDetector | TinySetDetector) -> dict[str, Tensor]:
    """Return a detector's tensors that a classifier's body can begin, under the names that they have there.

    [DET] tokens, what serves them alone, and the merging behind the last stage of ViDT's body are not among them.
    """
    parts: Any = detector if isinstance(detector, TinyDetector) else detector.network
    member = detector.member
    if member == "yolos":
        shared = ("embedding.", "blocks.", "norm.", "positions")
        return {name: tensor for name, tensor in _tensors(parts).items() if name.startswith(shared)}
    if not member.startswith("vidt"):
        return _tensors(parts.body if isinstance(detector, TinyDetector) else parts.body.network)
    found = _tensors(parts.body)
    last = f"stages.{len(parts.body.stages) - 1}.merge."
    return {name: tensor for name, tensor in found.items() if "det_" not in name and not name.startswith(last)}


def _tensors(module: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = module.state_dict(keep_vars=True)
    return tensors


@torch.no_grad()
def take_body(detector: TinyDetector | TinySetDetector, classifier: TinyClassifier) -> None:
    """Copy a classifier's body into a detector, whose body has nothing else but what `body_tensors` leaves out.

    Two things of the classifier are left behind: stages that the detector does not read, and where a Swin's maps are
    read, the norm before the head. Raises ValueError that names the tensors where the bodies differ otherwise, and for
    positions of a grid of another shape; nothing is copied then.
    """
    there, given = body_tensors(detector), _tensors(classifier.body)
    if classifier.kind == "swin":
        given = {name: tensor for name, tensor in given.items() if not name.startswith("norm.")}
    elif classifier.kind == "conv":
        stages = {name.split(".")[1] for name in there if name.startswith("stages.")}
        given = {k: v for k, v in given.items() if not k.startswith("stages.") or k.split(".")[1] in stages}
    more = 1 + detector.queries if isinstance(detector, TinySetDetector) and detector.member == "yolos" else 0
    places = {name: _place(tensor, given.get(name), more) for name, tensor in there.items()}
    wrong = [name for name in {**given, **places} if places.get(name) is None or name not in given]
    if wrong:
        raise ValueError(f"classifier must have the body of the detector, a {detector.member}; others are: {wrong}")
    grid, other = _grid(detector), getattr(classifier.body, "learned", None)
    if grid != other:
        raise ValueError(f"classifier must have positions of {grid} patches, got {other}")
    for name, place in places.items():
        if place is not None:
            place.copy_(given[name])


def _grid(detector: TinyDetector | TinySetDetector) -> Any:
    """Return (h, w) of the patches that a detector has learned positions of, or None."""
    network: Any = getattr(detector, "network", None)
    return getattr(getattr(getattr(network, "body", network), "network", network), "learned", None)


def _place(tensor: Tensor, given: Tensor | None, more: int) -> Tensor | None:
    """Return where in a tensor a given one belongs, or None; more: rows that YOLOS's positions have besides.

    One of them is before the patches', the others are behind. Positions of another picture have other rows.
    """
    if given is not None and more and tensor.dim() == given.dim() == 3 and tensor.shape[1] == given.shape[1] + more:
        tensor = tensor[:, 1 : 1 + given.shape[1]]
    return tensor if given is not None and tensor.shape == given.shape else None
