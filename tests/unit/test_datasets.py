import functools
import hashlib
import http.server
import io
import math
import os
import re
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import tifffile
import torch
from PIL import Image

from course_lib import datasets
from course_lib.datasets import readers, sets
from course_lib.upsampling import resize

# --- tensors, photographs, synthetic pictures -----------------------------------------------------------------------


def test_uint8_round_trip() -> None:
    """Oracle: all 256 values, in grey and in colour, come back."""
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.stack([grey, grey.T, 255 - grey], axis=-1)
    for array, shape in ((grey, (1, 16, 16)), (colour, (3, 16, 16))):
        image = datasets.from_uint8(array)
        assert image.shape == shape
        assert image.dtype == torch.float32
        assert np.array_equal(datasets.to_uint8(image), array)


def test_to_uint8_rounds_half_up_and_clamps() -> None:
    """Oracle: by hand."""
    image = torch.tensor([[[-1.0, 0.5 / 255, 1.5 / 255, 2.4999 / 255, 2.0]]], dtype=torch.float64)
    assert datasets.to_uint8(image).tolist() == [[0, 1, 2, 2, 255]]


def test_conversions_refuse_what_they_would_spoil() -> None:
    """Oracle: the message names the argument and what came."""
    with pytest.raises(TypeError, match=r"uint8.*got float64"):
        datasets.from_uint8(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        datasets.from_uint8(np.zeros(2, dtype=np.uint8))
    with pytest.raises(TypeError, match=r"got torch.uint8"):
        datasets.to_uint8(torch.zeros(1, 2, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match="NaN"):
        datasets.to_uint8(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match=r"got \(2, 2\)"):
        datasets.to_uint8(torch.zeros(2, 2))


@pytest.mark.parametrize("name", datasets.PHOTOGRAPHS)
def test_photographs_are_what_their_notes_say(name: str) -> None:
    """Oracle: the note's channels and size; scikit-image's own array."""
    image, note = datasets.photograph(name), datasets.PHOTOGRAPHS[name]
    licence, what = note.split("; ")
    assert licence.split(" (")[0] in ("CC0", "public domain")
    channels = 3 if what.startswith("RGB") else 1
    height, width = map(int, what.split(" ", 1)[1].split(" x "))
    assert image.shape == (channels, height, width)
    array = np.asarray(getattr(skimage.data, name)())
    assert np.array_equal(datasets.to_uint8(image), array)


def test_photograph_fits_a_size() -> None:
    """Oracle: the centred window cut by hand and resized."""
    full = datasets.photograph("chelsea")
    expected = resize(full[:, :, 75:375], size=(40, 40)).clamp(0, 1)
    assert torch.equal(datasets.photograph("chelsea", (40, 40)), expected)
    assert torch.equal(datasets.photograph("chelsea", (300, 451)), full)
    assert datasets.photograph("camera", (5, 700)).shape == (1, 5, 700)
    with pytest.raises(ValueError, match="'lenna'"):
        datasets.photograph("lenna")
    assert torch.equal(datasets.photograph("chelsea", (np.int64(40), 40)), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [5, (0, 4), (64.0, 96.0), (True, 4), (4,), (4, 4, 4), "44"])
def test_photograph_refuses_what_is_no_size(size: Any) -> None:
    """Oracle: the docstring's ValueError, which names the argument and what came."""
    with pytest.raises(ValueError, match=re.escape(f"two whole numbers of at least 1, got {size!r}")):
        datasets.photograph("chelsea", size)


def test_synthetic_pictures_by_their_formulas() -> None:
    """Oracle: values by hand; the local frequency of the zone plate reaches 1/2 at the middle of a side."""
    plate = datasets.zone_plate(65)
    assert plate.shape == (1, 65, 65)
    assert plate[0, 32, 32] == 1
    row = plate[0, 32, 32:].double()
    k = torch.arange(33, dtype=torch.float64)
    assert torch.allclose(row, 0.5 + 0.5 * torch.cos(torch.pi / 65 * k**2), atol=1e-5)
    assert datasets.stripes(2, 4, period=4)[0].tolist()[0] == pytest.approx([1, 0.5, 0, 0.5], abs=1e-6)
    assert torch.allclose(datasets.stripes(4, 2, angle=90), datasets.stripes(2, 4).mT, atol=1e-6)
    assert datasets.ramp(1, 3).tolist() == [[[0, 0.5, 1]]]
    assert datasets.step_edge(1, 4, at=0.25).tolist() == [[[0, 1, 1, 1]]]
    assert datasets.checkerboard(2, 4, cell=2).tolist() == [[[0, 0, 1, 1]] * 2]
    with pytest.raises(ValueError, match="period"):
        datasets.stripes(period=0)
    with pytest.raises(ValueError, match="at must be"):
        datasets.step_edge(at=2)


# --- readers --------------------------------------------------------------------------------------------------------


def array_of(channels: int, dtype: Any = np.uint8, seed: int = 0) -> npt.NDArray[Any]:
    top = int(np.iinfo(dtype).max)
    return np.random.default_rng(seed).integers(0, top + 1, (7, 5, channels)).astype(dtype)


def png(array: npt.NDArray[Any], **chunks: bytes) -> bytes:
    """A PNG written by hand: an oracle that shares no code with the reader or writer under test."""
    height, width, channels = array.shape
    rows = array.astype(array.dtype.newbyteorder(">"))
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = {b"IHDR": head, **{k.encode(): v for k, v in chunks.items()}, b"IDAT": zlib.compress(body), b"IEND": b""}
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts.items():
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_every_bit(tmp_path: Path, channels: int, dtype: Any) -> None:
    """Oracle: the array that was packed by hand."""
    array = array_of(channels, dtype)
    (tmp_path / "a.png").write_bytes(png(array))
    samples = datasets.read_samples(tmp_path / "a.png")
    assert samples.values.dtype == dtype
    assert np.array_equal(samples.values, array)
    assert samples.alpha == (channels in (2, 4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_transparent_colour_becomes_alpha(tmp_path: Path, channels: int, dtype: Any) -> None:
    """Oracle: the PNG standard: pixels equal to the colour of tRNS (16 bits a sample) are invisible, others opaque."""
    array = array_of(channels, dtype)
    key = struct.pack(f">{channels}H", *array[2, 3].tolist())
    (tmp_path / "a.png").write_bytes(png(array, tRNS=key))
    values = datasets.read_samples(tmp_path / "a.png").values
    expected = np.where((array == array[2, 3]).all(axis=2), 0, np.iinfo(dtype).max)
    assert np.array_equal(values[..., :-1], array)
    assert np.array_equal(values[..., -1], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_keeps_every_bit(tmp_path: Path, channels: int, dtype: Any, order: Any) -> None:
    """Oracle: the array that tifffile wrote, in both byte orders."""
    array = array_of(channels, dtype)
    options = {"photometric": "rgb"} if channels > 1 else {"photometric": "minisblack"}
    if channels == 4:
        options["extrasamples"] = "unassalpha"
    data = array if channels > 1 else array[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", data, byteorder=order, **options)
    assert np.array_equal(datasets.read_samples(tmp_path / "a.tif").values, array)


def test_planar_and_inverted_tiff(tmp_path: Path) -> None:
    """Oracle: the TIFF standard: planes may lie one after the other; WhiteIsZero counts from white."""
    array = array_of(3, np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(datasets.read_samples(tmp_path / "p.tif").values, array)
    tifffile.imwrite(tmp_path / "w.tif", array[..., 0], photometric="miniswhite")
    assert np.array_equal(datasets.read_samples(tmp_path / "w.tif").values[..., 0], 65535 - array[..., 0])
    both = array_of(2, np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", both, photometric="miniswhite", planarconfig="contig", extrasamples="unassalpha"
    )
    expected = np.stack([65535 - both[..., 0], both[..., 1]], axis=2)
    assert np.array_equal(datasets.read_samples(tmp_path / "a.tif").values, expected)


@pytest.mark.parametrize("channels", [2, 4])
def test_premultiplied_tiff_is_divided(tmp_path: Path, channels: int) -> None:
    """Oracle: exact fractions, rounded half up; what is invisible is 0, and no colour exceeds white."""
    straight = array_of(channels, np.uint16).astype(np.int64)
    straight[0, :, -1], straight[1, :, -1] = 65535, 0
    held = (straight * straight[..., -1:] + 32767) // 65535
    held[..., -1] = straight[..., -1]
    held[2, 0], held[2, 1], held[2, 2] = 65535, [7] * (channels - 1) + [3], [1] * (channels - 1) + [2]
    kind: Any = "rgb" if channels == 4 else "minisblack"
    options: Any = {"photometric": kind, "planarconfig": "contig", "extrasamples": "assocalpha"}
    tifffile.imwrite(tmp_path / "a.tif", held.astype(np.uint16), **options)
    expected = held.copy()
    for y, x, c in np.ndindex(*held.shape[:2], channels - 1):
        alpha = int(held[y, x, -1])
        expected[y, x, c] = (
            min(65535, math.floor(Fraction(65535 * int(held[y, x, c]), alpha) + Fraction(1, 2))) if alpha else 0
        )
    assert np.array_equal(datasets.read_samples(tmp_path / "a.tif").values, expected)


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["png", "tif", "deep.tif", "jpg"])
def test_pictures_are_turned_upright(tmp_path: Path, orientation: int, kind: str) -> None:
    """Oracle: what each of the eight EXIF orientations means, by numpy's turns (for JPEG: Pillow's exif_transpose)."""
    array, path = array_of(3), tmp_path / f"a.{kind}"
    exif = Image.Exif()
    exif[274] = orientation
    if kind == "deep.tif":
        deep = array_of(3, np.uint16)
        tifffile.imwrite(path, deep, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
        assert np.array_equal(datasets.read_samples(path).values, TURNS[orientation](deep))
        return
    Image.fromarray(array).save(path, exif=exif)
    if kind == "jpg":
        from PIL import ImageOps

        with Image.open(path) as image:
            assert np.array_equal(datasets.read_samples(path).values, np.asarray(ImageOps.exif_transpose(image)))
        return
    assert np.array_equal(datasets.read_samples(path).values, TURNS[orientation](array))


def test_palettes_and_bits_become_samples(tmp_path: Path) -> None:
    """Oracle: Pillow's own conversion to RGB(A) and grey."""
    colour = Image.fromarray(array_of(3))
    palette = colour.quantize(8)
    palette.save(tmp_path / "p.png")
    assert np.array_equal(datasets.read_samples(tmp_path / "p.png").values, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "t.png", transparency=0)
    came = datasets.read_samples(tmp_path / "t.png").values
    assert came.shape == (7, 5, 4)
    assert np.array_equal(came[..., 3], np.where(np.asarray(palette) == 0, 0, 255))
    bits = Image.fromarray(array_of(1)[..., 0] > 99)
    bits.save(tmp_path / "b.png")
    assert np.array_equal(datasets.read_samples(tmp_path / "b.png").values[..., 0], 255 * np.asarray(bits))


def test_profile_and_white_paper(tmp_path: Path) -> None:
    """Oracle: the bytes of the profile; alpha laid on white by hand."""
    array = array_of(4)
    Image.fromarray(array).save(tmp_path / "a.png", icc_profile=b"not really a profile")
    assert datasets.read_samples(tmp_path / "a.png").profile == b"not really a profile"
    planes = torch.from_numpy(array.astype(np.float32)).permute(2, 0, 1) / 255
    expected = planes[:3] * planes[3:] + 1 - planes[3:]
    assert torch.allclose(datasets.read_picture(tmp_path / "a.png"), expected, atol=1e-6)
    (tmp_path / "g.png").write_bytes(png(array_of(1, np.uint16)))
    assert torch.allclose(
        datasets.read_picture(tmp_path / "g.png")[0],
        torch.from_numpy(array_of(1, np.uint16)[..., 0].astype(np.float32)) / 65535,
    )


def bad_files() -> dict[str, tuple[bytes, str]]:
    whole, stream = png(array_of(3)), io.BytesIO()
    deep = png(array_of(3, np.uint16))
    jpeg, cmyk, moving, huge = io.BytesIO(), io.BytesIO(), io.BytesIO(), io.BytesIO()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    noise.save(jpeg, "JPEG")
    noise.convert("CMYK").save(cmyk, "TIFF")
    noise.save(moving, "GIF", save_all=True, append_images=[noise.transpose(Image.Transpose.ROTATE_90)])
    tifffile.imwrite(huge, np.zeros((2, 4, 4), np.uint16), photometric="minisblack")
    tifffile.imwrite(stream, np.zeros((4, 4), np.float32), photometric="minisblack")
    bomb = whole[:16] + struct.pack(">II", 200_000, 200_000) + whole[24:29]
    bomb += struct.pack(">I", zlib.crc32(bomb[12:29])) + whole[33:]
    return {
        "empty.png": (b"", "empty"),
        "text.png": (b"hello, I am no picture", "not a picture this program knows"),
        "short.png": (whole[: len(whole) - 40], "truncated or damaged"),
        "header.png": (whole[:20], "truncated or damaged|not a picture"),
        "short_deep.png": (deep[: len(deep) - 60], "truncated or damaged"),
        "short.jpg": (jpeg.getvalue()[:1500], "truncated or damaged"),
        "short.tif": (cmyk.getvalue()[:100], "truncated or damaged"),
        "cmyk.tif": (cmyk.getvalue(), "CMYK.*convert it to RGB"),
        "moving.gif": (moving.getvalue(), "2 frames"),
        "pages.tif": (huge.getvalue(), "2 frames or pages"),
        "float.tif": (stream.getvalue(), "kind F"),
        "bomb.png": (bomb, "200000 x 200000 pixels take"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_bad_files_are_named(tmp_path: Path, name: str) -> None:
    """Oracle: one error class, whose message names the file and the reason."""
    content, reason = bad_files()[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(datasets.UnreadablePicture, match=rf"cannot read .*{name}.*({reason})"):
        datasets.read_samples(tmp_path / name)


def test_no_file_and_folder_are_named(tmp_path: Path) -> None:
    """Oracle: as above."""
    with pytest.raises(datasets.UnreadablePicture, match="No such file"):
        datasets.read_samples(tmp_path / "a.png")
    with pytest.raises(datasets.UnreadablePicture, match="directory"):
        datasets.read_samples(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Oracle: as above; a reader of a pipe that nobody writes to would wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    code = f"from course_lib import datasets; datasets.read_samples({str(tmp_path / 'pipe')!r})"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert "pipe: it is a pipe, a device or a socket; save it as a file first" in done.stderr.splitlines()[-1]


def test_reading_in_threads_leaves_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Pillow's limit and Python's warning filters before; two readers overlap, and the first leaves first."""
    Image.fromarray(array_of(3)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12345)
    filters = list(warnings.filters)
    read, second = readers._read_pillow, threading.Event()

    def slow(name: Path) -> datasets.Samples:
        if threading.current_thread().name == "first":
            second.wait(0.5)
        else:
            second.set()
            first.join(0.5)
        return read(name)

    monkeypatch.setattr(readers, "_read_pillow", slow)
    first, last = (
        threading.Thread(target=datasets.read_samples, args=[tmp_path / "a.png"], name=name)
        for name in ("first", "second")
    )
    first.start()
    last.start()
    first.join()
    last.join()
    assert Image.MAX_IMAGE_PIXELS == 12345
    assert list(warnings.filters) == filters


# --- sets that are downloaded ---------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve a folder and count the requests."""

    asked: list[str]

    def __init__(self, *args: Any, asked: list[str], **kwargs: Any) -> None:
        self.asked = asked
        super().__init__(*args, **kwargs)

    def log_message(self, format: str, *args: Any) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A public place on this machine with a set `Toy` of one BMP and one text file, and an empty cache."""
    folder = tmp_path / "someone/toys/abc123/Test"
    folder.mkdir(parents=True)
    image = Image.fromarray(array_of(3))
    image.save(folder / "a_GT.bmp")
    (folder / "note.txt").write_bytes(b"read me")
    rows = [
        ["a_GT.bmp", sha(folder / "a_GT.bmp"), 1, "HR/a.png", sets.pixel_hash(image)],
        ["note.txt", sha(folder / "note.txt"), 7],
    ]
    source = {"repository": "someone/toys", "commit": "abc123", "folder": "Test/", "to": "", "files": rows}
    registry = {"Toy": {"about": "toys", "licence": "none", "leave_out": [], "sources": [source]}}
    asked: list[str] = []
    handler = functools.partial(Quiet, directory=str(tmp_path), asked=asked)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as place:
        thread = threading.Thread(target=place.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setattr(sets, "SERVER", f"http://127.0.0.1:{place.server_port}")
        monkeypatch.setattr(sets, "registry", lambda: registry)
        monkeypatch.setattr(sets, "_TRIES", 0)
        monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("COURSE_DATA", raising=False)
        yield folder, asked
        place.shutdown()
        thread.join()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_set_is_fetched_checked_and_converted(server: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Oracle: the files served; a second call asks for nothing, a damaged file is asked for again."""
    with pytest.raises(datasets.DataMissing, match=r"course data get Toy.*COURSE_DATA"):
        datasets.find("Toy")
    folder = datasets.get("Toy", progress=False)
    assert folder == tmp_path / "cache/Toy" == datasets.find("Toy")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        "HR/a.png",
        "note.txt",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["Toy"]
    ((name, array),) = datasets.pictures("Toy")
    assert name == "a"
    assert np.array_equal(array, array_of(3))
    assert len(server[1]) == 2
    datasets.get("Toy", progress=False)
    assert len(server[1]) == 2
    (folder / "HR/a.png").write_bytes(b"damaged")
    datasets.get("Toy", progress=False)
    assert server[1][2:] == ["/someone/toys/abc123/Test/a_GT.bmp"]
    assert len(list(datasets.pictures("Toy"))) == 1


def test_what_came_is_kept_when_another_file_is_wrong(server: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Oracle: the served file changed after it was pinned; the right one stays, and nothing half stands about."""
    (server[0] / "note.txt").write_bytes(b"changed")
    with pytest.raises(datasets.DownloadFailed, match=r"cannot download .*note\.txt.*hash"):
        datasets.get("Toy", progress=False)
    cache = tmp_path / "cache"
    assert [p.relative_to(cache).as_posix() for p in cache.rglob("*") if p.is_file()] == ["Toy/HR/a.png"]


def test_a_conversion_that_comes_out_differently_is_refused(
    server: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Oracle: a registered pixel hash that is not that of the file."""
    sets.registry()["Toy"]["sources"][0]["files"][0][4] = "0" * 64
    with pytest.raises(datasets.DownloadFailed, match=r"a_GT\.bmp decodes to other pixels.*expected 0000"):
        datasets.get("Toy", progress=False)
    assert not (tmp_path / "cache/Toy/HR").exists()


def test_without_network_the_error_says_what_to_do(
    server: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a port nobody listens to."""
    monkeypatch.setattr(sets, "SERVER", "http://127.0.0.1:9")
    with pytest.raises(datasets.DownloadFailed, match=r"Is there a network\?.*COURSE_DATA"):
        datasets.get("Toy", progress=False)


def test_a_mirror_comes_first(server: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: no request is made; an incomplete mirror is passed over."""
    mirror = tmp_path / "mirror"
    (mirror / "Toy/HR").mkdir(parents=True)
    Image.fromarray(array_of(3)).save(mirror / "Toy/HR/a.png")
    monkeypatch.setenv("COURSE_DATA", str(mirror))
    with pytest.raises(datasets.DataMissing):
        datasets.find("Toy")
    (mirror / "Toy/note.txt").write_bytes(b"read me")
    assert datasets.find("Toy") == datasets.get("Toy", progress=False) == mirror / "Toy"
    assert server[1] == []


def test_a_set_without_an_address_lies_in_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the folder by hand; what is missing is named."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    with pytest.raises(
        datasets.DataMissing, match=r"Toy is not on this machine \(COURSE_DATA is not set\).*a/b.png, c"
    ):
        datasets.mirror("Toy", ["a/b.png", "c"])
    (tmp_path / "Toy" / "a").mkdir(parents=True)
    (tmp_path / "Toy" / "a" / "b.png").touch()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(datasets.DataMissing, match=r"\(looked in .*Toy\)"):
        datasets.mirror("Toy", ["a/b.png", "c"])
    assert datasets.mirror("Toy", ["a/b.png"]) == tmp_path / "Toy"


def test_registry_is_complete() -> None:
    """Oracle: the counts of files; hashes and commits are hexadecimal; targets are unique and stay inside."""
    counts = {"Set5": 5, "Set14": 14, "BSDS500": 400, "BCCD": 729}
    assert {name: len(sets.sources(name)) for name in datasets.names()} == counts
    for name in datasets.names():
        files, entry = sets.sources(name), sets.registry()[name]
        assert len({file.to for file in files}) == len(files)
        assert entry["about"]
        assert entry["licence"]
        assert set(entry["leave_out"]) <= {file.to for file in files}
        for file in files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert ".." not in file.to
            assert not file.to.startswith("/")
            assert len(bytes.fromhex(file.address.split("/")[5])) == 20
            assert (file.pixels is not None) == (file.name.endswith(".bmp"))


def test_unknown_sets_are_named() -> None:
    """Oracle: the message lists what there is."""
    with pytest.raises(ValueError, match=r"Set5, Set14, BSDS500, BCCD; got 'Set6'"):
        datasets.find("Set6")


@pytest.mark.needs_data
@pytest.mark.parametrize("name", ["Set5", "Set14", "BSDS500", "BCCD"])
def test_a_set_at_hand_is_the_registered_one(name: str) -> None:
    """Oracle: every file's hash (of its pixels where it was converted)."""
    try:
        folder = datasets.find(name)
    except datasets.DataMissing as missing:
        pytest.skip(str(missing))
    wrong = [file.to for file in sets.sources(name) if not sets._is_right(folder / file.to, file)]
    assert wrong == []
    names = [picture for picture, _ in datasets.pictures(name)]
    assert "302003" not in names
    assert len(names) == {"Set5": 5, "Set14": 14, "BSDS500": 399, "BCCD": 364}[name]
