"""Read picture files without losing what they hold: orientation, alpha, grey, 16 bits and colour profile."""

import contextlib
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, UnidentifiedImageError
from torch import Tensor

MOST_BYTES = 750_000_000
"""The largest picture that is read, as height x width x channels x bytes; files are read whole."""

_ORIENTATION = 274
_ASSOCIATED = 1  # TIFF's ExtraSamples: colours come multiplied by alpha
_SETTINGS = threading.RLock()  # Pillow's limit and Python's warning filters belong to all threads
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PLAIN = ("L", "LA", "RGB", "RGBA")
_CONVERTED = {"1": "L", "PA": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}


class UnreadablePicture(OSError):
    """A file is not a picture that can be read; the message says which file and why."""


@dataclass(frozen=True)
class Samples:
    """A picture as its file stores it, turned upright.

    values: uint8 or uint16 (H, W, C) with C = 1, 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha, not premultiplied).
    profile: the ICC colour profile, or None.
    """

    values: npt.NDArray[Any]
    profile: bytes | None = None

    @property
    def alpha(self) -> bool:
        """Whether the last channel is opacity."""
        return self.values.shape[2] in (2, 4)

    @property
    def top(self) -> int:
        """The value of white: 255 or 65535."""
        return int(np.iinfo(self.values.dtype).max)

    def picture(self) -> Tensor:
        """Return it as float32 (3, H, W), or (1, H, W) when grey, in [0, 1]; alpha is laid on white."""
        planes = torch.from_numpy(self.values.astype(np.float32)).permute(2, 0, 1) / self.top
        if self.alpha:
            planes = planes[:-1] * planes[-1:] + (1 - planes[-1:])
        return planes.contiguous()


def read_picture(path: str | os.PathLike[str]) -> Tensor:
    """Return the picture in a file as float32 (3, H, W), or (1, H, W) when grey, in [0, 1] and upright; alpha is laid
    on white.

    Raises as `read_samples` does.
    """
    return read_samples(path).picture()


def read_samples(path: str | os.PathLike[str]) -> Samples:
    """Return the picture in a file with its own bit depth, alpha and profile, turned upright by its orientation tag.

    Palettes and 1-bit pictures become RGB(A) and grey. Raises UnreadablePicture for files that are missing, empty,
    truncated, no regular file, no picture, animated, CMYK or floating point, or larger than MOST_BYTES. Threads take
    turns.
    """
    name = Path(path)
    try:
        seen = name.stat()
        if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
            raise UnreadablePicture(f"cannot read {name}: it is a pipe, a device or a socket; save it as a file first")
        with name.open("rb") as stream:
            magic = stream.read(4)
    except UnreadablePicture:
        raise
    except OSError as error:
        raise UnreadablePicture(f"cannot read {name}: {error.strerror or error}") from error
    if seen.st_size == 0:
        raise UnreadablePicture(f"cannot read {name}: the file is empty (0 bytes)")
    with _SETTINGS, _named_errors(name):
        samples = _read_deep_tiff(name) if magic in _TIFF else None
        return samples if samples is not None else _read_pillow(name)


@contextlib.contextmanager
def _named_errors(name: Path) -> Iterator[None]:
    # Pillow's own limit on pixels is replaced by MOST_BYTES, which knows about channels and depth
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadablePicture:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture(
            f"cannot read {name}: not a picture this program knows (PNG, JPEG, TIFF, WebP, ...)"
        ) from error
    except MemoryError as error:
        raise UnreadablePicture(f"cannot read {name}: not enough memory to hold it") from error
    except (
        Exception
    ) as error:  # a damaged file makes decoders fail in many ways (struct.error, SyntaxError, zlib.error, ...)
        raise UnreadablePicture(f"cannot read {name}: the file is truncated or damaged ({error})") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_size(name: Path, height: int, width: int, bytes_per_pixel: int) -> None:
    total = height * width * bytes_per_pixel
    if height < 1 or width < 1:
        raise UnreadablePicture(f"cannot read {name}: it says it is {height} x {width} pixels")
    if total > MOST_BYTES:
        raise UnreadablePicture(
            f"cannot read {name}: {height} x {width} pixels take {total / 1e6:,.0f} MB, "
            f"and at most {MOST_BYTES / 1e6:,.0f} MB are read; cut it into parts first"
        )


def _many(name: Path, frames: int) -> UnreadablePicture:
    return UnreadablePicture(
        f"cannot read {name}: it holds {frames} frames or pages; save the one you want as a picture of its own"
    )


def _read_pillow(name: Path) -> Samples:
    with Image.open(name) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview behind it
            raise _many(name, frames)
        _check_size(name, image.height, image.width, 4)
        deep = _deep_png_modes(image)
        if deep:
            _check_size(name, image.height, image.width, 2 * deep[1])
            values = _deep_png(name, image, *deep)
        else:
            values = _plain(name, image)
        # asked for after loading: a PNG may carry its tags behind the pixels, and Pillow turns a TIFF itself and
        # drops the tag
        upright = _upright(values, image.getexif().get(_ORIENTATION, 1))
        return Samples(np.ascontiguousarray(upright), image.info.get("icc_profile"))


def _plain(name: Path, image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    mode = image.mode
    if mode.startswith("I;16"):
        return _with_colour_key(np.asarray(image).astype(np.uint16)[..., None], image)
    if mode == "P" or (mode in ("1", "L", "RGB") and "transparency" in image.info):
        image.load()
        palette = image.palette.mode if image.palette else "RGB"
        if "transparency" not in image.info and palette != "RGBA":
            return np.asarray(image.convert("RGB"))
        return np.asarray(image.convert("LA" if mode in ("1", "L") else "RGBA"))
    if mode in _PLAIN:
        return _channels(np.asarray(image))
    if mode in _CONVERTED:
        return _channels(np.asarray(image.convert(_CONVERTED[mode])))
    hint = (
        "convert it to RGB with its colour profile first"
        if mode == "CMYK"
        else "save it as 8 or 16 bit grey or RGB first"
    )
    raise UnreadablePicture(f"cannot read {name}: its pixels are of the kind {mode}, which is not supported; {hint}")


def _channels(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array[..., None] if array.ndim == 2 else array


def _with_colour_key(values: npt.NDArray[Any], image: ImageFile.ImageFile) -> npt.NDArray[Any]:
    key = image.info.get("transparency")
    if key is None or values.shape[2] not in (1, 3):
        return values
    seen = np.where((values == np.asarray(key, dtype=values.dtype)).all(axis=2), 0, np.iinfo(values.dtype).max)
    return np.concatenate([values, seen[..., None].astype(values.dtype)], axis=2)


def _deep_png_modes(image: ImageFile.ImageFile) -> tuple[list[str], int] | None:
    """Return the two raw modes that unpack the high and the low bytes of a 16-bit colour PNG, and its channels; else
    None.
    """
    if image.format != "PNG" or not image.tile:
        return None
    match image.tile[0][3]:
        case "RGB;16B":
            return ["RGB;16B", "RGB;16L"], 3
        case "RGBA;16B":
            return ["RGBA;16B", "RGBA;16L"], 4
        case "LA;16B":
            return ["RGBA"], 2
    return None


def _deep_png(name: Path, image: ImageFile.ImageFile, modes: list[str], channels: int) -> npt.NDArray[np.uint16]:
    """Read all 16 bits of a colour PNG, of which Pillow by itself keeps the upper eight.

    Its unpackers pick one byte of each sample: the first for big-endian samples, the second for little-endian ones.
    So two passes fetch both bytes. Grey with alpha has four bytes a pixel, just as 8-bit RGBA, and needs one pass.
    """
    tile = image.tile[0]
    if channels == 2:
        image.tile = [tile._replace(args=modes[0])]
        pairs = np.asarray(image).astype(np.uint16)
        return np.asarray(256 * pairs[..., 0::2] + pairs[..., 1::2], dtype=np.uint16)
    values = np.asarray(image).astype(np.uint16)
    values <<= 8
    with Image.open(name) as again:
        again.tile = [tile._replace(args=modes[1])]
        values |= np.asarray(again)
    return _with_colour_key(values, image)


def _read_deep_tiff(name: Path) -> Samples | None:
    """Read a 16-bit TIFF; return None for any other kind, which Pillow reads."""
    import tifffile

    with tifffile.TiffFile(name) as file:
        page = file.pages[0]
        if not isinstance(page, tifffile.TiffPage) or page.dtype != np.uint16:
            return None
        if len(file.pages) > 1:
            raise _many(name, len(file.pages))
        _check_size(name, page.imagelength, page.imagewidth, 2 * page.samplesperpixel)
        kind = tifffile.PHOTOMETRIC(page.photometric)
        grey = kind in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
        extra = page.samplesperpixel - (1 if grey else 3)
        if not (grey or kind == tifffile.PHOTOMETRIC.RGB) or extra not in (0, 1):
            raise UnreadablePicture(
                f"cannot read {name}: a TIFF of kind {kind.name} with {page.samplesperpixel} samples a pixel is not "
                "supported; save it as grey or RGB, with or without alpha"
            )
        values = page.asarray().reshape(page.shape)
        values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else _channels(values)
        if extra and tuple(page.extrasamples) == (_ASSOCIATED,):
            values = _divided(values)
        if kind == tifffile.PHOTOMETRIC.MINISWHITE:
            values = np.concatenate([np.iinfo(np.uint16).max - values[..., :1], values[..., 1:]], axis=2)
        tag, profile = page.tags.get(_ORIENTATION), page.tags.get(34675)
        upright = _upright(values.astype(np.uint16), int(tag.value) if tag else 1)
        return Samples(np.ascontiguousarray(upright), bytes(profile.value) if profile else None)


def _divided(values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Undo the multiplication of the colours by alpha, rounding half up; what is invisible becomes 0."""
    top = np.uint32(np.iinfo(np.uint16).max)
    alpha = values[..., -1:].astype(np.uint32)
    # top * top + top // 2 still fits into 32 bits
    colours = (values[..., :-1] * top + alpha // 2) // np.maximum(alpha, 1)
    colours = np.where(alpha == 0, 0, np.minimum(colours, top))
    return np.concatenate([colours, alpha], axis=2).astype(np.uint16)


def _upright(values: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Undo one of the eight orientations of the EXIF standard (tag 274)."""
    match orientation:
        case 2:
            return values[:, ::-1]
        case 3:
            return values[::-1, ::-1]
        case 4:
            return values[::-1]
        case 5:
            return values.swapaxes(0, 1)
        case 6:
            return np.rot90(values, -1)
        case 7:
            return values[::-1, ::-1].swapaxes(0, 1)
        case 8:
            return np.rot90(values, 1)
    return values
