"""The reader's own picture: uploaded once in chapter 00, shown in every later chapter."""

from __future__ import annotations

import html
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import ipywidgets  # type: ignore[import-untyped]
import torch
from PIL import Image

from course_lib.datasets import UnreadablePicture, photograph, read_picture
from course_lib.datasets.photographs import fit
from course_lib.files import atomic_write, cache_dir
from course_lib.upsampling import resize

from .live import PICTURE
from .pixels import encode, is_small, preview_png, to_bytes3

DEFAULT: Final = "chelsea"
"""The photograph (scikit-image, CC0) that stands in until the reader chooses one."""

MOST_PIXELS: Final = 50_000_000
LEAST_SIDE: Final = 16
STORED_SIDE: Final = 1024
"""The longer side a picture is reduced to before it is stored: every chapter stays quick."""
LONGEST_SHAPE: Final = STORED_SIDE // LEAST_SIDE
"""Longer side over shorter side: beyond it, the picture as stored would be under 16 pixels wide."""


class UnsuitablePicture(ValueError):
    """The picture can be read, but the chapters cannot work with its size."""


def your_picture(size: tuple[int, int] | None = None) -> torch.Tensor:
    """The reader's picture as float32 (3, H, W) in [0, 1]; a photograph of a cat until one has been chosen.

    size: (height, width); the largest centred window of that shape is cut out and resized. With the environment
    variable COURSE_PICTURE=default it is always the cat, so that stored outputs do not depend on the reader.
    Raises UnreadablePicture when the stored file has been damaged, ValueError for an impossible size.
    """
    if not _chosen():
        return photograph(DEFAULT, size)
    try:
        image = _three(read_picture(_stored()))
    except UnreadablePicture as error:
        raise UnreadablePicture(f"{error}; choose your picture again in chapter 00") from error
    return image if size is None else fit(image, size)


def store_picture(name: str, content: bytes) -> torch.Tensor:
    """Check an uploaded file, reduce it to at most 1024 pixels a side, and keep it for all chapters.

    name: the file's name, used in messages; content: its bytes (PNG, JPEG, TIFF, WebP, ...). Orientation tags are
    obeyed, alpha is laid on white, grey becomes three equal channels, 16 bits become 8. The file appears whole or not
    at all. Returns the picture as stored, float32 (3, H, W).
    Raises UnreadablePicture (no picture, truncated, animated, CMYK), UnsuitablePicture (more than 50 megapixels, a side
    under 16 pixels, or longer than 64 to 1) or CannotWrite.
    """
    label = _label(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "upload")
        path.write_bytes(content)
        try:
            _check_size(label, *_header(path))
            image = _three(read_picture(path))
            # Some deep TIFFs have no header that `_header` can read.
            _check_size(label, *image.shape[-2:])
        except UnreadablePicture as error:
            # The reader knows the file by its name, not by where it was put for a moment.
            raise UnreadablePicture(str(error).replace(str(path), label)) from error
    longest = max(image.shape[-2:])
    if longest > STORED_SIDE:
        height, width = (max(1, round(n * STORED_SIDE / longest)) for n in image.shape[-2:])
        image = resize(image, size=(height, width)).clamp(0, 1)
    target = _stored()
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(target) as stream:
        stream.write(encode(to_bytes3(image), "PNG"))
    return image


def forget_picture() -> None:
    """Go back to the default photograph."""
    _stored().unlink(missing_ok=True)


def _stored() -> Path:
    return cache_dir() / "your_picture.png"


def _chosen() -> bool:
    return os.environ.get("COURSE_PICTURE") != "default" and _stored().is_file()


def _three(image: torch.Tensor) -> torch.Tensor:
    return image.expand(3, -1, -1).contiguous()


def _header(path: Path) -> tuple[int, int]:
    """Height and width, read before anything is decoded; (0, 0) when the reader will say what is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return image.height, image.width
        except Image.DecompressionBombError:
            return MOST_PIXELS, MOST_PIXELS
        except Exception:
            return 0, 0


def _label(name: str) -> str:
    """The last part of a file's name, as far as it can be printed, at most 80 signs; only messages use it."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[-80:] or "picture"


def _check_size(label: str, height: int, width: int) -> None:
    if height == width == MOST_PIXELS:
        raise UnsuitablePicture(f"{label} has far more than {MOST_PIXELS // 10**6} megapixels: make it smaller first")
    if height * width > MOST_PIXELS:
        raise UnsuitablePicture(
            f"{label} has {height} x {width} = {height * width / 1e6:.0f} megapixels, at most "
            f"{MOST_PIXELS // 10**6} are taken: make it smaller first"
        )
    if 0 < min(height, width) < LEAST_SIDE:
        raise UnsuitablePicture(f"{label} has {height} x {width} pixels, at least {LEAST_SIDE} a side are needed")
    if max(height, width) > LONGEST_SHAPE * min(height, width):
        raise UnsuitablePicture(
            f"{label} has {height} x {width} pixels, more than {LONGEST_SHAPE} to 1: cut out a shorter part first"
        )


class Upload:
    """The box of chapter 00 in which the reader chooses a picture; `widget` is what is displayed."""

    def __init__(self) -> None:
        """Show the picture chosen now, or the default."""
        fit = {"width": "max-content"}
        self.chooser = ipywidgets.FileUpload(
            accept="image/*", multiple=False, description="Choose a picture", layout=fit
        )
        self.back = ipywidgets.Button(description="Back to the cat", layout=fit)
        self.image = ipywidgets.Image(layout={**PICTURE, "max_width": "min(100%, 420px)"})
        self.message = ipywidgets.HTML()
        row = ipywidgets.HBox([self.chooser, self.back])
        self.widget = ipywidgets.VBox([row, self.image, self.message], layout={"margin": "6px 0"})
        self.chooser.observe(self._received, names="value")
        self.back.on_click(self._forgotten)
        self._show("This picture goes with you through the book.")

    def receive(self, name: str, content: bytes) -> bool:
        """Take a file; True when it is now the reader's picture. What is wrong with it is said under the picture."""
        try:
            store_picture(name, content)
        except (UnreadablePicture, UnsuitablePicture, OSError) as error:
            self.message.value = f"<strong>Not taken:</strong> {html.escape(str(error))}. The picture above stays."
            return False
        self._show(f"{html.escape(_label(name))} goes with you through the book. It stays on this computer.")
        return True

    def _show(self, said: str) -> None:
        try:
            image = your_picture()
        except UnreadablePicture as error:
            image, said = photograph(DEFAULT), f"{html.escape(str(error))}. Until then it is the cat."
        pixels = to_bytes3(image)
        self._preview = preview_png(pixels)
        self.image.value = encode(pixels, "PNG" if is_small(pixels) else "JPEG")
        self.message.value = f"{said} ({image.shape[1]} x {image.shape[2]} pixels)"

    def _received(self, change: Any) -> None:
        for file in change["new"]:
            self.receive(file["name"], bytes(file["content"]))

    def _forgotten(self, button: object) -> None:
        forget_picture()
        self._show("The cat goes with you through the book.")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {**self.widget._repr_mimebundle_(), "image/png": self._preview, "text/plain": repr(self)}
        return data, {"image/png": {"alt": "The picture that goes with you through the book"}}

    def __repr__(self) -> str:
        """What it is, in one line that never changes between runs."""
        return "[choose a picture of your own]"


def upload() -> Upload:
    """The box in which the reader chooses a picture of their own (chapter 00); it stays on their computer."""
    return Upload()
