"""Write picture files from strips: PNG and TIFF as the strips come, JPEG and WebP from the whole picture."""

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Strip = Iterable[Array]
Shape = tuple[int, int, int]
Write = Callable[[IO[bytes], Strip, Shape, np.dtype[Any], bytes | None], None]


@dataclass(frozen=True)
class Format:
    """What a file format can hold. most_pixels is None where strips are written as they come.

    compressed: the file is usually smaller than its pixels.
    """

    name: str
    write: Write
    longest_side: int
    most_pixels: int | None = None
    deep: bool = False
    alpha: bool = True
    grey_alpha: bool = True
    compressed: bool = True


def write_png(stream: IO[bytes], strips: Strip, shape: Shape, dtype: np.dtype[Any], profile: bytes | None) -> None:
    """Write a PNG (8 or 16 bits; grey, grey and alpha, RGB, RGB and alpha) from strips (rows, W, C) in order.

    Every row is predicted by the average of the pixels to the left and above (filter type 3) and packed by run
    lengths and Huffman codes only: on enlarged photographs within a tenth of the size that searching for matches
    gives, in an eighth of the time.
    """
    height, width, channels = shape
    depth = 8 * dtype.itemsize
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    stream.write(b"\x89PNG\r\n\x1a\n")
    _chunk(stream, b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if profile:
        _chunk(stream, b"iCCP", b"profile\0\0" + zlib.compress(profile))
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    pixel = channels * dtype.itemsize
    above = np.zeros(width * pixel, dtype=np.uint8)
    for strip in strips:
        rows = strip.astype(dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(len(strip), -1)
        packed = packer.compress(_filtered(rows, above, pixel).data)
        above = rows[-1].copy()
        if packed:
            _chunk(stream, b"IDAT", packed)
    _chunk(stream, b"IDAT", packer.flush())
    _chunk(stream, b"IEND", b"")


def _filtered(rows: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8], pixel: int) -> npt.NDArray[np.uint8]:
    """Return each row less the average of left and upper neighbour (modulo 256), behind the byte that says so."""
    up = np.concatenate([above[None], rows[:-1]])
    left = np.zeros_like(rows)
    left[:, pixel:] = rows[:, :-pixel]
    out = np.empty((len(rows), rows.shape[1] + 1), dtype=np.uint8)
    out[:, 0] = 3
    # floor((a + b) / 2) in eight bits: shared bits plus half of the others
    out[:, 1:] = rows - ((left & up) + ((left ^ up) >> 1))
    return out


def _chunk(stream: IO[bytes], kind: bytes, body: bytes) -> None:
    stream.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def write_tiff(stream: IO[bytes], strips: Strip, shape: Shape, dtype: np.dtype[Any], profile: bytes | None) -> None:
    """Write an uncompressed TIFF (BigTIFF from 4 GB) from strips (rows, W, C) in order."""
    import tifffile

    height, width, channels = shape
    size = height * width * channels * dtype.itemsize
    with tifffile.TiffWriter(stream, bigtiff=size > 2**32 - 2**25) as file:
        file.write(
            (row for strip in strips for row in strip[:, None]),
            shape=(height, width, channels) if channels > 1 else (height, width),
            dtype=dtype,
            rowsperstrip=1,
            photometric="rgb" if channels > 2 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None,
            iccprofile=profile,
            metadata=None,
        )


class _Plain:
    """A stream without a file number: Pillow then writes through Python, where a full disk has its own error."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.write, self.flush, self.seek, self.tell = stream.write, stream.flush, stream.seek, stream.tell


def _whole(kind: str, **options: Any) -> Write:
    def write(stream: IO[bytes], strips: Strip, shape: Shape, dtype: np.dtype[Any], profile: bytes | None) -> None:
        from PIL import Image

        height, width, channels = shape
        picture = Image.new({1: "L", 3: "RGB", 4: "RGBA"}[channels], (width, height))
        top = 0
        for strip in strips:
            picture.paste(Image.fromarray(strip[..., 0] if channels == 1 else strip), (0, top))
            top += len(strip)
        picture.save(_Plain(stream), kind, icc_profile=profile, **options)  # type: ignore[arg-type]

    return write


_PNG = Format("PNG", write_png, 2**31 - 1, deep=True)
_TIFF = Format("TIFF", write_tiff, 2**31 - 1, deep=True, compressed=False)
_JPEG = Format("JPEG", _whole("JPEG", quality=95, subsampling=0), 65_500, 330_000_000, alpha=False, grey_alpha=False)
_WEBP = Format("WebP", _whole("WEBP", quality=95), 16_383, 100_000_000, grey_alpha=False)

FORMATS: dict[str, Format] = {
    ".png": _PNG,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
}
"""Formats by file extension, in lower case."""
